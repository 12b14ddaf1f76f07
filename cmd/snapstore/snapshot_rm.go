package main

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/snapstore/snapstore/engine"
)

type snapshotRmOptions struct {
	dryRun bool
}

func newSnapshotRmCommand(a *app) *cobra.Command {
	o := &snapshotRmOptions{}
	cmd := &cobra.Command{
		Use:   "rm SNAPSHOT...",
		Short: "Delete snapshots",
		Long:  `Delete snapshots. All ids are looked up before the first one is deleted. "snapstore gc" gives the space back at once; otherwise it comes back in time.`,
		Example: `  snapstore snapshot rm --dry-run 0000000000000001
  snapstore snapshot rm 0000000000000001 0000000000000002`,
		Args: args(1, -1, "a snapshot id"),
		RunE: func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, args) },
	}
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "say what would be deleted, and change nothing")
	return cmd
}

// snapshotRmResult is the JSON of snapshot rm.
type snapshotRmResult struct {
	Removed []string `json:"removed"`
	DryRun  bool     `json:"dry_run"`
}

func (r snapshotRmResult) ids() []string { return r.Removed }

func (r snapshotRmResult) text(w io.Writer) {
	what := "deleted"
	if r.DryRun {
		what = "would delete"
	}
	for _, id := range r.Removed {
		fmt.Fprintf(w, "%s %s\n", what, id)
	}
}

func (o *snapshotRmOptions) run(ctx context.Context, a *app, names []string) error {
	var prefixes []snapshotPrefix
	for _, name := range names {
		p, err := parseSnapshot(name)
		if err != nil {
			return err
		}
		prefixes = append(prefixes, p)
	}
	return a.withStore(ctx, a.changing(o.dryRun), func(e *engine.Engine) error {
		var ids []engine.SnapshotID
		for _, p := range prefixes {
			id, err := p.resolve(e, engine.CanisterID{})
			if err != nil {
				return err
			}
			if err := exists(e, id); err != nil {
				return err
			}
			if !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
		r := snapshotRmResult{Removed: []string{}, DryRun: o.dryRun}
		var failed error
		for _, id := range ids {
			if !o.dryRun {
				if failed = e.Delete(ctx, id); failed != nil {
					break
				}
			}
			r.Removed = append(r.Removed, id.String())
		}
		if failed != nil && len(r.Removed) == 0 {
			return failed
		}
		// What is deleted is deleted: say so, whatever came after.
		if err := a.emit(r); err != nil {
			return err
		}
		return failed
	})
}

// exists refuses a whole id of a snapshot that is not there.
func exists(e *engine.Engine, id engine.SnapshotID) error {
	for s, err := range e.Snapshots(id.Canister) {
		if err != nil {
			return err
		}
		if s.ID == id {
			return nil
		}
	}
	return fail(exitNotFound, `"snapstore snapshot ls" lists what is there`, "snapshot %s: not found", id)
}
