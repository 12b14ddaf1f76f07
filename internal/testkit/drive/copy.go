package drive

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/snapdir"
	"github.com/snapstore/snapstore/internal/testkit"
)

// copy takes a snapshot out of the store and brings it in again as an upload:
// through a directory where the format of those can hold it.
func (r *Run) copy(ctx context.Context, c *engine.Canister, o testkit.Op) (err error) {
	s, err := r.E.Snapshot(ctx, SnapshotID(o.From, o.Local))
	if err != nil {
		return err
	}
	defer s.Close()
	d := s.Detail()
	var sections []engine.UploadSection
	memories := true
	for _, sec := range d.Sections {
		sections = append(sections, engine.UploadSection{Section: sec.Section, Size: sec.Size})
		memories = memories && (sec.Section == engine.WasmMemory || sec.Section == engine.StableMemory) && sec.Size%(64<<10) == 0 && sec.Size <= small
	}
	from := func(sec engine.Section) (io.Reader, error) {
		at, err := s.Section(sec)
		if err != nil {
			return nil, err
		}
		return io.NewSectionReader(at, 0, at.Size()), nil
	}
	if memories {
		dir, err := exported(ctx, s)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, dir.close()) }()
		from = func(sec engine.Section) (io.Reader, error) {
			return dir.Stream(ctx, snapdir.Part{Kind: snapdir.Kind(sec.Kind), Hash: sec.Hash})
		}
	}
	u, err := c.Upload(ctx, engine.Metadata{CanisterVersion: d.Metadata.CanisterVersion}, sections, engine.UploadOptions{Replace: r.replaced(o), TakenAt: time.Unix(0, o.At)})
	if err != nil {
		return err
	}
	r.uploads[u.ID()] = u
	buf := make([]byte, 96<<10)
	for _, sec := range d.Sections {
		in, err := from(sec.Section)
		if err != nil {
			return err
		}
		for off := int64(0); ; {
			n, err := io.ReadFull(in, buf)
			// Large sections are mostly zeros, which an upload has already.
			if n > 0 && !zero(buf[:n]) {
				if _, err := u.WriteAt(sec.Section, buf[:n], off); err != nil {
					return err
				}
			}
			off += int64(n)
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				break
			}
			if err != nil {
				return err
			}
		}
	}
	_, err = u.Flush(ctx)
	return err
}

func zero(p []byte) bool {
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}

// directory is a snapshot outside the store.
type directory struct {
	*snapdir.Reader
	root string
}

func (d *directory) close() error { return errors.Join(d.Close(), os.RemoveAll(d.root)) }

func exported(ctx context.Context, s *engine.Snapshot) (_ *directory, err error) {
	root, err := os.MkdirTemp("", "snapstore-export-")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(root))
		}
	}()
	d := s.Detail()
	meta := snapdir.Metadata{Source: snapdir.Source(d.Metadata.Source), TakenAt: d.Metadata.TakenAt, CanisterVersion: d.Metadata.CanisterVersion, GlobalTimer: snapdir.Timer(d.Metadata.GlobalTimer), HookStatus: snapdir.HookStatus(d.Metadata.HookStatus)}
	for _, sec := range d.Sections {
		if sec.Section == engine.WasmMemory {
			meta.WasmMemorySize = sec.Size
		} else {
			meta.StableMemorySize = sec.Size
		}
	}
	dir := filepath.Join(root, "snapshot")
	w, err := snapdir.Create(dir, meta, d.Root)
	if err != nil {
		return nil, err
	}
	for _, sec := range d.Sections {
		if err := exportPart(ctx, s, w, sec); err != nil {
			return nil, errors.Join(err, w.Abort())
		}
	}
	if err := w.Commit(); err != nil {
		return nil, err
	}
	in, err := snapdir.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := in.Verify(ctx, func(int64, int64) {}); err != nil {
		return nil, errors.Join(err, in.Close())
	}
	return &directory{in, root}, nil
}

func exportPart(ctx context.Context, s *engine.Snapshot, w *snapdir.Writer, sec engine.SectionRoot) error {
	from, err := s.Section(sec.Section)
	if err != nil {
		return err
	}
	part, err := w.Part(ctx, snapdir.Part{Kind: snapdir.Kind(sec.Section.Kind), Hash: sec.Section.Hash}, sec.Size)
	if err != nil {
		return err
	}
	if _, err := from.Copy(ctx, part, 0, sec.Size); err != nil {
		return err
	}
	return part.Close()
}
