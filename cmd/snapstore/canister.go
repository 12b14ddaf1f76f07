package main

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/ui"
)

func newCanisterCommand(a *app) *cobra.Command {
	return newGroup("canister", "Make, list, fill and delete canisters", "  snapstore canister ls",
		newCanisterCreateCommand(a), newCanisterLsCommand(a), newCanisterInfoCommand(a),
		newCanisterWriteCommand(a), newCanisterRmCommand(a))
}

// sectionResult is a section in JSON.
type sectionResult struct {
	Section   string `json:"section"`
	SizeBytes uint64 `json:"size_bytes"`
	Root      string `json:"root"` // zeros where every page is zero
}

func toSections(roots []engine.SectionRoot) []sectionResult {
	out := []sectionResult{}
	for _, r := range roots {
		out = append(out, sectionResult{r.Section.String(), r.Size, r.Root.String()})
	}
	return out
}

func sectionTable(w io.Writer, sections []sectionResult) {
	var rows [][]string
	for _, s := range sections {
		rows = append(rows, []string{s.Section, ui.Bytes(s.SizeBytes), s.Root})
	}
	if len(rows) > 0 {
		table(w, []string{"SECTION", ">SIZE", "ROOT"}, rows)
	}
}

// pagesResult is chunk.IngestStats in JSON: what became of the dirty pages.
type pagesResult struct {
	Hashed      uint64 `json:"hashed"`
	Zero        uint64 `json:"zero"`
	Unchanged   uint64 `json:"unchanged"`
	Shared      uint64 `json:"shared"`
	New         uint64 `json:"new"`
	RawBytes    uint64 `json:"raw_bytes"`
	StoredBytes uint64 `json:"stored_bytes"`
}

func toPages(s engine.PageStats) pagesResult {
	return pagesResult{Hashed: s.Pages, Zero: s.Zero, Unchanged: s.Unchanged, Shared: s.Shared, New: s.New, RawBytes: s.RawBytes, StoredBytes: s.StoredBytes}
}

func (p pagesResult) String() string {
	return ui.Count(p.Hashed) + " hashed: " + ui.Count(p.New) + " new, " + ui.Count(p.Shared) + " shared, " +
		ui.Count(p.Zero) + " zero, " + ui.Count(p.Unchanged) + " unchanged"
}

func (p *pagesResult) add(q pagesResult) {
	p.Hashed += q.Hashed
	p.Zero += q.Zero
	p.Unchanged += q.Unchanged
	p.Shared += q.Shared
	p.New += q.New
	p.RawBytes += q.RawBytes
	p.StoredBytes += q.StoredBytes
}
