package index

import (
	"errors"
	"fmt"
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// flushEvents is what Pebble told about its background work.
type flushEvents struct {
	retry *retryDelay

	mu sync.Mutex
	// flushed and failed count flushes by how they ended.
	flushed, failed uint64
	// failure is the error of the last flush that failed; ended is the same
	// before Pebble has said that it was a failure.
	failure, ended error
	failing        bool // the last flush failed
	changed        chan struct{}
}

func (e *flushEvents) init(retry *retryDelay) {
	e.retry = retry
	e.changed = make(chan struct{})
}

func (e *flushEvents) broadcast() {
	close(e.changed)
	e.changed = make(chan struct{})
}

// flushEnd is called with an error for a failed flush and for one that had
// nothing to write; only the first is followed by a background error.
func (e *flushEvents) flushEnd(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ended = err
	if err == nil {
		e.failing = false
		e.flushed++
		e.retry.succeeded()
		e.broadcast()
	}
}

func (e *flushEvents) compactionEnd(err error) {
	if err == nil {
		e.retry.succeeded()
	}
}

func (e *flushEvents) backgroundError(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.retry.failed()
	if e.ended != nil && errors.Is(err, e.ended) {
		e.ended, e.failure, e.failing = nil, err, true
		e.failed++
		e.broadcast()
	}
}

// flushState is a moment of flushEvents. changed is closed at the next.
type flushState struct {
	flushed, failed uint64
	failure         error
	failing         bool
	changed         <-chan struct{}
}

// again tells whether a flush that began after s has failed: the first failure
// may be of one that was under way, and what it lacked may be there now.
func (s flushState) again(now flushState) bool {
	if isNoSpace(now.failure) {
		return now.failed >= s.failed+2
	}
	return now.failed != s.failed
}

func (e *flushEvents) state() flushState {
	e.mu.Lock()
	defer e.mu.Unlock()
	return flushState{e.flushed, e.failed, e.failure, e.failing, e.changed}
}

// durableMeta is the newest meta found in tables.
type durableMeta struct {
	mu      sync.Mutex
	flushed uint64 // flushEvents.flushed when the tables were read
	meta    meta
	// trusted is the last meta read while the index was trusted.
	trusted meta
}

// DurableWatermark returns a watermark that a crash would leave, or an older
// one; never one that it might not leave. It does not move once the index is
// untrusted.
func (x *Index) DurableWatermark() uint64 {
	if x.enter() == nil {
		x.durableMeta()
		x.leave()
	}
	x.durable.mu.Lock()
	defer x.durable.mu.Unlock()
	return x.durable.trusted.seq
}

// Settled tells whether all that was applied is durable, steps that left the
// watermark where it was included.
func (x *Index) Settled() bool {
	if x.enter() != nil {
		return false
	}
	defer x.leave()
	applied := x.applied.Load().state.serial
	return x.durableMeta().state.serial >= applied && x.trust.err() == nil
}

// durableMeta reads the tables again if there was a flush since the last time.
func (x *Index) durableMeta() meta {
	d := &x.durable
	d.mu.Lock()
	defer d.mu.Unlock()
	flushed := x.flushes.state().flushed
	if flushed == d.flushed {
		return d.meta
	}
	m, err := x.readDurableMeta()
	if err != nil {
		return d.meta
	}
	d.flushed, d.meta = flushed, m
	// The trust is asked last: a sync that failed takes it away before Pebble
	// can say that the flush succeeded.
	if x.trust.err() == nil {
		d.trusted = m
	}
	return d.meta
}

func (x *Index) readDurableMeta() (m meta, err error) {
	defer x.trust.caught("read durable watermark", &err)
	lower, upper := kindSpan(kindMeta)
	it, err := x.db.NewIter(&pebble.IterOptions{
		LowerBound: lower, UpperBound: upper, OnlyReadGuaranteedDurable: true,
	})
	if err != nil {
		return meta{}, x.trust.judge(err)
	}
	if !it.First() {
		return meta{}, x.trust.judge(errors.Join(errors.New("index: no durable watermark"), it.Close()))
	}
	m, err = decodeMeta(it.Value())
	return m, x.trust.judge(errors.Join(err, it.Close()))
}

// Flush makes all that was applied before it durable. On success
// DurableWatermark is at least the watermark of before the call. An error means
// that nothing is promised; Pebble goes on trying in the background.
//
// It writes tables, which are merged into the whole index sooner or later: call
// it when the log needs the space or before the process ends, never per take.
func (x *Index) Flush() (err error) {
	if err := x.enter(); err != nil {
		return err
	}
	defer x.leave()
	if err := x.trust.err(); err != nil {
		return err
	}
	target := x.applied.Load().state.serial
	if x.durableMeta().state.serial < target {
		if err := x.flushTables(); err != nil {
			return err
		}
		if x.durableMeta().state.serial < target {
			return errors.Join(x.trust.err(), errors.New("index: flush did not reach the watermark"))
		}
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

// flushTables starts a flush and waits until it is done or has failed.
func (x *Index) flushTables() (err error) {
	defer x.trust.caught("flush", &err)
	before := x.flushes.state()
	done, err := x.db.AsyncFlush()
	if err != nil {
		return x.trust.judge(err)
	}
	for {
		now := x.flushes.state()
		select {
		case <-done:
			return x.trust.err()
		default:
		}
		if before.again(now) {
			return fmt.Errorf("index: flush: %w", now.failure)
		}
		select {
		case <-done:
		case <-now.changed:
		case <-x.trust.lost:
			return x.trust.err()
		case <-x.closing:
			return ErrClosed
		}
	}
}

func (x *Index) unflushedLimit() uint64 { return maxUnflushed * x.o.MemTableSize }

// Full says that the disk has no room for what waits to be flushed, and that
// half of what may wait does: nil otherwise. Whoever adds to it should not.
func (x *Index) Full() error {
	now := x.flushes.state()
	if now.failing && isNoSpace(now.failure) && x.unflushedBytes.Load() > x.unflushedLimit()/2 {
		return fmt.Errorf("index: flush: %w", now.failure)
	}
	return nil
}

// makeRoom holds a commit back while too much waits to be flushed. It returns
// an error, and does not wait for ever, if flushes fail. commit is held.
func (x *Index) makeRoom(over uint64) error {
	limit := x.unflushedLimit()
	if x.pendingBytes <= limit {
		return nil
	}
	first := x.flushes.state()
	if first.failing && isNoSpace(first.failure) && x.pendingBytes <= over*limit {
		return nil
	}
	lost := x.trust.lost
	if x.trust.err() != nil {
		lost = nil // known; an untrusted index goes on as long as it can
	}
	for asked, room := false, false; ; {
		now := x.flushes.state()
		x.trimPending(x.durableMeta())
		switch {
		case x.pendingBytes <= limit:
			return nil
		case x.trust.halted.Load():
			return x.trust.err()
		case first.again(now) && !room && isNoSpace(now.failure) && x.o.MakeRoom != nil && x.o.MakeRoom():
			// Pebble tries again by itself.
			room, first = true, now
			continue
		case first.again(now) && isNoSpace(now.failure) && x.pendingBytes <= over*limit:
			return nil
		case first.again(now):
			return fmt.Errorf("index: %d bytes wait to be flushed: %w", x.pendingBytes, now.failure)
		case !asked:
			// What was counted need not have filled a memtable.
			asked = true
			x.counters.stalls.Add(1)
			if err := x.askFlush(); err != nil {
				return err
			}
		}
		select {
		case <-now.changed:
		case <-lost:
			lost = nil
		case <-x.closing:
			return ErrClosed
		}
	}
}

func (x *Index) askFlush() (err error) {
	defer x.trust.caught("flush", &err)
	_, err = x.db.AsyncFlush()
	return x.trust.judge(err)
}

// trimPending forgets the batches that are durable. commit is held.
func (x *Index) trimPending(durable meta) {
	n := 0
	for n < len(x.pending) && x.pending[n].serial <= durable.state.serial {
		x.pendingBytes -= x.pending[n].bytes
		n++
	}
	x.pending = x.pending[n:]
	if len(x.pending) == 0 {
		x.pending = nil
	}
	x.unflushedBytes.Store(x.pendingBytes)
}
