package engine

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/snapstore/snapstore/chunk"
	"github.com/snapstore/snapstore/internal/record"
	"github.com/snapstore/snapstore/internal/seglog"
	"github.com/snapstore/snapstore/manifest"
)

// Take makes a snapshot of the live state. On return it is durable and the
// new head is the same state. All checks come before all changes: a refused or
// failed take changes nothing and loses no dirty page. Writers are held off
// only while the state is sealed.
func (c *Canister) Take(ctx context.Context, o TakeOptions) (TakeResult, error) {
	began := time.Now()
	res, err := c.take(ctx, o)
	res.Duration = time.Since(began)
	c.e.counters.observe(opTake, began, err)
	if err == nil {
		c.e.counters.pause(res.Pause)
		c.e.counters.pages(res.Pages)
	}
	return res, opError("take", c.id, o.Replace, err)
}

func (c *Canister) take(ctx context.Context, o TakeOptions) (TakeResult, error) {
	var res TakeResult
	op, err := c.begin(ctx)
	if err != nil {
		return res, err
	}
	defer op.end()

	c.gate.RLock()
	status := c.status
	c.gate.RUnlock()
	switch {
	case o.RefuseRunning && status.Running:
		return res, fmt.Errorf("%w: stop it first", ErrRunning)
	case o.RefuseOpenCalls && status.OpenCallContexts > 0:
		return res, fmt.Errorf("%w (%d): let them finish first", ErrOpenCalls, status.OpenCallContexts)
	}
	next, err := c.e.admit(op.rec, o.Replace, c.id)
	if err != nil {
		return res, err
	}
	if o.TakenAt.IsZero() {
		o.TakenAt = time.Now()
	}
	if o.Host != nil {
		next.Host = slices.Clone(o.Host)
	}
	b, pause, err := op.build(ctx, c, next, manifest.SourceTaken, o.TakenAt, true)
	if err != nil {
		return res, err
	}
	snap := record.Snapshot{
		Local: next.NextLocal, Root: b.root, Logical: next.HeadLogical,
		TakenAt: uint64(o.TakenAt.UnixNano()), Source: record.Taken,
	}
	next.Snapshots = append(next.Snapshots, snap)
	next.NextLocal++
	seq, err := op.commit(ctx, next)
	if err != nil {
		return res, err
	}
	if !o.Replace.IsZero() {
		c.dropUpload(o.Replace)
	}
	res.SnapshotInfo = snapshotInfo(c.id, snap)
	res.Pages, res.Pause, res.Sequence = b.stats, pause, uint64(seq)
	res.EarlyPages, res.ResiduePages = op.seals[0].early, op.seals[0].residue
	return res, nil
}

// admit checks limit and replacement and gives the record to go on from,
// without the replaced snapshot.
func (e *Engine) admit(have *record.Record, replace SnapshotID, id CanisterID) (*record.Record, error) {
	next := have.Clone()
	if !replace.IsZero() {
		if replace.Canister != id {
			return nil, fmt.Errorf("replace %s: %w", replace, ErrOtherCanister)
		}
		if _, err := find(have, replace); err != nil {
			return nil, fmt.Errorf("replace: %w", err)
		}
		next = without(have, replace.Local)
	}
	if len(next.Snapshots) >= e.o.SnapshotLimit {
		oldest := SnapshotID{Canister: id, Local: have.Snapshots[0].Local}
		return nil, fmt.Errorf("%w (%d): replace %s or delete one", ErrSnapshotLimit, e.o.SnapshotLimit, oldest)
	}
	return next, nil
}

// Checkpoint makes the live state durable without a snapshot of it.
func (c *Canister) Checkpoint(ctx context.Context) (CheckpointResult, error) {
	began := time.Now()
	res, err := c.checkpoint(ctx, nil)
	res.Duration = time.Since(began)
	c.e.counters.observe(opCheckpoint, began, err)
	return res, opError("checkpoint", c.id, SnapshotID{}, err)
}

