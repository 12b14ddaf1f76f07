package matrix

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/snapstore/snapstore/internal/ui"
)

// Report is what a run showed.
type Report struct {
	Version  string      `json:"version"`
	Seed     uint64      `json:"seed"`
	Seconds  float64     `json:"seconds"` // with those of earlier runs that this one went on with
	Rows     []RowReport `json:"rows"`
	Total    Tally       `json:"total"`
	Failures []Failure   `json:"failures"`
}

// RowReport is what the cases of a row showed.
type RowReport struct {
	Row         string  `json:"row"`
	Fault       string  `json:"fault"`
	Holds       string  `json:"holds"`
	Want        int64   `json:"want"` // cases of a full run
	Tally               // what cases showed
	Failed      int     `json:"failed"`            // cases in which what must hold did not
	Skipped     string  `json:"skipped,omitempty"` // why the row can not run here
	BusySeconds float64 `json:"busy_seconds"`
}

// OK tells whether what must hold did, in every case.
func (r *Report) OK() bool {
	t := r.Total
	return len(r.Failures) == 0 && t.Lost == 0 && t.Silent == 0 && t.Leaked == 0 && t.FreedEarly == 0
}

// columns of the table, in all its forms; those that begin with ">" are numbers.
func columns() []string {
	return []string{"row", ">cases", ">fault points", ">snapshots acknowledged", ">lost", ">silent", ">leaked bytes", ">freed early", ">named", ">harmless", ">failed"}
}

func cells(name string, t Tally, failed int, skipped string) []string {
	if skipped != "" {
		return []string{name, "skipped", "", "", "", "", "", "", "", "", ""}
	}
	out := []string{name}
	for _, n := range []int64{t.Cases, t.Points, t.Acknowledged, t.Lost, t.Silent, t.Leaked, t.FreedEarly, t.Named, t.Harmless, int64(failed)} {
		out = append(out, number(n))
	}
	return out
}

// number groups digits by three.
func number(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func (r *Report) lines() (out [][]string) {
	failed := 0
	for _, row := range r.Rows {
		out = append(out, cells(row.Row, row.Tally, row.Failed, row.Skipped))
		failed += row.Failed
	}
	return append(out, cells("all", r.Total, failed, ""))
}

// Text writes the table for people, and what was skipped.
func (r *Report) Text(w io.Writer) error {
	var cols []ui.Column
	for _, c := range columns() {
		if title, ok := strings.CutPrefix(c, ">"); ok {
			cols = append(cols, ui.Column{Title: title, Align: ui.Right})
		} else {
			cols = append(cols, ui.Column{Title: c})
		}
	}
	t := ui.NewTable(cols...)
	for _, l := range r.lines() {
		t.Row(l...)
	}
	if _, err := t.WriteTo(w); err != nil {
		return err
	}
	for _, row := range r.Rows {
		if row.Skipped != "" {
			if _, err := fmt.Fprintf(w, "%s was skipped: %s\n", row.Row, row.Skipped); err != nil {
				return err
			}
		}
	}
	_, err := fmt.Fprintf(w, "seed %d, version %s, %s\n", r.Seed, r.Version, r.duration())
	return err
}

func (r *Report) duration() string {
	return ui.Duration(time.Duration(r.Seconds * float64(time.Second)))
}

// Markdown writes the table for a page of the documentation.
func (r *Report) Markdown(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "Seed %d, version %s, %s.\n\n|", r.Seed, r.Version, r.duration())
	for _, c := range columns() {
		fmt.Fprintf(&b, " %s |", strings.TrimPrefix(c, ">"))
	}
	b.WriteString("\n|")
	for _, c := range columns() {
		if c[0] == '>' {
			b.WriteString("---:|")
		} else {
			b.WriteString("---|")
		}
	}
	for _, l := range r.lines() {
		b.WriteString("\n| " + strings.Join(l, " | ") + " |")
	}
	b.WriteString("\n")
	for _, row := range r.Rows {
		if row.Skipped != "" {
			fmt.Fprintf(&b, "\n`%s` was skipped: %s.\n", row.Row, row.Skipped)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
