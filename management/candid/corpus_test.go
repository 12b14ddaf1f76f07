package candid

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"testing"
)

// testdata/README.md says what follows.
var update = flag.Bool("update", false, "write testdata/go.json anew")

// message is an entry of the corpus.
type message struct {
	Name string `json:"name"`
	// Read names the type that it is read as, Type is what it is written as.
	Read  string `json:"read"`
	Type  string `json:"type,omitempty"`
	Hex   string `json:"hex"`
	Value any    `json:"value,omitempty"`
}

func readCorpus(t testing.TB, name string) []message {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	var list []message
	if err := json.Unmarshal(data, &list); err != nil {
		t.Fatal(err)
	}
	return list
}

// read reads an entry as its type.
func (m message) read(t testing.TB) any {
	t.Helper()
	into := corpusTypes()[m.Read]
	if into == nil {
		t.Fatalf("no Go type for %s", m.Read)
	}
	if err := Unmarshal(unhex(t, m.Hex), Limits{}, into); err != nil {
		t.Fatal(err)
	}
	return reflect.ValueOf(into).Elem().Interface()
}

// canon turns a value into the JSON that testdata/make.mjs makes of it.
func canon(t testing.TB, g *goType, v reflect.Value) any {
	t.Helper()
	switch g.op {
	case opNull, opReserved:
		return nil
	case opBool:
		return v.Bool()
	case opText:
		return v.String()
	case opNat, opInt:
		return fmt.Sprint(v.Interface())
	case opFloat32:
		f, _ := v.Interface().(float32)
		return fmt.Sprintf("float32 %08x", math.Float32bits(f))
	case opFloat64:
		return fmt.Sprintf("float64 %016x", math.Float64bits(v.Float()))
	case opPrincipal:
		return "principal " + hex.EncodeToString(v.Bytes())
	case opOpt:
		list := []any{}
		if !v.IsNil() {
			list = append(list, canon(t, g.elem, v.Elem()))
		}
		return list
	case opVec:
		if g.blob {
			return "blob " + hex.EncodeToString(v.Bytes())
		}
		list := []any{}
		for i := range v.Len() {
			list = append(list, canon(t, g.elem, v.Index(i)))
		}
		return list
	case opRecord, opVariant:
		parts := map[string]any{}
		tuple := len(g.fields) > 0
		for _, f := range g.fields {
			_, err := strconv.Atoi(f.label)
			tuple = tuple && err == nil
			if field := v.Field(f.index); g.op == opRecord {
				parts[f.label] = canon(t, f.typ, field)
			} else if !field.IsNil() {
				parts[f.label] = canon(t, f.typ, field.Elem())
			}
		}
		if !tuple {
			return parts
		}
		list := []any{}
		for i := range g.fields {
			list = append(list, parts[strconv.Itoa(i)])
		}
		return list
	default:
		return fmt.Sprint(v.Interface())
	}
}

func canonical(t testing.TB, v any) any {
	t.Helper()
	g, err := make(goTypes).of(reflect.TypeOf(v))
	if err != nil {
		t.Fatal(err)
	}
	return canon(t, g, reflect.ValueOf(v))
}

// TestOthersMessages: messages of another implementation mean here what they
// mean there, and are stable when written and read again.
func TestOthersMessages(t *testing.T) {
	t.Parallel()
	list := readCorpus(t, "node.json")
	if len(list) < 100 {
		t.Fatalf("%d messages", len(list))
	}
	for _, m := range list {
		t.Run(m.Name, func(t *testing.T) {
			t.Parallel()
			v := m.read(t)
			if got := canonical(t, v); !reflect.DeepEqual(got, m.Value) {
				t.Errorf("%s is read as\n%v, want\n%v", m.Type, got, m.Value)
			}
			data, err := Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			again := message{Read: m.Read, Hex: hex.EncodeToString(data)}.read(t)
			if got := canonical(t, again); !reflect.DeepEqual(got, m.Value) {
				t.Errorf("written and read again it is\n%v, want\n%v", got, m.Value)
			}
		})
	}
}

// TestOurMessages: what is written here is still what the other implementation
// has read, and it has read what was meant.
func TestOurMessages(t *testing.T) {
	t.Parallel()
	if *update {
		writeCorpus(t)
		t.Skip("testdata/go.json is new: run testdata/make.mjs")
	}
	ours := readCorpus(t, "go.json")
	others := readCorpus(t, "node.json")
	if len(ours) != len(others) {
		t.Fatalf("%d messages for %d values", len(ours), len(others))
	}
	for i, m := range ours {
		t.Run(m.Name, func(t *testing.T) {
			t.Parallel()
			if m.Name != others[i].Name {
				t.Fatalf("stands where %s belongs", others[i].Name)
			}
			v := others[i].read(t)
			data, err := Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			if got := hex.EncodeToString(data); got != m.Hex {
				t.Errorf("written as\n%s, was\n%s", got, m.Hex)
			}
			if got := canonical(t, v); !reflect.DeepEqual(got, m.Value) {
				t.Errorf("the other implementation has read\n%v, want\n%v", m.Value, got)
			}
		})
	}
}

// writeCorpus writes each value of node.json as Marshal does.
func writeCorpus(t *testing.T) {
	t.Helper()
	var out bytes.Buffer
	for i, m := range readCorpus(t, "node.json") {
		data, err := Marshal(m.read(t))
		if err != nil {
			t.Fatal(err)
		}
		line, err := json.Marshal(message{Name: m.Name, Read: m.Read, Hex: hex.EncodeToString(data)})
		if err != nil {
			t.Fatal(err)
		}
		out.WriteString([]string{"[\n", ",\n"}[min(i, 1)])
		out.Write(line)
	}
	out.WriteString("\n]\n")
	if err := os.WriteFile(filepath.Join("testdata", "go.json"), out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestMargin: the types in use come nowhere near the default limits.
func TestMargin(t *testing.T) {
	t.Parallel()
	limits := Limits{
		Depth: DefaultDepth / 8, Types: DefaultTypes / 8, Fields: DefaultFields / 8, NumberBytes: DefaultNumberBytes / 2,
		Decoded: DefaultDecoded / 8, Skipped: DefaultSkipped / 8,
	}
	for _, m := range readCorpus(t, "node.json") {
		if err := Unmarshal(unhex(t, m.Hex), limits, corpusTypes()[m.Read]); err != nil {
			t.Errorf("%s: %v", m.Name, err)
		}
	}
}

// TestCorpusIsWhole: every type has a message, so that none is forgotten.
func TestCorpusIsWhole(t *testing.T) {
	t.Parallel()
	var have []string
	for _, m := range readCorpus(t, "node.json") {
		have = append(have, m.Read)
	}
	for name := range corpusTypes() {
		if !slices.Contains(have, name) {
			t.Errorf("no message of %s", name)
		}
	}
}
