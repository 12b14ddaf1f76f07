package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/snapdir"
	"github.com/snapstore/snapstore/internal/ui"
)

type snapshotImportOptions struct {
	quotas
	dir     string
	replace string
	limit   int
}

func newSnapshotImportCommand(a *app) *cobra.Command {
	o := &snapshotImportOptions{}
	cmd := &cobra.Command{
		Use:   "import CANISTER --input DIR",
		Short: "Read a snapshot from the directory of icp and dfx",
		Long: `Read a snapshot from a directory that the icp or dfx tool downloaded, or that
"snapstore snapshot export" wrote; where that put a checksum file, it is checked.
A download that has not finished, files of the wrong size and symbolic links are
refused. The snapshot is durable when the command ends well; when it fails or is
interrupted nothing stays. A replaced snapshot leaves when the new one is whole.`,
		Example: "  snapstore snapshot import ryjl3-tyaaa-aaaaa-aaaba-cai --input ./snap",
		Args:    args(1, 1, "a canister id"),
		RunE:    func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, args[0]) },
	}
	f := cmd.Flags()
	f.StringVarP(&o.dir, "input", "i", "", "directory to read")
	_ = cmd.MarkFlagDirname("input") // fails only for a flag that is not there
	f.StringVar(&o.replace, "replace", "", "snapshot of the canister that leaves")
	limitFlag(cmd, &o.limit)
	o.quotas.flags(cmd)
	return cmd
}

// snapshotImportResult is the JSON of snapshot import.
type snapshotImportResult struct {
	snapshotResult
	Replaced        string      `json:"replaced,omitempty"`
	Bytes           uint64      `json:"bytes"`   // of module, memories and chunks
	Checked         bool        `json:"checked"` // against a checksum file
	Pages           pagesResult `json:"pages"`
	DurationSeconds seconds     `json:"duration_seconds"`
	Sequence        uint64      `json:"sequence"`
}

func (r snapshotImportResult) text(w io.Writer) {
	checked := "there was no checksum file"
	if r.Checked {
		checked = "all checksums match"
	}
	fmt.Fprintf(w, "imported %s: %s in %s%s; %s\n", r.ID, ui.Bytes(r.Bytes), r.DurationSeconds, replacedText(r.Replaced), checked)
}

func (o *snapshotImportOptions) run(ctx context.Context, a *app, name string) error {
	id, err := parseCanister(name)
	if err != nil {
		return err
	}
	if err := checkLimit(o.limit); err != nil {
		return err
	}
	if o.dir == "" {
		return usageError("pass --input DIR", "no directory was named")
	}
	dir, err := snapdir.Open(o.dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	eo := o.apply(a.writing())
	// While a replacement is read, old and new are both there.
	eo.SnapshotLimit = o.limit
	if o.replace != "" {
		eo.SnapshotLimit = min(o.limit+1, maxLimit)
	}
	return a.withStore(ctx, eo, func(e *engine.Engine) error {
		c, err := e.Canister(id)
		if err != nil {
			return err
		}
		leaves, err := optional(e, o.replace, id)
		if err != nil {
			return err
		}
		if !leaves.IsZero() {
			if err := exists(e, leaves); err != nil {
				return err
			}
		}
		// Everything that can be refused is refused before anything is written.
		if dir.Sums() != nil {
			p := a.progress("check")
			err := dir.Verify(ctx, p.Update)
			p.Clear()
			if err != nil {
				return err
			}
		}
		p := a.progress("import")
		r, err := importDir(ctx, e, c, dir, leaves, flushAfter, p.Update)
		p.Clear()
		if err != nil {
			return err
		}
		return a.emit(r)
	})
}

// flushAfter bounds what of an import is held in memory.
const flushAfter = 256 << 20

// importDir uploads a directory as a snapshot, durable on return. On an error
// nothing of it stays, and the one to replace does.
func importDir(ctx context.Context, e *engine.Engine, c *engine.Canister, dir *snapdir.Reader, leaves engine.SnapshotID, flushAfter int, progress func(done, total int64)) (_ snapshotImportResult, err error) {
	r := snapshotImportResult{Checked: dir.Sums() != nil}
	began := stopwatch()
	meta := dir.Metadata()
	var sections []engine.UploadSection
	for _, p := range dir.Parts() {
		n := uint64(dir.Size(p))
		if n == 0 && p.Kind == snapdir.WasmChunk {
			return r, fail(exitError, "remove the chunk from the directory, and from its metadata.json", "%s: an empty wasm chunk can not be kept", p.Path())
		}
		if n > 0 {
			sections = append(sections, engine.UploadSection{Section: fromPart(p), Size: n})
			r.Bytes += n
		}
	}
	takenAt := time.Unix(0, int64(meta.TakenAt))
	u, err := c.Upload(ctx, fromDirMetadata(meta), sections, engine.UploadOptions{TakenAt: takenAt})
	if err != nil {
		return r, err
	}
	defer func() {
		if err != nil {
			// Also when the context has ended: half a snapshot must not stay.
			err = errors.Join(err, e.Delete(context.WithoutCancel(ctx), u.ID()))
		}
	}()
	in := importer{ctx: ctx, dir: dir, u: u, flushAfter: flushAfter, meter: meter{progress: progress, total: int64(r.Bytes)}, pages: &r.Pages}
	for _, s := range sections {
		if err := in.section(s.Section); err != nil {
			return r, err
		}
	}
	if err := in.flush(); err != nil {
		return r, err
	}
	r.Sequence = in.sequence
	if !leaves.IsZero() {
		if err := e.Delete(ctx, leaves); err != nil {
			return r, err
		}
		r.Replaced, r.Sequence = leaves.String(), e.Sequence()
	}
	for s, err := range e.Snapshots(c.ID()) {
		if err != nil {
			return r, err
		}
		if s.ID == u.ID() {
			r.snapshotResult = toSnapshot(s)
		}
	}
	r.DurationSeconds = began()
	return r, nil
}

// importer fills an upload.
type importer struct {
	ctx        context.Context
	dir        *snapdir.Reader
	u          *engine.Upload
	flushAfter int
	unflushed  int
	meter      meter
	pages      *pagesResult
	sequence   uint64
}

func (in *importer) section(s engine.Section) error {
	from, err := in.dir.Stream(in.ctx, toPart(s))
	if err != nil {
		return err
	}
	buf := make([]byte, 1<<20)
	for off := int64(0); ; {
		n, err := io.ReadFull(from, buf)
		if n > 0 {
			if _, err := in.u.WriteAt(s, buf[:n], off); err != nil {
				return err
			}
			off += int64(n)
			_, _ = in.meter.Write(buf[:n])
			if in.unflushed += n; in.unflushed >= in.flushAfter {
				if err := in.flush(); err != nil {
					return err
				}
			}
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return err
		}
	}
}

func (in *importer) flush() error {
	res, err := in.u.Flush(in.ctx)
	if err != nil {
		return err
	}
	in.pages.add(toPages(res.Pages))
	in.unflushed, in.sequence = 0, res.Sequence
	return nil
}
