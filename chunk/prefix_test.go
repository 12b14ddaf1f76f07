package chunk

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// groupOf makes the group of pages that image fills.
func groupOf(t *testing.T, codec Codec, n int, image func(page int, p []byte)) (g group, pages []byte) {
	t.Helper()
	pages = make([]byte, n*PageSize)
	ids := make([]ID, n)
	for i := range n {
		p := pages[i*PageSize : (i+1)*PageSize]
		image(i, p)
		ids[i] = Sum(p)
	}
	payload, got, err := AppendGroup(nil, codec, ids, pages)
	if codec == CodecS2Parts && n <= partPages {
		codec = CodecS2
	}
	if err != nil || got != codec {
		t.Fatalf("%v, %v", got, err)
	}
	if g, err = parseGroup(payload); err != nil {
		t.Fatal(err)
	}
	return g, pages
}

// Any pages of a group come out of as little decoding as they need.
func TestDecodeFor(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(7, 7))
	structured := func(_ int, p []byte) {
		for b := 0; b < PageSize; b += 8 {
			binary.LittleEndian.PutUint64(p[b:], rng.Uint64N(1<<20))
		}
	}
	// One match reaches from the first page to the end.
	same := func(page int, p []byte) {
		for i := range p {
			p[i] = 7
		}
		p[page] = 8
	}
	random := func(_ int, p []byte) {
		for b := 0; b < PageSize; b += 8 {
			binary.LittleEndian.PutUint64(p[b:], rng.Uint64())
		}
	}
	for name, v := range map[string]struct {
		codec Codec
		image func(int, []byte)
	}{
		"s2": {CodecS2, structured}, "s2 runs": {CodecS2, same}, "zstd": {CodecZstd, structured},
		"parts": {CodecS2Parts, structured}, "parts runs": {CodecS2Parts, same},
		"delta": {CodecDelta, structured}, "delta runs": {CodecDelta, same}, "raw": {CodecRaw, random},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKit(t, nil)
			for range 40 {
				n := 1 + rng.IntN(GroupPages)
				g, pages := groupOf(t, v.codec, n, v.image)
				stored := bytes.Clone(g.data)
				for range 10 {
					need := 1 + rng.Uint32N(1<<n-1)
					dst := bytes.Repeat([]byte{0xEE}, maxRaw)
					verified, err := k.s.decodeFor(g, dst, need)
					if err != nil || verified != need {
						t.Fatalf("%d pages, %b needed, %b verified: %v", n, need, verified, err)
					}
					for slot := range n {
						if at := slot * PageSize; need&(1<<slot) != 0 && !bytes.Equal(dst[at:at+PageSize], pages[at:at+PageSize]) {
							t.Fatalf("page %d is another", slot)
						}
					}
					if !bytes.Equal(g.data, stored) {
						t.Fatal("what is stored was changed")
					}
				}
			}
		})
	}
}

// The first pages are had without the last ones, and where a match is too long
// for that, with them.
func TestDecodeForStopsEarly(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	rng := rand.New(rand.NewPCG(7, 8))
	g, _ := groupOf(t, CodecS2, GroupPages, func(_ int, p []byte) {
		for b := 0; b < PageSize; b += 8 {
			binary.LittleEndian.PutUint64(p[b:], rng.Uint64N(1<<20))
		}
	})
	dst := bytes.Repeat([]byte{0xEE}, maxRaw)
	if verified, err := k.s.decodeFor(g, dst, 0b11); err != nil || verified != 0b11 {
		t.Fatalf("%b, %v", verified, err)
	}
	if rest := dst[2*PageSize+prefixSlack:]; !bytes.Equal(rest, bytes.Repeat([]byte{0xEE}, len(rest))) {
		t.Error("all of the group was decoded")
	}
	if n := k.s.Stats().Groups; n != 1 {
		t.Errorf("decoded %d times", n)
	}
	long, _ := groupOf(t, CodecS2, GroupPages, func(page int, p []byte) { binary.LittleEndian.PutUint64(p, uint64(page+1)&1+1) })
	if verified, err := k.s.decodeFor(long, dst, 0b11); err != nil || verified != 0b11 {
		t.Fatalf("%b, %v", verified, err)
	}
	// A damaged page is none of those that match.
	bad := g
	bad.data = bytes.Clone(g.data)
	bad.data[len(bad.data)-9] ^= 1
	if verified, err := k.s.decodeFor(bad, dst, 1<<(GroupPages-1)|1); err == nil && verified == 1<<(GroupPages-1)|1 {
		t.Error("damage was not seen")
	}
}

