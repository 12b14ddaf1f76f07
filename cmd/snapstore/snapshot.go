package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/ui"
)

func newSnapshotCommand(a *app) *cobra.Command {
	return newGroup("snapshot", "Take, load, list, compare, move and delete snapshots", "  snapstore snapshot ls",
		newSnapshotTakeCommand(a), newSnapshotLoadCommand(a), newSnapshotLsCommand(a), newSnapshotShowCommand(a),
		newSnapshotRmCommand(a), newSnapshotDiffCommand(a), newSnapshotCatCommand(a),
		newSnapshotExportCommand(a), newSnapshotImportCommand(a))
}

// snapshotResult is a snapshot in JSON.
type snapshotResult struct {
	ID        string    `json:"id"`
	Canister  string    `json:"canister"`
	TakenAt   time.Time `json:"taken_at"` // RFC 3339, UTC
	SizeBytes uint64    `json:"size_bytes"`
	Source    string    `json:"source"`
	Mutable   bool      `json:"mutable"`
	Root      string    `json:"root"`
}

func toSnapshot(s engine.SnapshotInfo) snapshotResult {
	return snapshotResult{
		ID: s.ID.String(), Canister: s.ID.Canister.String(), TakenAt: s.TakenAt.UTC(),
		SizeBytes: s.Size, Source: s.Source.String(), Mutable: s.Mutable, Root: s.Root.String(),
	}
}

func (r snapshotResult) ids() []string { return []string{r.ID} }

func (r snapshotResult) state() string {
	if r.Mutable {
		return r.Source + ", can be changed until it is loaded"
	}
	return r.Source
}

// snapshotLsResult is the JSON of snapshot ls.
type snapshotLsResult []snapshotResult

func (l snapshotLsResult) ids() []string {
	var out []string
	for _, r := range l {
		out = append(out, r.ID)
	}
	return out
}

func (l snapshotLsResult) text(w io.Writer) {
	var rows [][]string
	for _, r := range l {
		rows = append(rows, []string{r.ID, r.Canister, shortTime(r.TakenAt), ui.Bytes(r.SizeBytes), r.Source})
	}
	table(w, []string{"SNAPSHOT", "CANISTER", "TAKEN AT (UTC)", ">SIZE", "SOURCE"}, rows)
}

// maxLimit is the highest the engine allows.
const maxLimit = 1024

// limitFlag is how many snapshots a canister may have.
func limitFlag(cmd *cobra.Command, p *int) {
	cmd.Flags().IntVar(p, "limit", engine.DefaultSnapshotLimit, fmt.Sprintf("the most snapshots the canister may have, 1 to %d", maxLimit))
}

func checkLimit(n int) error {
	if n < 1 || n > maxLimit {
		return usageError(fmt.Sprintf("pass --limit with a number from 1 to %d", maxLimit), "a limit of %d snapshots", n)
	}
	return nil
}

// optional resolves a snapshot that need not be named.
func optional(e *engine.Engine, text string, of engine.CanisterID) (engine.SnapshotID, error) {
	if text == "" {
		return engine.SnapshotID{}, nil
	}
	p, err := parseSnapshot(text)
	if err != nil {
		return engine.SnapshotID{}, err
	}
	return p.resolve(e, of)
}

func replaced(id engine.SnapshotID) string {
	if id.IsZero() {
		return ""
	}
	return id.String()
}

func replacedText(id string) string {
	if id == "" {
		return ""
	}
	return fmt.Sprintf(", in place of %s", id)
}
