package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/snapstore/snapstore/internal/ui"
)

// result is what a verb has to say, in every mode of output. Its JSON form is
// itself.
type result interface {
	// ids is what --quiet prints, one a line: ids the verb made, changed or listed.
	ids() []string
	// text is for eyes.
	text(w io.Writer)
}

// emit writes a result in the mode that was asked for.
func (a *app) emit(r result) error {
	w := bufio.NewWriter(a.stdout)
	switch {
	case a.json:
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		if err := enc.Encode(r); err != nil {
			return err
		}
	case a.quiet:
		for _, id := range r.ids() {
			fmt.Fprintln(w, id)
		}
	default:
		r.text(w)
	}
	return w.Flush()
}

// progress makes a progress line. It is nil, and so silent, unless a person
// looks at a terminal.
func (a *app) progress(label string) *ui.Progress {
	f, ok := a.stderr.(*os.File)
	if !ok || a.json || a.quiet || a.noProgress {
		return nil
	}
	return ui.NewProgress(f, label)
}

// facts writes "name  value" lines, aligned.
func facts(w io.Writer, pairs ...string) {
	t := ui.NewTable(ui.Column{}, ui.Column{})
	for i := 0; i+1 < len(pairs); i += 2 {
		t.Row(pairs[i], pairs[i+1])
	}
	_, _ = t.WriteTo(w) // a failed write shows when w is flushed
}

// table writes rows under titles. Titles that begin with ">" stand right.
func table(w io.Writer, titles []string, rows [][]string) {
	columns := make([]ui.Column, len(titles))
	for i, t := range titles {
		columns[i].Title = t
		if t[0] == '>' {
			columns[i] = ui.Column{Title: t[1:], Align: ui.Right}
		}
	}
	t := ui.NewTable(columns...)
	for _, r := range rows {
		t.Row(r...)
	}
	_, _ = t.WriteTo(w)
}

// seconds is a duration in JSON.
type seconds float64

func toSeconds(d time.Duration) seconds { return seconds(d.Seconds()) }

func (s seconds) String() string {
	return ui.Duration(time.Duration(float64(s) * float64(time.Second)))
}

// size is a number of bytes for eyes: exact, and in units where it is large.
func size(n uint64) string {
	if n < 1024 {
		return ui.Bytes(n)
	}
	return fmt.Sprintf("%s (%s bytes)", ui.Bytes(n), ui.Count(n))
}

func shortTime(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") }

// stopwatch starts, and returns what tells the time since.
func stopwatch() func() seconds {
	began := time.Now()
	return func() seconds { return toSeconds(time.Since(began)) }
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return ui.Count(uint64(n)) + " " + noun + "s"
}
