package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/ui"
)

type snapshotTakeOptions struct {
	quotas
	replace       string
	limit         int
	refuseRunning bool
}

func newSnapshotTakeCommand(a *app) *cobra.Command {
	o := &snapshotTakeOptions{}
	cmd := &cobra.Command{
		Use:   "take CANISTER",
		Short: "Take a snapshot of a canister",
		Long:  "Take a snapshot of the live state. It is durable when the command ends well. With --replace another one leaves in the same atomic step.",
		Example: `  snapstore snapshot take ryjl3-tyaaa-aaaaa-aaaba-cai
  snapstore snapshot take ryjl3-tyaaa-aaaaa-aaaba-cai --replace 0000000000000000`,
		Args: args(1, 1, "a canister id"),
		RunE: func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, args[0]) },
	}
	f := cmd.Flags()
	f.StringVar(&o.replace, "replace", "", "snapshot of the canister that leaves")
	f.BoolVar(&o.refuseRunning, "refuse-running", false, "refuse when the canister runs in this process")
	limitFlag(cmd, &o.limit)
	o.quotas.flags(cmd)
	return cmd
}

// snapshotTakeResult is the JSON of snapshot take.
type snapshotTakeResult struct {
	snapshotResult
	Replaced        string      `json:"replaced,omitempty"`
	Pages           pagesResult `json:"pages"`
	PauseSeconds    seconds     `json:"pause_seconds"`
	DurationSeconds seconds     `json:"duration_seconds"`
	Sequence        uint64      `json:"sequence"`
}

func (r snapshotTakeResult) text(w io.Writer) {
	fmt.Fprintf(w, "took %s of %s in %s%s\n", r.ID, ui.Bytes(r.SizeBytes), r.DurationSeconds, replacedText(r.Replaced))
}

func (o *snapshotTakeOptions) run(ctx context.Context, a *app, name string) error {
	id, err := parseCanister(name)
	if err != nil {
		return err
	}
	if err := checkLimit(o.limit); err != nil {
		return err
	}
	eo := o.apply(a.writing())
	eo.SnapshotLimit = o.limit
	return a.withStore(ctx, eo, func(e *engine.Engine) error {
		c, err := e.Canister(id)
		if err != nil {
			return err
		}
		leaves, err := optional(e, o.replace, id)
		if err != nil {
			return err
		}
		res, err := c.Take(ctx, engine.TakeOptions{Replace: leaves, RefuseRunning: o.refuseRunning})
		if err != nil {
			return err
		}
		return a.emit(snapshotTakeResult{
			snapshotResult: toSnapshot(res.SnapshotInfo), Replaced: replaced(leaves), Pages: toPages(res.Pages),
			PauseSeconds: toSeconds(res.Pause), DurationSeconds: toSeconds(res.Duration), Sequence: res.Sequence,
		})
	})
}
