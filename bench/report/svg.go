package report

import (
	"fmt"
	"html"
	"math"
	"strings"

	"github.com/snapstore/snapstore/bench"
)

// Plot is a picture with a name.
type Plot struct {
	ID    string
	Title string
	// Note says what is seen.
	Note string
	// SVG is the picture, without what a file of its own needs.
	SVG string
}

// File is the plot as a file that stands alone.
func (p Plot) File() string {
	return strings.Replace(p.SVG, "<svg ", `<svg xmlns="http://www.w3.org/2000/svg" `, 1)
}

// style is inside every plot, so that it is the same in the page and alone. It
// follows the reader's choice of light or dark.
const style = `<style>
.p{--ink:#1c2330;--soft:#5b6577;--grid:#e3e7ee;--track:#dfe5ef;--c0:#2459d6;--c1:#c4580d;--c2:#12805c;--c3:#8a3fc2;--back:#ffffff}
@media(prefers-color-scheme:dark){.p{--ink:#e8ecf4;--soft:#9aa5b8;--grid:#2a3342;--track:#303b4d;--c0:#74a2ff;--c1:#ff9d5c;--c2:#4fd1a1;--c3:#cf9bff;--back:#161c27}}
.p text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif;fill:var(--ink);font-size:13px}
.p .s{fill:var(--soft);font-size:12px}.p .n{font-variant-numeric:tabular-nums;font-weight:600}
.p .g{stroke:var(--grid);stroke-width:1}.p .w{stroke:var(--ink);stroke-width:1.5;opacity:.75}
.p .t{fill:var(--track)}.p .b0{fill:var(--c0)}.p .b1{fill:var(--c1)}.p .b2{fill:var(--c2)}.p .b3{fill:var(--c3)}
.p .l{fill:none;stroke-width:2;stroke-linejoin:round}.p .l0{stroke:var(--c0)}.p .l1{stroke:var(--c1);stroke-dasharray:5 4}.p .l2{stroke:var(--c2)}.p .l3{stroke:var(--c3)}
</style>`

type canvas struct {
	strings.Builder
	w, h float64
}

func newCanvas(title string, w, h float64) *canvas {
	c := &canvas{w: w, h: h}
	fmt.Fprintf(c, `<svg class="p" viewBox="0 0 %g %g" role="img" aria-label="%s">%s<rect width="%g" height="%g" fill="var(--back)"/>`, w, h, html.EscapeString(title), style, w, h)
	return c
}

func (c *canvas) done() string { return c.String() + "</svg>" }

func (c *canvas) text(x, y float64, class, anchor, s string) {
	fmt.Fprintf(c, `<text x="%.1f" y="%.1f" class="%s" text-anchor="%s">%s</text>`, x, y, class, anchor, html.EscapeString(s))
}

func (c *canvas) rect(x, y, w, h float64, class string) {
	fmt.Fprintf(c, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="2.5" class="%s"/>`, x, y, max(w, 0), h, class)
}

func (c *canvas) line(x1, y1, x2, y2 float64, class string) {
	fmt.Fprintf(c, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" class="%s"/>`, x1, y1, x2, y2, class)
}

// plotWidth is about what a plot has on the page, so that its text is as large
// as the page's.
const plotWidth = 600

// bar is one row of a chart of bars.
type bar struct {
	name  string
	value float64
	low   float64 // of the repeats; 0 is not shown
	high  float64
	limit float64 // drawn behind; 0 is none
	text  string  // after the bar
	class string
}

// bars draws rows, with a logarithmic scale where they differ by orders of
// magnitude.
func bars(title string, rows []bar, log bool) string {
	const rowHeight, left, right, top = 34.0, 166.0, 178.0, 8.0
	c := newCanvas(title, plotWidth, top+rowHeight*float64(len(rows))+8)
	most, least := 0.0, math.Inf(1)
	for _, r := range rows {
		most, least = max(most, r.value, r.limit, r.high), min(least, r.value)
	}
	width := c.w - left - right
	at := func(v float64) float64 {
		if most <= 0 || v <= 0 {
			return 0
		}
		if log {
			from := math.Log10(least) - 0.3
			return width * (math.Log10(v) - from) / (math.Log10(most) - from)
		}
		return width * v / most
	}
	for i, r := range rows {
		y := top + rowHeight*float64(i)
		c.text(left-12, y+21, "", "end", r.name)
		end := at(r.value)
		if r.limit > 0 {
			c.rect(left, y+5, at(r.limit), rowHeight-10, "t")
			end = max(end, at(r.limit))
		}
		c.rect(left, y+9, at(r.value), rowHeight-18, r.class)
		if r.high > r.low && r.low > 0 {
			c.line(left+at(r.low), y+17, left+at(r.high), y+17, "w")
			c.line(left+at(r.low), y+13, left+at(r.low), y+21, "w")
			c.line(left+at(r.high), y+13, left+at(r.high), y+21, "w")
			end = max(end, at(r.high))
		}
		c.text(left+end+8, y+21, "n", "start", r.text)
	}
	return c.done()
}

