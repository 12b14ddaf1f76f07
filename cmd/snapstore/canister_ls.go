package main

import (
	"context"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/ui"
)

type canisterLsOptions struct{}

func newCanisterLsCommand(a *app) *cobra.Command {
	o := &canisterLsOptions{}
	return &cobra.Command{
		Use:     "ls",
		Short:   "List the canisters",
		Long:    "List the canisters, ascending by the bytes of their ids. Damaged ones are listed too, and the exit code is 3 then.",
		Example: "  snapstore canister ls --json",
		Args:    args(0, 0, ""),
		RunE:    func(c *cobra.Command, _ []string) error { return o.run(c.Context(), a) },
	}
}

// canisterResult is a canister in the JSON of canister ls.
type canisterResult struct {
	ID                    string `json:"id"`
	Snapshots             int    `json:"snapshots"`
	LogicalBytes          uint64 `json:"logical_bytes"`
	SnapshotsLogicalBytes uint64 `json:"snapshots_logical_bytes"`
	Damaged               bool   `json:"damaged"`
}

func toCanister(c engine.CanisterInfo) canisterResult {
	return canisterResult{ID: c.ID.String(), Snapshots: c.Snapshots, LogicalBytes: c.HeadLogical, SnapshotsLogicalBytes: c.SnapshotsLogical, Damaged: c.Damaged}
}

func (r canisterResult) ids() []string { return []string{r.ID} }

// canisterLsResult is the JSON of canister ls.
type canisterLsResult []canisterResult

func (l canisterLsResult) ids() []string {
	var out []string
	for _, r := range l {
		out = append(out, r.ID)
	}
	return out
}

func (l canisterLsResult) text(w io.Writer) {
	var rows [][]string
	for _, r := range l {
		state := "ok"
		if r.Damaged {
			state = "damaged"
		}
		rows = append(rows, []string{r.ID, strconv.Itoa(r.Snapshots), ui.Bytes(r.LogicalBytes), ui.Bytes(r.SnapshotsLogicalBytes), state})
	}
	table(w, []string{"CANISTER", ">SNAPSHOTS", ">SIZE", ">SIZE OF SNAPSHOTS", "STATE"}, rows)
}

func (o *canisterLsOptions) run(ctx context.Context, a *app) error {
	return a.withStore(ctx, a.reading(), func(e *engine.Engine) error {
		out := canisterLsResult{}
		var bad damagedCanisters
		for info, err := range e.Canisters() {
			if info.ID.IsZero() {
				return err
			}
			info.Damaged = info.Damaged || err != nil
			if info.Damaged {
				bad = append(bad, info.ID)
			}
			out = append(out, toCanister(info))
		}
		if err := a.emit(out); err != nil {
			return err
		}
		return bad.err()
	})
}

// damagedCanisters are those a listing met.
type damagedCanisters []engine.CanisterID

// err is how a listing ends that met some.
func (d damagedCanisters) err() error {
	if len(d) == 0 {
		return nil
	}
	var names []string
	for _, id := range d[:min(len(d), 8)] {
		names = append(names, id.String())
	}
	return fail(exitProblems, `run "snapstore verify" to see all that is damaged`, "the listing is not complete: %s damaged: %s", plural(len(d), "canister"), strings.Join(names, ", "))
}
