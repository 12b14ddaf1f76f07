package bench

import (
	"errors"
	"strings"
	"testing"
)

func measured(f Figure, samples ...sample) Figure {
	f.summarise(samples)
	return f
}

func TestCompare(t *testing.T) {
	t.Parallel()
	speed := Figure{ID: "speed", Title: "speed", Unit: "MB/s", Limit: "l", RatioOf: overLimit, Better: more}
	latency := Figure{ID: "latency", Title: "latency", Unit: "ms", Limit: "l", RatioOf: underLimit, Better: less}
	size := Figure{ID: "size", Title: "size", Unit: "MB", Better: less}
	for _, c := range []struct {
		name          string
		before, after Figure
		want          Change
		factor        float64
	}{
		{"twice as fast on a machine half as fast", measured(speed, sample{40, 100}, sample{44, 100}), measured(speed, sample{40, 50}, sample{44, 50}), Better, 2},
		{"as fast in numbers and slower to its limit", measured(speed, sample{40, 50}, sample{44, 50}), measured(speed, sample{40, 100}, sample{44, 100}), Worse, 0.5},
		{"ranges that touch", measured(speed, sample{40, 100}, sample{60, 100}), measured(speed, sample{60, 100}, sample{90, 100}), Noise, 1.5},
		{"a shorter time", measured(latency, sample{10, 5}, sample{10, 6}), measured(latency, sample{5, 5}, sample{5, 6}), Better, 2},
		{"more space", measured(size, sample{10, 0}, sample{11, 0}), measured(size, sample{12, 0}, sample{13, 0}), Worse, 12.5 / 10.5},
		{"the same number of one repeat", measured(size, sample{10, 0}), measured(size, sample{10, 0}), Noise, 1},
		{"one repeat", measured(size, sample{10, 0}), measured(size, sample{11, 0}), Unclear, 1.1},
		{"one repeat against several", measured(size, sample{10, 0}, sample{12, 0}), measured(size, sample{11, 0}), Noise, 1},
	} {
		got, err := Compare(Result{Figures: []Figure{c.before}}, Result{Figures: []Figure{c.after}})
		if err != nil || len(got.Differences) != 1 {
			t.Fatalf("%s: %+v, %v", c.name, got, err)
		}
		if d := got.Differences[0]; d.Change != c.want || d.Factor < c.factor*0.99 || d.Factor > c.factor*1.01 {
			t.Errorf("%s: %s by %v, want %s by %v", c.name, d.Change, d.Factor, c.want, c.factor)
		}
		var b strings.Builder
		if err := got.WriteText(&b); err != nil || !strings.Contains(b.String(), c.before.Title) {
			t.Errorf("%s: %v: %s", c.name, err, &b)
		}
	}
}

func TestCompareOfDifferentRuns(t *testing.T) {
	t.Parallel()
	f := measured(Figure{ID: "a", Better: less}, sample{1, 0})
	g := Figure{ID: "b", Verdict: NotMeasured}
	before := Result{Figures: []Figure{f, g}, Machine: Machine{CPU: "one"}}
	after := Result{Figures: []Figure{g, measured(Figure{ID: "c", Better: less}, sample{1, 0})}}
	c, err := Compare(before, after)
	if err != nil || len(c.Differences) != 0 || strings.Join(c.Missing, ",") != "a,c" || len(c.Cautions) != 1 || !strings.Contains(c.Cautions[0], "one, then unknown") {
		t.Errorf("%+v, %v", c, err)
	}
	for _, change := range []func(*Settings){
		func(s *Settings) { s.Seed++ }, func(s *Settings) { s.Scale++ }, func(s *Settings) { s.ImageBytes++ }, func(s *Settings) { s.Takes++ },
	} {
		other := before
		change(&other.Settings)
		if _, err := Compare(before, other); !errors.Is(err, ErrDifferentWork) {
			t.Errorf("%+v was compared with %+v: %v", other.Settings, before.Settings, err)
		}
	}
}
