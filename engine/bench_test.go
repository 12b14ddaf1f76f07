package engine_test

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"

	"github.com/snapstore/snapstore/chunk"
	"github.com/snapstore/snapstore/engine"
)

func canisterID(t testing.TB, n byte) engine.CanisterID {
	t.Helper()
	id, err := engine.CanisterIDFromBytes([]byte{0, 0, 0, 0, 0, 0, 0, n, 1, 1})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// benchStore opens a new store on the real file system.
func benchStore(b *testing.B, o *engine.Options) (*engine.Engine, string) {
	b.Helper()
	dir := filepath.Join(b.TempDir(), "store")
	if err := engine.Create(dir, o); err != nil {
		b.Fatal(err)
	}
	e, err := engine.Open(dir, o)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { e.Close() })
	return e, dir
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// compressed is what the pages take, each group on its own, with nothing around.
func compressed(b *testing.B, pages []byte) int {
	b.Helper()
	n := 0
	for off := 0; off < len(pages); off += chunk.GroupPages * chunk.PageSize {
		g := pages[off:min(off+chunk.GroupPages*chunk.PageSize, len(pages))]
		ids := make([]chunk.ID, len(g)/chunk.PageSize)
		if err := chunk.SumPages(ids, g); err != nil {
			b.Fatal(err)
		}
		enc, _, err := chunk.AppendGroup(nil, chunk.CodecDelta, ids, g)
		if err != nil {
			b.Fatal(err)
		}
		n += len(enc) - 32*len(ids)
	}
	return n
}

// BenchmarkTakeFull takes a whole memory of 1 GiB for the first time. Its limits,
// measured beside it, are the same hashing and compressing without any storage,
// with and without the proof that what was compressed can be had back.
func BenchmarkTakeFull(b *testing.B) {
	size := benchSize(b)
	img := make([]byte, size)
	(&mix{seed: 1}).image(img)
	var takes, proved, bare []time.Duration
	for b.Loop() {
		e, dir := benchStore(b, nil)
		c := must(e.CreateCanister(context.Background(), canisterID(b, 1)))
		mem := must(c.Memory(engine.WasmMemory))
		if err := mem.Resize(uint64(size)); err != nil {
			b.Fatal(err)
		}
		must(mem.WriteAt(img, 0))
		proved = append(proved, pipelineLimit(img, true))
		bare = append(bare, pipelineLimit(img, false))
		runtime.GC()
		cpu := cpuTime()
		r := must(c.Take(context.Background(), engine.TakeOptions{}))
		takes = append(takes, r.Duration)
		b.ReportMetric((cpuTime() - cpu).Seconds(), "CPU-s")
		s := e.Stats()
		b.ReportMetric(float64(s.BytesWritten)/float64(r.Pages.StoredBytes), "log/compressed")
		quiet(b, e)
		if err := e.FlushIndex(); err != nil {
			b.Fatal(err)
		}
		m := e.IndexMetrics()
		b.ReportMetric(float64(s.BytesWritten+m.Flushed+m.Compacted)/float64(r.Pages.StoredBytes), "written/compressed")
		e.Close()
		os.RemoveAll(dir)
	}
	b.ReportMetric(float64(size)/1e6/median(takes).Seconds(), "MB/s")
	b.ReportMetric(median(proved).Seconds()/median(takes).Seconds(), "of-limit")
	b.ReportMetric(median(bare).Seconds()/median(takes).Seconds(), "of-limit-unproved")
	b.ReportMetric(median(proved).Seconds(), "s-limit")
}

// BenchmarkTakeFullMemory is what a full take of 1 GiB needs besides the image,
// caches included: the most that is alive on the heap at any moment of it.
func BenchmarkTakeFullMemory(b *testing.B) {
	const size = 1 << 30
	for b.Loop() {
		e, dir := benchStore(b, nil)
		c := must(e.CreateCanister(context.Background(), canisterID(b, 1)))
		mem := must(c.Memory(engine.WasmMemory))
		if err := mem.Resize(size); err != nil {
			b.Fatal(err)
		}
		img := make([]byte, size)
		(&mix{seed: 1}).image(img)
		must(mem.WriteAt(img, 0))
		for range 2 {
			runtime.GC() // a pool lets go at the second
		}
		var before, peak runtime.MemStats
		runtime.ReadMemStats(&before)
		stop := watchHeap(&peak)
		must(c.Take(context.Background(), engine.TakeOptions{}))
		stop()
		b.ReportMetric(float64(int64(peak.HeapAlloc)-int64(before.HeapAlloc))/(1<<20), "MiB-beyond-image")
		e.Close()
		os.RemoveAll(dir)
	}
}

// watchHeap samples what of the heap is alive until stopped.
func watchHeap(peak *runtime.MemStats) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			var m runtime.MemStats
			runtime.GC() // what is garbage is not needed
			runtime.ReadMemStats(&m)
			if m.HeapAlloc > peak.HeapAlloc {
				*peak = m
			}
			select {
			case <-done:
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	}()
	return func() { close(done); <-ended }
}

