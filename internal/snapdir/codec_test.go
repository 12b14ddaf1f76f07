package snapdir

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
)

// asTheToolsWrite is a metadata.json in the tools' own form.
const asTheToolsWrite = `{
  "source": {
    "taken_from_canister": null
  },
  "taken_at_timestamp": 1757942400123456789,
  "wasm_module_size": 1234,
  "globals": [
    {
      "i32": 1048576
    },
    {
      "i64": -9007199254740993
    },
    {
      "f32": 1.5
    },
    {
      "f64": 1e300
    },
    {
      "v128": [
        4294967295,
        1
      ]
    }
  ],
  "wasm_memory_size": 1245184,
  "stable_memory_size": 0,
  "wasm_chunk_store": [
    {
      "hash": [
        1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16,
        17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 255
      ]
    }
  ],
  "canister_version": 18446744073709551615,
  "certified_data": [],
  "global_timer": "inactive",
  "on_low_wasm_memory_hook_status": "condition_not_satisfied"
}`

func TestParseToolsMetadata(t *testing.T) {
	m, err := ParseMetadata([]byte(asTheToolsWrite))
	if err != nil {
		t.Fatal(err)
	}
	want := &Metadata{
		Source: SourceTaken, TakenAt: 1757942400123456789, CanisterVersion: math.MaxUint64,
		WasmModuleSize: 1234, WasmMemorySize: 1245184,
		Globals: []Global{
			{Kind: GlobalI32, Lo: 1048576},
			{Kind: GlobalI64, Lo: 0xffdf_ffff_ffff_ffff},
			{Kind: GlobalF32, Lo: 0x3fc0_0000},
			{Kind: GlobalF64, Lo: math.Float64bits(1e300)},
			{Kind: GlobalV128, Lo: 1<<32 | 0xffff_ffff},
		},
		WasmChunks:    [][32]byte{{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 255}},
		CertifiedData: []byte{},
		GlobalTimer:   Timer{Present: true},
		HookStatus:    HookConditionNotSatisfied,
	}
	if !reflect.DeepEqual(m, want) {
		t.Errorf("got\n%+v, want\n%+v", m, want)
	}
	text, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	var a, b bytes.Buffer
	if err := errors.Join(json.Compact(&a, text), json.Compact(&b, []byte(asTheToolsWrite))); err != nil {
		t.Fatal(err)
	}
	got := strings.Replace(a.String(), "1e+300", "1e300", 1)
	if got != b.String() {
		t.Errorf("written\n%s\nwant\n%s", got, b.String())
	}
}

// TestOtherForms: forms that the tools read, or write for older snapshots.
func TestOtherForms(t *testing.T) {
	for _, c := range []struct {
		old, new string
		check    func(m *Metadata) bool
	}{
		{`{
    "taken_from_canister": null
  }`, `null`, func(m *Metadata) bool { return m.Source == SourceAbsent }},
		{`"source"`, `"other"`, func(m *Metadata) bool { return m.Source == SourceAbsent }},
		{`taken_from_canister`, `metadata_upload`, func(m *Metadata) bool { return m.Source == SourceUploaded }},
		{`"inactive"`, `null`, func(m *Metadata) bool { return m.GlobalTimer == Timer{} }},
		{`"inactive"`, `{"inactive":null}`, func(m *Metadata) bool { return m.GlobalTimer == Timer{Present: true} }},
		{`"inactive"`, `{"active":0}`, func(m *Metadata) bool { return m.GlobalTimer == Timer{Present: true, Active: true} }},
		{`"condition_not_satisfied"`, `null`, func(m *Metadata) bool { return m.HookStatus == HookAbsent }},
		{`"condition_not_satisfied"`, `"executed"`, func(m *Metadata) bool { return m.HookStatus == HookExecuted }},
		{`1.5`, `-0.0`, func(m *Metadata) bool { return m.Globals[2].Lo == 1<<31 }},
		{`1.5`, `1`, func(m *Metadata) bool { return m.Globals[2].Lo == 0x3f80_0000 }},
		{`1e300`, `5e-324`, func(m *Metadata) bool { return m.Globals[3].Lo == 1 }},
		{`[
        4294967295,
        1
      ]`, `[]`, func(m *Metadata) bool { return m.Globals[4] == Global{Kind: GlobalV128} }},
		{`[
        4294967295,
        1
      ]`, `"18446744073709551616"`, func(m *Metadata) bool { return m.Globals[4] == Global{Kind: GlobalV128, Hi: 1} }},
		{`[
        4294967295,
        1
      ]`, `340282366920938463463374607431768211455`, func(m *Metadata) bool {
			return m.Globals[4] == Global{Kind: GlobalV128, Lo: math.MaxUint64, Hi: math.MaxUint64}
		}},
	} {
		text := strings.Replace(asTheToolsWrite, c.old, c.new, 1)
		if text == asTheToolsWrite {
			t.Fatalf("no %q", c.old)
		}
		m, err := ParseMetadata([]byte(text))
		if err != nil || !c.check(m) {
			t.Errorf("%s: %+v, %v", c.new, m, err)
		}
	}
}

