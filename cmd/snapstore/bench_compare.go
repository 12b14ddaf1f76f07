package main

import (
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/snapstore/snapstore/bench"
)

func newBenchCompareCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "compare BEFORE AFTER",
		Short: "Say what differs between two results by more than the noise",
		Long: `Compare two results that "bench run" wrote, figure by figure. Where a figure has a
limit, the ratios to the limits of their own runs are compared, so that a machine
that was busy once does no harm. Two figures differ where the ranges of their
repeats do not touch.`,
		Example: "  snapstore bench compare before.json after.json",
		Args:    args(2, 2, "two files with results"),
		RunE: func(_ *cobra.Command, names []string) error {
			before, err := readBench(names[0])
			if err != nil {
				return err
			}
			after, err := readBench(names[1])
			if err != nil {
				return err
			}
			c, err := bench.Compare(before, after)
			if err != nil {
				return benchError(err)
			}
			return a.emit(benchCompareResult{c})
		},
	}
}

// benchCompareResult is the JSON of bench compare.
type benchCompareResult struct{ bench.Comparison }

// ids are the figures that differ.
func (r benchCompareResult) ids() []string {
	var out []string
	for _, d := range r.Differences {
		if d.Change == bench.Better || d.Change == bench.Worse {
			out = append(out, d.ID)
		}
	}
	return out
}

func (r benchCompareResult) text(w io.Writer) { _ = r.WriteText(w) } // a failed write shows when w is flushed

// readBench reads a result from a file.
func readBench(name string) (bench.Result, error) {
	f, err := os.Open(name)
	if err != nil {
		return bench.Result{}, err
	}
	defer f.Close()
	r, err := bench.ReadResult(f)
	if err != nil {
		return r, benchError(&os.PathError{Op: "read", Path: name, Err: err})
	}
	return r, nil
}
