package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/snapstore/snapstore/engine"
)

type canisterRmOptions struct {
	dryRun bool
}

func newCanisterRmCommand(a *app) *cobra.Command {
	o := &canisterRmOptions{}
	cmd := &cobra.Command{
		Use:     "rm CANISTER",
		Short:   "Delete a canister and all its snapshots",
		Long:    `Delete a canister, its live state and all its snapshots. "snapstore gc" gives the space back at once; otherwise it comes back in time.`,
		Example: "  snapstore canister rm --dry-run ryjl3-tyaaa-aaaaa-aaaba-cai",
		Args:    args(1, 1, "a canister id"),
		RunE:    func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, args[0]) },
	}
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "say what would be deleted, and change nothing")
	return cmd
}

// canisterRmResult is the JSON of canister rm.
type canisterRmResult struct {
	ID        string   `json:"id"`
	Snapshots []string `json:"snapshots"` // that go with it
	Damaged   bool     `json:"damaged"`
	DryRun    bool     `json:"dry_run"`
}

func (r canisterRmResult) ids() []string { return []string{r.ID} }

func (r canisterRmResult) text(w io.Writer) {
	what := "deleted"
	if r.DryRun {
		what = "would delete"
	}
	fmt.Fprintf(w, "%s canister %s with %s\n", what, r.ID, plural(len(r.Snapshots), "snapshot"))
}

func (o *canisterRmOptions) run(ctx context.Context, a *app, name string) error {
	id, err := parseCanister(name)
	if err != nil {
		return err
	}
	return a.withStore(ctx, a.changing(o.dryRun), func(e *engine.Engine) error {
		r := canisterRmResult{ID: id.String(), Snapshots: []string{}, DryRun: o.dryRun}
		for s, err := range e.Snapshots(id) {
			switch {
			case errors.Is(err, engine.ErrDamaged):
				r.Damaged = true
			case err != nil:
				return err
			default:
				r.Snapshots = append(r.Snapshots, s.ID.String())
			}
		}
		if !o.dryRun {
			if err := e.DeleteCanister(ctx, id); err != nil {
				return err
			}
		}
		return a.emit(r)
	})
}
