package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/ui"
)

type verifyOptions struct {
	noData, repair bool
	rate           bytesValue
}

func newVerifyCommand(a *app) *cobra.Command {
	o := &verifyOptions{}
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Check the whole store",
		Long: `Check the log, the canister records, every reference count, every tree, and,
unless --no-data, the content of every page. Problems are listed, and the exit
code is 3 when there are any.

With --repair, what can be mended is, and then the store is checked again: the
index, the counts and the directories of segments are built anew; of a damaged
segment everything that can be read is moved to a new one, and the file is put
into the store's quarantine directory as it is. What can not be read stays listed,
page by page, and is never replaced by anything else: write or import such a page
again and it heals.`,
		Example: `  snapstore verify
  snapstore verify --no-data
  snapstore verify --rate 50MiB
  snapstore verify --repair`,
		Args: args(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c.Context(), a) },
	}
	cmd.Flags().BoolVar(&o.noData, "no-data", false, "do not read pages")
	cmd.Flags().BoolVar(&o.repair, "repair", false, "mend what can be mended, and check again")
	cmd.Flags().Var(&o.rate, "rate", "read at most so many bytes a second")
	return cmd
}

// maxListed bounds the problems that are listed; all are counted.
const maxListed = 10_000

// verifyResult is the JSON of verify.
type verifyResult struct {
	Problems        []problemResult `json:"problems"`
	ProblemCount    int             `json:"problem_count"` // may be more than are listed
	DataChecked     bool            `json:"data_checked"`
	DurationSeconds seconds         `json:"duration_seconds"`
}

// verifyRepairResult is the JSON of the verb, with what --repair did.
type verifyRepairResult struct {
	verifyResult
	Repair *repairResult `json:"repair,omitempty"`
}

func (r verifyRepairResult) text(w io.Writer) {
	if r.Repair != nil {
		r.Repair.text(w)
	}
	r.verifyResult.text(w)
}

// repairResult is what --repair did.
type repairResult struct {
	ProblemsBefore int          `json:"problems_before"`
	RebuiltIndex   bool         `json:"rebuilt_index"`
	SetAside       []uint64     `json:"segments_set_aside"`
	Emptied        []uint64     `json:"segments_emptied"`
	Gone           []uint64     `json:"segments_gone"`
	Kept           []keptResult `json:"segments_kept"`
}

// keptResult is a damaged segment that stays where it is.
type keptResult struct {
	Segment uint64 `json:"segment"`
	Reason  string `json:"reason"`
}

func (r *repairResult) text(w io.Writer) {
	if r.ProblemsBefore == 0 {
		return
	}
	fmt.Fprintf(w, "%s before the repair\n", plural(r.ProblemsBefore, "problem"))
	if r.RebuiltIndex {
		fmt.Fprintln(w, "the index was built anew")
	}
	for _, s := range r.SetAside {
		fmt.Fprintf(w, "segment %d: what can be read was moved, and its file put into quarantine\n", s)
	}
	for _, s := range r.Emptied {
		fmt.Fprintf(w, "segment %d: everything in it could be read and was moved\n", s)
	}
	for _, s := range r.Gone {
		fmt.Fprintf(w, "segment %d: its file is missing, and nothing refers to it any more\n", s)
	}
	for _, s := range r.Kept {
		fmt.Fprintf(w, "segment %d: %s\n", s.Segment, s.Reason)
	}
}

// problemResult is one thing that is wrong; fields that say nothing are left out.
type problemResult struct {
	Kind     string `json:"kind"`
	Canister string `json:"canister,omitempty"`
	Snapshot string `json:"snapshot,omitempty"` // none: the live state
	Section  string `json:"section,omitempty"`
	Page     uint64 `json:"page"`
	Chunk    string `json:"chunk,omitempty"`
	File     string `json:"file,omitempty"`
	Offset   int64  `json:"offset"`
	Detail   string `json:"detail"`
}

