package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/snapstore/snapstore/engine"
)

type snapshotLsOptions struct{}

func newSnapshotLsCommand(a *app) *cobra.Command {
	o := &snapshotLsOptions{}
	return &cobra.Command{
		Use:     "ls [CANISTER]",
		Short:   "List the snapshots of a canister, or of all",
		Long:    "List the snapshots of a canister, or of all, oldest first. Damaged canisters can not be listed; the exit code is 3 then.",
		Example: "  snapstore snapshot ls ryjl3-tyaaa-aaaaa-aaaba-cai",
		Args:    args(0, 1, "at most one canister id"),
		RunE:    func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, args) },
	}
}

func (o *snapshotLsOptions) run(ctx context.Context, a *app, args []string) error {
	var of engine.CanisterID
	if len(args) > 0 {
		var err error
		if of, err = parseCanister(args[0]); err != nil {
			return err
		}
	}
	return a.withStore(ctx, a.reading(), func(e *engine.Engine) error {
		out := snapshotLsResult{}
		add := func(c engine.CanisterID) error {
			for s, err := range e.Snapshots(c) {
				if err != nil {
					return err
				}
				out = append(out, toSnapshot(s))
			}
			return nil
		}
		var bad damagedCanisters
		if !of.IsZero() {
			if err := add(of); err != nil {
				return err
			}
			return a.emit(out)
		}
		for c, err := range e.Canisters() {
			switch {
			case c.ID.IsZero():
				return err
			case c.Damaged:
				bad = append(bad, c.ID)
				continue
			}
			// Where only the live state is damaged, the list is whole.
			if err := add(c.ID); err != nil {
				return err
			}
		}
		if err := a.emit(out); err != nil {
			return err
		}
		return bad.err()
	})
}
