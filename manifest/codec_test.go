package manifest

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/snapstore/snapstore/chunk"
)

func fullNode(level int) []byte {
	var kids [Fanout]chunk.ID
	for i := range kids {
		kids[i] = pageID(uint64(i))
	}
	return must(AppendNode(nil, level, &kids))
}

func TestNode(t *testing.T) {
	seeds(t, 200, func(t *testing.T, r *rand.Rand) {
		var kids [Fanout]chunk.ID
		for i := range kids {
			if r.IntN(2) == 0 {
				kids[i] = pageID(r.Uint64())
			}
		}
		kids[r.IntN(Fanout)] = pageID(1)
		level := r.IntN(MaxDepth)
		b, err := AppendNode([]byte("before"), level, &kids)
		if err != nil {
			t.Fatal(err)
		}
		b = b[len("before"):]
		if len(b) > MaxNodeSize {
			t.Fatalf("%d bytes, limit %d", len(b), MaxNodeSize)
		}
		n, err := DecodeNode(b)
		if err != nil || n.Level() != level {
			t.Fatalf("level %d, %v; want %d", n.Level(), err, level)
		}
		for i := range kids {
			if n.Child(i) != kids[i] {
				t.Fatalf("child %d is %v, want %v", i, n.Child(i), kids[i])
			}
		}
	})
	if n := len(fullNode(MaxDepth - 1)); n != MaxNodeSize {
		t.Errorf("full node of %d bytes, MaxNodeSize %d", n, MaxNodeSize)
	}
	var kids [Fanout]chunk.ID
	if _, err := AppendNode(nil, 0, &kids); !errors.Is(err, ErrMalformed) {
		t.Errorf("no children: %v", err)
	}
	kids[3] = pageID(1)
	for _, level := range []int{-1, MaxDepth} {
		if _, err := AppendNode(nil, level, &kids); !errors.Is(err, ErrMalformed) {
			t.Errorf("level %d: %v", level, err)
		}
	}
}

