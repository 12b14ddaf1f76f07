package pagehash_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/zeebo/blake3"

	"github.com/snapstore/snapstore/internal/pagehash"
)

// BenchmarkSum hashes pages, so many at a time, with each kind in turn and one
// after the other as a library does it. It reports medians, and their ratios
// to the library's: on a machine that does other things too, ratios are what
// can be compared. Turns are short, so that few are interrupted. Pages are in
// the cache, as those are that were just copied, or "far" from it.
func BenchmarkSum(b *testing.B) {
	for _, n := range []int{1, 2, 3, 4, 6, 8, 12, 16} {
		b.Run(fmt.Sprintf("pages%d", n), func(b *testing.B) { benchmarkSum(b, n, true) })
	}
	b.Run("far16", func(b *testing.B) { benchmarkSum(b, 16, false) })
}

func benchmarkSum(b *testing.B, n int, near bool) {
	const turn, turns = 48, 64
	const size = turn * pagehash.PageSize
	pages := make([]byte, turns*size)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range pages {
		pages[i] = byte(rng.Uint32())
	}
	dst, warm := make([][pagehash.Size]byte, turn), make([]byte, size)
	hashers := present(b)
	took := make([][]time.Duration, len(hashers)+1)
	for b.Loop() {
		for t := range turns {
			copy(warm, pages[t*size:])
			part := func(k int) []byte {
				if near {
					return warm
				}
				return pages[(t+(k+1)*turns/4)%turns*size:][:size]
			}
			for k, h := range hashers {
				in := part(k)
				began := time.Now()
				for i := 0; i < turn; i += n {
					if err := pagehash.Sum(h, dst[i:i+n], in[i*pagehash.PageSize:][:n*pagehash.PageSize]); err != nil {
						b.Fatal(err)
					}
				}
				took[k] = append(took[k], time.Since(began))
			}
			in := part(len(hashers))
			began := time.Now()
			for i := range dst {
				dst[i] = blake3.Sum256(in[i*pagehash.PageSize:][:pagehash.PageSize])
			}
			took[len(hashers)] = append(took[len(hashers)], time.Since(began))
		}
	}
	library := median(took[len(hashers)])
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(size/1e6/library.Seconds(), "library-MB/s")
	for k, h := range hashers {
		m := median(took[k])
		b.ReportMetric(size/1e6/m.Seconds(), h.Kind().String()+"-MB/s")
		b.ReportMetric(library.Seconds()/m.Seconds(), h.Kind().String()+"/library")
	}
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

// present are the Hashers of all kinds that this machine has.
func present(t testing.TB) []pagehash.Hasher {
	t.Helper()
	var all []pagehash.Hasher
	for _, k := range pagehash.Kinds() {
		if h, err := pagehash.New(k); err == nil {
			all = append(all, h)
		}
	}
	return all
}
