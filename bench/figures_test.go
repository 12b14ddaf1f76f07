package bench

import (
	"testing"
)

func TestVerdicts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		f       Figure
		samples []sample
		want    Verdict
	}{
		{"more is better, over the aim", Figure{Limit: "l", RatioOf: overLimit, Judged: byRatio, Better: more, Bar: 0.65, Aim: 0.8}, []sample{{9, 10}}, Aimed},
		{"more is better, between", Figure{Limit: "l", RatioOf: overLimit, Judged: byRatio, Better: more, Bar: 0.65, Aim: 0.8}, []sample{{7, 10}}, Met},
		{"more is better, under the bar", Figure{Limit: "l", RatioOf: overLimit, Judged: byRatio, Better: more, Bar: 0.65, Aim: 0.8}, []sample{{6, 10}}, Missed},
		{"a time under its limit's", Figure{Limit: "l", RatioOf: underLimit, Judged: byRatio, Better: more, Bar: 0.75, Aim: 0.9}, []sample{{10, 8}}, Met},
		{"less is better, at the aim", Figure{Limit: "l", RatioOf: overLimit, Judged: byRatio, Better: less, Bar: 1.5, Aim: 1}, []sample{{5, 5}}, Aimed},
		{"less is better, over the bar", Figure{Limit: "l", RatioOf: overLimit, Judged: byRatio, Better: less, Bar: 1.5, Aim: 1}, []sample{{8, 5}}, Missed},
		{"by value", Figure{Judged: byValue, Better: less, Bar: 50, Aim: 25}, []sample{{30, 0}}, Met},
		{"by the median", Figure{Judged: byValue, Better: less, Bar: 50, Aim: 25}, []sample{{1, 0}, {60, 0}, {70, 0}}, Missed},
		{"no bar", Figure{Better: less}, []sample{{1, 0}}, NoBar},
		{"nothing measured", Figure{Judged: byValue, Better: less, Bar: 1}, nil, NotMeasured},
		{"no limit measured", Figure{Limit: "l", RatioOf: overLimit, Judged: byRatio, Better: less, Bar: 1}, []sample{{1, 0}}, NotMeasured},
		{"no aim", Figure{Limit: "l", RatioOf: overLimit, Judged: byRatio, Better: less, Bar: 1.1}, []sample{{1, 1}}, Met},
	} {
		c.f.summarise(c.samples)
		if c.f.Verdict != c.want {
			t.Errorf("%s: %s, want %s", c.name, c.f.Verdict, c.want)
		}
		if c.want == NotMeasured && c.f.Reason == "" {
			t.Errorf("%s: no reason is given", c.name)
		}
	}
}

// TestSpecsAreWhole: every bar can be judged, and ids are unique.
func TestSpecsAreWhole(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, f := range Specs() {
		if seen[f.ID] || f.Title == "" || f.Unit == "" || f.Group == "" || f.Better != more && f.Better != less {
			t.Errorf("%+v", f)
		}
		seen[f.ID] = true
		if (f.Bar != 0) != (f.Judged != "") || f.Judged == byRatio && f.Limit == "" || (f.Limit != "") != (f.RatioOf != "") {
			t.Errorf("%s: bar %v, judged by %q, limit %q, ratio %q", f.ID, f.Bar, f.Judged, f.Limit, f.RatioOf)
		}
		if f.Aim != 0 && f.atLeast(f.Bar, f.Aim) && f.Bar != f.Aim {
			t.Errorf("%s: the bar %v is better than the aim %v", f.ID, f.Bar, f.Aim)
		}
	}
}

func TestSpreadAndQuantile(t *testing.T) {
	t.Parallel()
	if s := spread([]float64{3, 1, 2, 10}); s.Samples != 4 || s.Min != 1 || s.Median != 2.5 || s.Max != 10 {
		t.Errorf("%+v", s)
	}
	if s := spread([]float64{3, 1, 2}); s.Median != 2 {
		t.Errorf("%+v", s)
	}
	if spread(nil) != nil {
		t.Error("a spread of nothing")
	}
	v := make([]float64, 100)
	for i := range v {
		v[i] = float64(100 - i)
	}
	for q, want := range map[float64]float64{0: 1, 0.5: 50, 0.99: 99, 1: 100} {
		if got := quantile(v, q); got != want {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
}

func TestNumber(t *testing.T) {
	t.Parallel()
	for v, want := range map[float64]string{0: "0", 0.00123: "0.0012", 0.05: "0.050", 0.5: "0.50", 1.234: "1.23", 9.996: "10.0", 12.34: "12.3", 123.4: "123", 1234567: "1,234,567", -1234: "-1,234"} {
		if got := number(v); got != want {
			t.Errorf("number(%v) = %q, want %q", v, got, want)
		}
	}
}
