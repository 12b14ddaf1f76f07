package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/ui"
)

type snapshotLoadOptions struct {
	quotas
	fromOther bool
}

func newSnapshotLoadCommand(a *app) *cobra.Command {
	o := &snapshotLoadOptions{}
	cmd := &cobra.Command{
		Use:   "load CANISTER SNAPSHOT",
		Short: "Make a snapshot the live state of a canister",
		Long: `Make a snapshot the live state. What changes is read and verified first: damage
there refuses the load and changes nothing. The snapshot stays.`,
		Example: "  snapstore snapshot load ryjl3-tyaaa-aaaaa-aaaba-cai 0000000000000001",
		Args:    args(2, 2, "a canister id and a snapshot id"),
		RunE:    func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, args[0], args[1]) },
	}
	cmd.Flags().BoolVar(&o.fromOther, "from-other", false, "allow a snapshot of another canister")
	o.quotas.flags(cmd)
	return cmd
}

// snapshotLoadResult is the JSON of snapshot load.
type snapshotLoadResult struct {
	ID              string  `json:"id"`
	Canister        string  `json:"canister"`
	ChangedPages    uint64  `json:"changed_pages"`
	DurationSeconds seconds `json:"duration_seconds"`
	Sequence        uint64  `json:"sequence"`
}

func (r snapshotLoadResult) ids() []string { return []string{r.ID} }

func (r snapshotLoadResult) text(w io.Writer) {
	fmt.Fprintf(w, "loaded %s into %s; %s pages changed in %s\n", r.ID, r.Canister, ui.Count(r.ChangedPages), r.DurationSeconds)
}

func (o *snapshotLoadOptions) run(ctx context.Context, a *app, canister, snapshot string) error {
	id, err := parseCanister(canister)
	if err != nil {
		return err
	}
	prefix, err := parseSnapshot(snapshot)
	if err != nil {
		return err
	}
	return a.withStore(ctx, o.apply(a.writing()), func(e *engine.Engine) error {
		c, err := e.Canister(id)
		if err != nil {
			return err
		}
		of := id
		if o.fromOther {
			of = engine.CanisterID{}
		}
		from, err := prefix.resolve(e, of)
		if err != nil {
			return err
		}
		res, err := c.Load(ctx, from, engine.LoadOptions{FromOtherCanister: o.fromOther})
		if err != nil {
			return err
		}
		return a.emit(snapshotLoadResult{
			ID: from.String(), Canister: id.String(), ChangedPages: res.Pages,
			DurationSeconds: toSeconds(res.Duration), Sequence: res.Sequence,
		})
	})
}
