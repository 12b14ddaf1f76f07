package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"

	"github.com/snapstore/snapstore/bench"
)

//go:embed page.html
var pageText string

// HTML writes the whole report as one page that needs nothing else.
func HTML(w io.Writer, r *bench.Result) error {
	t, err := template.New("page").Funcs(template.FuncMap{"seconds": seconds, "megabytes": megabytes}).Parse(pageText)
	if err != nil {
		return fmt.Errorf("template of the report: %w", err)
	}
	return t.Execute(w, newPage(r))
}

func megabytes(n int64) string { return short(float64(n)/1e6) + " MB" }

// page is what the template shows.
type page struct {
	Where, What, Caution string
	Tally                []tally
	Plots                []plot
	Groups               []group
	Peers                []bench.PeerResult
	Absent               []bench.PeerResult
	Left                 int
}

type tally struct {
	Class, Text string
	N           int
}

type plot struct {
	ID, Title, Note string
	SVG             template.HTML
}

// group is a table. Columns that nothing is in are left out.
type group struct {
	Title          string
	Rows           []row
	Limits, Judged bool
}

type row struct {
	Title, Limit, Value, Spread, LimitValue, Ratio, RatioSpread, Bar, Aim, Verdict, Class, Reason string
	Bullet                                                                                        template.HTML
}

func newPage(r *bench.Result) page {
	p := page{Where: r.Where(), What: r.What(), Caution: r.Caution()}
	counts := map[bench.Verdict]int{}
	for _, f := range r.Figures {
		if !f.Asked() {
			p.Left++
			continue
		}
		if f.Judged != "" {
			counts[f.Verdict]++
		}
		if len(p.Groups) == 0 || p.Groups[len(p.Groups)-1].Title != sentence(f.Group) {
			p.Groups = append(p.Groups, group{Title: sentence(f.Group)})
		}
		g := &p.Groups[len(p.Groups)-1]
		g.Rows = append(g.Rows, newRow(f))
		g.Limits, g.Judged = g.Limits || f.Limit != "", g.Judged || f.Judged != ""
	}
	for _, v := range []struct {
		v    bench.Verdict
		text string
	}{{bench.Aimed, "reach the aim"}, {bench.Met, "meet the bar"}, {bench.Missed, "miss the bar"}, {bench.NotMeasured, "could not be measured"}} {
		if counts[v.v] > 0 {
			p.Tally = append(p.Tally, tally{class(v.v), v.text, counts[v.v]})
		}
	}
	for _, x := range Plots(r) {
		// The plots are written by this package, with every text escaped.
		p.Plots = append(p.Plots, plot{x.ID, x.Title, x.Note, template.HTML(x.SVG)})
	}
	for _, x := range r.Peers {
		if x.Absent != "" {
			p.Absent = append(p.Absent, x)
		} else {
			p.Peers = append(p.Peers, x)
		}
	}
	return p
}

func newRow(f bench.Figure) row {
	out := row{Title: f.Title, Bar: f.BarText(), Aim: f.AimText(), Class: class(f.Verdict), Reason: f.Reason}
	if f.Verdict != bench.NoBar {
		out.Verdict = string(f.Verdict)
	}
	if f.Value == nil {
		return out
	}
	out.Value, out.Spread = median(f.Value)+" "+f.Unit, around(f.Value)
	if f.LimitValue != nil {
		out.Limit, out.LimitValue = f.Limit, median(f.LimitValue)+" "+f.Unit
	}
	if f.Ratio != nil {
		out.Ratio, out.RatioSpread = median(f.Ratio), around(f.Ratio)
	}
	out.Bullet = template.HTML(bullet(f)) // numbers only
	return out
}

// around is the least and the most where they differ.
func around(s *bench.Spread) string {
	low, high := median(&bench.Spread{Median: s.Min}), median(&bench.Spread{Median: s.Max})
	if s.Samples < 2 || low == high {
		return ""
	}
	return low + " – " + high
}

func class(v bench.Verdict) string {
	switch v {
	case bench.Aimed:
		return "aim"
	case bench.Met:
		return "met"
	case bench.Missed:
		return "missed"
	case bench.NoBar:
		return "none"
	}
	return "unknown"
}

// bullet draws what is judged beside bar and aim.
func bullet(f bench.Figure) string {
	s := f.Value
	if f.Judged == "ratio" {
		s = f.Ratio
	}
	if f.Judged == "" || s == nil {
		return ""
	}
	const w, h = 150.0, 18.0
	// Far away from the bar all is the same.
	most := min(max(s.Median, s.Max, f.Bar, f.Aim), 3*max(f.Bar, f.Aim)) * 1.08
	at := func(v float64) float64 {
		if math.IsNaN(v) || most == 0 {
			return 0
		}
		return min(max(v, 0)/most, 1) * w
	}
	out := fmt.Sprintf(`<svg class="bullet" viewBox="0 0 %g %g" width="%g" height="%g" aria-hidden="true"><rect class="bt" width="%g" height="10" y="4" rx="2"/><rect class="bv %s" width="%.1f" height="10" y="4" rx="2"/>`,
		w, h, w, h, w, class(f.Verdict), at(s.Median))
	if s.Samples > 1 {
		out += fmt.Sprintf(`<line class="bw" x1="%.1f" x2="%.1f" y1="9" y2="9"/>`, at(s.Min), at(s.Max))
	}
	out += fmt.Sprintf(`<line class="bb" x1="%.1f" x2="%.1f" y1="0" y2="18"/>`, at(f.Bar), at(f.Bar))
	if f.Aim != 0 {
		out += fmt.Sprintf(`<line class="ba" x1="%.1f" x2="%.1f" y1="0" y2="18"/>`, at(f.Aim), at(f.Aim))
	}
	return out + "</svg>"
}
