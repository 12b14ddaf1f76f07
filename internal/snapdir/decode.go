package snapdir

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
)

// ParseMetadata reads a metadata.json. Keys it does not know are ignored, as
// the tools ignore them; a known key of another form is refused. A global
// whose value JSON could not carry is refused with ErrGlobalLost.
func ParseMetadata(data []byte) (*Metadata, error) {
	m, lost, err := parseMetadata(data)
	if err != nil {
		return nil, err
	}
	if len(lost) > 0 {
		return nil, lostError(lost[0])
	}
	if err := m.Validate(); err != nil {
		return nil, fileError(metadataName, err)
	}
	return m, nil
}

func lostError(i int) error {
	return fileError(metadataName, fmt.Errorf("global %d is null: %w", i, ErrGlobalLost))
}

// parseMetadata also returns the indexes of the globals whose bits are not in
// the file; they have no value, and no kind either where the whole is null.
func parseMetadata(data []byte) (m *Metadata, lost []int, err error) {
	refuse := func(err error) (*Metadata, []int, error) {
		if !errors.Is(err, ErrLimit) {
			err = fmt.Errorf("%w: %w", ErrMetadata, err)
		}
		return nil, nil, fileError(metadataName, err)
	}
	v, err := parseJSON(data)
	if err != nil {
		return refuse(err)
	}
	o, ok := v.(object)
	if !ok {
		return refuse(fmt.Errorf("%s, want an object", describe(v)))
	}
	m = &Metadata{}
	for _, f := range []struct {
		key      string
		optional bool
		read     func(v any) error
	}{
		{"source", true, m.readSource},
		{"taken_at_timestamp", false, readUint(&m.TakenAt)},
		{"wasm_module_size", false, readUint(&m.WasmModuleSize)},
		{"globals", false, func(v any) (err error) { lost, err = m.readGlobals(v); return err }},
		{"wasm_memory_size", false, readUint(&m.WasmMemorySize)},
		{"stable_memory_size", false, readUint(&m.StableMemorySize)},
		{"wasm_chunk_store", false, m.readChunks},
		{"canister_version", false, readUint(&m.CanisterVersion)},
		{"certified_data", false, func(v any) (err error) { m.CertifiedData, err = asBytes(v, MaxCertifiedData); return err }},
		{"global_timer", true, m.readTimer},
		{"on_low_wasm_memory_hook_status", true, m.readHookStatus},
	} {
		v, there := o[f.key]
		switch {
		case f.optional && v == nil:
			continue
		case !there:
			return refuse(fmt.Errorf("key %q is missing", f.key))
		}
		if err := f.read(v); err != nil {
			return refuse(fmt.Errorf("%s: %w", f.key, err))
		}
	}
	return m, lost, nil
}

func readUint(to *uint64) func(any) error {
	return func(v any) (err error) { *to, err = asUint(v); return err }
}

func (m *Metadata) readSource(v any) error {
	name, value, err := asVariant(v)
	if err != nil {
		return err
	}
	n, err := variantNumber(sourceNames(), name)
	if err == nil && value != nil {
		err = fmt.Errorf("%s with a value", name)
	}
	m.Source = Source(n)
	return err
}

func (m *Metadata) readHookStatus(v any) error {
	name, value, err := asVariant(v)
	if err != nil {
		return err
	}
	n, err := variantNumber(hookNames(), name)
	if err == nil && value != nil {
		err = fmt.Errorf("%s with a value", name)
	}
	m.HookStatus = HookStatus(n)
	return err
}

func (m *Metadata) readTimer(v any) error {
	name, value, err := asVariant(v)
	if err != nil {
		return err
	}
	n, err := variantNumber([]string{"", "inactive", "active"}, name)
	if err != nil {
		return err
	}
	m.GlobalTimer = Timer{Present: true, Active: n == 2}
	if n == 2 {
		m.GlobalTimer.Deadline, err = asUint(value)
	} else if value != nil {
		err = errors.New("inactive with a value")
	}
	return err
}

