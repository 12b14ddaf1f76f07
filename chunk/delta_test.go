package chunk

import (
	"bytes"
	"encoding/binary"
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/s2"

	"github.com/snapstore/snapstore/internal/pagedelta"
)

// kindsOfPages are pages that each method is best for, and what it is.
func kindsOfPages(r *rand.Rand) map[method][]byte {
	records, text, random := make([]byte, PageSize), make([]byte, PageSize), make([]byte, PageSize)
	for at := 0; at+32 <= PageSize; at += 32 {
		binary.LittleEndian.PutUint64(records[at:], 0x7f00aabb0000)
		binary.LittleEndian.PutUint64(records[at+8:], 0x7f00aacc0000+r.Uint64N(1<<16))
		binary.LittleEndian.PutUint32(records[at+16:], r.Uint32N(100))
	}
	words := strings.Fields("store page log root canister memory snapshot record segment frame group manifest watermark epoch")
	for at := 0; at < PageSize; {
		at += copy(text[at:], words[r.IntN(len(words))]+" ")
	}
	for i := range random {
		random[i] = byte(r.Uint32())
	}
	return map[method][]byte{methodDelta: records, methodS2: text, methodRaw: random}
}

// methods are those of a part's pages.
func methods(t *testing.T, part []byte) (ms []method) {
	t.Helper()
	for len(part) > 0 {
		head := binary.LittleEndian.Uint16(part)
		ms = append(ms, method(head>>methodBits))
		part = part[pageHead+int(head&(1<<methodBits-1)):]
	}
	return ms
}

// Each page is stored the way that suits it, whatever stands beside it, and in
// little more than by that way alone.
func TestDeltaMethods(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(7, 10))
	for range 50 {
		kinds := kindsOfPages(r)
		var pages []byte
		var want []method
		for range 1 + r.IntN(partPages) {
			m := method(r.IntN(3))
			pages, want = append(pages, kinds[m]...), append(want, m)
			if m == methodRaw {
				kinds = kindsOfPages(r) // or it is not random the second time
			}
		}
		part := new(deltaScratch).append(nil, pages)
		if got := methods(t, part); len(got) != len(want) {
			t.Fatalf("%d pages: %v", len(want), got)
		} else {
			for i := range got {
				// A second page of a part may be found in the first.
				if got[i] != want[i] && (i == 0 || want[i] == methodRaw || got[i] != methodDelta) {
					t.Fatalf("page %d of %v is stored as %v", i, want, got)
				}
			}
		}
		back := make([]byte, len(pages))
		if err := decompressDelta(back, part, true); err != nil || !bytes.Equal(back, pages) {
			t.Fatal(err)
		}
	}
}

// A group as the first version of this codec wrote it stays in testdata, and is read.
// It is written once, with -golden, and never again.
var writeGolden = flag.String("golden", "", "write a new group into testdata under this name")

func TestDeltaGolden(t *testing.T) {
	t.Parallel()
	kinds := kindsOfPages(rand.New(rand.NewPCG(7, 14)))
	want := []method{methodDelta, methodS2, methodRaw, methodDelta, methodS2, methodDelta}
	var pages []byte
	var ids []ID
	for i, m := range want {
		p := bytes.Clone(kinds[m])
		p[100*i] ^= 1
		pages, ids = append(pages, p...), append(ids, Sum(p))
	}
	if *writeGolden != "" {
		payload, codec, err := AppendGroup(nil, CodecDelta, ids, pages)
		if err != nil || codec != CodecDelta {
			t.Fatal(codec, err)
		}
		if err := os.WriteFile(filepath.Join("testdata", *writeGolden), payload, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	groups, err := filepath.Glob("testdata/delta-*")
	if err != nil || len(groups) == 0 {
		t.Fatal("no group", err)
	}
	for _, name := range groups {
		payload, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		g, err := parseGroup(payload)
		if err != nil || g.codec != CodecDelta {
			t.Fatalf("%s: %v, %v", name, g.codec, err)
		}
		var got []method
		for p := range g.parts(1<<g.n - 1) {
			part, err := g.stored(p)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, methods(t, part)...)
		}
		if back, _, err := DecodeGroup(nil, payload); err != nil || !bytes.Equal(back, pages) || !slices.Equal(got, want) {
			t.Errorf("%s: other pages, or methods %v: %v", name, got, err)
		}
	}
}

// s2 is asked about everything but pages of random bytes.
func TestDeltaAsksS2(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(7, 12))
	drawn, text := 0, 0
	for range 2000 {
		kinds := kindsOfPages(r)
		if random(kinds[methodRaw]) {
			drawn++
		}
		for i, b := range kinds[methodRaw] {
			kinds[methodRaw][i] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[b%64]
		}
		if random(kinds[methodS2]) || random(kinds[methodDelta]) || random(kinds[methodRaw]) {
			text++
		}
	}
	if drawn < 1980 || text > 20 {
		t.Errorf("of 2000 pages %d were found random, and of text %d", drawn, text)
	}
}

