package index

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// testID returns the n-th ID of a seed.
func testIDs(seed uint64, n int) []ID {
	rng := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24), 'i', 'd'})
	ids := make([]ID, n)
	for i := range ids {
		rng.Read(ids[i][:])
	}
	return ids
}

func TestBloomHasAllAndFewMore(t *testing.T) {
	const n = 200_000
	for _, seed := range []uint64{0, 1, 0xdeadbeefcafef00d} {
		b := newLayer(n)
		in := testIDs(1, n)
		for i := range in {
			b.add(&in[i], seed)
		}
		for i := range in {
			if !b.has(&in[i], seed) {
				t.Fatalf("seed %x: ID %d was added and is not there", seed, i)
			}
		}
		const asked = 2_000_000
		wrong := 0
		for _, id := range testIDs(2, asked) {
			if b.has(&id, seed) {
				wrong++
			}
		}
		t.Logf("seed %x: %d of %d wrong", seed, wrong, asked)
		if wrong > asked/10_000 {
			t.Errorf("seed %x: %d of %d absent IDs reported, want at most 0.01 %%", seed, wrong, asked)
		}
		if got := b.added.Load(); got < n*9999/10000 {
			t.Errorf("counted %d of %d", got, n)
		}
	}
}

func BenchmarkBloomMiss(b *testing.B) {
	for _, n := range []int{100_000, 10_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			f := newLayer(uint64(n))
			ids := testIDs(1, 1<<16)
			for i := range ids {
				f.add(&ids[i], 7)
			}
			ask := testIDs(2, 1<<16)
			for i := 0; b.Loop(); i++ {
				f.has(&ask[i&(1<<16-1)], 7)
			}
		})
	}
}

// Each is what one by one says; with ten million IDs the filter is in no cache.
func TestMayContainEach(t *testing.T) {
	f := newFilter(1, 7, 0)
	ids := testIDs(1, 3*minLayer)
	for i := range ids[:2*minLayer] {
		f.add(&ids[i])
	}
	for _, n := range []int{0, 1, 15, 16, 17, len(ids)} {
		some := ids[len(ids)-n:]
		may := make([]bool, n)
		f.mayContainEach(some, may)
		for i := range some {
			if may[i] != f.mayContain(&some[i]) {
				t.Fatalf("%d of %d is %t", i, n, may[i])
			}
		}
	}
}

func BenchmarkFilterMiss(b *testing.B) {
	f := newFilter(1, 7, 15_000_000)
	ids, may := testIDs(1, 1<<20), make([]bool, 16)
	for i := range ids {
		f.add(&ids[i])
	}
	ids = testIDs(2, 1<<20)
	b.Run("one", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			f.mayContain(&ids[i%len(ids)])
		}
	})
	b.Run("each", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			f.mayContainEach(ids[i*16%len(ids):][:16], may)
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/16, "ns/id")
	})
}
