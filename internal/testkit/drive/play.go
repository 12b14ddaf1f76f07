package drive

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/testkit"
)

// refusal says which of the model's refusals an error is.
func refusal(err error) testkit.Refusal {
	switch {
	case err == nil:
		return testkit.OK
	case errors.Is(err, engine.ErrNotFound):
		return testkit.NotFound
	case errors.Is(err, engine.ErrExists):
		return testkit.Exists
	case errors.Is(err, engine.ErrSnapshotLimit):
		return testkit.Limit
	case errors.Is(err, engine.ErrImmutable):
		return testkit.Immutable
	case errors.Is(err, engine.ErrInvalid):
		return testkit.Invalid
	}
	return failed
}

// failed is for errors that are not refusals.
const failed testkit.Refusal = "failed"

// play does an operation on the engine.
func (r *Run) play(ctx context.Context, o testkit.Op) error {
	id := Canister(o.C)
	switch o.Name {
	case testkit.Create:
		_, err := r.E.CreateCanister(ctx, id)
		return err
	case testkit.Destroy:
		return r.E.DeleteCanister(ctx, id)
	case testkit.Delete:
		return r.E.Delete(ctx, SnapshotID(o.C, o.Local))
	case testkit.GC:
		return r.CheckGC(ctx)
	case testkit.Verify:
		return r.Verify(ctx)
	case testkit.Compare:
		return r.Compare()
	case testkit.CloseReaders:
		return r.CloseReaders()
	case testkit.OpenReader:
		return r.openReader(ctx, o)
	}
	c, err := r.E.Canister(id)
	if err != nil {
		return err
	}
	switch o.Name {
	case testkit.ReadLive:
		return r.compareMemory(c, r.M.Canisters[o.C].Live)
	case testkit.Write:
		m, err := c.Memory(Section(o.Section))
		if err != nil {
			return err
		}
		if r.Lend && o.Section.Kind == 2 {
			return writeLent(ctx, m, o.Spans)
		}
		for _, s := range o.Spans {
			if _, err := m.WriteAt(s.Bytes(), int64(s.Off)); err != nil {
				return err
			}
		}
		return nil
	case testkit.Resize:
		m, err := c.Memory(Section(o.Section))
		if err != nil {
			return err
		}
		return m.Resize(o.Size)
	case testkit.SetVersion:
		meta := c.Metadata()
		meta.CanisterVersion = o.Version
		return c.SetMetadata(meta)
	case testkit.Checkpoint:
		if o.Host != nil {
			_, err = c.CheckpointHost(ctx, o.Host)
		} else {
			_, err = c.Checkpoint(ctx)
		}
		return err
	case testkit.Take:
		return r.take(ctx, c, o)
	case testkit.Load:
		_, err := c.Load(ctx, SnapshotID(o.From, o.Local), engine.LoadOptions{FromOtherCanister: o.From != o.C, Host: o.Host})
		return err
	case testkit.Copy:
		return r.copy(ctx, c, o)
	case testkit.BeginUpload, testkit.WriteUpload, testkit.FlushUpload:
		return r.upload(ctx, c, o)
	}
	return fmt.Errorf("no operation %s", o.Name)
}

// lendLimit is more than any section of a history grows to.
const lendLimit = 4 << 30

// writeLent stores straight into memory, past WriteAt.
func writeLent(ctx context.Context, m *engine.Memory, spans []testkit.Span) error {
	b, err := m.Bytes(ctx, lendLimit)
	if err != nil {
		return err
	}
	mem := b.Bytes()
	for _, s := range spans {
		copy(mem[s.Off:], s.Bytes())
	}
	return b.Release()
}

func (r *Run) replaced(o testkit.Op) engine.SnapshotID {
	if o.Replace == testkit.NoSnapshot {
		return engine.SnapshotID{}
	}
	return SnapshotID(o.C, o.Replace)
}

func (r *Run) take(ctx context.Context, c *engine.Canister, o testkit.Op) error {
	res, err := c.Take(ctx, engine.TakeOptions{Replace: r.replaced(o), TakenAt: time.Unix(0, o.At), Host: o.Host})
	if err != nil {
		return err
	}
	if want := SnapshotID(o.C, r.M.Canisters[o.C].Next); res.ID != want {
		return fmt.Errorf("the snapshot is %v, want %v", res.ID, want)
	}
	if want := r.M.Canisters[o.C].Live.Logical(); res.Size != want {
		return fmt.Errorf("the snapshot is of %d bytes, want %d", res.Size, want)
	}
	return nil
}

func (r *Run) upload(ctx context.Context, c *engine.Canister, o testkit.Op) error {
	if o.Name == testkit.BeginUpload {
		var sections []engine.UploadSection
		for sec, size := range o.Sizes {
			sections = append(sections, engine.UploadSection{Section: Section(sec), Size: size})
		}
		u, err := c.Upload(ctx, engine.Metadata{CanisterVersion: o.Version}, sections,
			engine.UploadOptions{Replace: r.replaced(o), TakenAt: time.Unix(0, o.At), Host: o.Host})
		if err != nil {
			return err
		}
		if want := SnapshotID(o.C, r.M.Canisters[o.C].Next); u.ID() != want {
			return fmt.Errorf("the upload is %v, want %v", u.ID(), want)
		}
		r.uploads[u.ID()] = u
		return nil
	}
	id := SnapshotID(o.C, o.Local)
	u := r.uploads[id]
	if u == nil {
		var err error
		if u, err = c.OpenUpload(ctx, id); err != nil {
			return err
		}
		r.uploads[id] = u
	}
	if o.Name == testkit.FlushUpload {
		_, err := u.Flush(ctx)
		return err
	}
	for _, s := range o.Spans {
		if _, err := u.WriteAt(Section(o.Section), s.Bytes(), int64(s.Off)); err != nil {
			return err
		}
	}
	return nil
}

func (r *Run) openReader(ctx context.Context, o testkit.Op) error {
	id := SnapshotID(o.C, o.Local)
	s, err := r.E.Snapshot(ctx, id)
	if err != nil {
		return err
	}
	c := r.M.Canisters[o.C]
	at := c.Find(o.Local)
	if at < 0 {
		s.Close()
		return errors.New("opened a snapshot that is not there")
	}
	r.readers = append(r.readers, reader{id, s, c.Snapshots[at].State})
	return nil
}

// Held is how many readers are open.
func (r *Run) Held() int { return len(r.readers) }

// CloseReaders reads what is held, which may be deleted by now, and lets it go.
func (r *Run) CloseReaders() error {
	var errs []error
	for _, rd := range r.readers {
		if err := compareSnapshot(rd.s, rd.want, r.roots); err != nil {
			errs = append(errs, fmt.Errorf("held reader of %v: %w", rd.id, err))
		}
		rd.s.Close()
	}
	r.readers = nil
	return errors.Join(errs...)
}
