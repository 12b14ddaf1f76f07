package engine

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/snapstore/snapstore/internal/record"
	"github.com/snapstore/snapstore/manifest"
)

// UploadSection declares a section of an upload and its size in bytes.
type UploadSection struct {
	Section Section
	Size    uint64
}

// Upload is a snapshot that is filled from outside. It is listed from the
// start, with the sizes that were declared and zeros where nothing was
// written. It can be changed until it is first loaded. Methods are safe for
// concurrent use; writes may come in any order and need not be aligned.
//
// What was written is durable at Flush, or with the next take or checkpoint of
// the canister.
type Upload struct {
	space
	c *Canister
}

// Upload begins a snapshot with the metadata and the sections declared. On
// return its entry is durable, and so is the departure of the replaced one.
func (c *Canister) Upload(ctx context.Context, meta Metadata, sections []UploadSection, o UploadOptions) (*Upload, error) {
	began := time.Now()
	u, err := c.upload(ctx, meta, sections, o)
	c.e.counters.observe(opUpload, began, err)
	return u, opError("upload", c.id, o.Replace, err)
}

func (c *Canister) upload(ctx context.Context, meta Metadata, sections []UploadSection, o UploadOptions) (*Upload, error) {
	op, err := c.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer op.end()
	if o.TakenAt.IsZero() {
		o.TakenAt = time.Now()
	}
	next, err := c.e.admit(op.rec, o.Replace, c.id)
	if err != nil {
		return nil, err
	}
	if o.Host != nil {
		next.Host = slices.Clone(o.Host)
	}
	id := SnapshotID{Canister: c.id, Local: next.NextLocal}
	u := newUpload(c, id)
	m := &manifest.Manifest{Meta: meta}
	m.Meta.TakenAt = uint64(o.TakenAt.UnixNano())
	u.fill(m)
	for _, s := range sections {
		if _, twice := u.sections[s.Section]; twice {
			return nil, fmt.Errorf("section %s is declared twice: %w", s.Section, ErrInvalid)
		}
		mem, err := u.memory(s.Section)
		if err != nil {
			return nil, err
		}
		if err := mem.Resize(s.Size); err != nil {
			return nil, err
		}
	}
	after := *next
	after.HeadLogical = addCapped(after.HeadLogical, u.logical())
	if err := op.reserve(&after); err != nil {
		return nil, err
	}
	b, err := op.addUpload(ctx, u)
	if err != nil {
		return nil, err
	}
	next.Snapshots = append(next.Snapshots, record.Snapshot{
		Local: id.Local, Root: b.root, Logical: b.manifest.LogicalSize(), TakenAt: m.Meta.TakenAt, Source: record.Uploaded, Mutable: true,
	})
	next.NextLocal++
	if _, err := op.commit(ctx, next); err != nil {
		return nil, err
	}
	c.uploads[id.Local] = u
	if !o.Replace.IsZero() {
		c.dropUpload(o.Replace)
	}
	return u, nil
}

func newUpload(c *Canister, id SnapshotID) *Upload {
	u := &Upload{c: c}
	u.e, u.id, u.store, u.snapshot = c.e, c.id, c.store, id
	u.sections = map[Section]*Memory{}
	return u
}

// OpenUpload goes on with an upload, after a restart for example.
func (c *Canister) OpenUpload(ctx context.Context, id SnapshotID) (*Upload, error) {
	u, err := c.openUpload(ctx, id)
	return u, opError("open upload", c.id, id, err)
}

func (c *Canister) openUpload(ctx context.Context, id SnapshotID) (*Upload, error) {
	if id.Canister != c.id {
		return nil, ErrOtherCanister
	}
	op, err := c.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer op.end()
	s, err := find(op.rec, id)
	if err != nil {
		return nil, err
	}
	if !s.Mutable {
		return nil, ErrImmutable
	}
	if u := c.uploads[id.Local]; u != nil {
		return u, nil
	}
	m, err := c.e.manifest(ctx, c.store, s.Root)
	if err != nil {
		return nil, locate(err, c.id, id, Section{}, 0)
	}
	u := newUpload(c, id)
	u.fill(m)
	c.uploads[id.Local] = u
	return u, nil
}

