package bench

import (
	"context"
	"errors"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/snapstore/snapstore/bench/limit"
	"github.com/snapstore/snapstore/bench/workload"
	"github.com/snapstore/snapstore/chunk"
	"github.com/snapstore/snapstore/engine"
)

const (
	// dirtyShare is what an incremental take finds changed.
	dirtyShare = 0.01
	kept       = 10
	// limitOf is the most there can be, and more than any workload keeps, so that takes choose what leaves.
	limitOf = 1024
)

// mix is the workload of that name: one image that changes, and what is known
// of it.
type mix struct {
	*run
	image *workload.Image
	dst   []byte // restores go here
	seen  map[chunk.ID]struct{}
	// compressed is how many bytes the new pages of the image are.
	compressed int64
	groups     [][]byte

	quiet, during []float64 // latencies of takes without and with gc, ms
}

// newMix makes the image; call release when it is not needed any more.
func (r *run) newMix() (*mix, func(), error) {
	mem, releaseMem, err := alloc(r.s.image)
	if err != nil {
		return nil, nil, err
	}
	dst, releaseDst, err := alloc(r.s.image)
	if err != nil {
		releaseMem()
		return nil, nil, err
	}
	m := &mix{run: r, dst: dst, seen: map[chunk.ID]struct{}{}}
	m.fresh(mem)
	return m, func() { releaseMem(); releaseDst() }, nil
}

// fresh makes the image anew in mem. After fifty steps it has no tenth of duplicates any
// more, hardly a fifth of zeros and half as much again of compressed bytes: whatever is
// said of the image as such begins with this one.
func (m *mix) fresh(mem []byte) {
	m.step("making an image of %d MiB", len(mem)>>20)
	m.image = workload.Mix(m.o.Seed, mem)
}

func (r *run) idealMix(ctx context.Context) error {
	m, release, err := r.newMix()
	if err != nil {
		return err
	}
	defer release()
	for repeat := range r.o.Repeats {
		r.step("%s, repeat %d of %d", IdealMix, repeat+1, r.o.Repeats)
		if repeat > 0 {
			m.fresh(m.image.Mem)
		}
		if err := m.machine(ctx); err != nil {
			return err
		}
		if err := m.main(ctx, repeat); err != nil {
			return err
		}
		if err := m.deletes(ctx); err != nil {
			return err
		}
	}
	m.fresh(m.image.Mem)
	r.step("%s, memory", IdealMix)
	if err := m.memory(ctx); err != nil {
		return err
	}
	r.step("%s, pauses", IdealMix)
	if err := m.pauses(ctx); err != nil {
		return err
	}
	m.distribution()
	return nil
}

// machine measures what the machine can do, for its own sake.
func (m *mix) machine(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	n := len(m.image.Mem)
	m.rec.add("machine.memcpy", mbps(n, limit.Memcpy(m.dst, m.image.Mem)), 0)
	write, read, cold, err := m.disk.Sequential(int64(n) / 2)
	if err != nil {
		return err
	}
	m.rec.add("machine.write", mbps(n/2, write), 0)
	if cold {
		m.rec.add("machine.read", mbps(n/2, read), 0)
	} else {
		m.rec.note("machine.read", neverForgets)
	}
	for range 20 {
		took, err := m.disk.Append(4096)
		if err != nil {
			return err
		}
		m.rec.add("machine.fdatasync", ms(took), 0)
	}
	return nil
}

// main takes the image into a new store, reads it, and goes on with
// incremental takes.
func (m *mix) main(ctx context.Context, repeat int) (err error) {
	s, err := m.newStore(&engine.Options{SnapshotLimit: limitOf})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.remove()) }()
	c, mem, err := s.canister(ctx, 1, engine.WasmMemory, uint64(len(m.image.Mem)))
	if err != nil {
		return err
	}
	first, err := m.full(ctx, s, c, mem, repeat)
	if err != nil {
		return err
	}
	if err := m.restoreWarm(ctx, s, first); err != nil {
		return err
	}
	if err := m.restoreCold(ctx, s, first, "restore.cold", 3); err != nil {
		return err
	}
	var ideal *workload.Ideal
	if repeat == 0 {
		ideal = &workload.Ideal{}
		if err := ideal.Add(m.image.Mem, nil); err != nil {
			return err
		}
	}
	if err := m.incremental(ctx, s, first, ideal); err != nil {
		return err
	}
	return m.coldAndRebuild(ctx, s)
}

