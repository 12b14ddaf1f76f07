package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/zeebo/blake3"

	"github.com/snapstore/snapstore/internal/testkit/matrix"
	"github.com/snapstore/snapstore/internal/testkit/realrows"
	"github.com/snapstore/snapstore/internal/testkit/rows"
	"github.com/snapstore/snapstore/internal/ui"
)

// usageError is about the arguments.
type usageError struct{ err error }

func (e *usageError) Error() string {
	return e.err.Error() + `: see "snapstore-torture --help"`
}

func (e *usageError) Unwrap() error { return e.err }

func usage(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

// allRows are those of every kit.
func allRows() []matrix.Row { return slices.Concat(rows.InProcess(), realrows.Rows()) }

type options struct {
	seed     uint64
	rows     []string
	span     time.Duration
	cases    int64
	fast     bool
	workers  int
	state    string
	markdown string
	json     bool

	stdout, stderr io.Writer
}

func newCommand(stdout, stderr io.Writer) *cobra.Command {
	o := &options{stdout: stdout, stderr: stderr}
	cmd := &cobra.Command{
		Use:   "snapstore-torture",
		Short: "Play the fault matrix",
		Long: `Play the fault matrix, and say what was lost, wrong, leaked or freed early: nothing
may be. Without --for every row gets the cases of a full run; with it, each row
gets its share of them in that time, and more when there is time left.

With --state a run that was ended goes on where it was, as long as the program and
the seed are the same. A case that fails is told with its row and index; where it
is a history, a smaller one that fails is looked for and written as a Go test.`,
		Example:       "  snapstore-torture --for 10m --rows crash,flip --state torture.json",
		Args:          func(c *cobra.Command, args []string) error { return noArgs(args) },
		RunE:          func(c *cobra.Command, _ []string) error { return o.run(c.Context()) },
		SilenceErrors: true, SilenceUsage: true,
	}
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	p := cmd.PersistentFlags()
	p.Uint64Var(&o.seed, "seed", 1, "of the run: the same seed and index play the same case")
	p.BoolVar(&o.json, "json", false, "write JSON")
	f := cmd.Flags()
	f.DurationVar(&o.span, "for", 0, "how long cases are begun")
	f.StringSliceVar(&o.rows, "rows", nil, "only these rows, by name")
	f.Int64Var(&o.cases, "cases", 0, "so many cases of each row")
	f.BoolVar(&o.fast, "fast", false, "so many cases of each row as the tests play")
	f.IntVar(&o.workers, "workers", 0, "how many cases at a time (default one a core)")
	f.StringVar(&o.state, "state", "", "file that keeps how far the run is")
	f.StringVar(&o.markdown, "markdown", "", "file to write the table to, as Markdown")
	cmd.AddCommand(
		&cobra.Command{
			Use: "list", Short: "List the rows: what is broken, and what must hold",
			Args: func(_ *cobra.Command, args []string) error { return noArgs(args) },
			RunE: func(*cobra.Command, []string) error { return o.list() },
		},
		&cobra.Command{
			Use: "case ROW INDEX", Short: "Play one case again", Example: "  snapstore-torture case crash 17 --seed 1",
			Args: func(_ *cobra.Command, args []string) error {
				if len(args) != 2 {
					return usage("name a row and an index")
				}
				return nil
			},
			RunE: func(c *cobra.Command, args []string) error { return o.one(c.Context(), args[0], args[1]) },
		},
	)
	return cmd
}

func noArgs(args []string) error {
	if len(args) > 0 {
		return usage("unknown argument %q", args[0])
	}
	return nil
}

// chosen gives the rows that were asked for.
func (o *options) chosen() ([]matrix.Row, error) {
	all := allRows()
	if len(o.rows) == 0 {
		return all, nil
	}
	var out []matrix.Row
	for _, name := range o.rows {
		i := slices.IndexFunc(all, func(r matrix.Row) bool { return r.Name == name })
		if i < 0 {
			return nil, usage("there is no row %q", name)
		}
		out = append(out, all[i])
	}
	return out, nil
}

func (o *options) run(ctx context.Context) error {
	some, err := o.chosen()
	if err != nil {
		return err
	}
	if o.span < 0 || o.cases < 0 || o.cases > 0 && o.fast {
		return usage("--for and --cases are not negative, and --fast is a number of cases")
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	var progress *ui.Progress
	if f, ok := o.stderr.(*os.File); ok && !o.json {
		progress = ui.NewProgress(f, "torture")
	}
	began := time.Now()
	runner, err := matrix.NewRunner(some, matrix.RunnerOptions{
		Seed: o.seed, Self: self, For: o.span, Workers: o.workers, State: o.state, Version: version(self),
		Count: func(r matrix.Row) int64 {
			switch {
			case o.cases > 0:
				return o.cases
			case o.fast:
				return r.Fast
			}
			return r.Full
		},
		Progress: func(s matrix.Status) { progress.Show(statusLine(s, time.Since(began))) },
		Failed: func(f matrix.Failure) {
			progress.Clear()
			writeFailure(o.stderr, f)
		},
		Logf: func(format string, args ...any) {
			progress.Clear()
			fmt.Fprintf(o.stderr, format+"\n", args...)
		},
	})
	if err != nil {
		return err
	}
	report, err := runner.Run(ctx)
	progress.Clear()
	if err != nil {
		return err
	}
	return o.report(report)
}

// statusLine is the line of progress.
func statusLine(s matrix.Status, since time.Duration) string {
	line := fmt.Sprintf("torture  %s  %s cases  %s fault points  %d failed", ui.Duration(since), ui.Count(uint64(s.Total.Cases)), ui.Count(uint64(s.Total.Points)), s.Failed)
	if s.Left > 0 {
		line += "  " + ui.Duration(s.Left.Round(time.Second)) + " left"
	} else {
		line += fmt.Sprintf("  %s of the counts", ui.Percent(uint64(s.Done), uint64(s.Want)))
	}
	return line
}

func (o *options) report(r *matrix.Report) error {
	if o.markdown != "" {
		f, err := os.Create(o.markdown)
		if err != nil {
			return err
		}
		if err := errors.Join(r.Markdown(f), f.Close()); err != nil {
			return err
		}
	}
	w := bufio.NewWriter(o.stdout)
	if o.json {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		if err := enc.Encode(r); err != nil {
			return err
		}
	} else if err := r.Text(w); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if !r.OK() {
		return errProblems
	}
	return nil
}

func writeFailure(w io.Writer, f matrix.Failure) {
	fmt.Fprintf(w, "FAILED  row %s, case %d: play it again with \"snapstore-torture case %s %d --seed %d\"\n%s\n", f.Row, f.Index, f.Row, f.Index, f.Seed, f.Error)
	if f.Test != "" {
		fmt.Fprintf(w, "as a test:\n%s\n", f.Test)
	}
}

// one plays a case again.
func (o *options) one(ctx context.Context, name, index string) error {
	o.rows = []string{name}
	some, err := o.chosen()
	if err != nil {
		return err
	}
	i, err := strconv.ParseInt(index, 10, 64)
	if err != nil || i < 0 {
		return usage("%q is no index", index)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	run := some[0].Run
	some[0].Run = func(ctx context.Context, env *matrix.Env, _ int64) (matrix.Tally, error) { return run(ctx, env, i) }
	runner, err := matrix.NewRunner(some, matrix.RunnerOptions{
		Seed: o.seed, Self: self, Workers: 1, Version: version(self),
		Count: func(matrix.Row) int64 { return 1 },
		Failed: func(f matrix.Failure) {
			f.Index = i
			writeFailure(o.stderr, f)
		},
		Logf: func(format string, args ...any) { fmt.Fprintf(o.stderr, format+"\n", args...) },
	})
	if err != nil {
		return err
	}
	report, err := runner.Run(ctx)
	if err != nil {
		return err
	}
	for f := range report.Failures {
		report.Failures[f].Index = i
	}
	return o.report(report)
}

// rowInfo is the JSON of a row in the list.
type rowInfo struct {
	Row     string `json:"row"`
	Fault   string `json:"fault"`
	Holds   string `json:"holds"`
	Fast    int64  `json:"fast"`
	Full    int64  `json:"full"`
	Skipped string `json:"skipped,omitempty"`
}

func (o *options) list() error {
	var out []rowInfo
	for _, r := range allRows() {
		i := rowInfo{Row: r.Name, Fault: r.Fault, Holds: r.Holds, Fast: r.Fast, Full: r.Full}
		if r.Needs != nil {
			if err := r.Needs(); err != nil {
				i.Skipped = err.Error()
			}
		}
		out = append(out, i)
	}
	w := bufio.NewWriter(o.stdout)
	if o.json {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		if err := enc.Encode(out); err != nil {
			return err
		}
		return w.Flush()
	}
	for _, r := range out {
		fmt.Fprintf(w, "%s (%d cases in tests, %d in a full run)\n  %s\n  must hold: %s\n", r.Row, r.Fast, r.Full, r.Fault, r.Holds)
		if r.Skipped != "" {
			fmt.Fprintf(w, "  skipped here: %s\n", r.Skipped)
		}
	}
	return w.Flush()
}

// version names the program: what it was built of, and a hash of it, so that a
// changed one does not go on with the state of another.
func version(self string) string {
	name := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		name = info.Main.Version
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				name = s.Value[:min(12, len(s.Value))]
			}
		}
	}
	f, err := os.Open(self)
	if err != nil {
		return name
	}
	defer f.Close()
	h := blake3.New()
	if _, err := io.Copy(h, f); err != nil {
		return name
	}
	return strings.TrimSpace(name) + "+" + hex.EncodeToString(h.Sum(nil)[:4])
}
