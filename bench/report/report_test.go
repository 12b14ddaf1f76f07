package report

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/snapstore/snapstore/bench"
)

// hostile is text that must not become markup.
const hostile = `a<script>alert("1")</script>|*b*`

// example has every kind of figure, curve and peer.
func example() *bench.Result {
	of := func(v ...float64) *bench.Spread {
		return &bench.Spread{Samples: len(v), Min: v[0], Median: v[len(v)/2], Max: v[len(v)-1]}
	}
	r := &bench.Result{
		Schema: 1, Began: time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC), DurationSeconds: 1234,
		Build:    bench.Build{Version: "v1", Commit: "0123456789abcdef", Modified: true, Go: "go1.26.0"},
		Machine:  bench.Machine{CPU: hostile, Cores: 2, Vectors: "AVX2", MemoryBytes: 8 << 30, FileSystem: "ext4"},
		Settings: bench.Settings{Seed: 1, Repeats: 3, Scale: 1, Workloads: []string{"ideal-mix"}},
		Figures:  bench.Specs(),
	}
	for i := range r.Figures {
		f := &r.Figures[i]
		f.Value = of(90, 100, 120)
		if f.Limit != "" {
			f.LimitValue, f.Ratio = of(100, 110, 130), of(f.Bar*0.9, f.Bar, f.Bar*1.2)
		}
		f.Verdict = []bench.Verdict{bench.Aimed, bench.Met, bench.Missed}[i%3]
		if f.Judged == "" {
			f.Verdict = bench.NoBar
		}
	}
	last := &r.Figures[len(r.Figures)-1]
	last.Verdict, last.Value, last.LimitValue, last.Ratio, last.Reason = bench.NotMeasured, nil, nil, nil, hostile
	for _, id := range []string{"row", "size", "gc"} {
		r.Series = append(r.Series, bench.Series{ID: id, Title: "latency of " + hostile, X: "x", Y: "ms", LogX: id == "size", Lines: []bench.Line{
			{Name: hostile, Points: []bench.Point{{X: 4, Y: 3}, {X: 64, Y: 9.5}}}, {Name: "limit", Points: []bench.Point{{X: 4, Y: 3}}},
		}})
	}
	r.Series = append(r.Series, bench.Series{ID: "space", Title: "bytes", Lines: []bench.Line{
		{Name: "snapstore", Points: []bench.Point{{Y: 430}}}, {Name: "ideal", Points: []bench.Point{{Y: 400}}},
	}})
	r.Peers = []bench.PeerResult{
		{Name: "snapstore", Kind: "snapstore", Full: of(1), Increment: of(0.02, 0.03, 0.04), Restore: of(0.5), Delete: of(0.001), AllBytes: 430e6},
		{Name: hostile, Kind: "backup", Full: of(9), Increment: of(3, 4, 5), AllBytes: 800e6, Note: hostile},
		{Name: "absent", Kind: "backup", Absent: hostile},
	}
	return r
}

func TestPlotsAreWholeAndEscaped(t *testing.T) {
	t.Parallel()
	plots := Plots(example())
	ids := []string{}
	for _, p := range plots {
		ids = append(ids, p.ID)
		for d := xml.NewDecoder(strings.NewReader(p.File())); ; {
			tok, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", p.ID, err)
			}
			if e, ok := tok.(xml.StartElement); ok {
				if e.Name.Space != "http://www.w3.org/2000/svg" || e.Name.Local == "script" {
					t.Errorf("%s has an element %v", p.ID, e.Name)
				}
				for _, a := range e.Attr {
					if strings.Contains(a.Value, "NaN") || strings.Contains(a.Value, "Inf") {
						t.Errorf("%s: %s=%q", p.ID, a.Name.Local, a.Value)
					}
				}
			}
		}
	}
	if got := strings.Join(ids, " "); got != "throughput peers row size gc space" {
		t.Errorf("plots %s", got)
	}
	if len(Plots(&bench.Result{Figures: bench.Specs()})) != 0 {
		t.Error("there are plots of nothing")
	}
}

// TestPageIsSelfContained: nothing is loaded from elsewhere, and no text of a
// result becomes markup.
func TestPageIsSelfContained(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	r := example()
	if err := HTML(&b, r); err != nil {
		t.Fatal(err)
	}
	page := b.String()
	if name := os.Getenv("SNAPSTORE_PAGE"); name != "" {
		if err := os.WriteFile(name, []byte(page), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if m := regexp.MustCompile(`(?i)<script|https?:|src=|url\(|@import|ZgotmplZ`).FindString(page); m != "" {
		t.Errorf("the page has %q", m)
	}
	for _, f := range r.Figures {
		if !strings.Contains(page, strings.ReplaceAll(f.Title, "+", "&#43;")) {
			t.Errorf("the page has no %q", f.Title)
		}
	}
	for _, want := range []string{"reach the aim", "meet the bar", "miss the bar", "prefers-color-scheme:dark", "&lt;script&gt;", "1,234"} {
		if want != "1,234" && !strings.Contains(page, want) {
			t.Errorf("the page has no %q", want)
		}
	}
}

func TestMarkdownTable(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	if err := Markdown(&b, example()); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	rows := 0
	for _, line := range strings.Split(text, "\n") {
		if !strings.HasPrefix(line, "|") {
			continue
		}
		rows++
		if n := strings.Count(strings.ReplaceAll(line, `\|`, ""), "|"); n != 8 {
			t.Errorf("%d bars in %s", n, line)
		}
	}
	bars := 0
	for _, f := range example().Figures {
		if f.Bar != 0 || strings.HasPrefix(f.ID, "size.") {
			bars++
		}
	}
	if rows != bars+2+3+2 {
		t.Errorf("%d rows, want %d figures and 3 peers with their titles:\n%s", rows, bars, text)
	}
	if strings.Contains(text, "<script") {
		t.Error("text became markup")
	}
}

func TestAxis(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		log    bool
		values []float64
		first  float64
		last   float64
	}{
		{false, []float64{0, 97}, 0, 100},
		{false, []float64{0, 0.013}, 0, 0.015},
		{false, []float64{5, 5}, 5, 6},
		{false, nil, 0, 1},
		{true, []float64{4, 64}, 4, 64},
		{true, []float64{1, 900}, 1, 1000},
		{true, []float64{3, 3}, 2, 8},
		{false, []float64{math.NaN(), 1, 2}, 1, 2},
	} {
		a := newAxis(c.log)
		for _, v := range c.values {
			a.include(v)
		}
		a.finish(5)
		if len(a.ticks) < 2 || math.Abs(a.ticks[0]-c.first) > 1e-9 || math.Abs(a.ticks[len(a.ticks)-1]-c.last) > 1e-9 {
			t.Errorf("%v: ticks %v, want %v to %v", c.values, a.ticks, c.first, c.last)
		}
		if got := a.at(a.ticks[0]); math.Abs(got) > 1e-9 {
			t.Errorf("%v: the first tick is at %v", c.values, got)
		}
	}
}