// Pages of a part are had without those behind them, and without one that is damaged
// where they can do without it, whichever are asked for together.
func TestDecodeForDelta(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(7, 13))
	pages := make([]byte, 0, partPages*PageSize)
	for range partPages {
		pages = append(pages, kindsOfPages(rng)[methodS2]...) // stands alone
	}
	k := newKit(t, nil)
	g, _ := groupOf(t, CodecDelta, partPages, func(i int, p []byte) { copy(p, pages[i*PageSize:]) })
	untouched := bytes.Repeat([]byte{0xEE}, partPages*PageSize)
	for wanted := 1; wanted <= partPages; wanted++ {
		dst := bytes.Clone(untouched)
		if verified, err := k.s.decodeFor(g, dst, 1<<(wanted-1)); err != nil || verified != 1<<(wanted-1) {
			t.Fatalf("%b, %v", verified, err)
		}
		if !bytes.Equal(dst[wanted*PageSize:], untouched[wanted*PageSize:]) {
			t.Errorf("more than %d pages were decoded", wanted)
		}
	}
	bad := g
	bad.data = bytes.Clone(g.data)
	bad.data[1] |= 3 << (methodBits - 8) // no method of the first page's
	for need := uint32(2); need < 1<<partPages; need++ {
		want := need &^ 1
		if verified, err := k.s.decodeFor(bad, bytes.Clone(untouched), need); verified != want || err != nil && want != 0 {
			t.Errorf("of %b there are %b: %v", need, verified, err)
		}
	}
	if verified, err := k.s.decodeFor(bad, bytes.Clone(untouched), 1); verified != 0 || err == nil {
		t.Errorf("a page that can not be: %b, %v", verified, err)
	}
}

// One page of a group in parts costs its part alone, whether it is kept or not.
func TestPartsStandAlone(t *testing.T) {
	t.Parallel()
	for _, codec := range []Codec{CodecS2Parts, CodecDelta} {
		t.Run(codec.String(), func(t *testing.T) { partsStandAlone(t, codec) })
	}
}

func partsStandAlone(t *testing.T, codec Codec) {
	rng := rand.New(rand.NewPCG(7, 9))
	g, pages := groupOf(t, codec, GroupPages-1, func(_ int, p []byte) {
		for b := 0; b < PageSize; b += 8 {
			binary.LittleEndian.PutUint64(p[b:], rng.Uint64N(1<<20))
		}
	})
	k := newKit(t, nil)
	untouched := bytes.Repeat([]byte{0xEE}, maxRaw)
	for slot := range g.n {
		first := slot / partPages * partPages
		end := min(first+partPages, g.n)
		dst := bytes.Clone(untouched)
		if verified, err := k.s.decodeFor(g, dst, 1<<slot); err != nil || verified != 1<<slot {
			t.Fatalf("slot %d: %b, %v", slot, verified, err)
		}
		if !bytes.Equal(dst[:first*PageSize], untouched[:first*PageSize]) || !bytes.Equal(dst[end*PageSize:], untouched[end*PageSize:]) {
			t.Errorf("slot %d: more than its part was decoded", slot)
		}
		served, err := k.s.keepParts(g, 1<<slot, func(got int, page []byte) {
			if got != slot || !bytes.Equal(page, pages[slot*PageSize:(slot+1)*PageSize]) {
				t.Errorf("slot %d: served slot %d", slot, got)
			}
		})
		if err != nil || served != 1<<slot {
			t.Fatalf("slot %d kept: %b, %v", slot, served, err)
		}
		for i := range g.n {
			if kept := k.s.pages.get(g.domain.Key(g.id(i)), dst[:PageSize]); kept != (i < end) {
				t.Errorf("page %d kept: %t, after slot %d", i, kept, slot)
			}
		}
	}
	// Damage in one part is none of the others'.
	bad := g
	bad.data = bytes.Clone(g.data)
	bad.data[len(bad.data)-9] ^= 1
	if verified, err := k.s.decodeFor(bad, bytes.Clone(untouched), 1<<5); err != nil || verified != 1<<5 {
		t.Errorf("beside a damaged part: %b, %v", verified, err)
	}
	if verified, err := k.s.decodeFor(bad, bytes.Clone(untouched), 1<<(g.n-1)); err == nil && verified != 0 {
		t.Error("damage was not seen")
	}
}
