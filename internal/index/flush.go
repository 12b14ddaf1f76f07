package index

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/sstable"
)

// A flush writes the frozen memtable as tables in a directory of its own, synced,
// and hands them to Pebble, which takes them in by one record of its MANIFEST: all
// of the memtable is in tables then, or nothing. What it was for its last batch is
// among its keys, so tables are always as some batch left the index.
//
// One goroutine flushes, for as long as there is something frozen. What fails is
// tried again, later and later; who waits for a flush learns of the failure.

// flushes is how flushing goes. Its lock is held for moments.
type flushes struct {
	mu      sync.Mutex
	running bool
	// begun numbers attempts; failed is the last one that failed, and failure why.
	// failing: no attempt has succeeded since.
	begun, failed uint64
	failure       error
	failing       bool
	changed       chan struct{} // closed at the next change
	// waited is how many wait for what is frozen to be written, and not beside others:
	// commits that want room in memory, and who calls Flush.
	waited atomic.Int32
	// again ends the wait for the next attempt.
	again chan struct{}
}

func (f *flushes) init() {
	f.changed = make(chan struct{})
	f.again = make(chan struct{}, 1)
}

func (f *flushes) broadcast() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// flushState is a moment of flushes.
type flushState struct {
	begun, failed uint64
	failure       error
	failing       bool
	changed       <-chan struct{}
}

func (f *flushes) state() flushState {
	f.mu.Lock()
	defer f.mu.Unlock()
	return flushState{f.begun, f.failed, f.failure, f.failing, f.changed}
}

// failedSince tells whether an attempt failed that began after s.
func (s flushState) failedSince(before flushState) bool { return s.failed > before.begun }

func (f *flushes) begin() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.begun++
}

// end notes how an attempt ended.
func (f *flushes) end(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failing = err != nil; err != nil {
		f.failed, f.failure = f.begun, err
	}
	f.broadcast()
}

// durableMeta is the newest meta found in tables.
type durableMeta struct {
	mu   sync.Mutex
	meta meta
	// trusted is the last one that got there while the index was trusted.
	trusted meta
}

func (x *Index) durableMeta() meta {
	x.durable.mu.Lock()
	defer x.durable.mu.Unlock()
	return x.durable.meta
}

// DurableWatermark returns a watermark that a crash would leave, or an older
// one; never one that it might not leave. It does not move once the index is
// untrusted.
func (x *Index) DurableWatermark() uint64 {
	x.durable.mu.Lock()
	defer x.durable.mu.Unlock()
	return x.durable.trusted.seq
}

// Settled tells whether all that was applied is durable, steps that left the
// watermark where it was included.
func (x *Index) Settled() bool {
	applied := x.applied.Load().state.serial
	return x.durableMeta().state.serial >= applied && x.trust.err() == nil
}

// Flush makes all that was applied before it durable. On success
// DurableWatermark is at least the watermark of before the call. An error means
// that nothing is promised; the index goes on trying in the background.
//
// It writes tables, which are merged into the whole index sooner or later: call
// it when the log needs the space or before the process ends, never per take.
func (x *Index) Flush() error {
	x.flushes.waited.Add(1)
	defer x.flushes.waited.Add(-1)
	return x.FlushBeside()
}

// FlushBeside is Flush for who can wait: it rests beside others, see Options.Breather.
func (x *Index) FlushBeside() error {
	if err := x.enter(); err != nil {
		return err
	}
	defer x.leave()
	if err := x.trust.err(); err != nil {
		return err
	}
	if err := x.flushTo(x.applied.Load().state.serial); err != nil {
		return err
	}
	if f := x.filter.Load(); f != nil && f.bytes() <= flushedFilter {
		if err := x.saveFilter(); err != nil {
			x.trust.log.Warn("index: filter not saved", "error", err)
		}
	}
	return x.trust.err()
}

// flushedFilter is up to which size the filter is saved by every Flush. A bigger
// one costs more to write each time than to build again after a crash.
const flushedFilter = 4 << 20

// flushTo waits until the state with a serial is in tables, or an attempt fails
// that began after the call: one that was under way may have lacked what is there
// now.
func (x *Index) flushTo(serial uint64) error {
	before := x.flushes.state()
	for {
		now := x.flushes.state()
		switch {
		case x.trust.err() != nil:
			return x.trust.err()
		case x.durableMeta().state.serial >= serial:
			return nil
		case now.failedSince(before):
			return fmt.Errorf("index: flush: %w", now.failure)
		}
		x.startFlush()
		x.flushAgain()
		select {
		case <-now.changed:
		case <-x.trust.lost:
			return x.trust.err()
		case <-x.closing:
			return ErrClosed
		}
	}
}

// flushAgain lets a flush that waits after a failure go on at once.
func (x *Index) flushAgain() {
	select {
	case x.flushes.again <- struct{}{}:
	default:
	}
}

// startFlush freezes what is in memory, unless something is frozen already, and
// sees to it that it is written. The caller is one that Close waits for.
func (x *Index) startFlush() {
	x.mem.freeze()
	x.flushes.mu.Lock()
	defer x.flushes.mu.Unlock()
	if !x.flushes.running && x.frozen() != nil && !x.trust.halted.Load() {
		x.flushes.running = true
		x.builder.Go(x.flush)
	}
}

func (x *Index) frozen() *memtable {
	m, _ := x.mem.view(0)
	return m
}

const (
	firstRetryDelay = 5 * time.Millisecond
	maxRetryDelay   = time.Second
)

