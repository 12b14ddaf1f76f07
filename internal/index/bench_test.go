package index

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// diskOptions is for an index on a real disk.
func diskOptions(tb testing.TB) Options {
	return Options{FS: vfs.Default, Dir: tb.TempDir() + "/index", StoreID: [16]byte{9}}
}

func sortIDs(ids []ID) {
	slices.SortFunc(ids, func(a, b ID) int { return bytes.Compare(a[:], b[:]) })
}

// filled makes an index of n IDs by a rebuild.
func filled(tb testing.TB, o Options, n int) *Index {
	tb.Helper()
	b, err := NewRebuilder(o, RebuildOptions{})
	if err != nil {
		tb.Fatal(err)
	}
	defer b.Abort()
	ids := testIDs(1, n)
	for i, id := range ids {
		if err := b.AddLocation(id, page(uint64(i/8000)+1, uint32(i%8000/16)*40000, uint8(i%16)), false); err != nil {
			tb.Fatal(err)
		}
	}
	if err := b.FinishLocations(); err != nil {
		tb.Fatal(err)
	}
	for _, id := range ids {
		if err := b.AddCount(id, 1); err != nil {
			tb.Fatal(err)
		}
	}
	x, err := b.Finish(1, [32]byte{1})
	if err != nil {
		tb.Fatal(err)
	}
	x.builder.Wait()
	return x
}

func BenchmarkOpenClose(b *testing.B) {
	for _, n := range []int{10_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			o := diskOptions(b)
			mustClose(b, filled(b, o, n))
			var open, commit, shut time.Duration
			for i := 0; b.Loop(); i++ {
				t0 := time.Now()
				x := mustOpen(b, o)
				t1 := time.Now()
				batch := x.NewBatch()
				for _, id := range testIDs(uint64(i+2), 100) {
					batch.SetEntry(id, Entry{Location: page(1, 0, 0), Count: 1})
				}
				batch.SetWatermark(uint64(i+2), [32]byte{})
				if err := batch.Commit(); err != nil {
					b.Fatal(err)
				}
				t2 := time.Now()
				mustClose(b, x)
				open, commit, shut = open+t1.Sub(t0), commit+t2.Sub(t1), shut+time.Since(t2)
			}
			b.ReportMetric(float64(open.Microseconds())/float64(b.N), "us-open")
			b.ReportMetric(float64(commit.Microseconds())/float64(b.N), "us-commit")
			b.ReportMetric(float64(shut.Microseconds())/float64(b.N), "us-close")
		})
	}
}

func BenchmarkGet(b *testing.B) {
	for _, n := range []int{1_000_000} {
		o := diskOptions(b)
		x := filled(b, o, n)
		hit, miss := testIDs(1, n), testIDs(2, 1<<16)
		rng := rand.New(rand.NewPCG(1, 1))
		b.Run(fmt.Sprintf("%d/hit", n), func(b *testing.B) {
			for b.Loop() {
				if _, ok, err := x.Get(hit[rng.IntN(n)]); !ok || err != nil {
					b.Fatal(ok, err)
				}
			}
		})
		b.Run(fmt.Sprintf("%d/miss", n), func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				if _, _, err := x.Get(miss[i&(1<<16-1)]); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("%d/missUnfiltered", n), func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				if _, _, err := x.GetUnfiltered(miss[i&(1<<16-1)]); err != nil {
					b.Fatal(err)
				}
			}
		})
		mustClose(b, x)
	}
}

// BenchmarkApply applies what a take of 5,000 new IDs changes.
func BenchmarkApply(b *testing.B) {
	const changes = 5000
	for _, n := range []int{1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			x := filled(b, diskOptions(b), n)
			var read, write time.Duration
			for i := 0; b.Loop(); i++ {
				b.StopTimer()
				ids := testIDs(uint64(i+10), changes)
				sortIDs(ids)
				b.StartTimer()
				t0 := time.Now()
				err := x.GetSorted(ids, func(int, Entry, bool) error { return nil })
				if err != nil {
					b.Fatal(err)
				}
				t1 := time.Now()
				batch := x.NewBatch()
				for k, id := range ids {
					batch.SetEntry(id, Entry{Location: page(uint64(i+1), uint32(k)*64, 0), Count: 1})
				}
				batch.AddLive(uint64(i+1), 1000)
				batch.SetWatermark(uint64(i+2), [32]byte{})
				if err := batch.Commit(); err != nil {
					b.Fatal(err)
				}
				read, write = read+t1.Sub(t0), write+time.Since(t1)
			}
			b.ReportMetric(float64(read.Microseconds())/float64(b.N), "us-read")
			b.ReportMetric(float64(write.Microseconds())/float64(b.N), "us-write")
			m := x.Metrics()
			b.ReportMetric(float64(m.Flushed+m.Compacted)/float64(b.N), "table-B/op")
			mustClose(b, x)
		})
	}
}

func BenchmarkRebuild(b *testing.B) {
	const n = 1_000_000
	for b.Loop() {
		dir, err := os.MkdirTemp("", "rebuild")
		if err != nil {
			b.Fatal(err)
		}
		mustClose(b, filled(b, Options{FS: vfs.Default, Dir: dir + "/index", StoreID: [16]byte{9}}, n))
		if err := os.RemoveAll(dir); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds()/1e6, "M-IDs/s")
}
