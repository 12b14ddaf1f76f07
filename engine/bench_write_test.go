package engine_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"

	"github.com/snapstore/snapstore/chunk"
	"github.com/snapstore/snapstore/engine"
)

// The benchmarks of this file print ratios to a limit that is measured beside
// the work, turn by turn, so that they mean something on a busy machine.

// benchSize is how much memory is taken: 1 GiB, or as many MiB as
// SNAPSTORE_BENCH_MIB says, for a quick look.
func benchSize(b *testing.B) int {
	b.Helper()
	v := os.Getenv("SNAPSTORE_BENCH_MIB")
	if v == "" {
		return 1 << 30
	}
	n := must(strconv.Atoi(v))
	return n << 20
}

// benchCanister is a canister whose memory is a mix, with its image beside it.
type benchCanister struct {
	b     *testing.B
	e     *engine.Engine
	c     *engine.Canister
	mem   *engine.Memory
	m     *mix
	size  int
	keep  int
	ids   []engine.SnapshotID
	pages []byte // of the last step
}

func newBenchCanister(b *testing.B, e *engine.Engine, n byte, size, keep int) *benchCanister {
	b.Helper()
	k := &benchCanister{b: b, e: e, m: &mix{seed: uint64(n) + 100}, size: size, keep: keep}
	k.c = must(e.CreateCanister(context.Background(), canisterID(b, n)))
	k.mem = must(k.c.Memory(engine.WasmMemory))
	if err := k.mem.Resize(uint64(size)); err != nil {
		b.Fatal(err)
	}
	img := make([]byte, size)
	k.m.image(img)
	must(k.mem.WriteAt(img, 0))
	k.take()
	return k
}

// touch rewrites a page in a hundred.
func (k *benchCanister) touch() {
	k.pages = k.pages[:0]
	k.m.touch(k.size/engine.PageSize, func(page int, p []byte) {
		k.pages = append(k.pages, p...)
		must(k.mem.WriteAt(p, int64(page)*engine.PageSize))
	})
}

// take takes a snapshot and lets the oldest go when there are enough.
func (k *benchCanister) take() engine.TakeResult {
	var o engine.TakeOptions
	if len(k.ids) == k.keep {
		o.Replace, k.ids = k.ids[0], k.ids[1:]
	}
	r := must(k.c.Take(context.Background(), o))
	k.ids = append(k.ids, r.ID)
	return r
}

// pack hashes and compresses pages on all cores, a group at a time, into
// buffers that are there already, and returns how much they hold. It is what a
// store can not do without.
type packer struct {
	outs [][]byte
	ids  []chunk.ID
}

func (p *packer) pack(pages []byte) (n int64) {
	const group = chunk.GroupPages * chunk.PageSize
	groups := (len(pages) + group - 1) / group
	for len(p.outs) < groups {
		p.outs = append(p.outs, make([]byte, 0, s2.MaxEncodedLen(group)))
		p.ids = append(p.ids, make([]chunk.ID, chunk.GroupPages)...)
	}
	var next, total atomic.Int64
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for g := int(next.Add(1)) - 1; g < groups; g = int(next.Add(1)) - 1 {
				raw := pages[g*group : min((g+1)*group, len(pages))]
				_ = chunk.SumPages(p.ids[g*chunk.GroupPages:][:len(raw)/chunk.PageSize], raw)
				p.outs[g] = s2.Encode(p.outs[g][:cap(p.outs[g])], raw)
				total.Add(int64(min(len(p.outs[g]), len(raw))))
			}
		})
	}
	wg.Wait()
	return total.Load()
}

// scratch is a file whose blocks are written, to be written again.
type scratch struct {
	f   *os.File
	buf []byte
}

func newScratch(b *testing.B, dir string, size int) *scratch {
	b.Helper()
	s := &scratch{f: must(os.Create(filepath.Join(dir, "scratch"))), buf: make([]byte, size)}
	b.Cleanup(func() { s.f.Close(); os.Remove(s.f.Name()) })
	r := rand.New(rand.NewPCG(1, 2))
	for i := 0; i+8 <= size; i += 8 {
		binary.LittleEndian.PutUint64(s.buf[i:], r.Uint64())
	}
	s.sync(b, size)
	return s
}