func TestDecodeNodeRefuses(t *testing.T) {
	good := fullNode(0)
	edit := func(f func(b []byte) []byte) []byte { return f(bytes.Clone(good)) }
	for name, b := range map[string][]byte{
		"nothing":       nil,
		"short":         good[:4],
		"kind":          edit(func(b []byte) []byte { b[0] = byte(KindManifest); return b }),
		"unknown kind":  edit(func(b []byte) []byte { b[0] = 99; return b }),
		"version":       edit(func(b []byte) []byte { b[1]++; return b }),
		"level":         edit(func(b []byte) []byte { b[2] = MaxDepth; return b }),
		"bitmap":        edit(func(b []byte) []byte { b[3], b[4] = 0, 0; return b[:5] }),
		"missing child": edit(func(b []byte) []byte { b[3]--; return b }),
		"zero child":    edit(func(b []byte) []byte { clear(b[5+32 : 5+64]); return b }),
		"trailing":      edit(func(b []byte) []byte { return append(b, 0) }),
		"trailing id":   edit(func(b []byte) []byte { return append(b, b[5:5+32]...) }),
		"cut":           good[:len(good)-1],
	} {
		if _, err := DecodeNode(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// An ID says what it is the ID of: kinds, levels and pages never share one.
func TestNodeIDSeparates(t *testing.T) {
	ids := map[chunk.ID]string{}
	add := func(name string, id chunk.ID) {
		if other, ok := ids[id]; ok {
			t.Errorf("%s has the ID of %s", name, other)
		}
		ids[id] = name
	}
	for level := range 3 {
		b := fullNode(level)
		add("level", must(NodeID(b)))
		add("page", chunk.Sum(b))
	}
	m := must((&Manifest{}).Encode())
	add("manifest", must(NodeID(m)))
	// The kinds differ in more than their first byte.
	if treeContext == manifestContext {
		t.Error("one context for two kinds")
	}
	for _, b := range [][]byte{nil, {1, 1}, {0, 1, 0}, {3, 1, 0}, {1, 2, 0}, {2, 0, 0}} {
		if id, err := NodeID(b); !errors.Is(err, ErrMalformed) || !id.IsZero() {
			t.Errorf("NodeID(%v) = %v, %v", b, id, err)
		}
	}
}

func randomManifest(r *rand.Rand) *Manifest {
	m := &Manifest{}
	for _, s := range []Section{testModule, testHeap, testStable} {
		if r.IntN(3) > 0 {
			m.Sections = append(m.Sections, SectionRoot{Section: s, Size: r.Uint64N(MaxSectionSize)})
		}
	}
	for i := range r.IntN(4) {
		m.Sections = append(m.Sections, SectionRoot{Section: Section{Kind: WasmChunk, Hash: [32]byte{byte(i + 1)}}, Size: 1 + r.Uint64N(1<<20)})
	}
	for i := range m.Sections {
		if s := &m.Sections[i]; s.Size > 0 && r.IntN(3) > 0 {
			s.Root = pageID(r.Uint64())
		}
	}
	m.Meta = Metadata{
		Source: Source(r.IntN(3)), TakenAt: r.Uint64(), CanisterVersion: r.Uint64(), HookStatus: HookStatus(r.IntN(4)),
	}
	for range r.IntN(MaxCertifiedData + 1) {
		m.Meta.CertifiedData = append(m.Meta.CertifiedData, byte(r.Uint32()))
	}
	for range r.IntN(6) {
		g := Global{Kind: GlobalKind(1 + r.IntN(5)), Lo: r.Uint64()}
		switch g.Kind.width() {
		case 4:
			g.Lo &= math.MaxUint32
		case 16:
			g.Hi = r.Uint64()
		}
		m.Meta.Globals = append(m.Meta.Globals, g)
	}
	switch r.IntN(3) {
	case 1:
		m.Meta.GlobalTimer.Present = true
	case 2:
		m.Meta.GlobalTimer = Timer{true, true, r.Uint64()}
	}
	return m
}

func TestManifestRoundTrip(t *testing.T) {
	seeds(t, 300, func(t *testing.T, r *rand.Rand) {
		m := randomManifest(r)
		b, err := m.Encode()
		if err != nil {
			t.Fatal(err)
		}
		back, err := Decode(b)
		if err != nil || !reflect.DeepEqual(m, back) {
			t.Fatalf("%v\n%+v\n%+v", err, m, back)
		}
		// Every cut is refused, and every changed byte either is or is another manifest.
		for i := range b {
			if _, err := Decode(b[:i]); !errors.Is(err, ErrMalformed) {
				t.Fatalf("cut to %d of %d bytes: %v", i, len(b), err)
			}
			b[i] ^= 1 << r.IntN(8)
			if o, err := Decode(b); err == nil && (reflect.DeepEqual(m, o) || !bytes.Equal(must(o.Encode()), b)) {
				t.Fatalf("byte %d changed: not canonical", i)
			}
			copy(b, must(m.Encode()))
		}
		if _, err := Decode(append(b, 0)); !errors.Is(err, ErrMalformed) {
			t.Fatalf("trailing byte: %v", err)
		}
	})
}

func TestLargestManifest(t *testing.T) {
	m := &Manifest{}
	for i := range MaxSections {
		m.Sections = append(m.Sections, SectionRoot{Section{WasmChunk, [32]byte{byte(i)}}, pageID(1), 1 << 20})
	}
	m.Meta.CertifiedData = make([]byte, MaxCertifiedData)
	m.Meta.GlobalTimer = Timer{true, true, 1}
	for range MaxGlobals {
		m.Meta.Globals = append(m.Meta.Globals, Global{Kind: GlobalV128, Hi: 1})
	}
	b := must(m.Encode())
	if len(b) != MaxManifestSize || len(b) > 64<<10 {
		t.Fatalf("largest manifest has %d bytes, MaxManifestSize is %d", len(b), MaxManifestSize)
	}
	if back, err := Decode(b); err != nil || !reflect.DeepEqual(m, back) {
		t.Fatal(err)
	}
}

func TestManifestRefuses(t *testing.T) {
	heap := SectionRoot{Section: testHeap, Size: 1, Root: pageID(1)}
	stable := SectionRoot{Section: testStable, Size: 1}
	many := make([]SectionRoot, MaxSections+1)
	for i := range many {
		many[i].Section = Section{WasmChunk, [32]byte{byte(i >> 8), byte(i)}}
	}
	for name, m := range map[string]Manifest{
		"unsorted":     {Sections: []SectionRoot{stable, heap}},
		"twice":        {Sections: []SectionRoot{heap, heap}},
		"too many":     {Sections: many},
		"no kind":      {Sections: []SectionRoot{{Section: Section{}}}},
		"kind":         {Sections: []SectionRoot{{Section: Section{Kind: 5}}}},
		"root of none": {Sections: []SectionRoot{{Section: testHeap, Root: pageID(1)}}},
		"too large":    {Sections: []SectionRoot{{Section: testHeap, Size: MaxSectionSize + 1}}},
		"hash":         {Sections: []SectionRoot{{Section: Section{WasmMemory, [32]byte{1}}}}},
		"source":       {Meta: Metadata{Source: 3}},
		"certified":    {Meta: Metadata{CertifiedData: make([]byte, MaxCertifiedData+1)}},
		"globals":      {Meta: Metadata{Globals: slices.Repeat([]Global{{Kind: GlobalI32}}, MaxGlobals+1)}},
		"global kind":  {Meta: Metadata{Globals: []Global{{}}}},
		"global wide":  {Meta: Metadata{Globals: []Global{{Kind: GlobalF32, Lo: 1 << 32}}}},
		"global hi":    {Meta: Metadata{Globals: []Global{{Kind: GlobalI64, Hi: 1}}}},
		"timer":        {Meta: Metadata{GlobalTimer: Timer{Active: true}}},
		"deadline":     {Meta: Metadata{GlobalTimer: Timer{Present: true, Deadline: 1}}},
		"hook":         {Meta: Metadata{HookStatus: 4}},
	} {
		if _, err := m.Encode(); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: encoded, %v", name, err)
		}
	}
	// The decoder is as strict where the encoder can not be made to write it.
	good := must((&Manifest{Sections: []SectionRoot{heap, stable}}).Encode())
	const first, entry = 4, 1 + 8 + 32
	swap := bytes.Clone(good)
	copy(swap[first:], good[first+entry:first+2*entry])
	copy(swap[first+entry:], good[first:first+entry])
	twice := bytes.Clone(good)
	copy(twice[first+entry:], good[first:first+entry])
	empty := bytes.Clone(good)
	clear(empty[first+1 : first+9])
	huge := bytes.Clone(good)
	huge[first+8] = 0xff
	for name, b := range map[string][]byte{
		"swapped": swap, "twice": twice, "root of nothing": empty, "huge": huge,
		"version": append([]byte{2, 2}, good[2:]...), "level": append([]byte{2, 1, 1}, good[3:]...),
		"many": {2, 1, 0, 255}, "tree": fullNode(0),
	} {
		if _, err := Decode(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: decoded, %v", name, err)
		}
	}
}

func TestLogicalSize(t *testing.T) {
	m := &Manifest{
		Sections: []SectionRoot{
			{Section: testModule, Size: 1001},
			{Section: testHeap, Size: 3 << 16},
			{Section: testStable, Size: 5 << 16},
			{Section: testChunk, Size: 17},
			{Section: Section{WasmChunk, [32]byte{8}}, Size: 1 << 20},
		},
		Meta: Metadata{CertifiedData: make([]byte, 32), Globals: []Global{{Kind: GlobalI32}, {Kind: GlobalF64}, {Kind: GlobalV128}}},
	}
	if got, want := m.LogicalSize(), uint64(1001+8<<16+2<<20+32+8+8+16); got != want {
		t.Errorf("got %d, want %d", got, want)
	}
	if got := new(Manifest).LogicalSize(); got != 0 {
		t.Errorf("nothing: %d", got)
	}
	for i := range m.Sections {
		m.Sections[i].Size = math.MaxUint64 - 5
	}
	if got := m.LogicalSize(); got != math.MaxUint64 {
		t.Errorf("sizes beyond 64 bits: %d", got)
	}
}

func TestNames(t *testing.T) {
	for _, s := range []Section{testModule, testHeap, testStable, testChunk, {Kind: WasmChunk}} {
		if got, err := ParseSection(s.String()); err != nil || got != s {
			t.Errorf("%v: %v, %v", s, got, err)
		}
	}
	for _, bad := range []string{
		"", "heap", "wasm-chunk", "wasm-chunk/", "wasm-chunk/00", strings.ToUpper(testChunk.String()), testChunk.String() + "0",
		"wasm-chunk/" + strings.Repeat("G", 64), "wasm-chunk/" + strings.Repeat("A", 64), "wasm-memory/" + strings.Repeat("0", 64),
	} {
		if _, err := ParseSection(bad); err == nil {
			t.Errorf("%q accepted", bad)
		}
	}
	for s := SourceNone; s <= SourceUploaded; s++ {
		if got, err := ParseSource(s.String()); err != nil || got != s {
			t.Errorf("%v: %v, %v", s, got, err)
		}
	}
	for k := GlobalI32; k <= GlobalV128; k++ {
		if got, err := ParseGlobalKind(k.String()); err != nil || got != k {
			t.Errorf("%v: %v, %v", k, got, err)
		}
	}
	for h := HookAbsent; h <= HookExecuted; h++ {
		if got, err := ParseHookStatus(h.String()); err != nil || got != h {
			t.Errorf("%v: %v, %v", h, got, err)
		}
	}
	for _, err := range []error{second(ParseSource("source-3")), second(ParseGlobalKind("i16")), second(ParseHookStatus(""))} {
		if err == nil {
			t.Error("unknown name accepted")
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestPlaceOrder(t *testing.T) {
	// The order of a walk over a tree of depth 2 with pages 0, 1 and 17, and of
	// what is around it.
	walk := []Place{
		{},
		PagePlace(testModule, 1<<39), PagePlace(testHeap, 0), PagePlace(testHeap, 1),
		treePlace(testHeap, 1, 0), PagePlace(testHeap, 17), treePlace(testHeap, 1, 1), treePlace(testHeap, 2, 0),
		treePlace(testHeap, MaxDepth, 0), PagePlace(testStable, 0), PagePlace(testChunk, 0), manifestPlace(), endPlace(),
	}
	for i, p := range walk {
		for j, q := range walk {
			if got, want := p.Compare(q), min(1, max(-1, i-j)); got != want {
				t.Errorf("%v to %v: %d, want %d", p, q, got, want)
			}
		}
		b := p.Encode()
		if back, err := DecodePlace(b); err != nil || back != p || len(b) > MaxPlaceSize || len(b) > 64 {
			t.Errorf("%v: %d bytes, back %v, %v", p, len(b), back, err)
		}
		if _, err := DecodePlace(append(b, 0)); err == nil {
			t.Errorf("%v: trailing byte accepted", p)
		}
		if f := p.first(); f.Compare(p) > 0 {
			t.Errorf("%v: first place %v is after it", p, f)
		}
	}
	if !walk[0].IsStart() || !walk[len(walk)-1].IsEnd() || !walk[len(walk)-2].IsManifest() || !walk[2].IsPage() || walk[4].IsPage() || walk[4].Level() != 0 {
		t.Error("a place is not what it is")
	}
	for _, bad := range [][]byte{
		nil,
		{4},
		{1},
		{1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		{1, 2, 11, 0, 0, 0, 0, 0, 0, 0, 0},
		{1, 2, 10, 1, 0, 0, 0, 0, 0, 0, 0},
		{1, 2, 0, 0, 0, 0, 0, 0, 1, 0, 0},
	} {
		if p, err := DecodePlace(bad); !errors.Is(err, ErrMalformed) {
			t.Errorf("%v decoded to %v, %v", bad, p, err)
		}
	}
}

func FuzzDecodeNode(f *testing.F) {
	f.Add(fullNode(0))
	f.Add(fullNode(MaxDepth - 1))
	f.Add([]byte{1, 1, 0, 1, 0})
	f.Add(must((&Manifest{}).Encode()))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := DecodeNode(b)
		if err != nil {
			return
		}
		var kids [Fanout]chunk.ID
		for i := range kids {
			kids[i] = n.Child(i)
		}
		back, err := AppendNode(nil, n.Level(), &kids)
		if err != nil || !bytes.Equal(back, b) {
			t.Fatalf("%x encodes to %x, %v", b, back, err)
		}
		if _, err := NodeID(b); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzDecode(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(must(randomManifest(rand.New(rand.NewPCG(seed, 2))).Encode()))
	}
	f.Add(fullNode(0))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Decode(b)
		if err != nil {
			return
		}
		if len(b) > MaxManifestSize {
			t.Fatalf("%d bytes", len(b))
		}
		if back, err := m.Encode(); err != nil || !bytes.Equal(back, b) {
			t.Fatalf("%x encodes to %x, %v", b, back, err)
		}
		m.LogicalSize()
	})
}

func FuzzDecodePlace(f *testing.F) {
	for _, p := range []Place{{}, manifestPlace(), endPlace(), PagePlace(testHeap, 9), treePlace(testChunk, 3, 5)} {
		f.Add(p.Encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := DecodePlace(b)
		if err != nil {
			return
		}
		if back := p.Encode(); !bytes.Equal(back, b) {
			t.Fatalf("%x encodes to %x", b, back)
		}
		if p.first().Compare(p) > 0 || p.Compare(endPlace()) > 0 || p.Compare(Place{}) < 0 {
			t.Fatalf("%v is out of order", p)
		}
	})
}

func FuzzParseSection(f *testing.F) {
	for _, s := range []Section{testModule, testHeap, testStable, testChunk} {
		f.Add(s.String())
	}
	f.Add("wasm-chunk/../../etc/x")
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ParseSection(s)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		if got.String() != s || got.Validate() != nil {
			t.Fatalf("%q is %v", s, got)
		}
	})
}
