package index

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

type pair struct{ key, value string }

func drain(m *merged) (out []pair, err error) {
	for {
		k, v, err := m.next()
		if err == io.EOF {
			return out, m.close()
		}
		if err != nil {
			return nil, errors.Join(err, m.close())
		}
		out = append(out, pair{string(k), string(v)})
	}
}

func randomPairs(rng *rand.Rand, n int) []pair {
	pairs := make([]pair, n)
	for i := range pairs {
		// Short keys, long keys with a common start, and repeated ones.
		k := make([]byte, rng.IntN(12))
		for j := range k {
			k[j] = byte(rng.IntN(3))
		}
		if rng.IntN(2) == 0 {
			k = append([]byte("a common start"), k...)
		}
		pairs[i] = pair{string(k), fmt.Sprint(i)}
		if rng.IntN(500) == 0 {
			pairs[i].value = string(make([]byte, 100_000))
		}
	}
	return pairs
}

func TestSorterSortsAndKeepsTheOrderOfEqualKeys(t *testing.T) {
	seeds(t, rounds(20), func(t *testing.T, seed uint64) {
		rng := rand.New(rand.NewPCG(seed, 5))
		pairs := randomPairs(rng, rng.IntN(20_000))
		fs := vfs.NewMem()
		s := newSorter(fs, "spill", "test", 0)
		s.memory = []int{1 << 10, 64 << 10, 1 << 30}[seed%3]
		s.fanIn = 2 + rng.IntN(20)
		for _, p := range pairs {
			if err := s.add([]byte(p.key), []byte(p.value)); err != nil {
				t.Fatal(err)
			}
		}
		m, err := s.merge()
		if err != nil {
			t.Fatal(err)
		}
		got, err := drain(m)
		if err != nil {
			t.Fatal(err)
		}
		slices.SortStableFunc(pairs, func(a, b pair) int { return bytes.Compare([]byte(a.key), []byte(b.key)) })
		if !slices.Equal(got, pairs) {
			t.Fatalf("seed %d: %d pairs, %d runs: order differs", seed, len(pairs), s.made)
		}
		if err := s.discard(); err != nil {
			t.Fatal(err)
		}
		if s.made > 0 {
			if names, err := fs.List("spill"); err != nil || len(names) != 0 {
				t.Fatal(names, err)
			}
		}
	})
}

func TestSorterCombines(t *testing.T) {
	seeds(t, rounds(20), func(t *testing.T, seed uint64) {
		rng := rand.New(rand.NewPCG(seed, 6))
		s := newCountSorter(vfs.NewMem(), RebuildOptions{TmpDir: "spill"}, 0)
		s.memory = []int{1 << 10, 16 << 10, 1 << 30}[seed%3]
		s.fanIn = 3
		ids := testIDs(seed, 300)
		sums := map[string]int64{}
		for range 10_000 {
			id, n := ids[rng.IntN(len(ids))], rng.Int64N(100)-50
			sums[string(id[:])] += n
			if err := s.add(id[:], appendCount(nil, n)); err != nil {
				t.Fatal(err)
			}
		}
		m, err := s.merge()
		if err != nil {
			t.Fatal(err)
		}
		got, err := drain(m)
		if err != nil || len(got) != len(sums) {
			t.Fatal(len(got), len(sums), err)
		}
		for i, p := range got {
			if decodeCount([]byte(p.value)) != sums[p.key] || i > 0 && p.key <= got[i-1].key {
				t.Fatalf("seed %d: %x is %d, want %d", seed, p.key, decodeCount([]byte(p.value)), sums[p.key])
			}
		}
	})
}

func TestDamagedRunIsAnError(t *testing.T) {
	fs := vfs.NewMem()
	s := newSorter(fs, "spill", "test", 0)
	s.memory = 1 << 10
	for i := range 100 {
		if err := s.add(fmt.Appendf(nil, "key%d", i), make([]byte, 50)); err != nil {
			t.Fatal(err)
		}
	}
	rng := rand.New(rand.NewPCG(7, 7))
	for range 200 {
		data, err := fs.UnsafeGetFileDataBuffer(s.runs[rng.IntN(len(s.runs))])
		if err != nil {
			t.Fatal(err)
		}
		bit := rng.IntN(len(data) * 8)
		data[bit/8] ^= 1 << (bit % 8)
		m, err := s.open(s.runs)
		if err == nil {
			_, err = drain(m)
		}
		if !errors.Is(err, errRun) {
			t.Fatalf("bit %d: %v", bit, err)
		}
		data[bit/8] ^= 1 << (bit % 8)
	}
}
