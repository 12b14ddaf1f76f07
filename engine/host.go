package engine

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	"github.com/snapstore/snapstore/internal/record"
)

// CreateCanisterHost is CreateCanister with a host blob in the same atomic step.
func (e *Engine) CreateCanisterHost(ctx context.Context, id CanisterID, host []byte) (*Canister, error) {
	c, err := e.createCanister(ctx, id, host)
	return c, opError("create canister", id, SnapshotID{}, err)
}

// DeleteHost is Delete with a new host blob of the canister in the same atomic
// step.
func (e *Engine) DeleteHost(ctx context.Context, id SnapshotID, host []byte) error {
	began := time.Now()
	err := e.delete(ctx, id, host)
	e.counters.observe(opDelete, began, err)
	return opError("delete", id.Canister, id, err)
}

// Revert makes the live state what it was when it was last made durable:
// everything written since is gone. It writes nothing.
func (c *Canister) Revert(ctx context.Context) error {
	return opError("revert", c.id, SnapshotID{}, c.revert(ctx))
}

// revert is no operation that waits for gc: it is how others are undone.
func (c *Canister) revert(ctx context.Context) error {
	if err := c.ent.lock(ctx); err != nil {
		return err
	}
	defer c.ent.unlock()
	defer c.e.tickets.Begin()() // so that the head that is read is not destroyed
	_, rec, err := c.e.lookup(c.id)
	if err != nil {
		return err
	}
	m, err := c.e.manifest(ctx, c.store, rec.Head)
	if err != nil {
		return locate(err, c.id, SnapshotID{}, Section{}, 0)
	}
	if len(c.lentSections()) > 0 { // whose trees are walked
		if err := c.e.applier.Wait(ctx, c.ent.seq); err != nil {
			return translate(err)
		}
	}
	var ps *patches
	err = c.paused(ctx, func() (err error) {
		c.gate.Lock()
		defer c.gate.Unlock()
		if err := c.open(); err != nil {
			return err
		}
		ps, _, err = c.patches(ctx, c.e.newKeeper(ctx, c.store), m, SnapshotID{}, nil)
		if err != nil {
			return err
		}
		if err := c.apply(ps); err != nil {
			return err
		}
		c.fill(m)
		return nil
	})
	if err == nil {
		ps.rearm()
	}
	return err
}

// AddChunk adds an entry to the wasm chunk store of the upload, with all else
// that was written so far, and a new host blob when it is not nil. It is
// durable on return, with the size of the snapshot that grew by it. An entry
// that is there already is no error.
func (u *Upload) AddChunk(ctx context.Context, chunk, host []byte) (CheckpointResult, error) {
	began := time.Now()
	res, err := u.addChunk(ctx, chunk, host)
	res.Duration = time.Since(began)
	u.e.counters.observe(opUpload, began, err)
	return res, opError("upload chunk", u.id, u.snapshot, err)
}

func (u *Upload) addChunk(ctx context.Context, chunk, host []byte) (res CheckpointResult, err error) {
	if len(chunk) == 0 {
		return res, fmt.Errorf("empty chunk: %w", ErrInvalid)
	}
	op, err := u.c.begin(ctx)
	if err != nil {
		return res, err
	}
	// What did not become durable goes again, once its pages are given back.
	var added *Memory
	defer func() {
		op.end()
		if err != nil && added != nil {
			_ = added.Resize(0)
		}
	}()
	s, err := find(op.rec, u.snapshot)
	if err != nil {
		return res, err
	}
	if !s.Mutable {
		return res, ErrImmutable
	}
	mem, err := u.memory(WasmChunk(sha256.Sum256(chunk)))
	if err != nil {
		return res, err
	}
	if mem.Size() == 0 {
		added = mem
		if err := mem.Resize(uint64(len(chunk))); err != nil {
			return res, err
		}
		if _, err := mem.WriteAt(chunk, 0); err != nil {
			return res, err
		}
	}
	next := op.rec.Clone()
	if host != nil {
		next.Host = slices.Clone(host)
	}
	i := slices.IndexFunc(next.Snapshots, func(s record.Snapshot) bool { return s.Local == u.snapshot.Local })
	next.Snapshots[i].Logical = u.logical()
	if err := op.reserve(next); err != nil {
		return res, err
	}
	b, err := op.addUpload(ctx, u)
	if err != nil {
		return res, err
	}
	next.Snapshots[i].Root, next.Snapshots[i].Logical = b.root, b.manifest.LogicalSize()
	seq, err := op.commit(ctx, next)
	if err != nil {
		return res, err
	}
	return CheckpointResult{Root: b.root, Pages: b.stats, Pause: op.seals[0].pause, Sequence: uint64(seq)}, nil
}