// CheckpointHost is Checkpoint with a new host blob in the same atomic step.
func (c *Canister) CheckpointHost(ctx context.Context, host []byte) (CheckpointResult, error) {
	began := time.Now()
	res, err := c.checkpoint(ctx, host)
	res.Duration = time.Since(began)
	c.e.counters.observe(opCheckpoint, began, err)
	return res, opError("checkpoint", c.id, SnapshotID{}, err)
}

func (c *Canister) checkpoint(ctx context.Context, host []byte) (CheckpointResult, error) {
	var res CheckpointResult
	op, err := c.begin(ctx)
	if err != nil {
		return res, err
	}
	defer op.end()
	next := op.rec.Clone()
	if host != nil {
		next.Host = slices.Clone(host)
	}
	// Nobody took it, at no time: equal states have equal roots.
	b, pause, err := op.build(ctx, c, next, manifest.SourceNone, time.Unix(0, 0), false)
	if err != nil {
		return res, err
	}
	seq, err := op.commit(ctx, next)
	if err != nil {
		return res, err
	}
	return CheckpointResult{Root: b.root, Pages: b.stats, Pause: pause, Sequence: uint64(seq)}, nil
}

// operation is one change of a canister's record under way. It holds the
// canister's lock and a ticket, which keeps gc from destroying what it may
// have met or still reads.
type operation struct {
	e        *Engine
	ent      *entry
	rec      *record.Record // the one to go on from
	pins     *chunk.Pins
	writer   *chunk.Writer
	seals    []*sealed
	builds   []*built
	reserved *reservation
	leave    func()
	ended    func()
	sent     bool // the committer has the writer and half of ended
}

// begin waits for the canister, for its last record to be applied, so that
// its trees can be looked up, and for gc when too much waits to be reclaimed.
func (c *Canister) begin(ctx context.Context) (*operation, error) {
	op, err := c.e.begin(ctx, c.ent)
	if err != nil {
		return nil, err
	}
	if c.e.opened(c.ent) != c {
		op.end()
		return nil, fmt.Errorf("canister %s: %w", c.id, ErrNotFound)
	}
	return op, nil
}

