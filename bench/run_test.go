package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/snapstore/snapstore/bench/workload"
)

// tiny are options of a run that takes seconds.
func tiny(t *testing.T, w ...Workload) Options {
	return Options{Dir: t.TempDir(), Scale: minScale, Repeats: 2, Workloads: w, Seed: 7, Systems: fakes()}
}

// TestRunMeasuresEverything runs every workload that needs nothing from
// outside, at the least scale, and looks at the result.
func TestRunMeasuresEverything(t *testing.T) {
	t.Parallel()
	o := tiny(t, IdealMix, Row, Sparse, Small, Churn, Preload, Images, Peers)
	o.Images = imagesDir(t)
	o.Repeats = 1
	steps := 0
	o.Progress = func(string) { steps++ }
	res, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(o.Dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if steps < 10 {
		t.Errorf("%d steps were told", steps)
	}
	// What there may be too little of at this scale, or what is not on every
	// machine.
	excused := []string{"gc.written", "gc.cpu", "gc.takes", "restore.cold", "restore.scattered", "page.cold", "machine.read", "full.resident", "full.written", "take.written", "preload.written", "take.background", "index.rebuild.cold", "peer.reflink"}
	for _, f := range res.Figures {
		switch {
		case f.Verdict != NotMeasured:
			if f.Value == nil || f.Value.Samples == 0 || f.Value.Min > f.Value.Median || f.Value.Median > f.Value.Max {
				t.Errorf("%s: %+v", f.ID, f.Value)
			}
			if f.Limit != "" && (f.Ratio == nil || f.Ratio.Median <= 0) {
				t.Errorf("%s has no ratio to %s", f.ID, f.Limit)
			}
		case f.Reason == "" || !slices.Contains(excused, f.ID):
			t.Errorf("%s was not measured: %s", f.ID, f.Reason)
		}
	}
	for _, id := range []string{"row", "size", "gc", "space"} {
		i := slices.IndexFunc(res.Series, func(s Series) bool { return s.ID == id })
		if i < 0 || len(res.Series[i].Lines) == 0 || len(res.Series[i].Lines[0].Points) == 0 {
			t.Errorf("no curve %q", id)
		}
	}
	if len(res.Peers) == 0 || res.Peers[0].Name != "snapstore" || res.Peers[0].Full == nil || res.Peers[0].Restore == nil || res.Peers[0].AllBytes == 0 {
		t.Errorf("peers: %+v", res.Peers)
	}
	checkPeers(t, &res)
	var b bytes.Buffer
	if err := json.NewEncoder(&b).Encode(res); err != nil {
		t.Fatal(err)
	}
	again, err := ReadResult(bytes.NewReader(b.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(res, again) {
		t.Error("a result that is read is not the one that was written")
	}
	sameWork(t, o, res)
	var text strings.Builder
	if err := res.WriteText(&text); err != nil || strings.Count(text.String(), "\n") < len(res.Figures) {
		t.Errorf("%v: %s", err, &text)
	}
}

// sameWork runs a part again: what does not hang on the clock is the same.
func sameWork(t *testing.T, o Options, first Result) {
	t.Helper()
	o.Workloads = []Workload{IdealMix}
	second, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := first.Figure("disk.ideal")
	b, _ := second.Figure("disk.ideal")
	if a.LimitValue == nil || !reflect.DeepEqual(a.LimitValue, b.LimitValue) {
		t.Errorf("eleven versions come to %v, then to %v", a.LimitValue, b.LimitValue)
	}
}

// imagesDir has one series of three small images.
func imagesDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	m := workload.Mix(3, make([]byte, 1<<20))
	for _, name := range []string{"0.mem", "1.mem", "2.mem"} {
		if err := os.WriteFile(dir+"/"+name, m.Mem, 0o600); err != nil {
			t.Fatal(err)
		}
		m.Step(0.05)
	}
	return dir
}

// TestInterruptedRunLeavesNothing ends runs at different steps.
func TestInterruptedRunLeavesNothing(t *testing.T) {
	t.Parallel()
	for _, w := range []Workload{IdealMix, Row, Small, Peers} {
		for _, after := range []int{1, 2} {
			o := tiny(t, w)
			ctx, cancel := context.WithCancel(t.Context())
			n := 0
			o.Progress = func(string) {
				if n++; n == after {
					cancel()
				}
			}
			_, err := Run(ctx, o)
			cancel()
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%s, ended at step %d: %v", w, after, err)
			}
			if left, err := os.ReadDir(o.Dir); err != nil || len(left) > 0 {
				t.Errorf("%s, ended at step %d: left behind %v, %v", w, after, left, err)
			}
		}
	}
}

func TestOptionsThatMakeNoSense(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]Options{
		"a workload that is none":   {Workloads: []Workload{"fast"}},
		"images without images":     {Workloads: []Workload{Images}},
		"less than no repeats":      {Repeats: -1},
		"a scale that is too small": {Scale: 1e-9},
		"a scale below zero":        {Scale: -1},
		"too large a scale":         {Scale: 1e9},
		"less than no chunks":       {Preload: -1},
	} {
		o.Dir = t.TempDir()
		if _, err := Run(t.Context(), o); !errors.Is(err, ErrOptions) {
			t.Errorf("%s: %v", name, err)
		}
	}
	o := tiny(t, IdealMix)
	o.Dir += "/absent"
	if _, err := Run(t.Context(), o); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a directory that is not there: %v", err)
	}
}

func TestReadResultRefuses(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"nothing":         "",
		"no JSON":         "full 1 GiB",
		"something else":  `{"store":"x"}`,
		"a newer schema":  `{"schema":2,"figures":[{"id":"a","verdict":"not measured"}]}`,
		"no figures":      `{"schema":1,"figures":[]}`,
		"half a figure":   `{"schema":1,"figures":[{"id":"a","verdict":"met"}]}`,
		"a figure unsaid": `{"schema":1,"figures":[{"id":"a"}]}`,
	} {
		if _, err := ReadResult(strings.NewReader(text)); !errors.Is(err, ErrResult) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
