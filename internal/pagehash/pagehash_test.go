package pagehash_test

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zeebo/blake3"

	"github.com/snapstore/snapstore/internal/pagehash"
)

const pageSize = pagehash.PageSize

type hash = [pagehash.Size]byte

// seeded returns a source of randomness and prints its seed.
func seeded(t testing.TB) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

func fill(rng *rand.Rand, b []byte) {
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
}

// check hashes pages with each kind and compares with the library, one page
// at a time.
func check(t *testing.T, pages []byte) {
	t.Helper()
	n := len(pages) / pageSize
	before := bytes.Clone(pages)
	want, wantNonZero := make([]hash, n), make([]hash, n)
	for i := range want {
		page := pages[i*pageSize:][:pageSize]
		want[i] = blake3.Sum256(page)
		if !bytes.Equal(page, make([]byte, pageSize)) {
			wantNonZero[i] = want[i]
		}
	}
	for _, h := range present(t) {
		// What is there already must not show through, nor may what lies
		// behind be touched.
		got := make([]hash, n+1)
		for i := range got {
			got[i] = hash(bytes.Repeat([]byte{0xEE}, pagehash.Size))
		}
		behind := got[n]
		for name, c := range map[string]struct {
			sum  func(pagehash.Hasher, []hash, []byte) error
			want []hash
		}{
			"Sum":        {pagehash.Sum[hash], want},
			"SumNonZero": {pagehash.SumNonZero[hash], wantNonZero},
			"SumEach": {func(h pagehash.Hasher, dst []hash, pages []byte) error {
				each := make([]*[pageSize]byte, len(dst))
				for i := range each {
					// Anywhere, and not in order.
					each[len(each)-1-i] = (*[pageSize]byte)(bytes.Clone(pages[(len(each)-1-i)*pageSize:][:pageSize]))
				}
				return pagehash.SumEach(h, dst, each)
			}, wantNonZero},
		} {
			if err := c.sum(h, got[:n], pages); err != nil {
				t.Fatalf("%s, %s of %d pages: %v", h.Kind(), name, n, err)
			}
			for i := range c.want {
				if got[i] != c.want[i] {
					t.Errorf("%s, %s: page %d of %d: got %x, want %x", h.Kind(), name, i, n, got[i], c.want[i])
				}
			}
			if got[n] != behind {
				t.Errorf("%s, %s of %d pages wrote behind its result", h.Kind(), name, n)
			}
		}
		if !bytes.Equal(pages, before) {
			t.Fatalf("%s changed the pages", h.Kind())
		}
	}
}

// TestNumbers hashes 0 to 40 pages: every way to fill the lanes, several times
// over.
func TestNumbers(t *testing.T) {
	t.Parallel()
	pages := make([]byte, 40*pageSize)
	fill(seeded(t), pages)
	for n := range 41 {
		check(t, pages[:n*pageSize])
	}
}

// TestZeroPages puts pages of zeros between others in many ways.
func TestZeroPages(t *testing.T) {
	t.Parallel()
	rng := seeded(t)
	for _, share := range []int{0, 1, 5, 9, 10} {
		for range 5 {
			pages := make([]byte, 40*pageSize)
			for i := range 40 {
				if rng.IntN(10) >= share {
					fill(rng, pages[i*pageSize:][:pageSize])
				}
			}
			check(t, pages[:rng.IntN(41)*pageSize])
		}
	}
}

// TestNearlyZero sets one bit of a page of zeros, everywhere in a page where
// words, blocks, chunks and the page begin and end, and in each lane.
func TestNearlyZero(t *testing.T) {
	t.Parallel()
	pages := make([]byte, 17*pageSize)
	at := 0
	for chunk := range 4 {
		for _, in := range []int{0, 1, 31, 32, 63, 64, 511, 960, 1022, 1023} {
			for _, bit := range []byte{0x01, 0x80} {
				clear(pages)
				// A different place in each page, so that swapped lanes show.
				for p := range 17 {
					pages[p*pageSize+(chunk*1024+in+p*64)%pageSize] = bit
				}
				check(t, pages)
				at++
			}
		}
	}
	clear(pages)
	check(t, pages)
	for i := range pages {
		pages[i] = 0xFF
	}
	check(t, pages)
}

// TestUnaligned hashes pages that begin at any byte.
func TestUnaligned(t *testing.T) {
	t.Parallel()
	buf := make([]byte, 17*pageSize+64)
	fill(seeded(t), buf)
	for off := range 64 {
		check(t, buf[off:][:17*pageSize])
	}
}

