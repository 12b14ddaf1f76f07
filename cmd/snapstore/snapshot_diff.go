package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"slices"

	"github.com/spf13/cobra"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/ui"
)

type snapshotDiffOptions struct{}

func newSnapshotDiffCommand(a *app) *cobra.Command {
	o := &snapshotDiffOptions{}
	return &cobra.Command{
		Use:   "diff SNAPSHOT SNAPSHOT",
		Short: "Show in which pages two snapshots differ",
		Long: `Show the sections and runs of 4 KiB pages in which two snapshots differ. No page
is read, so it takes time in proportion to what differs. The snapshots may be of
different canisters. --quiet prints nothing.`,
		Example: "  snapstore snapshot diff 0000000000000001 0000000000000002",
		Args:    args(2, 2, "two snapshot ids"),
		RunE:    func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, args[0], args[1]) },
	}
}

// The JSON of snapshot diff. It is written piece by piece, so that its size is
// not bound by memory.
type (
	diffResult struct {
		A              string              `json:"a"`
		B              string              `json:"b"`
		Equal          bool                `json:"equal"`
		MetadataDiffer bool                `json:"metadata_differs"`
		Sections       []diffSectionResult `json:"sections"` // that differ
		DifferentPages uint64              `json:"different_pages"`
	}
	diffSectionResult struct {
		Section        string          `json:"section"`
		SizeA          uint64          `json:"size_a"`
		SizeB          uint64          `json:"size_b"`
		Runs           []diffRunResult `json:"runs"`
		DifferentPages uint64          `json:"different_pages"`
	}
	diffRunResult struct {
		Page  uint64 `json:"page"`
		Pages uint64 `json:"pages"`
	}
)

func (o *snapshotDiffOptions) run(ctx context.Context, a *app, nameA, nameB string) error {
	prefixA, err := parseSnapshot(nameA)
	if err != nil {
		return err
	}
	prefixB, err := parseSnapshot(nameB)
	if err != nil {
		return err
	}
	return a.withStore(ctx, a.reading(), func(e *engine.Engine) error {
		idA, err := prefixA.resolve(e, engine.CanisterID{})
		if err != nil {
			return err
		}
		idB, err := prefixB.resolve(e, engine.CanisterID{})
		if err != nil {
			return err
		}
		sa, err := e.Snapshot(ctx, idA)
		if err != nil {
			return err
		}
		defer sa.Close()
		sb, err := e.Snapshot(ctx, idB)
		if err != nil {
			return err
		}
		defer sb.Close()
		w := bufio.NewWriter(a.stdout)
		var d differ = &textDiff{w: w}
		switch {
		case a.json:
			d = &jsonDiff{w: w}
		case a.quiet:
			return nil
		}
		if err := walkDiff(sa.Detail(), sb.Detail(), e.Diff(ctx, idA, idB), d); err != nil {
			return err
		}
		return w.Flush()
	})
}

// differ is told what differs, in order.
type differ interface {
	begin(d diffResult)
	section(s diffSectionResult)
	run(r diffRunResult)
	endSection(s diffSectionResult)
	end(d diffResult)
}

// walkDiff gathers differing pages into runs, section by section.
func walkDiff(a, b engine.SnapshotDetail, pages iter.Seq2[engine.PageDiff, error], to differ) error {
	d := diffResult{A: a.ID.String(), B: b.ID.String(), MetadataDiffer: metadataDiffer(a.Metadata, b.Metadata)}
	pairs := pairSections(a.Sections, b.Sections)
	d.Equal = !d.MetadataDiffer && !slices.ContainsFunc(pairs, func(p [2]engine.SectionRoot) bool { return p[0] != p[1] })
	to.begin(d)
	next, stop := iter.Pull2(pages)
	defer stop()
	p, err, more := next()
	for _, pair := range pairs {
		if pair[0] == pair[1] {
			continue
		}
		name := pair[0].Section
		s := diffSectionResult{Section: name.String(), SizeA: pair[0].Size, SizeB: pair[1].Size}
		to.section(s)
		var r diffRunResult
		for ; more && err == nil && p.Section == name; p, err, more = next() {
			if r.Pages > 0 && p.Page != r.Page+r.Pages {
				to.run(r)
				r.Pages = 0
			}
			if r.Pages == 0 {
				r.Page = p.Page
			}
			r.Pages++
			s.DifferentPages++
		}
		if err != nil {
			return err
		}
		if r.Pages > 0 {
			to.run(r)
		}
		to.endSection(s)
		d.DifferentPages += s.DifferentPages
	}
	if err != nil {
		return err
	}
	if more {
		return fmt.Errorf("a page of %s differs, but the section does not", p.Section)
	}
	to.end(d)
	return nil
}

