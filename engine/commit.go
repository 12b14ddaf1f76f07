package engine

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"

	"github.com/snapstore/snapstore/chunk"
	"github.com/snapstore/snapstore/gc"
	"github.com/snapstore/snapstore/internal/failpoint"
	"github.com/snapstore/snapstore/internal/index"
	"github.com/snapstore/snapstore/internal/osfs"
	"github.com/snapstore/snapstore/internal/record"
	"github.com/snapstore/snapstore/internal/seglog"
)

// change is a canister record on its way into the log. It travels as the tag
// of its request to the committer's callback.
type change struct {
	ent    *entry
	rec    *record.Record
	writer *chunk.Writer // nil when the record brings no data
	raw    []byte
	// reserved is what was asked for; it ends when the record becomes visible.
	reserved *reservation
	// ended is called when the record is applied, or the commit has failed.
	ended func()
}

// commit makes the record durable, and visible on return. The writer is
// closed, and ended called, once the batch is applied; on an error at once.
func (e *Engine) commit(ctx context.Context, c *change, reserve bool) (seglog.Sequence, error) {
	fail := func(err error) (seglog.Sequence, error) {
		if c.writer != nil {
			c.writer.Close()
		}
		if c.ended != nil {
			c.ended()
		}
		return 0, translate(err)
	}
	var err error
	if c.raw, err = c.rec.Encode(); err != nil {
		return fail(fmt.Errorf("%w: %w", ErrInvalid, err))
	}
	req := &seglog.Request{
		Records: []seglog.NewRecord{{Key: c.ent.id.Bytes(), RecordSeq: c.rec.Seq, Payload: c.raw}},
		Tag:     c,
	}
	if reserve {
		req.Reserve = seglog.ReserveAll
	}
	if c.writer != nil {
		if req.Frames, req.Ranges, err = c.writer.Finish(); err != nil {
			return fail(err)
		}
	}
	if failpoint.Enabled {
		failpoint.At(failpoint.Commit, string(c.ent.id.Bytes()))
	}
	seq, err := e.log.Commit(ctx, req)
	if reserve && errors.Is(err, seglog.ErrNoSpace) && !e.o.NoBackground {
		if rerr := e.gc.Relieve(ctx); rerr != nil {
			e.o.Logger.Debug("gc makes no room for a delete", "error", rerr)
		}
		// Whatever came of it: what it was using is free.
		seq, err = e.log.Commit(ctx, req)
	}
	if err != nil {
		return fail(err)
	}
	return seq, nil
}

// onCommit runs in the committer, batch by batch in order, after the sync and
// before the callers are answered: what is synced becomes visible here.
func (e *Engine) onCommit(done seglog.Committed) {
	b := &gc.Batch{Seq: done.Seq, Hash: done.Hash}
	var after []func()
	for _, req := range done.Requests {
		switch t := req.Tag.(type) {
		case *change:
			if t.writer != nil {
				b.Placed = append(b.Placed, e.store.Publish(t.writer.Placements(req.Locs)))
				after = append(after, func() { t.writer.Close() })
			}
			e.publish(t, done.Seq)
			b.Records = append(b.Records, gc.Record{Key: t.ent.id.Bytes(), Seq: t.rec.Seq, Loc: req.RecordLocs[0], Payload: t.raw})
			if t.ended != nil {
				after = append(after, t.ended)
			}
		case *gc.Commit:
			b.Moves = append(b.Moves, t.Moves...)
			for i, r := range req.Records {
				b.Records = append(b.Records, gc.Record{Key: r.Key, Seq: r.RecordSeq, Loc: req.RecordLocs[i], Payload: r.Payload, Moved: true})
			}
			if t.Done != nil {
				after = append(after, t.Done)
			}
		}
	}
	b.Done = func() {
		for _, f := range after {
			f()
		}
		e.gc.Kick()
	}
	e.early.mu.Lock()
	defer e.early.mu.Unlock()
	if !e.early.running {
		e.early.queue = append(e.early.queue, b)
		return
	}
	e.applier.Enqueue(b)
}

// commitMoves is how cleaning reaches the log.
func (e *Engine) commitMoves(ctx context.Context, req *seglog.Request, c *gc.Commit) (seglog.Sequence, error) {
	req.Tag = c
	return e.log.Commit(ctx, req)
}

// publish makes a synced record the one that List, Load and the next
// operation see.
func (e *Engine) publish(c *change, seq seglog.Sequence) {
	e.mu.Lock()
	e.accounts.become(c.ent.rec, c.rec)
	e.accounts.settle(c.reserved)
	c.ent.rec, c.ent.seq, c.ent.damaged = c.rec, seq, nil
	e.mu.Unlock()
}

// both calls f once two sides are done with the ticket: the operation, which
// may still read the state it began with, and the applier.
func both(f func()) func() {
	var n atomic.Int32
	return func() {
		if n.Add(1) == 2 {
			f()
		}
	}
}

// translate turns errors of lower rooms into the sentinels of this one.
func translate(err error) error {
	if err == nil {
		return nil
	}
	for _, t := range []struct{ from, to error }{
		{seglog.ErrNoStore, ErrNoStore},
		{seglog.ErrNewerFormat, ErrNewerFormat},
		{seglog.ErrRolledBack, ErrRolledBack},
		{seglog.ErrNoSpace, ErrNoSpace},
		{seglog.ErrReadOnly, ErrReadOnly},
		{seglog.ErrClosed, ErrClosed},
		{index.ErrClosed, ErrClosed},
		{index.ErrUntrusted, ErrIndex},
		{seglog.ErrDamaged, ErrCorrupt},
		{record.ErrMalformed, ErrDamaged},
		{osfs.ErrLink, ErrUnsafe},
		{syscall.ENOSPC, ErrNoSpace},
		{syscall.EDQUOT, ErrNoSpace},
	} {
		if errors.Is(err, t.from) && !errors.Is(err, t.to) {
			return fmt.Errorf("%w: %w", t.to, err)
		}
	}
	var stale *index.StaleError
	if errors.As(err, &stale) {
		return fmt.Errorf("%w: %w", ErrIndex, err) // that one was only just built
	}
	return err
}
