package index

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// CountMismatch is an ID whose stored count is not what was counted.
type CountMismatch struct {
	ID ID
	// Stored is the entry, if Present. An entry that is absent counts as 0.
	Stored  Entry
	Present bool
	// Counted is the sum of what was given to AddCount.
	Counted int64
}

// String returns the mismatch for people.
func (m CountMismatch) String() string {
	if !m.Present {
		return fmt.Sprintf("%v is missing, counted %d", m.ID, m.Counted)
	}
	return fmt.Sprintf("%v has count %d, counted %d", m.ID, m.Stored.Count, m.Counted)
}

// CountComparison compares the counts of one state of an index with counts that
// were made anew, in bounded memory: what a rebuild has, and a copy of the memtables. Batches may go on meanwhile.
type CountComparison struct {
	x        *Index
	r        RebuildOptions
	snapshot *pebble.Snapshot
	mem      *changes // over the snapshot
	at       meta

	mu     sync.Mutex
	counts *sorter
	closed bool
}

// CompareCounts fixes the state of the index as it is now and returns what will
// compare it. The caller counts all places of the records as of Watermark, then
// calls Mismatches, then Close. There is room for one at a time.
func (x *Index) CompareCounts(r RebuildOptions) (c *CountComparison, err error) {
	if err := x.enter(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			x.leave()
		}
	}()
	if x.comparing.Swap(true) {
		return nil, errors.New("index: another comparison of counts is going on")
	}
	defer func() {
		if err != nil {
			x.comparing.Store(false)
		}
	}()
	r = r.withDefaults(x.o.countDir())
	if err := x.o.FS.RemoveAll(r.TmpDir); err != nil {
		return nil, err
	}
	if err := x.o.FS.MkdirAll(r.TmpDir, 0o700); err != nil {
		return nil, err
	}
	c = &CountComparison{x: x, r: r, counts: newCountSorter(x.o.FS, r, 0)}
	return c, c.fix()
}

// fix takes the snapshot between two batches, so that it has one watermark.
func (c *CountComparison) fix() (err error) {
	c.x.commit.Lock()
	defer c.x.commit.Unlock()
	defer c.x.trust.caught("snapshot", &err)
	c.at = *c.x.applied.Load()
	lower, upper := kindSpan(kindEntry)
	c.x.mem.RLock()
	defer c.x.mem.RUnlock()
	c.mem = c.x.mem.changes(span{lower, upper})
	c.snapshot = c.x.db.NewSnapshot()
	return nil
}

// Watermark returns the log batch of the state that is compared.
func (c *CountComparison) Watermark() (seq uint64, hash [32]byte) { return c.at.seq, c.at.hash }

// AddCount adds n to what is counted for an ID. Any number of goroutines may
// call it.
func (c *CountComparison) AddCount(id ID, n int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	var value [8]byte
	return c.counts.add(id[:], appendCount(value[:0], n))
}

// Mismatches ends the counting and yields every ID whose stored count differs,
// in the order of IDs: those with another count, those that are missing, and
// those that are there for nothing. An entry with count 0, waiting in limbo, is
// no mismatch if nothing was counted for it. The last yielded error, if any,
// ends it; what came before it is true. It may be called once.
func (c *CountComparison) Mismatches(ctx context.Context) iter.Seq2[CountMismatch, error] {
	return func(yield func(CountMismatch, error) bool) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.closed {
			yield(CountMismatch{}, ErrClosed)
			return
		}
		stopped := false
		err := c.compare(ctx, func(m CountMismatch) bool {
			stopped = !yield(m, nil)
			return !stopped
		})
		if err != nil && !stopped {
			yield(CountMismatch{}, err)
		}
	}
}

func (c *CountComparison) compare(ctx context.Context, yield func(CountMismatch) bool) (err error) {
	m, err := c.counts.merge()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	counted := countCursor{m: m}
	lower, upper := kindSpan(kindEntry)
	stored, err := c.x.newCursor(c.snapshot, &pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stored.close()) }()
	stored.mem, c.mem = c.mem, nil

	var e KeyedEntry
	haveStored := false
	nextStored := func() (err error) {
		if haveStored = stored.next(); !haveStored {
			return stored.err
		}
		e, err = c.x.decodeKeyedEntry(stored.kv())
		return err
	}
	if err := errors.Join(nextStored(), counted.next()); err != nil {
		return err
	}
	for haveStored || counted.more {
		if err := ctx.Err(); err != nil {
			return err
		}
		select {
		case <-c.x.closing:
			return ErrClosed
		default:
		}
		var m CountMismatch
		var err error
		switch {
		case !counted.more || haveStored && less(e.ID, counted.id):
			m = CountMismatch{ID: e.ID, Stored: e.Entry, Present: true}
			err = nextStored()
		case !haveStored || less(counted.id, e.ID):
			m = CountMismatch{ID: counted.id, Counted: counted.n}
			err = counted.next()
		default:
			m = CountMismatch{ID: e.ID, Stored: e.Entry, Present: true, Counted: counted.n}
			err = errors.Join(nextStored(), counted.next())
		}
		if (m.Counted < 0 || m.Stored.Count != uint64(m.Counted)) && !yield(m) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Close removes the files and lets the state go. The index waits for it when it
// closes.
func (c *CountComparison) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	c.counts = nil
	err := c.release()
	err = errors.Join(err, c.x.o.FS.RemoveAll(c.r.TmpDir))
	c.x.comparing.Store(false)
	c.x.leave()
	return err
}

func (c *CountComparison) release() (err error) {
	if c.snapshot == nil || c.x.trust.broken.Load() {
		return nil
	}
	defer c.x.trust.caught("snapshot", &err)
	return c.snapshot.Close()
}