// pipelineLimit hashes and compresses an image on all cores and stores nothing.
// prove says whether what was compressed is decompressed again and compared.
func pipelineLimit(img []byte, prove bool) time.Duration {
	const group = chunk.GroupPages * chunk.PageSize
	n := runtime.GOMAXPROCS(0)
	coders := make([]chunk.Coder, n)
	outs := make([][]byte, n)
	for i := range outs {
		outs[i] = make([]byte, 2*group)
	}
	began := time.Now()
	var wg sync.WaitGroup
	for w := range n {
		wg.Go(func() {
			ids := make([]chunk.ID, chunk.GroupPages)
			seen := map[chunk.ID]struct{}{}
			kept := make([]byte, 0, group)
			var keptIDs []chunk.ID
			for off := w * group; off < len(img); off += n * group {
				_ = chunk.SumPages(ids, img[off:off+group])
				for i, id := range ids {
					if _, ok := seen[id]; ok || id.IsZero() {
						continue
					}
					seen[id] = struct{}{}
					kept, keptIDs = append(kept, img[off+i*chunk.PageSize:off+(i+1)*chunk.PageSize]...), append(keptIDs, id)
					if len(keptIDs) < chunk.GroupPages {
						continue
					}
					if prove {
						_, _, _ = coders[w].AppendGroup(outs[w][:0], chunk.CodecDelta, keptIDs, kept)
					} else {
						s2.Encode(outs[w], kept)
					}
					kept, keptIDs = kept[:0], keptIDs[:0]
				}
			}
		})
	}
	wg.Wait()
	return time.Since(began)
}

// BenchmarkTakeOnePercent takes 1 GiB of which 1 % changed, with 10 and with 100
// snapshots kept. The cost must follow what changed: bytes written against the
// new pages compressed, and count changes against what was born or died.
func BenchmarkTakeOnePercent(b *testing.B) {
	for _, keep := range []int{10, 100} {
		b.Run(fmt.Sprintf("keep%d", keep), func(b *testing.B) {
			const size = 1 << 30
			e, _ := benchStore(b, &engine.Options{SnapshotLimit: keep})
			c := must(e.CreateCanister(context.Background(), canisterID(b, 1)))
			mem := must(c.Memory(engine.WasmMemory))
			m := &mix{seed: 2}
			img := make([]byte, size)
			m.image(img)
			_ = mem.Resize(size)
			must(mem.WriteAt(img, 0))
			ids := []engine.SnapshotID{must(c.Take(context.Background(), engine.TakeOptions{})).ID}
			step := func() (stored uint64, comp int, took time.Duration) {
				var pages []byte
				m.touch(size/engine.PageSize, func(page int, p []byte) {
					pages = append(pages, p...)
					must(mem.WriteAt(p, int64(page)*engine.PageSize))
				})
				o := engine.TakeOptions{}
				if len(ids) == keep {
					o.Replace, ids = ids[0], ids[1:]
				}
				r := must(c.Take(context.Background(), o))
				ids = append(ids, r.ID)
				return r.Pages.StoredBytes, compressed(b, pages), r.Duration
			}
			for len(ids) < keep {
				step()
			}
			quiet(b, e)
			before := e.Stats()
			var comp int
			var took time.Duration
			n := 0
			for b.Loop() {
				_, cp, d := step()
				comp, took, n = comp+cp, took+d, n+1
			}
			quiet(b, e)
			after := e.Stats()
			b.ReportMetric(float64(took.Microseconds())/1e3/float64(n), "ms/take")
			b.ReportMetric(float64(after.BytesWritten-before.BytesWritten-uint64(after.GC.BytesWritten-before.GC.BytesWritten))/float64(comp), "written/compressed")
			b.ReportMetric(float64(after.CountChanges-before.CountChanges)/float64(after.Births-before.Births+after.Deaths-before.Deaths), "changes/born-or-died")
		})
	}
}

// quiet waits until nothing is left to drop.
func quiet(b testing.TB, e *engine.Engine) {
	b.Helper()
	for !e.Applied() {
		time.Sleep(200 * time.Microsecond)
	}
}

// BenchmarkTakeTenPages shows that a take costs what changed and not what there
// is: ten pages of 64 MiB, and of a sparse 16 GiB.
func BenchmarkTakeTenPages(b *testing.B) {
	for _, size := range []uint64{64 << 20, 16 << 30} {
		b.Run(fmt.Sprintf("%dMiB", size>>20), func(b *testing.B) {
			e, _ := benchStore(b, &engine.Options{SnapshotLimit: 2})
			c := must(e.CreateCanister(context.Background(), canisterID(b, 1)))
			mem := must(c.Memory(engine.StableMemory))
			if err := mem.Resize(size); err != nil {
				b.Fatal(err)
			}
			m := &mix{seed: 3}
			p := make([]byte, engine.PageSize)
			dirty := func() {
				for range 10 {
					m.fresh(p)
					must(mem.WriteAt(p, int64(m.rand().Uint64N(size/engine.PageSize))*engine.PageSize))
				}
			}
			for range 200 {
				dirty()
			}
			last := must(c.Take(context.Background(), engine.TakeOptions{})).ID
			var takes []time.Duration
			for b.Loop() {
				dirty()
				r := must(c.Take(context.Background(), engine.TakeOptions{Replace: last}))
				last, takes = r.ID, append(takes, r.Duration)
			}
			b.ReportMetric(float64(median(takes).Microseconds()), "µs/take")
		})
	}
}

