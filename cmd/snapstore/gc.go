package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/ui"
)

type gcOptions struct {
	dryRun     bool
	recompress bool
}

func newGCCommand(a *app) *cobra.Command {
	o := &gcOptions{}
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Give back the space of what was deleted, and wait for it",
		Example: `  snapstore gc --dry-run
  snapstore gc
  snapstore gc --recompress`,
		Args: args(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c.Context(), a) },
	}
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "say what waits, and change nothing")
	cmd.Flags().BoolVar(&o.recompress, "recompress", false, "compress once more, slower and smaller, what takes have written and the background has moved")
	return cmd
}

// gcResult is the JSON of gc.
type gcResult struct {
	DryRun           bool    `json:"dry_run"`
	VersionsDropped  int64   `json:"versions_dropped"`
	ChunksDestroyed  int64   `json:"chunks_destroyed"`
	SegmentsDropped  int64   `json:"segments_dropped"`
	SegmentsCleaned  int64   `json:"segments_cleaned"`
	BytesReclaimed   int64   `json:"bytes_reclaimed"`
	BytesWritten     int64   `json:"bytes_written"`
	PendingVersions  int     `json:"pending_versions"` // deleted, and not counted down yet
	ReclaimableBytes int64   `json:"reclaimable_bytes"`
	BytesHeld        int64   `json:"bytes_held"`
	LogBytes         int64   `json:"log_bytes"`
	LiveBytes        int64   `json:"live_bytes"`
	DurationSeconds  seconds `json:"duration_seconds"`
}

func (r gcResult) ids() []string { return nil }

func (r gcResult) text(w io.Writer) {
	if r.DryRun {
		fmt.Fprintf(w, "%s deleted and waiting; about %s could be given back; the log has %s, of which %s are in use\n",
			plural(r.PendingVersions, "version"), ui.Bytes(uint64(max(r.ReclaimableBytes, 0))), ui.Bytes(uint64(max(r.LogBytes, 0))), ui.Bytes(uint64(max(r.LiveBytes, 0))))
		r.held(w)
		return
	}
	fmt.Fprintf(w, "gave back %s in %s: %s and %s destroyed; the log has %s, of which %s are in use\n",
		ui.Bytes(uint64(max(r.BytesReclaimed, 0))), r.DurationSeconds, plural(int(r.VersionsDropped), "version"), plural(int(r.ChunksDestroyed), "chunk"),
		ui.Bytes(uint64(max(r.LogBytes, 0))), ui.Bytes(uint64(max(r.LiveBytes, 0))))
	r.held(w)
}

func (r gcResult) held(w io.Writer) {
	if r.BytesHeld > 0 {
		fmt.Fprintf(w, "%s stay, since what could not be read may name them: run \"snapstore verify\" to see what that is, and \"snapstore verify --repair\" to give it up\n", ui.Bytes(uint64(r.BytesHeld)))
	}
}

func (o *gcOptions) run(ctx context.Context, a *app) error {
	// What waits is taken up here, in the foreground, and by nobody else.
	return a.withStore(ctx, a.reading(), func(e *engine.Engine) error {
		p := a.progress("gc")
		r, err := collect(ctx, e, engine.GCOptions{DryRun: o.dryRun, Recompress: o.recompress}, p.Update)
		p.Clear()
		if err != nil {
			return err
		}
		return a.emit(r)
	})
}

func collect(ctx context.Context, e *engine.Engine, o engine.GCOptions, progress func(done, total int64)) (gcResult, error) {
	began := stopwatch()
	o.Progress = func(r engine.GCReport) { progress(r.BytesReclaimed, 0) }
	rep, err := e.GC(ctx, o)
	if err != nil {
		return gcResult{}, err
	}
	s := e.Stats()
	return gcResult{
		DryRun: o.DryRun, VersionsDropped: rep.VersionsDropped, ChunksDestroyed: rep.ChunksDestroyed,
		SegmentsDropped: rep.SegmentsDropped, SegmentsCleaned: rep.SegmentsCleaned,
		BytesReclaimed: rep.BytesReclaimed, BytesWritten: rep.BytesWritten,
		PendingVersions: s.PendingDrops, ReclaimableBytes: s.DebtBytes, BytesHeld: rep.HeldBytes, LogBytes: s.LogBytes, LiveBytes: s.LiveBytes,
		DurationSeconds: began(),
	}, nil
}