func toProblem(p engine.Problem) problemResult {
	r := problemResult{Kind: string(p.Kind), Section: p.Section, Page: p.Page, File: p.File, Offset: p.Offset, Detail: p.Detail}
	if !p.Canister.IsZero() {
		r.Canister = p.Canister.String()
	}
	if !p.Snapshot.IsZero() {
		r.Snapshot = p.Snapshot.String()
	}
	if !p.Chunk.IsZero() {
		r.Chunk = p.Chunk.String()
	}
	return r
}

func (p problemResult) String() string {
	s := p.Kind
	if p.Canister != "" {
		s += " in canister " + p.Canister
	}
	if p.Snapshot != "" {
		s += " snapshot " + p.Snapshot
	} else if p.Section != "" {
		s += " live state"
	}
	if p.Section != "" {
		s += fmt.Sprintf(" %s page %d", p.Section, p.Page)
	}
	if p.Chunk != "" {
		s += " chunk " + p.Chunk
	}
	if p.File != "" {
		s += fmt.Sprintf(" (%s at %d)", p.File, p.Offset)
	}
	return s + ": " + p.Detail
}

func (r verifyResult) ids() []string { return nil }

func (r verifyResult) text(w io.Writer) {
	for _, p := range r.Problems {
		fmt.Fprintln(w, p)
	}
	if hidden := r.ProblemCount - len(r.Problems); hidden > 0 {
		fmt.Fprintf(w, "and %s more\n", ui.Count(uint64(hidden)))
	}
	if r.ProblemCount == 0 {
		fmt.Fprintf(w, "no problems found in %s\n", r.DurationSeconds)
	}
}

func (o *verifyOptions) run(ctx context.Context, a *app) error {
	if o.repair {
		return o.runRepair(ctx, a)
	}
	return a.withStore(ctx, a.reading(), func(e *engine.Engine) error {
		p := a.progress("verify")
		r, err := verify(ctx, e, engine.VerifyOptions{NoData: o.noData, Rate: int64(o.rate.n), Progress: p.Update})
		p.Clear()
		if err != nil {
			return err
		}
		return verifyRepairResult{verifyResult: r}.done(a, "found")
	})
}

func (r verifyRepairResult) done(a *app, word string) error {
	if err := a.emit(r); err != nil {
		return err
	}
	if r.ProblemCount > 0 {
		return fail(exitProblems, "snapshots that are not named still load; take or import the others again", "%s %s", plural(r.ProblemCount, "problem"), word)
	}
	return nil
}

func (o *verifyOptions) runRepair(ctx context.Context, a *app) error {
	dir, err := a.storeDir()
	if err != nil {
		return err
	}
	r := verifyRepairResult{verifyResult: verifyResult{Problems: []problemResult{}, DataChecked: !o.noData}}
	began := stopwatch()
	p := a.progress("verify and repair")
	rep, err := engine.Repair(ctx, dir, a.reading(), engine.RepairOptions{
		Verify: engine.VerifyOptions{NoData: o.noData, Rate: int64(o.rate.n), Progress: p.Update},
		Left:   r.add,
	})
	p.Clear()
	if err != nil {
		return err
	}
	r.DurationSeconds = began()
	r.Repair = &repairResult{
		ProblemsBefore: rep.Found, RebuiltIndex: rep.RebuiltIndex,
		SetAside: list(rep.SetAside), Emptied: list(rep.Emptied), Gone: list(rep.Gone), Kept: []keptResult{},
	}
	for _, id := range slices.Sorted(maps.Keys(rep.Kept)) {
		r.Repair.Kept = append(r.Repair.Kept, keptResult{id, rep.Kept[id]})
	}
	return r.done(a, "left")
}

// list is never null in JSON.
func list(ids []uint64) []uint64 { return append([]uint64{}, ids...) }

func (r *verifyResult) add(p engine.Problem) {
	if r.ProblemCount++; len(r.Problems) < maxListed {
		r.Problems = append(r.Problems, toProblem(p))
	}
}

func verify(ctx context.Context, e *engine.Engine, o engine.VerifyOptions) (verifyResult, error) {
	r := verifyResult{Problems: []problemResult{}, DataChecked: !o.NoData}
	began := stopwatch()
	for p, err := range e.Verify(ctx, o) {
		if err != nil {
			return r, err
		}
		r.add(p)
	}
	r.DurationSeconds = began()
	return r, nil
}