// BenchmarkDeleteAndGC deletes all but one of eleven snapshots of 256 MiB and
// gives the space back.
func BenchmarkDeleteAndGC(b *testing.B) {
	const size = 256 << 20
	for b.Loop() {
		b.StopTimer()
		e, dir := benchStore(b, &engine.Options{SnapshotLimit: 20, NoBackground: true})
		c := must(e.CreateCanister(context.Background(), canisterID(b, 1)))
		mem := must(c.Memory(engine.WasmMemory))
		m := &mix{seed: 4}
		img := make([]byte, size)
		m.image(img)
		_ = mem.Resize(size)
		must(mem.WriteAt(img, 0))
		var ids []engine.SnapshotID
		for range 11 {
			ids = append(ids, must(c.Take(context.Background(), engine.TakeOptions{})).ID)
			for range 8 {
				m.touch(size/engine.PageSize, func(page int, p []byte) { must(mem.WriteAt(p, int64(page)*engine.PageSize)) })
			}
		}
		must(c.Checkpoint(context.Background()))
		var deletes, syncs []time.Duration
		b.StartTimer()
		for _, id := range ids[:10] {
			syncs = append(syncs, fdatasync(b, dir))
			began := time.Now()
			if err := e.Delete(context.Background(), id); err != nil {
				b.Fatal(err)
			}
			deletes = append(deletes, time.Since(began))
		}
		began := time.Now()
		r := must(e.GC(context.Background(), engine.GCOptions{}))
		took := time.Since(began)
		b.StopTimer()
		s := e.Stats()
		b.ReportMetric(float64(median(deletes).Microseconds()), "µs/delete")
		b.ReportMetric(median(deletes).Seconds()/median(syncs).Seconds(), "delete/fdatasync")
		b.ReportMetric(took.Seconds(), "s/gc")
		if r.BytesReclaimed > 0 {
			b.ReportMetric(float64(r.BytesWritten)/float64(r.BytesReclaimed-r.BytesWritten), "written/net-reclaimed")
		}
		b.ReportMetric(float64(s.LogBytes)/float64(s.LiveBytes), "log/live")
		e.Close()
		os.RemoveAll(dir)
		b.StartTimer()
	}
}

// fdatasync is the median time of appending 4 KiB to a file and syncing it.
func fdatasync(b *testing.B, dir string) time.Duration {
	b.Helper()
	f := must(os.Create(filepath.Join(dir, "probe")))
	defer os.Remove(f.Name())
	defer f.Close()
	var times []time.Duration
	for range 9 {
		began := time.Now()
		must(f.Write(make([]byte, 4096)))
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
		times = append(times, time.Since(began))
	}
	return median(times)
}

func median[T cmp.Ordered](d []T) T {
	d = slices.Sorted(slices.Values(d))
	return d[len(d)/2]
}

// BenchmarkOpen opens a store of 1,000 snapshots: after a clean close, and with
// the index thrown away.
func BenchmarkOpen(b *testing.B) {
	o := &engine.Options{SnapshotLimit: 100}
	e, dir := benchStore(b, o)
	m := &mix{seed: 5}
	for i := range 100 {
		c := must(e.CreateCanister(context.Background(), canisterID(b, byte(i))))
		mem := must(c.Memory(engine.WasmMemory))
		_ = mem.Resize(4 << 20)
		for range 10 {
			m.touch(1024, func(page int, p []byte) { must(mem.WriteAt(p, int64(page)*engine.PageSize)) })
			must(c.Take(context.Background(), engine.TakeOptions{}))
		}
	}
	if err := e.Close(); err != nil {
		b.Fatal(err)
	}
	for _, rebuild := range []bool{false, true} {
		b.Run(fmt.Sprintf("rebuild=%t", rebuild), func(b *testing.B) {
			var total time.Duration
			n := 0
			for b.Loop() {
				began := time.Now()
				e, err := engine.Open(dir, &engine.Options{SnapshotLimit: 100, RebuildIndex: rebuild})
				if err != nil {
					b.Fatal(err)
				}
				total, n = total+time.Since(began), n+1
				b.StopTimer()
				if s := e.Stats(); s.Snapshots != 1000 {
					b.Fatalf("%d snapshots", s.Snapshots)
				}
				e.Close()
				b.StartTimer()
			}
			b.ReportMetric(float64(total.Milliseconds())/float64(n), "ms/open")
		})
	}
}