// full takes the whole image for the first time. On return the store is settled
// and open.
func (m *mix) full(ctx context.Context, s *store, c *engine.Canister, mem *engine.Memory, repeat int) (engine.SnapshotID, error) {
	var none engine.SnapshotID
	clear(m.seen)
	pipe, err := limit.NewPipeline(m.image.Mem, nil, m.seen)
	if err != nil {
		return none, err
	}
	if _, m.compressed, err = pipe.Run(true); err != nil { // and warm
		return none, err
	}
	m.groups = pipe.Groups()
	if err := fill(mem, m.image.Mem); err != nil {
		return none, err
	}
	if err := s.settle(ctx); err != nil {
		return none, err
	}
	runtime.GC()
	var bound, took, boundCPU, takeCPU time.Duration
	var res engine.TakeResult
	var before, after int64
	counted := false
	for turn := range 2 {
		if turn == repeat%2 {
			began := cpuTime()
			if bound, _, err = pipe.Run(false); err != nil {
				return none, err
			}
			boundCPU = cpuTime() - began
			continue
		}
		before, _, counted = ioCounters()
		cpu, began := cpuTime(), time.Now()
		if res, err = c.Take(ctx, engine.TakeOptions{}); err != nil {
			return none, err
		}
		took, takeCPU = time.Since(began), cpuTime()-cpu
		// The index is written when the store is closed.
		if err := s.settle(ctx); err != nil {
			return none, err
		}
		if after, err = s.reopenCounting(); err != nil {
			return none, err
		}
	}
	n := len(m.image.Mem)
	m.rec.add("machine.pipeline", mbps(n, bound), 0)
	m.rec.add("full.speed", mbps(n, took), mbps(n, bound))
	own, _, err := pipe.RunOwn()
	if err != nil {
		return none, err
	}
	m.rec.add("full.own", mbps(n, took), mbps(n, own))
	m.rec.add("full.cpu", takeCPU.Seconds(), boundCPU.Seconds())
	if m.addWritten(counted, after-before, "full.written") {
		m.rec.add("full.written", mb(after-before), mb(m.compressed))
	}
	write, _, _, err := m.disk.Sequential(m.compressed)
	m.rec.add("full.disk", ms(took), ms(write))
	return res.ID, err
}

// written counts what a store writes for takes.
type written struct {
	r            *run
	s            *store
	before, ours int64
	counted      bool
}

// countWritten begins with a store that was opened anew and is at rest: what came
// before is in nobody's bytes.
func (r *run) countWritten(ctx context.Context, s *store) (*written, error) {
	if err := errors.Join(s.reopen(), s.rest(ctx)); err != nil {
		return nil, err
	}
	before, _, counted := ioCounters()
	return &written{r: r, s: s, before: before, ours: r.disk.Written, counted: counted}, nil
}

// add gives n takes their share, once the store is opened anew: without what the limits
// have written meanwhile, and gc, before that and since.
func (w *written) add(ctx context.Context, id string, byGC, compressed, n int64) error {
	io, err := w.s.writtenAtRest(ctx)
	if err == nil && w.r.addWritten(w.counted, io-w.before, id) {
		w.r.rec.add(id, mb((io-w.before-(w.r.disk.Written-w.ours)-byGC)/n), mb(compressed/n))
	}
	return err
}

// addWritten tells whether the system counts what is written; not all file
// systems do.
func (r *run) addWritten(counted bool, bytes int64, id string) bool {
	if !counted || bytes == 0 {
		r.rec.note(id, "the system, or the file system, does not count bytes written")
		return false
	}
	return true
}

// change makes the next version of the image and writes it into the memory.
func (m *mix) change(mem *engine.Memory) ([]uint64, error) {
	dirty := m.image.Step(dirtyShare)
	return dirty, put(mem, m.image.Mem, dirty)
}