// sync overwrites n bytes and waits for the disk.
func (s *scratch) sync(b *testing.B, n int) {
	must(s.f.WriteAt(s.buf[:n], 0))
	if err := dataSync(s.f); err != nil {
		b.Fatal(err)
	}
}

func quantile(d []time.Duration, q float64) time.Duration {
	d = slices.Sorted(slices.Values(d))
	return d[min(int(q*float64(len(d))), len(d)-1)]
}

// BenchmarkIncremental takes 1 GiB of which 1 % changed, forty times for each
// round, ten snapshots kept. The limit is the same pages hashed and compressed,
// then written over blocks that are there and synced. What follows a take in the
// background is counting, dropping and destroying; cleaning has its own benchmark.
func BenchmarkIncremental(b *testing.B) {
	e, dir := benchStore(b, &engine.Options{SnapshotLimit: 10, CleanBelow: 0.01})
	k := newBenchCanister(b, e, 1, benchSize(b), 10)
	sc := newScratch(b, dir, 16<<20)
	var p packer
	for range 12 {
		k.touch()
		k.take()
		p.pack(k.pages)
	}
	for b.Loop() {
		var takes, limits []time.Duration
		var takeCPU, restCPU time.Duration
		quiet(b, e)
		// What came before is in nobody's bytes.
		if err := e.FlushIndex(); err != nil {
			b.Fatal(err)
		}
		before, index := e.Stats(), e.IndexMetrics()
		var comp int64
		const turns = 40
		for range turns {
			k.touch()
			began := time.Now()
			n := p.pack(k.pages)
			sc.sync(b, int(n))
			limits = append(limits, time.Since(began))
			comp += n
			cpu := cpuTime()
			r := k.take()
			takes, takeCPU = append(takes, r.Duration), takeCPU+cpuTime()-cpu
			cpu = cpuTime()
			quiet(b, e)
			restCPU += cpuTime() - cpu
		}
		after := e.Stats()
		if err := e.FlushIndex(); err != nil {
			b.Fatal(err)
		}
		written := e.IndexMetrics()
		b.ReportMetric(ms(quantile(takes, 0.5)), "ms-p50")
		b.ReportMetric(ms(quantile(limits, 0.5)), "ms-limit-p50")
		b.ReportMetric(float64(quantile(limits, 0.5))/float64(quantile(takes, 0.5)), "of-limit")
		b.ReportMetric(float64(quantile(takes, 1))/float64(quantile(takes, 0.5)), "max/p50")
		b.ReportMetric(float64(restCPU)/float64(takeCPU), "background/take-CPU")
		b.ReportMetric(ms(takeCPU)/turns, "CPU-ms/take")
		b.ReportMetric(ms(restCPU)/turns, "CPU-ms/rest")
		log := after.BytesWritten - before.BytesWritten - uint64(after.GC.BytesWritten-before.GC.BytesWritten)
		b.ReportMetric(float64(log)/float64(comp), "log/compressed")
		b.ReportMetric(float64(log+written.Flushed+written.Compacted-index.Flushed-index.Compacted)/float64(comp), "log+index/compressed")
		b.ReportMetric(float64(after.CountChanges-before.CountChanges)/float64(after.Births-before.Births+after.Deaths-before.Deaths), "changes/born-or-died")
	}
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }

// BenchmarkIndexOf takes 1 % of 1 GiB with so many chunks of others in the index,
// and counts what log and index write, a flush of the index and what it merges
// included. It also times looking up what is not there, in parts of a take.
func BenchmarkIndexOf(b *testing.B) {
	for _, n := range []int{300_000, 10_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			e, _ := benchStore(b, &engine.Options{SnapshotLimit: 10})
			if err := e.FillIndex(n); err != nil {
				b.Fatal(err)
			}
			k := newBenchCanister(b, e, 1, benchSize(b), 10)
			for range 10 {
				k.touch()
				k.take()
			}
			quiet(b, e)
			if err := e.FlushIndex(); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				before, index := e.Stats(), e.IndexMetrics()
				var comp int64
				var p packer
				const turns = 300
				var takes []time.Duration
				for range turns {
					k.touch()
					comp += p.pack(k.pages)
					takes = append(takes, k.take().Duration)
				}
				quiet(b, e)
				if err := e.FlushIndex(); err != nil {
					b.Fatal(err)
				}
				e.SettleIndex()
				after, written := e.Stats(), e.IndexMetrics()
				log := after.BytesWritten - before.BytesWritten - uint64(after.GC.BytesWritten-before.GC.BytesWritten)
				b.ReportMetric(float64(log)/float64(comp), "log/compressed")
				b.ReportMetric(float64(written.Flushed-index.Flushed)/float64(comp), "flushed/compressed")
				b.ReportMetric(float64(written.Compacted-index.Compacted)/float64(comp), "compacted/compressed")
				b.ReportMetric(float64(log+written.Flushed+written.Compacted-index.Flushed-index.Compacted)/float64(comp), "log+index/compressed")
				b.ReportMetric(ms(quantile(takes, 0.5)), "ms-p50")

				// What is not there, as takes ask: windows of a thousand.
				ids := make([]chunk.ID, 1024)
				met := make([]bool, len(ids))
				r := rand.NewChaCha8([32]byte{7})
				var took time.Duration
				const windows = 200
				for range windows {
					for i := range ids {
						_, _ = r.Read(ids[i][:])
					}
					began := time.Now()
					if err := e.MeetNothing(ids, met); err != nil {
						b.Fatal(err)
					}
					took += time.Since(began)
				}
				b.ReportMetric(float64(took.Nanoseconds())/windows/float64(len(ids)), "ns/miss")
			}
		})
	}
}

// BenchmarkSteady is a canister whose pages are rewritten for good, 1 % of 256 MiB for
// each of the ten snapshots that are kept: what the background does for each take, with
// all cleaning, and how large the log is meanwhile.
func BenchmarkSteady(b *testing.B) {
	for b.Loop() {
		e, dir := benchStore(b, &engine.Options{SnapshotLimit: 10})
		k := newBenchCanister(b, e, 1, 256<<20, 10)
		for range 100 {
			k.touch()
			k.take()
		}
		quiet(b, e)
		const turns = 200
		var p packer
		var comp int64
		var takes []time.Duration
		var shares []float64
		var used time.Duration
		before := e.Stats().GC.BytesWritten
		for range turns {
			k.touch()
			comp += p.pack(k.pages)
			cpu := cpuTime()
			takes = append(takes, k.take().Duration)
			quiet(b, e)
			used += cpuTime() - cpu
			s := e.Stats()
			shares = append(shares, float64(s.LogBytes)/float64(s.LiveBytes))
		}
		b.ReportMetric(float64(e.Stats().GC.BytesWritten-before)/float64(comp), "moved/compressed")
		b.ReportMetric(ms(used)/turns, "CPU-ms/take")
		b.ReportMetric(median(shares), "log/live")
		b.ReportMetric(ms(quantile(takes, 0.5)), "ms-p50")
		b.ReportMetric(ms(quantile(takes, 0.99)), "ms-p99")
		e.Close()
		os.RemoveAll(dir)
	}
}

// BenchmarkThousand takes a thousand snapshots and keeps them all: the last
// must not be slower than the first.
func BenchmarkThousand(b *testing.B) {
	for b.Loop() {
		e, dir := benchStore(b, &engine.Options{SnapshotLimit: 1024})
		k := newBenchCanister(b, e, 1, 256<<20, 1024)
		for range 20 {
			k.touch()
			k.take()
		}
		var takes []time.Duration
		for range 980 {
			k.touch()
			takes = append(takes, k.take().Duration)
			quiet(b, e)
		}
		first, last := median(takes[:10]), median(takes[len(takes)-10:])
		b.ReportMetric(ms(first), "ms-first")
		b.ReportMetric(ms(last), "ms-last")
		b.ReportMetric(float64(last)/float64(first), "last/first")
		b.ReportMetric(float64(median(takes[len(takes)-100:]))/float64(median(takes[:100])), "last100/first100")
		e.Close()
		os.RemoveAll(dir)
	}
}