// TestLargestMetadata: whatever the limits allow fits the bound on JSON.
func TestLargestMetadata(t *testing.T) {
	m := Metadata{CertifiedData: bytes.Repeat([]byte{255}, MaxCertifiedData)}
	s := Sums{Root: [32]byte{1}}
	for i := range MaxGlobals {
		m.Globals = append(m.Globals, Global{Kind: GlobalV128, Lo: math.MaxUint64, Hi: math.MaxUint64})
		s.Floats = append(s.Floats, FloatBits{i, Global{Kind: GlobalF64, Lo: math.MaxUint64}})
	}
	for i := range MaxChunks {
		h := [32]byte(bytes.Repeat([]byte{255}, 32))
		h[0] = byte(i)
		m.WasmChunks = append(m.WasmChunks, h)
	}
	for _, p := range m.Parts() {
		s.Files = append(s.Files, FileSum{Path: p.Path(), Size: MaxStableMemory})
	}
	text, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	sumsText, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if len(text) > maxJSON/2 || len(sumsText) > maxJSON/2 {
		t.Errorf("%d and %d bytes of at most %d", len(text), len(sumsText), maxJSON)
	}
	if _, err := ParseMetadata(text); err != nil {
		t.Error(err)
	}
	if _, err := ParseSums(sumsText); err != nil {
		t.Error(err)
	}
}

// TestSumsRefused: texts with a right checksum of their own that say what no
// export says.
func TestSumsRefused(t *testing.T) {
	nan := Global{Kind: GlobalF32, Lo: 0x7fc0_0000}
	for name, s := range map[string]Sums{
		"finite float":  {Floats: []FloatBits{{0, Global{Kind: GlobalF32, Lo: 0x3fc0_0000}}}},
		"integer":       {Floats: []FloatBits{{0, Global{Kind: GlobalI32}}}},
		"out of order":  {Floats: []FloatBits{{1, nan}, {1, nan}}},
		"out of range":  {Floats: []FloatBits{{MaxGlobals, nan}}},
		"negative":      {Floats: []FloatBits{{-1, nan}}},
		"no such float": {Floats: []FloatBits{{0, Global{Kind: 9}}}},
		"many files":    {Files: make([]FileSum, 5+MaxChunks)},
	} {
		text, err := s.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseSums(text); !errors.Is(err, ErrSums) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func FuzzMetadata(f *testing.F) {
	f.Add([]byte(asTheToolsWrite))
	f.Add([]byte(`{}`))
	f.Add([]byte(`{"a":1,"a":2}`))
	f.Add([]byte(`{"globals":[{"f32":null},null,{"v128":"1"}]}`))
	if text, err := new(Metadata).Encode(); err == nil {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := ParseMetadata(data)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("%T is not *Error", err)
			}
			return
		}
		text, err := m.Encode()
		if err != nil {
			t.Fatalf("read but not written: %v", err)
		}
		again, err := ParseMetadata(text)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if !reflect.DeepEqual(m, again) {
			t.Fatalf("%+v comes back as %+v", m, again)
		}
	})
}

func FuzzSums(f *testing.F) {
	s := Sums{Root: [32]byte{1}, Floats: []FloatBits{{3, Global{Kind: GlobalF32, Lo: 0x7fc0_0000}}}, Files: []FileSum{{Path: metadataName, Size: 9}}}
	for _, s := range []Sums{s, {}} {
		text, err := s.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := ParseSums(data)
		if err != nil {
			return
		}
		again, err := s.Encode()
		if err != nil || !bytes.Equal(again, data) {
			t.Fatalf("%v\n%s\n%s", err, data, again)
		}
	})
}