// takeOne is a take and the same work without a store, one after the other,
// and which is first changes from turn to turn. On return all is settled.
func (m *mix) takeOne(ctx context.Context, s *store, c *engine.Canister, mem *engine.Memory, o engine.TakeOptions, turn int) (t oneTake, err error) {
	dirty, err := m.change(mem)
	if err != nil {
		return t, err
	}
	pipe, err := limit.NewPipeline(m.image.Mem, dirty, m.seen)
	if err != nil {
		return t, err
	}
	for half := range 2 {
		if err := s.settle(ctx); err != nil {
			return t, err
		}
		if half == turn%2 {
			var sync time.Duration
			if t.bound, t.compressed, err = pipe.Run(false); err != nil {
				return t, err
			}
			if sync, err = m.disk.Overwrite(t.compressed); err != nil {
				return t, err
			}
			t.bound += sync
			continue
		}
		cpu, began := cpuTime(), time.Now()
		res, err := c.Take(ctx, o)
		if err != nil {
			return t, err
		}
		t.took = time.Since(began)
		t.id, t.cpu = res.ID, cpuTime()-cpu
		cpu = cpuTime()
		if err := s.settle(ctx); err != nil {
			return t, err
		}
		t.after = cpuTime() - cpu
	}
	return t, nil
}

type oneTake struct {
	id          engine.SnapshotID
	took, bound time.Duration
	cpu, after  time.Duration
	compressed  int64
}

// noCleaning is a live share under which no segment is rewritten, only dropped.
const noCleaning = 1e-9

// incremental fills the row of kept snapshots and measures takes that replace
// the oldest. From then on segments are not cleaned: those of the first image come to
// be worth it after some thirty takes, all at once, and that would be in the figures of
// some repeats and not of others, in reading too. What it costs is measured by deletes.
// On return the store is closed and opened again.
func (m *mix) incremental(ctx context.Context, s *store, first engine.SnapshotID, ideal *workload.Ideal) error {
	c, mem, err := s.again(1, engine.WasmMemory)
	if err != nil {
		return err
	}
	ids := []engine.SnapshotID{first}
	for range kept {
		dirty, err := m.change(mem)
		if err != nil {
			return err
		}
		if ideal != nil {
			if err := ideal.Add(m.image.Mem, dirty); err != nil {
				return err
			}
		}
		res, err := c.Take(ctx, engine.TakeOptions{})
		if err != nil {
			return err
		}
		ids = append(ids, res.ID)
	}
	if ideal != nil {
		if err := m.space(ctx, s, ideal); err != nil {
			return err
		}
	}
	// What came before is written out, so that it is in nobody's bytes.
	if err := s.reopen(); err != nil {
		return err
	}
	if c, _, err = s.again(1, engine.WasmMemory); err != nil {
		return err
	}
	if err := m.loadDiff(ctx, s, c, ids); err != nil {
		return err
	}
	if err := s.e.Delete(ctx, ids[0]); err != nil {
		return err
	}
	ids = ids[1:]
	if err := s.settle(ctx); err != nil {
		return err
	}
	if err := s.e.FlushIndex(); err != nil { // as above
		return err
	}
	s.o.CleanBelow = noCleaning // for as long as the store is there
	count, err := m.countWritten(ctx, s)
	if err != nil {
		return err
	}
	if c, mem, err = s.again(1, engine.WasmMemory); err != nil {
		return err
	}
	stats := s.e.Stats()
	var takes, bounds []float64
	var cpu, after time.Duration
	compressed := int64(0)
	for turn := range m.s.takes {
		t, err := m.takeOne(ctx, s, c, mem, engine.TakeOptions{Replace: ids[0]}, turn)
		if err != nil {
			return err
		}
		ids = append(ids[1:], t.id)
		takes, bounds = append(takes, ms(t.took)), append(bounds, ms(t.bound))
		cpu, after, compressed = cpu+t.cpu, after+t.after, compressed+t.compressed
	}
	end := s.e.Stats()
	began := cpuTime()
	if err := s.reopen(); err != nil {
		return err
	}
	after += cpuTime() - began // the index is written now
	n := int64(m.s.takes)
	byGC := end.GC.BytesWritten - stats.GC.BytesWritten
	if err := count.add(ctx, "take.written", byGC, compressed, n); err != nil {
		return err
	}
	m.rec.add("take.log", mb((int64(end.BytesWritten-stats.BytesWritten)-byGC)/n), mb(compressed/n))
	m.rec.add("take.p50", quantile(takes, 0.5), quantile(bounds, 0.5))
	m.rec.add("take.p99", quantile(takes, 0.99), quantile(bounds, 0.99))
	m.rec.add("take.max", quantile(takes, 1), quantile(takes, 0.5))
	if cpu > 0 {
		m.rec.add("take.background", ms(after)/float64(n), ms(cpu)/float64(n))
	} else {
		m.rec.note("take.background", "CPU time is not counted on this system")
	}
	m.addCounts("take.counts.10", stats, end, m.s.takes)
	return nil
}