// flush writes what is frozen until nothing is.
func (x *Index) flush() {
	for delay := firstRetryDelay; !x.flushed(); {
		m := x.frozen()
		x.flushes.begin()
		err := x.writeFrozen(m)
		if err == nil {
			delay = firstRetryDelay
			x.nowDurable(m.meta)
			x.mem.thaw(x.o.MemTableSize)
			if _, full := x.mem.view(x.o.MemTableSize); full {
				x.mem.freeze()
			}
			x.flushes.end(nil)
			continue
		}
		x.counters.backgroundErrors.Add(1)
		x.trust.log.Warn("index: flush failed", "error", err)
		x.flushes.end(x.trust.judge(err))
		if x.trust.err() != nil {
			delay = time.Minute // no open will take it: it only holds what memory should not
		}
		select {
		case <-time.After(delay):
		case <-x.flushes.again:
		case <-x.closing:
		}
		delay = min(2*delay, maxRetryDelay)
	}
}

// flushed tells the flushing goroutine that it is done: nothing is frozen, or nothing
// is to be written any more.
func (x *Index) flushed() bool {
	x.flushes.mu.Lock()
	defer x.flushes.mu.Unlock()
	select {
	case <-x.closing:
	default:
		// Whoever freezes something asks for the lock after that.
		if x.frozen() != nil && !x.trust.halted.Load() {
			return false
		}
	}
	x.flushes.running = false
	x.flushes.broadcast()
	return true
}

// nowDurable notes the state of tables that Pebble took in.
func (x *Index) nowDurable(m meta) {
	x.durable.mu.Lock()
	defer x.durable.mu.Unlock()
	x.durable.meta = m
	// The trust is asked last: a sync that failed takes it away before Pebble
	// can say that it took the tables in.
	if x.trust.err() == nil {
		x.durable.trusted = m
	}
}

// writeFrozen makes a memtable durable as tables, all of it or, with an error,
// nothing.
func (x *Index) writeFrozen(m *memtable) (err error) {
	if err := x.trust.usable(); err != nil {
		return err
	}
	c := &changes{breathe: x.breather()}
	c.add(m, span{}, nil)
	c.sort()
	w := &tableWriter{fs: x.gate, dir: x.o.flushDir(), name: "table", options: x.tables}
	err = errors.Join(w.setAll(c), w.finish())
	if err == nil {
		err = x.takeIn(w.paths)
	}
	if err != nil {
		// What it wrote is of no use, and may be all the room there was.
		for _, path := range w.paths {
			_ = x.gate.Remove(path)
		}
	}
	return err
}

// breather gives what one goroutine in the background calls between its steps: a
// flush of half a second on one of two cores made each take beside it twice as long.
func (x *Index) breather() (breathe func()) {
	return x.o.Breather(func() bool {
		select {
		case <-x.closing:
			return false
		default:
			return x.flushes.waited.Load() == 0
		}
	})
}

// takeIn hands tables to Pebble.
func (x *Index) takeIn(paths []string) (err error) {
	defer x.trust.caught("flush", &err)
	if err := x.db.Ingest(context.Background(), paths); err != nil {
		return err
	}
	x.counters.flushes.Add(1)
	return nil
}

// setAll writes changes, the deletions too.
func (t *tableWriter) setAll(c *changes) error {
	for n := 0; c.load(); n++ {
		if err := t.setOrDelete(c.key, c.val, c.isGone); err != nil {
			return err
		}
		c.drop()
		c.step(n)
	}
	return nil
}

// tableOptions is how tables of a flush are written. They go to the highest level.
func (x *Index) tableOptions() sstable.WriterOptions {
	p := x.o.pebbleOptions(x.gate, x.listener())
	p.EnsureDefaults()
	return p.MakeWriterOptions(0, p.FormatMajorVersion.MaxTableFormat())
}

func (x *Index) unflushedLimit() uint64 { return maxUnflushed * x.o.MemTableSize }

// unflushed is about how much memory what waits to be flushed takes.
func (x *Index) unflushed() uint64 {
	x.mem.RLock()
	defer x.mem.RUnlock()
	return x.mem.bytes()
}

// Full says that the disk has no room for what waits to be flushed, and that
// half of what may wait does: nil otherwise. Whoever adds to it should not.
func (x *Index) Full() error {
	now := x.flushes.state()
	if now.failing && isNoSpace(now.failure) && x.unflushed() > x.unflushedLimit()/2 {
		return fmt.Errorf("index: flush: %w", now.failure)
	}
	return nil
}

// makeRoom holds a commit back while too much waits to be flushed. It returns
// an error, and does not wait for ever, if flushes fail. commit is held.
func (x *Index) makeRoom(over uint64) error {
	limit := x.unflushedLimit()
	if x.unflushed() <= limit {
		return nil
	}
	first := x.flushes.state()
	if first.failing && isNoSpace(first.failure) && x.unflushed() <= over*limit {
		return nil
	}
	lost := x.trust.lost
	if x.trust.err() != nil {
		lost = nil // known; an untrusted index goes on as long as it can
	}
	x.counters.stalls.Add(1)
	x.flushes.waited.Add(1)
	defer x.flushes.waited.Add(-1)
	for room := false; ; {
		now := x.flushes.state()
		waiting := x.unflushed()
		switch {
		case waiting <= limit:
			return nil
		case x.trust.halted.Load():
			return x.trust.err()
		case now.failedSince(first) && !room && isNoSpace(now.failure) && x.o.MakeRoom != nil && x.o.MakeRoom():
			room, first = true, now
			continue
		case now.failedSince(first) && isNoSpace(now.failure) && waiting <= over*limit:
			return nil
		case now.failedSince(first):
			return fmt.Errorf("index: %d bytes wait to be flushed: %w", waiting, now.failure)
		}
		x.startFlush()
		x.flushAgain()
		select {
		case <-now.changed:
		case <-lost:
			lost = nil
		case <-x.closing:
			return ErrClosed
		}
	}
}