// What Coder promises about room holds for its scratch.
func TestDeltaRoom(t *testing.T) {
	t.Parallel()
	var w deltaScratch
	if n := s2.MaxEncodedLen(PageSize); n > len(w.s2) {
		t.Fatalf("s2 needs %d", n)
	}
	// A group of random pages, the last of which is compressed into what is left.
	if n := 2*(maxParts-1) + (GroupPages-1)*(pageHead+PageSize) + pageHead + pagedelta.MaxEncoded; n > maxCompressed {
		t.Fatalf("delta needs %d", n)
	}
	if PageSize > 1<<methodBits-1 {
		t.Fatal("a page's size does not fit")
	}
}

// Each rule of a part's bytes, broken alone.
func TestDeltaMalformed(t *testing.T) {
	t.Parallel()
	kinds := kindsOfPages(rand.New(rand.NewPCG(7, 11)))
	pages := append(append(bytes.Clone(kinds[methodDelta]), kinds[methodS2]...), kinds[methodRaw]...)
	part := new(deltaScratch).append(nil, pages)
	size := func(part []byte) int { return int(binary.LittleEndian.Uint16(part) & (1<<methodBits - 1)) }
	second := pageHead + size(part)
	third := second + pageHead + size(part[second:])
	head := func(b []byte, at int, m method, size int) []byte {
		binary.LittleEndian.PutUint16(b[at:], uint16(m)<<methodBits|uint16(size))
		return b
	}
	for name, bad := range map[string][]byte{
		"nothing":            {},
		"half a head":        part[:third+1],
		"an end too soon":    part[:len(part)-1],
		"more at the end":    append(bytes.Clone(part), 0),
		"a method too many":  head(bytes.Clone(part), 0, methodS2+1, size(part)),
		"raw of another":     head(bytes.Clone(part), 0, methodRaw, size(part)),
		"s2 as lines":        head(bytes.Clone(part), second, methodDelta, size(part[second:])),
		"lines as s2":        head(bytes.Clone(part), 0, methodS2, size(part)),
		"a size of the next": head(bytes.Clone(part), 0, methodDelta, size(part)+1),
		"a size beyond":      head(bytes.Clone(part), third, methodRaw, 1<<methodBits-1),
	} {
		guard := bytes.Repeat([]byte{0xee}, len(pages)+100)
		if err := decompressDelta(guard[:len(pages):len(pages)], bad, true); err == nil {
			t.Errorf("%s: no error", name)
		}
		if !bytes.Equal(guard[len(pages):], bytes.Repeat([]byte{0xee}, 100)) {
			t.Errorf("%s: wrote behind the pages", name)
		}
	}
	// Pages that do not need the damaged one come out.
	bad := head(bytes.Clone(part), 0, methodS2+1, size(part))
	back := make([]byte, len(pages))
	if err := decompressDelta(back, bad, true); err == nil || !bytes.Equal(back[PageSize:], pages[PageSize:]) {
		t.Errorf("behind a page that can not be: %v", err)
	}
}
