package main

import (
	"context"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/ui"
)

type statsOptions struct {
	quick bool
}

func newStatsCommand(a *app) *cobra.Command {
	o := &statsOptions{}
	cmd := &cobra.Command{
		Use:   "stats",
		Short: "Show how much the store holds and what it costs",
		Long:  "Show how much the store holds, logically and page by page, and what it takes on disk. Counting the pages takes about a second for three million; --quick leaves it out.",
		Example: `  snapstore stats
  snapstore stats --quick --json`,
		Args: args(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c.Context(), a) },
	}
	cmd.Flags().BoolVar(&o.quick, "quick", false, "do not count pages")
	return cmd
}

// statsResult is the JSON of stats.
type statsResult struct {
	engine.Stats
	Usage *engine.Usage `json:"usage,omitempty"` // not with --quick
}

func (r statsResult) ids() []string { return nil }

func (r statsResult) text(w io.Writer) {
	canisters := ui.Count(uint64(r.Canisters))
	if r.DamagedCanisters > 0 {
		canisters += ", " + ui.Count(uint64(r.DamagedCanisters)) + " damaged"
	}
	facts(w,
		"canisters", canisters,
		"snapshots", ui.Count(uint64(r.Snapshots)),
		"logical size of snapshots", size(r.LogicalBytes),
		"logical size of live states", size(r.HeadLogicalBytes),
		"equal content is stored once for each", r.DedupDomain,
	)
	if u := r.Usage; u != nil {
		facts(w,
			"distinct pages", ui.Count(u.Pages)+", "+size(u.UniqueBytes),
			"nodes and manifests", ui.Count(u.Nodes),
			"waiting to be destroyed", ui.Count(u.Limbo),
			"lost", ui.Count(u.Lost),
		)
	}
	onDisk := uint64(max(r.LogBytes, 0)) + uint64(max(r.IndexBytes, 0))
	facts(w,
		"on disk", size(onDisk),
		"  log", size(uint64(max(r.LogBytes, 0)))+" in "+plural(r.Segments, "segment"),
		"    in use", size(uint64(max(r.LiveBytes, 0))),
		"    garbage", size(uint64(max(r.GarbageBytes, 0))),
		"  index", size(uint64(max(r.IndexBytes, 0))),
		"  quarantine", size(r.Quarantined),
		"deleted, not dropped yet", plural(r.PendingDrops, "version"),
		"sequence", strconv.FormatUint(r.Sequence, 10),
	)
	if r.IndexUntrusted != "" {
		facts(w, "the index is not trusted", r.IndexUntrusted)
	}
	if r.Rebuilt != "" {
		facts(w, "the index was built anew", r.Rebuilt)
	}
}

func (o *statsOptions) run(ctx context.Context, a *app) error {
	return a.withStore(ctx, a.reading(), func(e *engine.Engine) error {
		r := statsResult{}
		if !o.quick {
			u, err := e.Usage(ctx)
			if err != nil {
				return err
			}
			r.Usage = &u
		}
		r.Stats = e.Stats()
		return a.emit(r)
	})
}
