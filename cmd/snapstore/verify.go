package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/ui"
)

type verifyOptions struct {
	noData bool
	rate   bytesValue
}

func newVerifyCommand(a *app) *cobra.Command {
	o := &verifyOptions{}
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Check the whole store",
		Long: `Check the log, the canister records, every reference count, every tree, and,
unless --no-data, the content of every page. Problems are listed, and the exit
code is 3 when there are any.`,
		Example: `  snapstore verify
  snapstore verify --no-data
  snapstore verify --rate 50MiB`,
		Args: args(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c.Context(), a) },
	}
	cmd.Flags().BoolVar(&o.noData, "no-data", false, "do not read pages")
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
	return a.withStore(ctx, a.reading(), func(e *engine.Engine) error {
		p := a.progress("verify")
		r, err := verify(ctx, e, engine.VerifyOptions{NoData: o.noData, Rate: int64(o.rate.n), Progress: p.Update})
		p.Clear()
		if err != nil {
			return err
		}
		if err := a.emit(r); err != nil {
			return err
		}
		if r.ProblemCount > 0 {
			return fail(exitProblems, "snapshots that are not named still load; take or import the others again", "%s found", plural(r.ProblemCount, "problem"))
		}
		return nil
	})
}

func verify(ctx context.Context, e *engine.Engine, o engine.VerifyOptions) (verifyResult, error) {
	r := verifyResult{Problems: []problemResult{}, DataChecked: !o.NoData}
	began := stopwatch()
	for p, err := range e.Verify(ctx, o) {
		if err != nil {
			return r, err
		}
		if r.ProblemCount++; len(r.Problems) < maxListed {
			r.Problems = append(r.Problems, toProblem(p))
		}
	}
	r.DurationSeconds = began()
	return r, nil
}
