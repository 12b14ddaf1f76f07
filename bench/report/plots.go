package report

import (
	"fmt"
	"slices"

	"github.com/snapstore/snapstore/bench"
)

// Plots are the pictures that a result has data for, in the order of the page.
func Plots(r *bench.Result) []Plot {
	var out []Plot
	add := func(p Plot) {
		if p.SVG != "" {
			out = append(out, p)
		}
	}
	add(throughput(r))
	add(peers(r))
	for _, s := range []struct{ id, note string }{
		{"row", "Each point is the median of ten takes; the dashed line is the same work without a store, measured in turns with them."},
		{"size", "The same number of dirty pages, of memories of which little is there: what a take costs must follow what changed."},
		{"gc", "How many of the takes were done after that time, without gc and while it worked."},
	} {
		if i := slices.IndexFunc(r.Series, func(x bench.Series) bool { return x.ID == s.id }); i >= 0 {
			add(Plot{s.id, sentence(r.Series[i].Title), s.note, lines(r.Series[i])})
		}
	}
	add(space(r))
	return out
}

// throughput are the figures in MB/s, each over its limit.
func throughput(r *bench.Result) Plot {
	var rows []bar
	for _, x := range []struct{ id, name string }{
		{"full.speed", "full snapshot, durable"}, {"restore.warm", "restore, warm"}, {"restore.cold", "restore, cold"},
	} {
		f, ok := r.Figure(x.id)
		if !ok || f.Value == nil || f.LimitValue == nil {
			continue
		}
		rows = append(rows, bar{
			name: x.name, value: f.Value.Median, low: f.Value.Min, high: f.Value.Max, limit: f.LimitValue.Median, class: "b0",
			text: fmt.Sprintf("%s MB/s, ratio %.2f", short(f.Value.Median), f.Ratio.Median),
		})
	}
	if len(rows) == 0 {
		return Plot{}
	}
	const title = "Throughput, and the limit of the machine"
	return Plot{"throughput", title, "The broad bar behind is the limit measured in the same run: the same work without a store, or what the disk can give. The whisker goes from the least to the most of the repeats.", bars(title, rows, false)}
}

// peers compares times of an increment, which differ by orders of magnitude.
func peers(r *bench.Result) Plot {
	var rows []bar
	for _, p := range r.Peers {
		if p.Absent != "" || p.Increment == nil {
			continue
		}
		class := "b1"
		switch p.Kind {
		case "snapstore":
			class = "b0"
		case "reflink":
			class = "b2"
		case "library":
			class = "b3"
		}
		rows = append(rows, bar{
			name: p.Name, value: p.Increment.Median, low: p.Increment.Min, high: p.Increment.Max, class: class,
			text: shortSeconds(p.Increment.Median),
		})
	}
	if len(rows) < 2 {
		return Plot{}
	}
	slices.SortStableFunc(rows, func(a, b bar) int {
		if a.value < b.value {
			return -1
		}
		return 1
	})
	const title = "Time to keep a version of which 1 % changed"
	return Plot{"peers", title, "The same versions in the same run, in turns; the scale is logarithmic. Green are reflinks of file systems, purple are two designs on the same libraries, orange are backup programs and copies.", bars(title, rows, true)}
}

// space compares bytes on disk.
func space(r *bench.Result) Plot {
	i := slices.IndexFunc(r.Series, func(s bench.Series) bool { return s.ID == "space" })
	if i < 0 {
		return Plot{}
	}
	var rows []bar
	own := 0.0
	for _, l := range r.Series[i].Lines {
		if l.Name == "snapstore" {
			own = l.Points[0].Y
		}
	}
	for _, l := range r.Series[i].Lines {
		v := l.Points[0].Y
		b := bar{name: l.Name, value: v, class: "t", text: short(v) + " MB"}
		switch l.Name {
		case "snapstore":
			b.class = "b0"
		default:
			if own > 0 {
				b.text += fmt.Sprintf(", %.2f x", v/own)
			}
		}
		rows = append(rows, b)
	}
	title := sentence(r.Series[i].Title)
	return Plot{"space", title, "Settled and cleaned. The ideal stores each distinct page once, compressed alone, and no metadata at all; the scale is logarithmic.", bars(title, rows, true)}
}

func sentence(s string) string {
	if s == "" {
		return s
	}
	return string(s[0]-'a'+'A') + s[1:]
}

func shortSeconds(v float64) string {
	if v < 1 {
		return short(v*1000) + " ms"
	}
	return short(v) + " s"
}
