package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/snapdir"
	"github.com/snapstore/snapstore/internal/ui"
)

type snapshotExportOptions struct {
	dir string
}

func newSnapshotExportCommand(a *app) *cobra.Command {
	o := &snapshotExportOptions{}
	cmd := &cobra.Command{
		Use:   "export SNAPSHOT --output DIR",
		Short: "Write a snapshot as the directory of icp and dfx",
		Long: `Write a snapshot as the directory that the icp and dfx tools upload from, with a
checksum file beside theirs that they ignore. The directory must not exist, or
be empty; it appears when it is whole.`,
		Example: "  snapstore snapshot export 0000000000000001 --output ./snap",
		Args:    args(1, 1, "a snapshot id"),
		RunE:    func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, args[0]) },
	}
	cmd.Flags().StringVarP(&o.dir, "output", "o", "", "directory to make")
	_ = cmd.MarkFlagDirname("output") // fails only for a flag that is not there
	return cmd
}

// snapshotExportResult is the JSON of snapshot export.
type snapshotExportResult struct {
	ID              string  `json:"id"`
	Dir             string  `json:"dir"`
	Bytes           uint64  `json:"bytes"` // of module, memories and chunks
	DurationSeconds seconds `json:"duration_seconds"`
}

func (r snapshotExportResult) ids() []string { return []string{r.ID} }

func (r snapshotExportResult) text(w io.Writer) {
	fmt.Fprintf(w, "exported %s to %s: %s in %s\n", r.ID, r.Dir, ui.Bytes(r.Bytes), r.DurationSeconds)
}

func (o *snapshotExportOptions) run(ctx context.Context, a *app, name string) error {
	if o.dir == "" {
		return usageError("pass --output DIR", "no directory was named")
	}
	return a.withSnapshot(ctx, name, func(_ *engine.Engine, s *engine.Snapshot) error {
		p := a.progress("export")
		r, err := export(ctx, s, o.dir, p.Update)
		p.Clear()
		if err != nil {
			return err
		}
		return a.emit(r)
	})
}

// export writes a snapshot to a directory that appears when it is whole.
func export(ctx context.Context, s *engine.Snapshot, dir string, progress func(done, total int64)) (snapshotExportResult, error) {
	d := s.Detail()
	r := snapshotExportResult{ID: d.ID.String(), Dir: dir}
	began := stopwatch()
	for _, sec := range d.Sections {
		r.Bytes += sec.Size
	}
	if err := exportable(d.Sections); err != nil {
		return r, err
	}
	w, err := snapdir.Create(dir, toDirMetadata(d), d.Root)
	if err != nil {
		return r, err
	}
	meter := meter{progress: progress, total: int64(r.Bytes)}
	for _, sec := range d.Sections {
		if err := exportSection(ctx, s, w, sec, &meter); err != nil {
			return r, errors.Join(err, w.Abort())
		}
	}
	if err := w.Commit(); err != nil {
		return r, err
	}
	r.DurationSeconds = began()
	return r, nil
}

// exportable refuses what the directory can not hold, in words that help more
// than those of the room that reads directories of others.
func exportable(sections []engine.SectionRoot) error {
	const wasmPage = 64 << 10
	for _, s := range sections {
		if (s.Section == engine.WasmMemory || s.Section == engine.StableMemory) && s.Size%wasmPage != 0 {
			return fail(exitError, `write it with a multiple of 64 KiB, or take the bytes with "snapstore snapshot cat"`,
				"%s has %d bytes, and a memory of a canister is a multiple of 64 KiB", s.Section, s.Size)
		}
	}
	return nil
}

func exportSection(ctx context.Context, s *engine.Snapshot, w *snapdir.Writer, sec engine.SectionRoot, m *meter) error {
	from, err := s.Section(sec.Section)
	if err != nil {
		return err
	}
	part, err := w.Part(ctx, toPart(sec.Section), sec.Size)
	if err != nil {
		return err
	}
	if _, err := from.Copy(ctx, io.MultiWriter(part, m), 0, sec.Size); err != nil {
		return err
	}
	return part.Close()
}

// meter counts what is written to it.
type meter struct {
	progress    func(done, total int64)
	done, total int64
}

func (m *meter) Write(p []byte) (int, error) {
	m.done += int64(len(p))
	m.progress(m.done, m.total)
	return len(p), nil
}
