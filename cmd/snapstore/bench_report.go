package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/snapstore/snapstore/bench"
	"github.com/snapstore/snapstore/bench/report"
)

type benchReportOptions struct {
	out    string
	format string
}

func newBenchReportCommand(a *app) *cobra.Command {
	o := &benchReportOptions{}
	cmd := &cobra.Command{
		Use:   "report RESULT...",
		Short: "Draw a result: a page, its plots, or a table for a README",
		Long: `Draw a result that "bench run" wrote. The format html makes a directory with one
page, index.html, that needs nothing else, and each of its plots as an SVG file.
The format markdown writes the figures that have a bar, and the other systems, as
tables to standard output.

Of several results, which must be of the same program, machine and sizes, one is
made: each may have run workloads of its own.`,
		Example: `  snapstore bench report result.json --output report
  snapstore bench report result.json --format markdown`,
		Args: args(1, -1, "a file with a result"),
		RunE: func(_ *cobra.Command, names []string) error { return o.run(a, names) },
	}
	cmd.Flags().StringVarP(&o.out, "output", "o", "bench-report", "directory of the page and its plots")
	cmd.Flags().StringVar(&o.format, "format", "html", "html or markdown")
	return cmd
}

// benchReportResult is the JSON of bench report.
type benchReportResult struct {
	Page     string   `json:"page,omitempty"`
	Plots    []string `json:"plots"`
	Markdown string   `json:"markdown,omitempty"`
}

func (r benchReportResult) ids() []string {
	if r.Page == "" {
		return nil
	}
	return append([]string{r.Page}, r.Plots...)
}

func (r benchReportResult) text(w io.Writer) {
	if r.Page == "" {
		fmt.Fprint(w, r.Markdown)
		return
	}
	fmt.Fprintf(w, "%s, and %s beside it\n", r.Page, plural(len(r.Plots), "plot"))
}

func (o *benchReportOptions) run(a *app, names []string) error {
	var results []bench.Result
	for _, name := range names {
		r, err := readBench(name)
		if err != nil {
			return err
		}
		results = append(results, r)
	}
	r, err := bench.Merge(results...)
	if err != nil {
		return benchError(err)
	}
	out := benchReportResult{Plots: []string{}}
	switch o.format {
	case "markdown":
		var b strings.Builder
		if err := report.Markdown(&b, &r); err != nil {
			return err
		}
		out.Markdown = b.String()
	case "html":
		if err := o.write(&r, &out); err != nil {
			return err
		}
	default:
		return usageError("pass --format html or --format markdown", "there is no format %q", o.format)
	}
	return a.emit(out)
}

// write makes the page and its plots.
func (o *benchReportOptions) write(r *bench.Result, out *benchReportResult) error {
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	out.Page = filepath.Join(o.out, "index.html")
	f, err := os.Create(out.Page)
	if err != nil {
		return err
	}
	if err := errors.Join(report.HTML(f, r), f.Close()); err != nil {
		return err
	}
	for _, p := range report.Plots(r) {
		name := filepath.Join(o.out, p.ID+".svg")
		if err := os.WriteFile(name, []byte(p.File()), 0o644); err != nil {
			return err
		}
		out.Plots = append(out.Plots, name)
	}
	return nil
}