// BenchmarkSpace compares what a settled and cleaned store takes on disk, index
// and all, with its distinct pages, each compressed with zstd, and nothing else.
func BenchmarkSpace(b *testing.B) {
	const size = 1 << 28
	for b.Loop() {
		e, dir := benchStore(b, &engine.Options{SnapshotLimit: 20, NoBackground: true})
		k := newBenchCanister(b, e, 1, size, 20)
		enc := must(zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false)))
		var ideal int
		seen := map[chunk.ID]bool{}
		count := func(pages []byte) {
			ids := make([]chunk.ID, len(pages)/chunk.PageSize)
			_ = chunk.SumPages(ids, pages)
			for i, id := range ids {
				if !id.IsZero() && !seen[id] {
					seen[id] = true
					ideal += min(len(enc.EncodeAll(pages[i*chunk.PageSize:][:chunk.PageSize], nil)), chunk.PageSize)
				}
			}
		}
		img := make([]byte, size)
		must(k.mem.ReadAt(img, 0))
		count(img)
		for range 10 {
			k.touch()
			count(k.pages)
			k.take()
		}
		plain := diskUsage(b, dir)
		began := time.Now()
		r := must(e.GC(context.Background(), engine.GCOptions{Recompress: true}))
		took := time.Since(began)
		if err := e.Close(); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(plain)/float64(ideal), "before-gc/ideal")
		b.ReportMetric(float64(diskUsage(b, dir))/float64(ideal), "disk/ideal")
		b.ReportMetric(float64(diskUsage(b, filepath.Join(dir, "log")))/float64(ideal), "log/ideal")
		b.ReportMetric(float64(r.BytesWritten)/1e6/took.Seconds(), "MB/s-moved")
		os.RemoveAll(dir)
	}
}

// diskUsage sums the lengths of all files but the reserve for full disks.
func diskUsage(b *testing.B, dir string) (n int64) {
	b.Helper()
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() && !strings.HasPrefix(info.Name(), "BALLAST") {
			n += info.Size()
		}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return n
}

// BenchmarkTakeDuringGC compares takes while gc cleans with takes while nothing
// else goes on, in the same run.
func BenchmarkTakeDuringGC(b *testing.B) {
	for b.Loop() {
		e, dir := benchStore(b, &engine.Options{SnapshotLimit: 60, NoBackground: true})
		k := newBenchCanister(b, e, 1, 512<<20, 60)
		other := newBenchCanister(b, e, 2, 256<<20, 60)
		for range 40 {
			other.touch()
			other.take()
		}
		for _, id := range other.ids[:40] {
			if err := e.Delete(context.Background(), id); err != nil {
				b.Fatal(err)
			}
		}
		other.ids = other.ids[40:]
		run := func(stop func(n int) bool) (takes []time.Duration) {
			for n := 0; !stop(n); n++ {
				k.touch()
				if len(k.ids) > 50 {
					if err := e.Delete(context.Background(), k.ids[0]); err != nil {
						b.Fatal(err)
					}
					k.ids = k.ids[1:]
				}
				takes = append(takes, k.take().Duration)
			}
			return takes
		}
		run(func(n int) bool { return n == 10 })
		calm := run(func(n int) bool { return n == 100 })
		var during []time.Duration
		var spent time.Duration
		for len(during) < 100 {
			done := make(chan struct{})
			go func() {
				defer close(done)
				began := time.Now()
				must(e.GC(context.Background(), engine.GCOptions{}))
				spent += time.Since(began)
			}()
			during = append(during, run(func(int) bool {
				select {
				case <-done:
					return true
				default:
					return false
				}
			})...)
			<-done
			for range 8 {
				other.touch()
				other.take()
			}
			for len(other.ids) > 20 {
				if err := e.Delete(context.Background(), other.ids[0]); err != nil {
					b.Fatal(err)
				}
				other.ids = other.ids[1:]
			}
		}
		b.ReportMetric(ms(quantile(calm, 0.5)), "ms-p50-quiet")
		b.ReportMetric(ms(quantile(during, 0.5)), "ms-p50-gc")
		b.ReportMetric(ms(quantile(calm, 0.99)), "ms-p99-quiet")
		b.ReportMetric(ms(quantile(during, 0.99)), "ms-p99-gc")
		b.ReportMetric(float64(quantile(during, 0.5))/float64(quantile(calm, 0.5)), "p50-gc/quiet")
		b.ReportMetric(float64(quantile(during, 0.99))/float64(quantile(calm, 0.99)), "p99-gc/quiet")
		b.ReportMetric(spent.Seconds(), "s-gc")
		e.Close()
		os.RemoveAll(dir)
	}
}

