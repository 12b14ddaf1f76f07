package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/ui"
)

type rebuildIndexOptions struct {
	memory bytesValue
}

func newRebuildIndexCommand(a *app) *cobra.Command {
	o := &rebuildIndexOptions{}
	cmd := &cobra.Command{
		Use:   "rebuild-index",
		Short: "Throw the index away and build it anew from the log",
		Long:  "Throw the index away and build it anew from the log, which is the only truth. A store whose index is damaged or missing does this by itself when it is opened.",
		Example: `  snapstore rebuild-index
  snapstore rebuild-index --memory 1GiB`,
		Args: args(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c.Context(), a) },
	}
	cmd.Flags().Var(&o.memory, "memory", "memory to sort in, at least 1MiB (default 64MiB)")
	return cmd
}

// rebuildIndexResult is the JSON of rebuild-index.
type rebuildIndexResult struct {
	Reason          string  `json:"reason"`
	Pages           uint64  `json:"pages"`
	Nodes           uint64  `json:"nodes"`
	LogBytes        int64   `json:"log_bytes"`
	IndexBytes      int64   `json:"index_bytes"`
	Lost            uint64  `json:"lost"`
	DurationSeconds seconds `json:"duration_seconds"`
	Sequence        uint64  `json:"sequence"`
}

func (r rebuildIndexResult) ids() []string { return nil }

func (r rebuildIndexResult) text(w io.Writer) {
	fmt.Fprintf(w, "built the index anew in %s: %s and %s from %s of log\n",
		r.DurationSeconds, plural(int(r.Pages), "page"), plural(int(r.Nodes), "node"), ui.Bytes(uint64(max(r.LogBytes, 0))))
	if r.Lost > 0 {
		fmt.Fprintf(w, "%s lost, or lie in damaged frames\n", ui.Count(r.Lost)+" pages and nodes are")
	}
}

func (o *rebuildIndexOptions) run(ctx context.Context, a *app) error {
	eo := a.reading()
	eo.RebuildIndex = true
	eo.RebuildMemory = int64(o.memory.n)
	began := stopwatch()
	return a.withStore(ctx, eo, func(e *engine.Engine) error {
		took := began()
		u, err := e.Usage(ctx)
		if err != nil {
			return err
		}
		s := e.Stats()
		r := rebuildIndexResult{
			Reason: s.Rebuilt, Pages: u.Pages, Nodes: u.Nodes, LogBytes: s.LogBytes, IndexBytes: s.IndexBytes,
			DurationSeconds: took, Sequence: s.Sequence, Lost: u.Lost,
		}
		if err := a.emit(r); err != nil {
			return err
		}
		if r.Lost > 0 {
			return fail(exitProblems, `run "snapstore verify" to see which snapshots are concerned`, "%d pages and nodes are lost, or lie in damaged frames", r.Lost)
		}
		return nil
	})
}