func (m *Metadata) readChunks(v any) error {
	list, ok := v.([]any)
	if !ok {
		return fmt.Errorf("%s, want a list", describe(v))
	}
	if len(list) > MaxChunks {
		return fmt.Errorf("%w: %d wasm chunks, at most %d", ErrLimit, len(list), MaxChunks)
	}
	for i, e := range list {
		o, ok := e.(object)
		if !ok {
			return fmt.Errorf("entry %d: %s, want an object", i, describe(e))
		}
		hash, err := asBytes(o["hash"], 32)
		if err == nil && len(hash) != 32 {
			err = fmt.Errorf("hash of %d bytes, want 32", len(hash))
		}
		if err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
		m.WasmChunks = append(m.WasmChunks, [32]byte(hash))
	}
	return nil
}

func (m *Metadata) readGlobals(v any) (lost []int, err error) {
	list, ok := v.([]any)
	if !ok {
		return nil, fmt.Errorf("%s, want a list", describe(v))
	}
	if len(list) > MaxGlobals {
		return nil, fmt.Errorf("%w: %d globals, at most %d", ErrLimit, len(list), MaxGlobals)
	}
	for i, e := range list {
		g, known, err := readGlobal(e)
		if err != nil {
			return nil, fmt.Errorf("global %d: %w", i, err)
		}
		if !known {
			lost = append(lost, i)
		}
		m.Globals = append(m.Globals, g)
	}
	return lost, nil
}

// readGlobal reads one global. Not known is a null: in place of a float, which
// was NaN or infinite, or of the whole, which the writer did not understand.
func readGlobal(v any) (g Global, known bool, err error) {
	if v == nil {
		return Global{}, false, nil
	}
	name, value, err := asVariant(v)
	if err != nil {
		return Global{}, false, err
	}
	n, err := variantNumber(globalNames(), name)
	if err != nil {
		return Global{}, false, err
	}
	g.Kind = GlobalKind(n)
	switch g.Kind {
	case GlobalI32:
		i, err := asInt(value, 32)
		g.Lo = uint64(uint32(i))
		return g, true, err
	case GlobalI64:
		i, err := asInt(value, 64)
		g.Lo = uint64(i)
		return g, true, err
	case GlobalV128:
		g.Lo, g.Hi, err = asUint128(value)
		return g, true, err
	}
	if value == nil {
		return g, false, nil
	}
	if g.Kind == GlobalF32 {
		f, err := asFloat(value, 32)
		g.Lo = uint64(math.Float32bits(float32(f)))
		return g, true, err
	}
	f, err := asFloat(value, 64)
	g.Lo = math.Float64bits(f)
	return g, true, err
}

// asUint128 reads the forms in which Candid's nat stands in JSON: a list of
// 32-bit digits, the lowest first, which the tools write, or an integer or
// its decimal digits in a string, which they read as well.
func asUint128(v any) (lo, hi uint64, err error) {
	wrong := fmt.Errorf("%s, want a natural number below 2^128", describe(v))
	if list, ok := v.([]any); ok {
		if len(list) > 4 {
			return 0, 0, wrong
		}
		var digits [4]uint64
		for i, e := range list {
			d, err := asUint(e)
			if err != nil || d > math.MaxUint32 {
				return 0, 0, wrong
			}
			digits[i] = d
		}
		return digits[0] | digits[1]<<32, digits[2] | digits[3]<<32, nil
	}
	var text string
	switch v := v.(type) {
	case json.Number:
		text = v.String()
	case string:
		text = v
	}
	if len(text) == 0 || len(text) > 39 {
		return 0, 0, wrong
	}
	for _, c := range []byte(text) {
		if c < '0' || c > '9' {
			return 0, 0, wrong
		}
	}
	n, _ := new(big.Int).SetString(text, 10)
	if n == nil || n.BitLen() > 128 {
		return 0, 0, wrong
	}
	return new(big.Int).And(n, new(big.Int).SetUint64(math.MaxUint64)).Uint64(), new(big.Int).Rsh(n, 64).Uint64(), nil
}
