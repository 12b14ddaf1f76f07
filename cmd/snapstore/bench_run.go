package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/snapstore/snapstore/bench"
)

type benchRunOptions struct {
	bench.Options
	workloads []string
	quick     bool
	out       string
}

func newBenchRunCommand(a *app) *cobra.Command {
	o := &benchRunOptions{}
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Measure the engine, the machine and other systems on the same work",
		Long: `Measure the engine on memory that is made from a seed. Each figure stands beside
what the machine can do, measured in turns with it in the same run, and beside
the bar and the aim that it is judged by. Systems that do the same are measured
on the same versions where they are installed; bench/README.md says how.

Workloads: ideal-mix (full and incremental takes, reading, gc, space), row (one
canister with up to 1,000 snapshots), sparse (4, 16 and 64 GiB of which little is
there), small (1,000 canisters of 1 MiB), churn (takes, replaces and deletes of 100
canisters), peers, preload (ten million chunks in the index; only when it is asked
for) and images (with --images DIR: successive images of real memory, archives
*.tar.zst or directories of *.mem files).

Everything is made below --dir and gone at the end. At full size that is up to
12 GiB, and takes about half an hour; --quick takes a minute, and its ratios say
less. Let nothing else run meanwhile.`,
		Example: `  snapstore bench run --quick
  snapstore bench run --json > result.json
  snapstore bench run --workload ideal-mix,row --repeats 3 --dir /mnt/disk --out result.json`,
		Args: args(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c.Context(), a, c) },
	}
	f := cmd.Flags()
	f.StringVar(&o.Dir, "dir", "", "make stores below this directory, whose disk is measured (default the system's temporary one)")
	f.Uint64Var(&o.Seed, "seed", bench.DefaultSeed, "seed of all that is generated")
	f.IntVar(&o.Repeats, "repeats", bench.DefaultRepeats, "how often each figure is measured")
	f.Float64Var(&o.Scale, "scale", 1, "shrink all sizes and numbers; the bars are made for 1")
	f.BoolVar(&o.quick, "quick", false, fmt.Sprintf("--scale %v and --repeats %d", bench.QuickScale, bench.QuickRepeats))
	f.StringSliceVar(&o.workloads, "workload", nil, "what to run, several with commas (default all but preload)")
	f.StringVar(&o.Images, "images", "", "directory with series of memory images")
	f.IntVar(&o.Preload, "preload", 0, fmt.Sprintf("chunks in the index in the workload preload (default %d)", bench.DefaultPreload))
	f.StringVarP(&o.out, "out", "o", "", "write the result as JSON to this file as well")
	return cmd
}

// benchRunResult is the JSON of bench run, and the file that compare and report read.
type benchRunResult struct{ bench.Result }

// ids are the figures that were measured.
func (r benchRunResult) ids() []string {
	var out []string
	for _, f := range r.Figures {
		if f.Verdict != bench.NotMeasured {
			out = append(out, f.ID)
		}
	}
	return out
}

func (r benchRunResult) text(w io.Writer) { _ = r.WriteText(w) } // a failed write shows when w is flushed

func (o *benchRunOptions) run(ctx context.Context, a *app, c *cobra.Command) (err error) {
	if o.quick {
		if c.Flags().Changed("scale") || c.Flags().Changed("repeats") {
			return usageError("choose one of them", "--quick excludes --scale and --repeats")
		}
		o.Scale, o.Repeats = bench.QuickScale, bench.QuickRepeats
	}
	for _, flag := range []string{"seed", "repeats", "scale", "preload"} {
		if f := c.Flags().Lookup(flag); f.Changed && f.Value.String() == "0" {
			return usageError("leave it out for its default", "--%s can not be 0", flag)
		}
	}
	for _, name := range o.workloads {
		w, err := bench.ParseWorkload(name)
		if err != nil {
			return benchError(err)
		}
		o.Workloads = append(o.Workloads, w)
	}
	var out *os.File
	if o.out != "" {
		// Half an hour later is too late to find that it can not be written. What
		// is there stays until there is something better.
		name := o.out + ".part"
		if out, err = os.Create(name); err != nil {
			return fail(exitError, "name a file that can be written with --out", "%w", err)
		}
		defer func() {
			if err = errors.Join(err, out.Close()); err == nil {
				err = os.Rename(name, o.out)
			}
			if err != nil {
				err = errors.Join(err, os.Remove(name))
			}
		}()
	}
	p := a.steps()
	o.Progress = p.step
	r, err := bench.Run(ctx, o.Options)
	p.clear()
	switch {
	case err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()):
		return fail(exitInterrupted, "nothing is left of the run; begin it again", "interrupted")
	case err != nil:
		return benchError(err)
	}
	if out != nil {
		if err := json.NewEncoder(out).Encode(r); err != nil {
			return err
		}
	}
	return a.emit(benchRunResult{r})
}

// benchError gives the errors of the harness their codes and hints.
func benchError(err error) error {
	switch {
	case errors.Is(err, bench.ErrOptions):
		return usageError(`run "snapstore bench run --help" for what there is`, "%w", err)
	case errors.Is(err, bench.ErrDifferentWork):
		return fail(exitError, "run both with the same program and options", "%w", err)
	case errors.Is(err, bench.ErrResult):
		return fail(exitError, `name a file that "snapstore bench run --out FILE" wrote`, "%w", err)
	}
	return err
}

// steps says what is done: in place on a terminal, and line by line with
// --verbose.
type steps struct {
	w          io.Writer // nil: silent
	begin, end string    // of what is written
	last       string    // at the end of all
	began      time.Time
}

func (a *app) steps() *steps {
	s := &steps{began: time.Now()}
	switch {
	case a.verbose:
		s.w, s.end = a.stderr, "\n"
	case a.progress("") != nil:
		// Carriage return, text, erase to the end of the line.
		s.w, s.begin, s.end, s.last = a.stderr, "\r", "\x1b[K", "\r\x1b[K"
	}
	return s
}

func (s *steps) step(text string) {
	if s.w != nil {
		fmt.Fprintf(s.w, "%s%s  %s%s", s.begin, toSeconds(time.Since(s.began).Round(time.Second)), text, s.end)
	}
}

func (s *steps) clear() {
	if s.w != nil {
		fmt.Fprint(s.w, s.last)
	}
}
