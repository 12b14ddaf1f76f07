package wasmrewrite

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func sec(id byte, body ...byte) []byte { return append([]byte{id, byte(len(body))}, body...) }

func build(sections ...[]byte) []byte {
	return append([]byte(header), bytes.Join(sections, nil)...)
}

var (
	types = sec(1, 1, 0x60, 0, 0)
	funcs = sec(3, 1, 0)
	code  = sec(10, 1, 2, 0, 0x0b)
	// An imported immutable global, and of its own: a mutable i32, an
	// immutable i64, a mutable f64, and a mutable v128.
	imported = sec(imports, 2, 1, 'm', 1, 'f', 0, 0, 1, 'm', 1, 'g', 3, 0x7f, 0)
	own      = sec(globals, append([]byte{
		4,
		0x7f, 1, 0x41, 0xff, 0, 0x0b,
		0x7e, 0, 0x42, 0x80, 0x80, 0, 0x0b,
		0x7c, 1, 0x44, 1, 2, 3, 4, 5, 6, 7, 8, 0x0b,
		0x7b, 1, 0xfd, 0x0c,
	}, append(make([]byte, 16), 0x0b)...)...)
)

func TestRewrite(t *testing.T) {
	t.Parallel()
	want := []Global{
		{1, I32, DefaultPrefix + "1"}, {3, F64, "kept"}, {4, V128, DefaultPrefix + "4"},
	}
	for name, module := range map[string][]byte{
		"with exports and start": build(types, imported, funcs, own, sec(exports, 1, 4, 'k', 'e', 'p', 't', 3, 3), sec(start, 1), code),
		"custom sections around": build(sec(0, 1, 'x'), types, imported, funcs, own, sec(0, 1, 'y'),
			sec(exports, 1, 4, 'k', 'e', 'p', 't', 3, 3), sec(start, 1), sec(12, 0), code, sec(0, 1, 'z')),
	} {
		out, err := Rewrite(module, Options{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !slices.Equal(out.Globals, want) || out.Start != DefaultStart {
			t.Errorf("%s: %v, start %q", name, out.Globals, out.Start)
		}
		again, err := Rewrite(out.Module, Options{})
		if err != nil {
			t.Fatalf("%s: again: %v", name, err)
		}
		if !bytes.Equal(again.Module, out.Module) || again.Start != "" || !slices.Equal(again.Globals, want) {
			t.Errorf("%s: what was rewritten is rewritten", name)
		}
	}
	out, err := Rewrite(build(types, funcs, own, code), Options{Prefix: "g"})
	if err != nil {
		t.Fatal(err)
	}
	if len(out.Globals) != 3 || out.Globals[0].Name != "g0" {
		t.Errorf("without exports: %v", out.Globals)
	}
	if out, err = Rewrite(build(types, funcs, code), Options{}); err != nil || !bytes.Equal(out.Module, build(types, funcs, code)) {
		t.Errorf("nothing to export: %v", err)
	}
	if out, err = Rewrite(build(own), Options{}); err != nil || !bytes.HasPrefix(out.Module, build(own)) || len(out.Module) == len(build(own)) {
		t.Errorf("exports at the end: %v", err)
	}
}

func TestMalformed(t *testing.T) {
	t.Parallel()
	for name, module := range map[string][]byte{
		"empty":            nil,
		"no header":        []byte("hello, I am not one"),
		"ends early":       build([]byte{6, 100, 1}),
		"out of order":     build(code, types),
		"twice":            build(types, types),
		"unknown section":  build(sec(77)),
		"bad mutability":   build(sec(globals, 1, 0x7f, 2, 0x41, 0, 0x0b)),
		"bad expression":   build(sec(globals, 1, 0x7f, 1, 0x99, 0x0b)),
		"no end":           build(sec(globals, 1, 0x7f, 1, 0x41, 0)),
		"too many":         build(sec(globals, 0xff, 0xff, 0xff, 0xff, 0x0f)),
		"long number":      build(sec(globals, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f)),
		"something behind": build(sec(start, 1, 1)),
		"a reference":      build(sec(globals, 1, 0x70, 1, 0xd0, 0x70, 0x0b)),
		"name is taken":    build(sec(globals, 1, 0x7f, 1, 0x41, 0, 0x0b), sec(exports, append([]byte{1, byte(len(DefaultPrefix) + 1)}, DefaultPrefix+"0\x00\x00"...)...)),
		"import kind":      build(sec(imports, 1, 0, 0, 9, 0)),
	} {
		if _, err := Rewrite(module, Options{}); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzRewrite(f *testing.F) {
	f.Add(build(types, imported, funcs, own, sec(exports, 0), sec(start, 1), code))
	if b, err := os.ReadFile(filepath.Join("..", "..", "testdata", "motoko-register", "register.wasm")); err == nil {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		out, err := Rewrite(b, Options{})
		if err != nil {
			return
		}
		again, err := Rewrite(out.Module, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if len(again.Globals) != len(out.Globals) || !bytes.Equal(again.Module, out.Module) {
			t.Error("not the same when rewritten again")
		}
	})
}