// dropUpload closes the upload of a snapshot that is gone. The caller holds
// the canister's lock.
func (c *Canister) dropUpload(id SnapshotID) {
	if u := c.uploads[id.Local]; u != nil {
		delete(c.uploads, id.Local)
		u.shut(fmt.Errorf("snapshot %s was deleted: %w", id, ErrNotFound))
	}
}

// ID names the snapshot that is being filled.
func (u *Upload) ID() SnapshotID { return u.snapshot }

// Sections lists the declared sections that are not empty, in order.
func (u *Upload) Sections() []Section {
	return slices.DeleteFunc(u.list(), func(s Section) bool {
		u.gate.RLock()
		defer u.gate.RUnlock()
		return u.sections[s].Size() == 0
	})
}

// WriteAt writes part of a declared section; beyond its size is an error.
func (u *Upload) WriteAt(s Section, p []byte, off int64) (int, error) {
	u.gate.RLock()
	m := u.sections[s]
	u.gate.RUnlock()
	if m == nil {
		return 0, opError("upload", u.id, u.snapshot, fmt.Errorf("section %s was not declared: %w", s, ErrNotFound))
	}
	n, err := m.WriteAt(p, off)
	return n, opError("upload", u.id, u.snapshot, err)
}

// ReadAt reads back what was written.
func (u *Upload) ReadAt(s Section, p []byte, off int64) (int, error) {
	u.gate.RLock()
	m := u.sections[s]
	u.gate.RUnlock()
	if m == nil {
		return 0, opError("upload", u.id, u.snapshot, fmt.Errorf("section %s was not declared: %w", s, ErrNotFound))
	}
	return m.ReadAt(p, off)
}

// Flush makes everything written before the call durable.
func (u *Upload) Flush(ctx context.Context) (CheckpointResult, error) {
	began := time.Now()
	res, err := u.flush(ctx)
	res.Duration = time.Since(began)
	u.e.counters.observe(opUpload, began, err)
	return res, opError("flush upload", u.id, u.snapshot, err)
}

func (u *Upload) flush(ctx context.Context) (CheckpointResult, error) {
	var res CheckpointResult
	op, err := u.c.begin(ctx)
	if err != nil {
		return res, err
	}
	defer op.end()
	s, err := find(op.rec, u.snapshot)
	if err != nil {
		return res, err
	}
	if !s.Mutable {
		return res, ErrImmutable
	}
	b, err := op.addUpload(ctx, u)
	if err != nil {
		return res, err
	}
	next := op.rec.Clone()
	for i := range next.Snapshots {
		if next.Snapshots[i].Local == u.snapshot.Local {
			next.Snapshots[i].Root = b.root
		}
	}
	seq, err := op.commit(ctx, next)
	if err != nil {
		return res, err
	}
	return CheckpointResult{Root: b.root, Pages: b.stats, Pause: op.seals[0].pause, Sequence: uint64(seq)}, nil
}

// dirty tells whether anything was written since the last commit.
func (u *Upload) dirty() bool {
	u.gate.RLock()
	defer u.gate.RUnlock()
	for _, m := range u.sections {
		if m.DirtyPages() > 0 {
			return true
		}
	}
	return false
}

// addUpload writes what was uploaded since the last commit.
func (op *operation) addUpload(ctx context.Context, u *Upload) (*built, error) {
	z, err := u.seal()
	if err != nil {
		return nil, err
	}
	op.seals = append(op.seals, z)
	return op.add(ctx, z, manifest.SourceUploaded, time.Unix(0, int64(z.meta.TakenAt)))
}
