package bench

import (
	"errors"
	"strings"
	"testing"
)

func TestMerge(t *testing.T) {
	t.Parallel()
	one := measured(Figure{ID: "one", Better: less}, sample{1, 0})
	two := measured(Figure{ID: "two", Better: less}, sample{2, 0})
	unasked := func(id string) Figure { return Figure{ID: id, Verdict: NotMeasured, Reason: notAsked} }
	a := Result{Figures: []Figure{one, unasked("two")}, DurationSeconds: 1, Settings: Settings{Workloads: []string{"row"}}, Series: []Series{{ID: "row", Title: "old"}}}
	b := Result{Figures: []Figure{unasked("one"), two, one}, DurationSeconds: 2, Settings: Settings{Workloads: []string{"preload", "row"}, Preload: 5}, Series: []Series{{ID: "row", Title: "new"}, {ID: "gc"}}, Peers: []PeerResult{{Name: "x"}}}
	b.Figures[2].ID = "three"
	got, err := Merge(a, b)
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]float64{"one": 1, "two": 2, "three": 1} {
		if f, _ := got.Figure(id); f.Value == nil || f.Value.Median != want {
			t.Errorf("%s: %+v", id, f)
		}
	}
	if got.DurationSeconds != 3 || strings.Join(got.Settings.Workloads, ",") != "row,preload" || got.Settings.Preload != 5 ||
		len(got.Series) != 2 || got.Series[0].Title != "new" || len(got.Peers) != 1 {
		t.Errorf("%+v", got)
	}
	if a.Figures[1].Value != nil || a.Series[0].Title != "old" || len(a.Settings.Workloads) != 1 {
		t.Error("a result was changed by merging")
	}
	for name, change := range map[string]func(*Result){
		"another seed":    func(r *Result) { r.Settings.Seed++ },
		"another scale":   func(r *Result) { r.Settings.Scale++ },
		"another machine": func(r *Result) { r.Machine.CPU = "x" },
		"another commit":  func(r *Result) { r.Build.Commit = "x" },
	} {
		c := b
		change(&c)
		if _, err := Merge(a, c); !errors.Is(err, ErrDifferentWork) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Merge(); !errors.Is(err, ErrResult) {
		t.Errorf("nothing: %v", err)
	}
}