// BenchmarkSmall takes ten dirty pages of each of a thousand canisters of 1 MiB,
// eight at a time, over and over, until all of it is applied. The limit is what
// one thread writes and syncs of the same size, in turns with it.
func BenchmarkSmall(b *testing.B) {
	const canisters, takers, dirty = 1000, 8, 10
	e, dir := benchStore(b, &engine.Options{SnapshotLimit: 2})
	type small struct {
		c    *engine.Canister
		mem  *engine.Memory
		last engine.SnapshotID
	}
	all := make([]small, canisters)
	m := &mix{seed: 6}
	img := make([]byte, 1<<20)
	m.image(img)
	for i := range all {
		id := must(engine.CanisterIDFromBytes([]byte{0, 0, 0, 0, 0, 0, byte(i >> 8), byte(i), 1, 1}))
		c := must(e.CreateCanister(context.Background(), id))
		mem := must(c.Memory(engine.WasmMemory))
		_ = mem.Resize(1 << 20)
		must(mem.WriteAt(img, 0))
		all[i] = small{c, mem, must(c.Take(context.Background(), engine.TakeOptions{})).ID}
	}
	quiet(b, e)
	pages := make([]byte, dirty*engine.PageSize)
	fill := func() {
		for off := 0; off < len(pages); off += engine.PageSize {
			m.fresh(pages[off:])
		}
	}
	fill()
	sc := newScratch(b, dir, 64<<10)
	size := compressed(b, pages)
	for b.Loop() {
		var rates, limits []float64
		var takes []time.Duration
		var cpu time.Duration
		const each = 1000
		for range 3 {
			began := time.Now()
			for range 300 {
				sc.sync(b, size)
			}
			limits = append(limits, 300/time.Since(began).Seconds())
			// Pages are made before the clock runs.
			for i := range all {
				for range dirty {
					m.fresh(pages[:engine.PageSize])
					must(all[i].mem.WriteAt(pages[:engine.PageSize], int64(m.rand().IntN(256))*engine.PageSize))
				}
			}
			runtime.GC()
			c0 := cpuTime()
			began = time.Now()
			var next atomic.Int64
			var mu sync.Mutex
			var wg sync.WaitGroup
			for range takers {
				wg.Go(func() {
					for i := int(next.Add(1)) - 1; i < each; i = int(next.Add(1)) - 1 {
						s := &all[i%canisters]
						r := must(s.c.Take(context.Background(), engine.TakeOptions{Replace: s.last}))
						s.last = r.ID
						mu.Lock()
						takes = append(takes, r.Duration)
						mu.Unlock()
					}
				})
			}
			wg.Wait()
			quiet(b, e)
			rates = append(rates, each/time.Since(began).Seconds())
			cpu += cpuTime() - c0
		}
		slices.Sort(rates)
		slices.Sort(limits)
		b.ReportMetric(rates[1], "takes/s")
		b.ReportMetric(limits[1], "syncs/s")
		b.ReportMetric(rates[1]/limits[1], "takes/syncs")
		b.ReportMetric(ms(quantile(takes, 0.99)), "ms-p99")
		b.ReportMetric(float64(cpu.Microseconds())/3/each, "CPU-µs/take")
	}
}

// BenchmarkRebuild builds the index anew over a log of a full image and thirty
// versions of it.
func BenchmarkRebuild(b *testing.B) {
	o := engine.Options{SnapshotLimit: 40, NoBackground: true}
	e, dir := benchStore(b, &o)
	k := newBenchCanister(b, e, 1, benchSize(b), 40)
	for range 30 {
		k.touch()
		k.take()
	}
	log := e.Stats().LogBytes
	if err := e.Close(); err != nil {
		b.Fatal(err)
	}
	o.RebuildIndex = true
	var times []time.Duration
	for b.Loop() {
		began := time.Now()
		e := must(engine.Open(dir, &o))
		times = append(times, time.Since(began))
		e.Close()
	}
	b.ReportMetric(median(times).Seconds()/(float64(log)/(1<<30)), "s/GiB-log")
}
