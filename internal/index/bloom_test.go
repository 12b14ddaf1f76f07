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