func (e *Engine) begin(ctx context.Context, ent *entry) (*operation, error) {
	if err := e.payDebt(ctx); err != nil {
		return nil, err
	}
	if err := e.idx.Full(); err != nil {
		e.gc.Kick()
		return nil, fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	if err := ent.lock(ctx); err != nil {
		return nil, err
	}
	leave, err := e.oneByOne(ctx)
	if err != nil {
		ent.unlock()
		return nil, err
	}
	_, rec, err := e.lookup(ent.id)
	if err == nil {
		err = e.applier.Wait(ctx, ent.seq)
	}
	if err != nil {
		leave()
		ent.unlock()
		return nil, translate(err)
	}
	op := &operation{e: e, ent: ent, rec: rec, leave: leave, ended: both(e.tickets.Begin()), pins: e.store.NewPins()}
	op.writer = e.newWriter(ent, op.pins)
	return op, nil
}

// oneByOne lets one operation write at a time where content is compared: two that
// wrote at once would not see what the other brings.
func (e *Engine) oneByOne(ctx context.Context) (leave func(), err error) {
	if !e.o.CompareOnHit {
		return func() {}, nil
	}
	select {
	case e.writing <- struct{}{}:
		return func() { <-e.writing }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// newWriter gives what writes in the domain of a canister.
func (e *Engine) newWriter(ent *entry, pins *chunk.Pins) *chunk.Writer {
	return e.in(ent.id).NewWriter(chunk.WriterOptions{
		Codec: e.o.Codec, Pins: pins, NoDedup: e.idx.Untrusted() != nil, Compare: e.o.CompareOnHit, Heal: e.counter.Lossy(),
		Spill:      func() (chunk.Spill, error) { return e.log.Spill(seglog.StreamBulk) },
		SpillAfter: e.o.BulkAfter,
	})
}

// build seals the live state and writes it; next gets the new head, and will get
// a snapshot of it where twice is set. Uploads of the canister that have
// unflushed pages become durable with it.
func (op *operation) build(ctx context.Context, c *Canister, next *record.Record, source manifest.Source, at time.Time, twice bool) (*built, time.Duration, error) {
	z, err := c.capture(ctx)
	if err != nil {
		return nil, 0, err
	}
	op.seals = append(op.seals, z)
	after := *next
	if after.HeadLogical = z.logical(); twice {
		after.HeadLogical = addCapped(after.HeadLogical, after.HeadLogical)
	}
	if err := op.reserve(&after); err != nil {
		return nil, 0, err
	}
	b, err := op.add(ctx, z, source, at)
	if err != nil {
		return nil, 0, err
	}
	next.Head = b.root
	next.HeadLogical = b.manifest.LogicalSize()
	for local, u := range c.uploads {
		for i := range next.Snapshots {
			if next.Snapshots[i].Local == local && next.Snapshots[i].Mutable && u.dirty() {
				ub, err := op.addUpload(ctx, u)
				if err != nil {
					return nil, 0, err
				}
				next.Snapshots[i].Root = ub.root
			}
		}
	}
	return b, z.pause, nil
}

// add writes a sealed state, which is among op.seals.
func (op *operation) add(ctx context.Context, z *sealed, source manifest.Source, at time.Time) (*built, error) {
	b, err := z.build(ctx, op.writer, source, at)
	if err != nil {
		return nil, translate(err)
	}
	op.builds = append(op.builds, b)
	return b, nil
}

// commit makes next, with the sequence after the current one, durable, and
// what was built the base of the live state.
func (op *operation) commit(ctx context.Context, next *record.Record) (seglog.Sequence, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	next.Seq = op.rec.Seq + 1
	op.sent = true
	seq, err := op.e.commit(ctx, &change{ent: op.ent, rec: next, writer: op.writer, reserved: op.reserved, ended: func() { op.pins.Release(); op.ended() }}, false)
	if err != nil {
		return 0, err
	}
	for i, z := range op.seals {
		z.settle(op.builds[i].manifest)
	}
	return seq, nil
}

// end undoes what was not committed and lets the canister go.
func (op *operation) end() {
	for _, z := range op.seals {
		z.undo()
	}
	if !op.sent {
		op.writer.Close()
		op.pins.Release()
		op.ended()
	}
	op.ended()
	op.leave()
	if op.reserved != nil {
		op.e.mu.Lock()
		op.e.accounts.settle(op.reserved)
		op.e.mu.Unlock()
	}
	op.ent.unlock()
}

// payDebt holds a new operation back while more waits for gc than the options
// allow, unless readers hold it.
func (e *Engine) payDebt(ctx context.Context) error {
	over := func() bool {
		if e.gc.RecentDebt() > e.o.MaxDebt {
			return true
		}
		if e.counter.Waiting() <= int64(e.o.MaxDrops) {
			return false
		}
		b := e.counter.Backlog(e.reading)
		return b.Versions-b.Held > e.o.MaxDrops
	}
	if !over() {
		return nil
	}
	if e.o.NoBackground {
		return fmt.Errorf("%w: gc only runs when it is called", ErrDebt)
	}
	defer e.pace.Hurry()()
	wait, cancel := context.WithTimeout(ctx, e.o.DebtWait)
	defer cancel()
	for {
		e.gc.Kick()
		select {
		case <-wait.Done():
			if err := ctx.Err(); err != nil {
				return err
			}
			return ErrDebt
		case <-time.After(10 * time.Millisecond):
		}
		if !over() {
			return nil
		}
		if err := e.idx.Untrusted(); err != nil {
			return fmt.Errorf("%w, and gc stands still until the store is opened again: %w", ErrDebt, err)
		}
	}
}
