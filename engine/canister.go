package engine

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/snapstore/snapstore/chunk"
	"github.com/snapstore/snapstore/internal/record"
	"github.com/snapstore/snapstore/internal/seglog"
	"github.com/snapstore/snapstore/manifest"
)

// entry is a canister in the engine's table. Fields are guarded by Engine.mu,
// but op.
type entry struct {
	id  CanisterID
	rec *record.Record // newest visible; nil when it is damaged and no copy is left
	seq seglog.Sequence
	// damaged is why the newest record can not be read; seen is its sequence.
	damaged error
	seen    uint64
	readers map[uint64]int // open readers by snapshot counter
	live    *Canister      // guarded by Engine.live
	// op admits one take, load, checkpoint, upload flush or delete at a time.
	op chan struct{}
}

func newEntry(id CanisterID) *entry {
	return &entry{id: id, readers: map[uint64]int{}, op: make(chan struct{}, 1)}
}

func (ent *entry) lock(ctx context.Context) error {
	select {
	case ent.op <- struct{}{}:
		return nil
	default:
	}
	select {
	case ent.op <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (ent *entry) unlock() { <-ent.op }

// Canister is the live state of a canister: its sections in memory over the
// head that is durable. There is one per canister and Engine. Methods are safe
// for concurrent use; takes, loads and checkpoints of one canister go one
// after another, those of different canisters in parallel.
type Canister struct {
	space
	ent    *entry
	status Status // guarded by gate
	guest  Guest  // guarded by gate
	// uploads that are open, so that the canister's next commit makes what
	// was written to them durable. Guarded by ent.op.
	uploads map[uint64]*Upload
}

// lookup finds a canister that exists.
func (e *Engine) lookup(id CanisterID) (*entry, *record.Record, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if e.closing.Load() {
		return nil, nil, ErrClosed
	}
	ent := e.table[id]
	switch {
	case ent == nil || ent.damaged == nil && (ent.rec == nil || ent.rec.Deleted):
		return nil, nil, fmt.Errorf("canister %s: %w", id, ErrNotFound)
	case ent.damaged != nil:
		return ent, nil, fmt.Errorf("%w: %w", ErrDamaged, ent.damaged)
	}
	return ent, ent.rec, nil
}

// CreateCanister makes a canister with nothing in it. Durable on return. A
// canister of that name that was deleted stays deleted; ids of its snapshots
// are not used again.
func (e *Engine) CreateCanister(ctx context.Context, id CanisterID) (*Canister, error) {
	c, err := e.createCanister(ctx, id, nil)
	return c, opError("create canister", id, SnapshotID{}, err)
}

func (e *Engine) createCanister(ctx context.Context, id CanisterID, host []byte) (*Canister, error) {
	if id.IsZero() {
		return nil, fmt.Errorf("empty canister id: %w", ErrInvalid)
	}
	e.mu.Lock()
	ent := e.table[id]
	if ent == nil {
		ent = newEntry(id)
		e.table[id] = ent
	}
	e.mu.Unlock()
	if err := ent.lock(ctx); err != nil {
		return nil, err
	}
	defer ent.unlock()
	if e.closing.Load() {
		return nil, ErrClosed
	}
	e.mu.RLock()
	have, damaged := ent.rec, ent.damaged
	e.mu.RUnlock()
	if damaged != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, damaged)
	}
	rec := &record.Record{Seq: 1, Incarnation: 1, Host: slices.Clone(host)}
	if have != nil {
		if !have.Deleted {
			return nil, ErrExists
		}
		rec.Seq, rec.Incarnation, rec.NextLocal = have.Seq+1, have.Incarnation+1, have.NextLocal
	}
	if _, err := e.commit(ctx, &change{ent: ent, rec: rec}, false); err != nil {
		return nil, err
	}
	return e.canister(id)
}

// Canister opens the live state of a canister.
func (e *Engine) Canister(id CanisterID) (*Canister, error) {
	c, err := e.canister(id)
	return c, opError("open canister", id, SnapshotID{}, err)
}

func (e *Engine) canister(id CanisterID) (*Canister, error) {
	defer e.tickets.Begin()() // so that the head that is read is not destroyed
	// Looked up under the lock that a deletion takes to close what is open, so
	// that a deleted canister is not opened behind it.
	e.live.Lock()
	defer e.live.Unlock()
	ent, rec, err := e.lookup(id)
	if err != nil {
		return nil, err
	}
	if c := ent.live; c != nil {
		return c, nil
	}
	c := &Canister{ent: ent, uploads: map[uint64]*Upload{}}
	c.e, c.id, c.store = e, id, e.in(id)
	m, err := e.manifest(context.Background(), c.store, rec.Head)
	if err != nil {
		err = locate(err, id, SnapshotID{}, Section{}, 0)
		if !errors.Is(err, ErrCorrupt) {
			return nil, err
		}
		c.headless.Store(&err)
		m = &manifest.Manifest{}
	}
	c.fill(m)
	ent.live = c
	return c, nil
}

