package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/snapstore/snapstore/engine"
)

type snapshotShowOptions struct{}

func newSnapshotShowCommand(a *app) *cobra.Command {
	o := &snapshotShowOptions{}
	return &cobra.Command{
		Use:     "show SNAPSHOT",
		Short:   "Show the metadata and the sections of a snapshot",
		Example: "  snapstore snapshot show 0000000000000001",
		Args:    args(1, 1, "a snapshot id"),
		RunE:    func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, args[0]) },
	}
}

// snapshotShowResult is the JSON of snapshot show.
type snapshotShowResult struct {
	snapshotResult
	Sections []sectionResult `json:"sections"`
	Metadata metadataResult  `json:"metadata"`
}

func (r snapshotShowResult) text(w io.Writer) {
	facts(w, append([]string{
		"snapshot", r.ID,
		"canister", r.Canister,
		"taken at", shortTime(r.TakenAt) + " UTC",
		"size", size(r.SizeBytes),
		"source", r.state(),
		"root", r.Root,
	}, r.Metadata.facts()...)...)
	r.Metadata.globalTable(w)
	sectionTable(w, r.Sections)
}

func (o *snapshotShowOptions) run(ctx context.Context, a *app, name string) error {
	return a.withSnapshot(ctx, name, func(_ *engine.Engine, s *engine.Snapshot) error {
		d := s.Detail()
		return a.emit(snapshotShowResult{snapshotResult: toSnapshot(d.SnapshotInfo), Sections: toSections(d.Sections), Metadata: toMetadata(d.Metadata)})
	})
}

// withSnapshot opens the store and a snapshot for the time of fn.
func (a *app) withSnapshot(ctx context.Context, name string, fn func(*engine.Engine, *engine.Snapshot) error) error {
	prefix, err := parseSnapshot(name)
	if err != nil {
		return err
	}
	return a.withStore(ctx, a.reading(), func(e *engine.Engine) error {
		id, err := prefix.resolve(e, engine.CanisterID{})
		if err != nil {
			return err
		}
		s, err := e.Snapshot(ctx, id)
		if err != nil {
			return err
		}
		defer s.Close()
		return fn(e, s)
	})
}
