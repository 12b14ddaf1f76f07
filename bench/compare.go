package bench

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/snapstore/snapstore/internal/ui"
)

// Change is what a comparison says of a figure.
type Change string

// The changes.
const (
	Better  Change = "better"
	Worse   Change = "worse"
	Noise   Change = "noise"   // the repeats of the two overlap
	Unclear Change = "unclear" // one repeat shows no noise
)

// Difference is a figure in two runs.
type Difference struct {
	ID    string `json:"id"`
	Title string `json:"title"`
	Unit  string `json:"unit"` // of what is compared; empty for a ratio
	// Of is what is compared: "ratio" where there is a limit, and "value".
	Of     string  `json:"of"`
	Before *Spread `json:"before"`
	After  *Spread `json:"after"`
	// Factor is the median after over the median before.
	Factor float64 `json:"factor"`
	Change Change  `json:"change"`
}

// Comparison is of two runs that did the same work.
type Comparison struct {
	Before      string       `json:"before"` // what was run and when
	After       string       `json:"after"`
	Cautions    []string     `json:"cautions"`
	Differences []Difference `json:"differences"`
	// Missing are figures that only one of the two has.
	Missing []string `json:"missing"`
}

// ErrDifferentWork: two runs did not do the same.
var ErrDifferentWork = errors.New("the runs did different work")

// Compare compares two runs figure by figure. Where a figure has a limit the
// ratios are compared, so that a machine that was busy once does no harm. Two
// figures differ where the ranges of their repeats do not touch.
func Compare(before, after Result) (Comparison, error) {
	c := Comparison{Before: before.What(), After: after.What(), Cautions: []string{}, Differences: []Difference{}, Missing: []string{}}
	a, b := before.Settings, after.Settings
	for _, x := range []struct {
		what          string
		before, after any
	}{
		{"seed", a.Seed, b.Seed},
		{"scale", a.Scale, b.Scale},
		{"bytes of the image", a.ImageBytes, b.ImageBytes},
		{"takes in a repeat", a.Takes, b.Takes},
		{"snapshots", a.Snapshots, b.Snapshots},
	} {
		if x.before != x.after {
			return c, fmt.Errorf("%w: %s %v and %v", ErrDifferentWork, x.what, x.before, x.after)
		}
	}
	for _, x := range []struct{ what, before, after string }{
		{"processor", before.Machine.CPU, after.Machine.CPU},
		{"cores", fmt.Sprint(before.Machine.Cores), fmt.Sprint(after.Machine.Cores)},
		{"vectors", before.Machine.Vectors, after.Machine.Vectors},
		{"kernel", before.Machine.Kernel, after.Machine.Kernel},
		{"file system", before.Machine.FileSystem, after.Machine.FileSystem},
		{"Go", before.Build.Go, after.Build.Go},
	} {
		if x.before != x.after {
			c.Cautions = append(c.Cautions, fmt.Sprintf("%s: %s, then %s", x.what, orNone(x.before), orNone(x.after)))
		}
	}
	for _, f := range before.Figures {
		g, ok := after.Figure(f.ID)
		measured := ok && g.Value != nil
		switch {
		case f.Value == nil && !measured:
		case f.Value == nil || !measured:
			c.Missing = append(c.Missing, f.ID)
		default:
			c.Differences = append(c.Differences, difference(f, g))
		}
	}
	for _, g := range after.Figures {
		if _, ok := before.Figure(g.ID); !ok && g.Value != nil {
			c.Missing = append(c.Missing, g.ID)
		}
	}
	return c, nil
}

func difference(f, g Figure) Difference {
	d := Difference{ID: f.ID, Title: f.Group + ": " + f.Title, Unit: f.Unit, Of: byValue, Before: f.Value, After: g.Value}
	moreIsBetter := f.Better == more
	if f.Ratio != nil && g.Ratio != nil {
		d.Of, d.Unit, d.Before, d.After = byRatio, "", f.Ratio, g.Ratio
		// A time under its limit's: the more the better, whatever the value is.
		moreIsBetter = f.RatioOf == underLimit || moreIsBetter
	}
	if d.Before.Median != 0 {
		d.Factor = d.After.Median / d.Before.Median
	}
	switch {
	case d.Before.Samples < 2 && d.After.Samples < 2 && d.Before.Median != d.After.Median:
		d.Change = Unclear
	case d.After.Min <= d.Before.Max && d.Before.Min <= d.After.Max:
		d.Change = Noise
	case (d.After.Median > d.Before.Median) == moreIsBetter:
		d.Change = Better
	default:
		d.Change = Worse
	}
	return d
}

func orNone(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

// WriteText writes a comparison for eyes, what changed first.
func (c *Comparison) WriteText(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "before  %s\nafter   %s\n", c.Before, c.After)
	for _, s := range c.Cautions {
		fmt.Fprintf(&b, "other %s\n", s)
	}
	counts := map[Change]int{}
	t := ui.NewTable(ui.Column{Title: "FIGURE"}, ui.Column{Title: "OF"}, ui.Column{Title: "BEFORE"}, ui.Column{Title: "AFTER"}, ui.Column{Title: "FACTOR", Align: ui.Right}, ui.Column{})
	for _, want := range []Change{Worse, Better, Unclear, Noise} {
		for _, d := range c.Differences {
			if d.Change != want {
				continue
			}
			counts[want]++
			of := d.Of
			if d.Unit != "" {
				of = d.Unit
			}
			t.Row(d.Title, of, d.Before.String(), d.After.String(), number(d.Factor), string(d.Change))
		}
	}
	fmt.Fprintln(&b)
	_, _ = t.WriteTo(&b) // a Builder does not fail
	fmt.Fprintf(&b, "\n%d better, %d worse, %d within the noise, %d unclear (one repeat)\n", counts[Better], counts[Worse], counts[Noise], counts[Unclear])
	if len(c.Missing) > 0 {
		fmt.Fprintf(&b, "only in one of the two: %s\n", strings.Join(c.Missing, ", "))
	}
	_, err := io.WriteString(w, b.String())
	return err
}