// opened gives the Canister of an entry if there is one.
func (e *Engine) opened(ent *entry) *Canister {
	e.live.Lock()
	defer e.live.Unlock()
	return ent.live
}

// manifest reads a manifest from a store; the zero root is an empty one.
func (e *Engine) manifest(ctx context.Context, store *chunk.Store, root chunk.ID) (*manifest.Manifest, error) {
	if root.IsZero() {
		return &manifest.Manifest{}, nil
	}
	enc, err := store.Node(ctx, root)
	if err != nil {
		return nil, err
	}
	return manifest.Decode(enc)
}

// Canisters lists what exists, ascending by id, as of the call.
func (e *Engine) Canisters() iter.Seq2[CanisterInfo, error] {
	return func(yield func(CanisterInfo, error) bool) {
		e.mu.RLock()
		ids := slices.SortedFunc(maps.Keys(e.table), CanisterID.Compare)
		e.mu.RUnlock()
		for _, id := range ids {
			info, err := e.info(id)
			if err != nil {
				if e.closing.Load() {
					yield(CanisterInfo{}, ErrClosed)
					return
				}
				if info.ID.IsZero() {
					continue // deleted
				}
				if info.Damaged {
					err = nil
				}
			}
			if !yield(info, err) {
				return
			}
		}
	}
}

// info describes a canister; with a zero ID when there is none.
func (e *Engine) info(id CanisterID) (CanisterInfo, error) {
	defer e.tickets.Begin()() // so that the head that is read is not destroyed
	ent, rec, err := e.lookup(id)
	if err != nil {
		if ent == nil {
			return CanisterInfo{}, err
		}
		return CanisterInfo{ID: id, Damaged: true}, err
	}
	info := CanisterInfo{
		ID: id, Snapshots: len(rec.Snapshots), HeadRoot: rec.Head, HeadLogical: rec.HeadLogical,
		SnapshotsLogical: rec.Logical(), Sequence: rec.Seq, Incarnation: rec.Incarnation, HostBytes: len(rec.Host),
	}
	m, err := e.manifest(context.Background(), e.in(id), rec.Head)
	if err != nil {
		return info, locate(err, id, SnapshotID{}, Section{}, 0)
	}
	info.Sections = m.Sections
	return info, nil
}

// DeleteCanister deletes a canister with its snapshots, live state and host
// blob in one step. Its Canister and open uploads are closed; readers of its
// snapshots go on until they are closed.
func (e *Engine) DeleteCanister(ctx context.Context, id CanisterID) error {
	return opError("delete canister", id, SnapshotID{}, e.deleteCanister(ctx, id))
}

func (e *Engine) deleteCanister(ctx context.Context, id CanisterID) error {
	ent, _, err := e.lookup(id)
	if ent == nil {
		return err
	}
	if err := ent.lock(ctx); err != nil {
		return err
	}
	defer ent.unlock()
	_, have, err := e.lookup(id)
	var rec *record.Record
	switch {
	case err == nil:
		rec = &record.Record{Seq: have.Seq + 1, Deleted: true, Incarnation: have.Incarnation, NextLocal: have.NextLocal}
	case ent.damaged != nil:
		// Nothing of the record is known but its sequence. Every record uses
		// at most one id and at most one incarnation, so both are below it.
		rec = &record.Record{Seq: ent.seen + 1, Deleted: true, Incarnation: ent.seen, NextLocal: ent.seen}
	default:
		return err
	}
	if _, err := e.commit(ctx, &change{ent: ent, rec: rec}, true); err != nil {
		return err
	}
	e.live.Lock()
	c := ent.live
	ent.live = nil
	e.live.Unlock()
	if c != nil {
		c.shut(fmt.Errorf("canister %s was deleted: %w", id, ErrNotFound))
		for _, u := range c.uploads {
			u.shut(fmt.Errorf("canister %s was deleted: %w", id, ErrNotFound))
		}
	}
	e.counters.deletes.Add(1)
	return nil
}

// ID names the canister.
func (c *Canister) ID() CanisterID { return c.id }

// Info describes the canister as last made durable.
func (c *Canister) Info() (CanisterInfo, error) {
	info, err := c.e.info(c.id)
	return info, opError("describe", c.id, SnapshotID{}, err)
}

// Host returns the opaque blob that was last stored with a record.
func (c *Canister) Host() ([]byte, error) {
	_, rec, err := c.e.lookup(c.id)
	if err != nil {
		return nil, opError("read host blob", c.id, SnapshotID{}, err)
	}
	return slices.Clone(rec.Host), nil
}

