package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/snapstore/snapstore/engine"
)

type canisterCreateOptions struct{}

func newCanisterCreateCommand(a *app) *cobra.Command {
	o := &canisterCreateOptions{}
	return &cobra.Command{
		Use:     "create CANISTER",
		Short:   "Make a canister with nothing in it",
		Example: "  snapstore canister create ryjl3-tyaaa-aaaaa-aaaba-cai",
		Args:    args(1, 1, "a canister id"),
		RunE:    func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, args[0]) },
	}
}

// canisterCreateResult is the JSON of canister create.
type canisterCreateResult struct {
	ID       string `json:"id"`
	Sequence uint64 `json:"sequence"`
}

func (r canisterCreateResult) ids() []string { return []string{r.ID} }

func (r canisterCreateResult) text(w io.Writer) { fmt.Fprintf(w, "made canister %s\n", r.ID) }

func (o *canisterCreateOptions) run(ctx context.Context, a *app, name string) error {
	id, err := parseCanister(name)
	if err != nil {
		return err
	}
	return a.withStore(ctx, a.writing(), func(e *engine.Engine) error {
		if _, err := e.CreateCanister(ctx, id); err != nil {
			return err
		}
		return a.emit(canisterCreateResult{ID: id.String(), Sequence: e.Sequence()})
	})
}
