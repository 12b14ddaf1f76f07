package main

import (
	"context"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/snapstore/snapstore/engine"
)

type canisterInfoOptions struct{}

func newCanisterInfoCommand(a *app) *cobra.Command {
	o := &canisterInfoOptions{}
	return &cobra.Command{
		Use:     "info CANISTER",
		Short:   "Show the live state of a canister",
		Example: "  snapstore canister info ryjl3-tyaaa-aaaaa-aaaba-cai",
		Args:    args(1, 1, "a canister id"),
		RunE:    func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, args[0]) },
	}
}

// canisterInfoResult is the JSON of canister info.
type canisterInfoResult struct {
	canisterResult
	Root        string          `json:"root"`
	Sequence    uint64          `json:"sequence"` // of the canister's record
	Incarnation uint64          `json:"incarnation"`
	HostBytes   int             `json:"host_bytes"`
	Sections    []sectionResult `json:"sections"`
	Metadata    metadataResult  `json:"metadata"`
}

func (r canisterInfoResult) text(w io.Writer) {
	facts(w, append([]string{
		"canister", r.ID,
		"snapshots", strconv.Itoa(r.Snapshots),
		"size", size(r.LogicalBytes),
		"size of snapshots", size(r.SnapshotsLogicalBytes),
		"root", r.Root,
		"record", strconv.FormatUint(r.Sequence, 10),
		"incarnation", strconv.FormatUint(r.Incarnation, 10),
		"host blob", size(uint64(r.HostBytes)),
	}, r.Metadata.facts()...)...)
	r.Metadata.globalTable(w)
	sectionTable(w, r.Sections)
}

func (o *canisterInfoOptions) run(ctx context.Context, a *app, name string) error {
	id, err := parseCanister(name)
	if err != nil {
		return err
	}
	return a.withStore(ctx, a.reading(), func(e *engine.Engine) error {
		c, err := e.Canister(id)
		if err != nil {
			return err
		}
		info, err := c.Info()
		if err != nil {
			return err
		}
		return a.emit(canisterInfoResult{
			canisterResult: toCanister(info), Root: info.HeadRoot.String(), Sequence: info.Sequence, Incarnation: info.Incarnation,
			HostBytes: info.HostBytes, Sections: toSections(info.Sections), Metadata: toMetadata(c.Metadata()),
		})
	})
}