// Sections lists what the live state has, in order.
func (c *Canister) Sections() []Section { return c.list() }

// Memory opens a section of the live state, and makes it with size 0 where
// there is none.
func (c *Canister) Memory(s Section) (*Memory, error) {
	m, err := c.memory(s)
	return m, opError("open "+s.String(), c.id, SnapshotID{}, err)
}

// RemoveSection cuts a section to nothing; a wasm chunk is gone then.
func (c *Canister) RemoveSection(s Section) error {
	c.gate.RLock()
	m := c.sections[s]
	c.gate.RUnlock()
	if m == nil {
		return nil
	}
	return opError("remove "+s.String(), c.id, SnapshotID{}, m.Resize(0))
}

// Metadata returns what the next take stores beside the sections; nothing where
// the durable state can not be read, which Memory and Take say.
func (c *Canister) Metadata() Metadata {
	c.gate.RLock()
	defer c.gate.RUnlock()
	return c.meta
}

// SetMetadata changes it. Source and time are set by takes and uploads.
func (c *Canister) SetMetadata(m Metadata) error {
	if _, err := (&manifest.Manifest{Meta: m}).Encode(); err != nil {
		return opError("set metadata", c.id, SnapshotID{}, fmt.Errorf("%w: %w", ErrInvalid, err))
	}
	c.gate.Lock()
	defer c.gate.Unlock()
	if err := c.open(); err != nil {
		return opError("set metadata", c.id, SnapshotID{}, err)
	}
	m.CertifiedData, m.Globals = slices.Clone(m.CertifiedData), slices.Clone(m.Globals)
	c.meta = m
	return nil
}

// SetStatus tells what takes with RefuseRunning and RefuseOpenCalls look at.
func (c *Canister) SetStatus(s Status) {
	c.gate.Lock()
	c.status = s
	c.gate.Unlock()
}

// Snapshots lists the snapshots of a canister, oldest first, as of the call.
func (e *Engine) Snapshots(id CanisterID) iter.Seq2[SnapshotInfo, error] {
	return func(yield func(SnapshotInfo, error) bool) {
		_, rec, err := e.lookup(id)
		if err != nil {
			yield(SnapshotInfo{}, opError("list", id, SnapshotID{}, err))
			return
		}
		for _, s := range rec.Snapshots {
			if !yield(snapshotInfo(id, s), nil) {
				return
			}
		}
	}
}

func snapshotInfo(id CanisterID, s record.Snapshot) SnapshotInfo {
	return SnapshotInfo{
		ID: SnapshotID{Canister: id, Local: s.Local}, Root: s.Root, TakenAt: time.Unix(0, int64(s.TakenAt)).UTC(),
		Size: s.Logical, Source: s.Source, Mutable: s.Mutable,
	}
}

// find looks a snapshot up in a record.
func find(rec *record.Record, id SnapshotID) (record.Snapshot, error) {
	s, ok := rec.Find(id.Local)
	if !ok {
		return s, fmt.Errorf("snapshot %s: %w", id, ErrNotFound)
	}
	return s, nil
}

// Delete deletes a snapshot. Durable on return, after one sync; the space
// comes back in the background. Readers of it go on until they are closed.
func (e *Engine) Delete(ctx context.Context, id SnapshotID) error {
	began := time.Now()
	err := e.delete(ctx, id, nil)
	e.counters.observe(opDelete, began, err)
	return opError("delete", id.Canister, id, err)
}

func (e *Engine) delete(ctx context.Context, id SnapshotID, host []byte) error {
	ent, _, err := e.lookup(id.Canister)
	if err != nil {
		return err
	}
	if err := ent.lock(ctx); err != nil {
		return err
	}
	defer ent.unlock()
	_, have, err := e.lookup(id.Canister)
	if err != nil {
		return err
	}
	if _, err := find(have, id); err != nil {
		return err
	}
	rec := without(have, id.Local)
	rec.Seq++
	if host != nil {
		rec.Host = slices.Clone(host)
	}
	if _, err := e.commit(ctx, &change{ent: ent, rec: rec}, true); err != nil {
		return err
	}
	if c := e.opened(ent); c != nil {
		c.dropUpload(id)
	}
	e.counters.deletes.Add(1)
	return nil
}

// without copies a record less one snapshot.
func without(r *record.Record, local uint64) *record.Record {
	c := r.Clone()
	c.Snapshots = slices.DeleteFunc(c.Snapshots, func(s record.Snapshot) bool { return s.Local == local })
	return c
}

// reading tells gc which snapshots are held by readers.
func (e *Engine) reading(key []byte, local uint64) bool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	ent := e.table[CanisterID{string(key)}]
	return ent != nil && ent.readers[local] > 0
}
