package snapdir

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
)

// maxJSON bounds the JSON files that are read. The largest metadata.json that
// the limits allow, pretty-printed, is under 300 KiB.
const maxJSON = 1 << 20

// maxDepth of nesting; the format itself needs four.
const maxDepth = 16

// object is a JSON object whose keys are all different.
type object map[string]any

// parseJSON returns nil, bool, string, json.Number, []any or object. Unlike
// the standard decoder it refuses a key that occurs twice, matches keys
// exactly, and leaves numbers as they are written.
func parseJSON(data []byte) (any, error) {
	if len(data) > maxJSON {
		return nil, fmt.Errorf("more than %d bytes", maxJSON)
	}
	// Token accepts some texts that are not JSON; Valid does not.
	if !json.Valid(data) {
		var v any
		err := json.Unmarshal(data, &v)
		if err == nil {
			err = errors.New("not JSON")
		}
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	return parseValue(d, maxDepth)
}

func parseValue(d *json.Decoder, depth int) (any, error) {
	token, err := d.Token()
	if err != nil {
		return nil, err
	}
	delim, ok := token.(json.Delim)
	if !ok {
		return token, nil
	}
	if depth == 0 {
		return nil, fmt.Errorf("nested more than %d deep", maxDepth)
	}
	if delim == '[' {
		list := []any{}
		for d.More() {
			v, err := parseValue(d, depth-1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err = d.Token()
		return list, err
	}
	o := object{}
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return nil, err
		}
		key, _ := token.(string)
		if _, twice := o[key]; twice {
			return nil, fmt.Errorf("key %.40q occurs twice", key)
		}
		if o[key], err = parseValue(d, depth-1); err != nil {
			return nil, err
		}
	}
	_, err = d.Token()
	return o, err
}

func describe(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case bool:
		return strconv.FormatBool(v)
	case string:
		return fmt.Sprintf("%.40q", v)
	case json.Number:
		return fmt.Sprintf("%.40s", v.String())
	case []any:
		return fmt.Sprintf("a list of %d", len(v))
	}
	return "an object"
}

// asUint reads an integer exactly; 1.0 and 1e3 are not integers.
func asUint(v any) (uint64, error) {
	n, ok := v.(json.Number)
	if !ok {
		return 0, fmt.Errorf("%s, want a number", describe(v))
	}
	u, err := strconv.ParseUint(n.String(), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s, want an integer from 0 to 2^64-1", describe(v))
	}
	return u, nil
}

// asInt reads an integer of the given width exactly.
func asInt(v any, bits int) (int64, error) {
	n, ok := v.(json.Number)
	if !ok {
		return 0, fmt.Errorf("%s, want a number", describe(v))
	}
	i, err := strconv.ParseInt(n.String(), 10, bits)
	if err != nil || n == "-0" {
		return 0, fmt.Errorf("%s, want an integer of %d bits", describe(v), bits)
	}
	return i, nil
}

// asFloat reads the nearest float of the given width; a number too large for
// it is refused, not rounded to infinity.
func asFloat(v any, bits int) (float64, error) {
	n, ok := v.(json.Number)
	if !ok {
		return 0, fmt.Errorf("%s, want a number", describe(v))
	}
	f, err := strconv.ParseFloat(n.String(), bits)
	if err != nil || math.IsInf(f, 0) {
		return 0, fmt.Errorf("%s does not fit a float of %d bits", describe(v), bits)
	}
	return f, nil
}

// asBytes reads a list of byte values of at most limit.
func asBytes(v any, limit int) ([]byte, error) {
	list, ok := v.([]any)
	if !ok {
		return nil, fmt.Errorf("%s, want a list of bytes", describe(v))
	}
	if len(list) > limit {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrLimit, len(list), limit)
	}
	b := make([]byte, len(list))
	for i, e := range list {
		u, err := asUint(e)
		if err != nil || u > 255 {
			return nil, fmt.Errorf("%s, want a byte from 0 to 255", describe(e))
		}
		b[i] = byte(u)
	}
	return b, nil
}

// asVariant reads a variant: its name alone, or an object of its name and value.
func asVariant(v any) (name string, value any, err error) {
	switch v := v.(type) {
	case string:
		return v, nil, nil
	case object:
		if len(v) == 1 {
			for name, value := range v {
				return name, value, nil
			}
		}
	}
	return "", nil, fmt.Errorf("%s, want a variant", describe(v))
}

// variantNumber is the index of name among names; none has index 0.
func variantNumber(names []string, name string) (uint8, error) {
	for i, n := range names {
		if i > 0 && n == name {
			return uint8(i), nil
		}
	}
	return 0, fmt.Errorf("unknown variant %.40q, want one of %q", name, names[1:])
}