// pairSections pairs the sections of two versions; one that is missing has
// size 0.
func pairSections(a, b []engine.SectionRoot) [][2]engine.SectionRoot {
	var out [][2]engine.SectionRoot
	for _, r := range a {
		out = append(out, [2]engine.SectionRoot{r, {Section: r.Section}})
	}
	for _, r := range b {
		i := slices.IndexFunc(out, func(p [2]engine.SectionRoot) bool { return p[0].Section == r.Section })
		if i < 0 {
			out = append(out, [2]engine.SectionRoot{{Section: r.Section}, r})
		} else {
			out[i][1] = r
		}
	}
	slices.SortFunc(out, func(x, y [2]engine.SectionRoot) int { return x[0].Section.Compare(y[0].Section) })
	return out
}

// metadataDiffer compares what a load brings; when and how a snapshot was
// taken is not part of that.
func metadataDiffer(a, b engine.Metadata) bool {
	return a.CanisterVersion != b.CanisterVersion || !slices.Equal(a.CertifiedData, b.CertifiedData) ||
		!slices.Equal(a.Globals, b.Globals) || a.GlobalTimer != b.GlobalTimer || a.HookStatus != b.HookStatus
}

// jsonDiff writes diffResult. Failed writes show when w is flushed.
type jsonDiff struct {
	w        *bufio.Writer
	sections int
	runs     int
}

func (j *jsonDiff) begin(d diffResult) {
	fmt.Fprintf(j.w, "{\n  \"a\": %s,\n  \"b\": %s,\n  \"equal\": %t,\n  \"metadata_differs\": %t,\n  \"sections\": [", quote(d.A), quote(d.B), d.Equal, d.MetadataDiffer)
}

func (j *jsonDiff) section(s diffSectionResult) {
	fmt.Fprintf(j.w, "%s\n    {\n      \"section\": %s,\n      \"size_a\": %d,\n      \"size_b\": %d,\n      \"runs\": [", comma(j.sections), quote(s.Section), s.SizeA, s.SizeB)
	j.sections++
	j.runs = 0
}

func (j *jsonDiff) run(r diffRunResult) {
	fmt.Fprintf(j.w, "%s\n        {\"page\": %d, \"pages\": %d}", comma(j.runs), r.Page, r.Pages)
	j.runs++
}

func (j *jsonDiff) endSection(s diffSectionResult) {
	fmt.Fprintf(j.w, "],\n      \"different_pages\": %d\n    }", s.DifferentPages)
}

func (j *jsonDiff) end(d diffResult) {
	fmt.Fprintf(j.w, "],\n  \"different_pages\": %d\n}\n", d.DifferentPages)
}

func comma(n int) string { return ","[:min(n, 1)] }

func quote(s string) string {
	b, _ := json.Marshal(s) // a string can always be written
	return string(b)
}

// textDiff writes for eyes.
type textDiff struct{ w *bufio.Writer }

func (t *textDiff) begin(d diffResult) {
	if d.MetadataDiffer {
		fmt.Fprintln(t.w, "the metadata differs")
	}
}

func (t *textDiff) section(s diffSectionResult) {
	fmt.Fprint(t.w, s.Section)
	if c := cmp.Compare(s.SizeA, s.SizeB); c != 0 {
		fmt.Fprintf(t.w, "  %s -> %s", size(s.SizeA), size(s.SizeB))
	}
	fmt.Fprintln(t.w)
}

func (t *textDiff) run(r diffRunResult) {
	if r.Pages == 1 {
		fmt.Fprintf(t.w, "  page %d\n", r.Page)
	} else {
		fmt.Fprintf(t.w, "  pages %d-%d\n", r.Page, r.Page+r.Pages-1)
	}
}

func (t *textDiff) endSection(diffSectionResult) {}

func (t *textDiff) end(d diffResult) {
	fmt.Fprintf(t.w, "%s differ, %s\n", plural(int(d.DifferentPages), "page"), ui.Bytes(d.DifferentPages*engine.PageSize))
}