// lines draws curves.
func lines(s bench.Series) string {
	const left, right, top, bottom = 52.0, 20.0, 40.0, 48.0
	c := newCanvas(s.Title, plotWidth, 300)
	w, h := c.w-left-right, c.h-top-bottom
	x, y := newAxis(s.LogX), newAxis(s.LogY)
	if !s.LogY {
		y.include(0)
	}
	for _, l := range s.Lines {
		for _, p := range l.Points {
			x.include(p.X)
			y.include(p.Y)
		}
	}
	x.finish(8)
	y.finish(5)
	for _, t := range y.ticks {
		py := top + h*(1-y.at(t))
		c.line(left, py, left+w, py, "g")
		c.text(left-8, py+4, "s", "end", short(t))
	}
	for _, t := range x.ticks {
		c.text(left+w*x.at(t), top+h+20, "s", "middle", short(t))
	}
	c.line(left, top+h, left+w, top+h, "g")
	c.text(left+w, top+h+40, "s", "end", s.X)
	c.text(left-8, top-14, "s", "start", s.Y)
	legend := left + 20 + 6.6*float64(len([]rune(s.Y)))
	for i, l := range s.Lines {
		class := fmt.Sprint(i % 4)
		var d strings.Builder
		for j, p := range l.Points {
			cmd := "L"
			if j == 0 {
				cmd = "M"
			}
			fmt.Fprintf(&d, "%s%.1f %.1f", cmd, left+w*x.at(p.X), top+h*(1-y.at(p.Y)))
		}
		fmt.Fprintf(c, `<path d="%s" class="l l%s"/>`, d.String(), class)
		if len(l.Points) <= 12 {
			for _, p := range l.Points {
				fmt.Fprintf(c, `<circle cx="%.1f" cy="%.1f" r="4" class="b%s"/>`, left+w*x.at(p.X), top+h*(1-y.at(p.Y)), class)
				c.text(left+w*x.at(p.X), top+h*(1-y.at(p.Y))-10, "n", "middle", short(p.Y))
			}
		}
		fmt.Fprintf(c, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" class="l l%s"/>`, legend, top-18, legend+22, top-18, class)
		c.text(legend+28, top-14, "s", "start", l.Name)
		legend += 52 + 6.6*float64(len([]rune(l.Name)))
	}
	return c.done()
}

// axis maps values to 0..1.
type axis struct {
	log      bool
	from, to float64
	ticks    []float64
}

func newAxis(log bool) *axis { return &axis{log: log, from: math.Inf(1), to: math.Inf(-1)} }

func (a *axis) include(v float64) {
	if a.log && v <= 0 || math.IsNaN(v) || math.IsInf(v, 0) {
		return
	}
	a.from, a.to = min(a.from, v), max(a.to, v)
}

// finish chooses about n ticks and widens the axis to them.
func (a *axis) finish(n int) {
	if math.IsInf(a.from, 0) {
		a.from, a.to = 0, 1
	}
	if a.log {
		a.logTicks(n)
		return
	}
	if a.to == a.from {
		a.to = a.from + 1
	}
	step := niceStep((a.to - a.from) / float64(n))
	a.from = math.Floor(a.from/step) * step
	a.to = math.Ceil(a.to/step) * step
	for i := 0; i <= int(math.Round((a.to-a.from)/step)); i++ {
		a.ticks = append(a.ticks, a.from+float64(i)*step)
	}
}

func (a *axis) logTicks(n int) {
	if a.to == a.from {
		a.to = a.from * 2
	}
	base := 10.0
	if a.to/a.from < 100 {
		base = 2
	}
	first := math.Floor(math.Log(a.from)/math.Log(base) + 1e-9)
	last := math.Ceil(math.Log(a.to)/math.Log(base) - 1e-9)
	each := max(1, math.Ceil((last-first)/float64(2*n)))
	a.from, a.to = math.Pow(base, first), math.Pow(base, last)
	for e := first; e <= last; e += each {
		a.ticks = append(a.ticks, math.Pow(base, e))
	}
}

// niceStep is the next of 1, 2, 5 times a power of ten.
func niceStep(v float64) float64 {
	p := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 2, 5} {
		if m*p >= v*0.999 {
			return m * p
		}
	}
	return 10 * p
}

func (a *axis) at(v float64) float64 {
	if a.log {
		return math.Log(max(v, a.from)/a.from) / math.Log(a.to/a.from)
	}
	return (v - a.from) / (a.to - a.from)
}

// short is a number for an axis.
func short(v float64) string {
	if v != 0 && math.Abs(v) < 0.001 {
		return fmt.Sprintf("%.0e", v)
	}
	s := fmt.Sprintf("%.3g", v)
	if math.Abs(v) >= 1000 {
		s = fmt.Sprintf("%.0f", v)
		if len(s) > 3 {
			s = s[:len(s)-3] + "," + s[len(s)-3:]
		}
	}
	return s
}