func (r *run) addCounts(id string, before, after engine.Stats, takes int) {
	n := float64(takes)
	r.rec.add(id, float64(after.CountChanges-before.CountChanges)/n, float64(after.Births-before.Births+after.Deaths-before.Deaths)/n)
}

// newest is the newest snapshot of the n-th canister.
func newest(s *store, n int) (id engine.SnapshotID, err error) {
	cid, err := canisterID(n)
	if err != nil {
		return id, err
	}
	for info, err := range s.e.Snapshots(cid) {
		if err != nil {
			return id, err
		}
		id = info.ID
	}
	if id.IsZero() {
		return id, errors.New("there is no snapshot")
	}
	return id, nil
}

// memory takes the whole image once more and looks at what of the heap is alive
// meanwhile, without what was configured to be kept: decoded pages and nodes, and the
// index's memtables. It has a take of its own, since looking takes time.
func (m *mix) memory(ctx context.Context) (err error) {
	s, err := m.newStore(nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.remove()) }()
	c, mem, err := s.canister(ctx, 1, engine.WasmMemory, uint64(len(m.image.Mem)))
	if err != nil {
		return err
	}
	if err := fill(mem, m.image.Mem); err != nil {
		return err
	}
	runtime.GC()         // a pool lets go at the second
	debug.FreeOSMemory() // which also gives back what was resident before
	var st runtime.MemStats
	runtime.ReadMemStats(&st)
	was := s.e.Stats()
	before, resident := st.HeapAlloc-uint64(was.CacheBytes+was.MemTableBytes), kib("VmRSS")
	reset := resetPeak()
	var peak atomic.Uint64
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			runtime.GC() // what is garbage is not needed
			var st runtime.MemStats
			runtime.ReadMemStats(&st)
			now := s.e.Stats()
			caches := uint64(now.CacheBytes + now.MemTableBytes)
			peak.Store(max(peak.Load(), st.HeapAlloc-min(st.HeapAlloc, caches)))
			select {
			case <-done:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	_, err = c.Take(ctx, engine.TakeOptions{})
	close(done)
	<-ended
	if err != nil {
		return err
	}
	const mib = 1 << 20
	m.rec.add("full.heap", max(0, float64(peak.Load())-float64(before))/mib, 0)
	if reset && resident > 0 {
		m.rec.add("full.resident", float64(kib("VmHWM")-resident)/mib, 0)
	} else {
		m.rec.note("full.resident", "the system does not count it")
	}
	return nil
}

// guest is what runs on lent memory.
type guest func(ctx context.Context, pause func() error) error

func (g guest) Quiesce(ctx context.Context, pause func() error) error { return g(ctx, pause) }

// pauses takes lent memory while its guest writes, and looks at how long the
// guest stood still.
func (m *mix) pauses(ctx context.Context) (err error) {
	s, err := m.newStore(&engine.Options{SnapshotLimit: limitOf})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.remove()) }()
	size := uint64(len(m.image.Mem))
	c, mem, err := s.canister(ctx, 1, engine.WasmMemory, size)
	if err != nil {
		return err
	}
	b, err := mem.Bytes(ctx, size)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Release()) }()
	m.tracking = s.e.Stats().Tracking
	copy(b.Bytes(), m.image.Mem)
	if _, err := c.Checkpoint(ctx); err != nil {
		return err
	}
	write := func(pages []uint64) {
		for _, i := range pages {
			copy(b.Bytes()[i*workload.PageSize:], m.image.Page(i))
		}
	}
	// The guest goes on writing until it is stopped.
	c.SetGuest(guest(func(_ context.Context, pause func() error) error {
		write(m.image.Step(dirtyShare / 50))
		return pause()
	}))
	var last engine.SnapshotID
	for range m.o.Repeats {
		var pauses []float64
		for range m.s.takes {
			write(m.image.Step(dirtyShare))
			res, err := c.Take(ctx, engine.TakeOptions{Replace: last})
			if err != nil {
				return err
			}
			last = res.ID
			pauses = append(pauses, ms(res.Pause))
			if err := s.settle(ctx); err != nil {
				return err
			}
		}
		m.rec.add("take.pause", quantile(pauses, 0.5), 0)
		m.rec.add("take.pause.p99", quantile(pauses, 0.99), 0)
	}
	_, err = m.restore(ctx, s, last)
	return err
}