// TestNamedType sets hashes of a type of the caller's.
func TestNamedType(t *testing.T) {
	t.Parallel()
	type id [32]byte
	pages := make([]byte, 3*pageSize)
	fill(seeded(t), pages)
	ids := make([]id, 3)
	if err := pagehash.Sum(pagehash.Best(), ids, pages); err != nil {
		t.Fatal(err)
	}
	for i := range ids {
		if want := blake3.Sum256(pages[i*pageSize:][:pageSize]); hash(ids[i]) != want {
			t.Errorf("page %d: got %x, want %x", i, ids[i], want)
		}
	}
}

func TestLengths(t *testing.T) {
	t.Parallel()
	for _, h := range present(t) {
		for _, c := range []struct{ hashes, bytes int }{
			{0, 1}, {0, pageSize}, {1, 0}, {1, pageSize - 1}, {1, pageSize + 1}, {1, 2 * pageSize}, {20, 19 * pageSize},
		} {
			got := make([]hash, c.hashes)
			err := pagehash.Sum(h, got, bytes.Repeat([]byte{1}, c.bytes))
			if err == nil {
				t.Errorf("%s: %d hashes of %d bytes: no error", h.Kind(), c.hashes, c.bytes)
			}
			for i := range got {
				if got[i] != (hash{}) {
					t.Errorf("%s: %d hashes of %d bytes: hash %d was set", h.Kind(), c.hashes, c.bytes, i)
				}
			}
		}
		if err := pagehash.Sum[hash](h, nil, nil); err != nil {
			t.Errorf("%s: no pages: %v", h.Kind(), err)
		}
	}
}

// TestConcurrent shares one Hasher; stacks that have to grow inside it and a
// collector that looks for pointers must not matter.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	pages := make([]byte, 16*pageSize)
	fill(seeded(t), pages)
	want := make([]hash, 16)
	if err := pagehash.Sum(pagehash.Hasher{}, want, pages); err != nil {
		t.Fatal(err)
	}
	for _, h := range present(t) {
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				got := make([]hash, 16)
				if err := pagehash.Sum(h, got, bytes.Clone(pages)); err != nil {
					t.Error(err)
				}
				for i := range got {
					if got[i] != want[i] {
						t.Errorf("%s: page %d: got %x, want %x", h.Kind(), i, got[i], want[i])
					}
				}
			})
		}
		wg.Wait()
	}
}

func TestKinds(t *testing.T) {
	t.Parallel()
	if k := (pagehash.Hasher{}).Kind(); k != pagehash.Portable {
		t.Errorf("the zero Hasher is %s", k)
	}
	best := pagehash.Portable
	for _, k := range pagehash.Kinds() {
		if got, err := pagehash.ParseKind(k.String()); err != nil || got != k {
			t.Errorf("%s parses as %s, %v", k, got, err)
		}
		h, err := pagehash.New(k)
		switch {
		case err == nil && h.Kind() == k:
			best = k
			t.Logf("%s: tested", k)
		case err != nil && strings.Contains(err.Error(), k.String()):
			t.Logf("%s: not tested: %v", k, err)
		default:
			t.Errorf("New(%s): %s, %v", k, h.Kind(), err)
		}
	}
	if k := pagehash.Best().Kind(); k != best {
		t.Errorf("best is %s, want %s", k, best)
	}
	for _, s := range []string{"", "AVX2", "kind(3)", "avx"} {
		if k, err := pagehash.ParseKind(s); err == nil {
			t.Errorf("%q parses as %s", s, k)
		}
	}
	if _, err := pagehash.New(9); err == nil {
		t.Error("New(9): no error")
	}
}

// FuzzSum spreads what the fuzzer finds over pages, beginning anywhere, and
// compares all kinds with the library.
func FuzzSum(f *testing.F) {
	f.Add(uint8(1), uint16(0), uint8(0), []byte{})
	f.Add(uint8(17), uint16(4095), uint8(3), []byte("page"))
	f.Add(uint8(40), uint16(1023), uint8(63), bytes.Repeat([]byte{0xFF, 0, 0x80}, 700))
	f.Fuzz(func(t *testing.T, n uint8, step uint16, off uint8, seed []byte) {
		size := int(n%41) * pageSize
		buf := make([]byte, int(off%64)+size)
		pages := buf[int(off%64):]
		for at := 0; at < size && len(seed) > 0; at += len(seed) + int(step) {
			copy(pages[at:], seed)
		}
		check(t, pages)
	})
}
