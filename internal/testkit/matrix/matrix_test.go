package matrix

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// counting is a row that says which cases it played.
type counting struct {
	mu    sync.Mutex
	seen  map[int64]int
	fails map[int64]error
}

func (c *counting) row(name string, full int64) Row {
	return Row{Name: name, Fault: "none", Holds: "all", Fast: 1, Full: full, Run: func(_ context.Context, env *Env, index int64) (Tally, error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.seen == nil {
			c.seen = map[int64]int{}
		}
		c.seen[index]++
		if env.Dir == "" {
			return Tally{}, errors.New("no scratch")
		}
		return Tally{Points: 2, Named: index}, c.fails[index]
	}}
}

func play(t *testing.T, rows []Row, o RunnerOptions) *Report {
	t.Helper()
	o.Seed = 7
	r, err := NewRunner(rows, o)
	if err != nil {
		t.Fatal(err)
	}
	rep, err := r.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

// Every case is played once, and a run that goes on plays only what is left.
func TestRunGoesOnWhereItWas(t *testing.T) {
	var a, b counting
	rows := []Row{a.row("a", 50), b.row("b", 7)}
	o := RunnerOptions{State: filepath.Join(t.TempDir(), "state"), Version: "v1", Count: func(r Row) int64 { return r.Full / 2 }}
	play(t, rows, o)
	o.Count = nil
	rep := play(t, rows, o)
	for i := range int64(50) {
		if a.seen[i] != 1 || i < 7 && b.seen[i] != 1 {
			t.Fatalf("case %d was played %d and %d times", i, a.seen[i], b.seen[i])
		}
	}
	if len(a.seen) != 50 || rep.Total.Cases != 57 || rep.Total.Points != 114 || rep.Rows[0].Named != 49*50/2 || !rep.OK() {
		t.Errorf("%d cases, %+v", len(a.seen), rep.Total)
	}
	// Another program does not go on with it.
	o.Version = "v2"
	if rep := play(t, rows, o); rep.Total.Cases != 57 || a.seen[0] != 2 {
		t.Errorf("%+v", rep.Total)
	}
}

// reducible is an error that finds less.
type reducible struct{ error }

func (reducible) Reduce(context.Context) string { return "func TestLess() {}" }

// What fails is told with what replays it, and never counts as a success.
func TestFailuresAreTold(t *testing.T) {
	c := counting{fails: map[int64]error{3: errors.New("three"), 5: fmt.Errorf("five: %w", reducible{errors.New("less")})}}
	var told []Failure
	panics := Row{Name: "panics", Full: 1, Run: func(context.Context, *Env, int64) (Tally, error) { panic("at the disco") }}
	hangs := Row{Name: "hangs", Full: 1, Run: func(ctx context.Context, _ *Env, _ int64) (Tally, error) { <-ctx.Done(); return Tally{}, nil }}
	skipped := Row{Name: "skipped", Full: 1, Needs: func() error { return errors.New("no such thing here") }, Run: panics.Run}
	state := filepath.Join(t.TempDir(), "state")
	rep := play(t, []Row{c.row("c", 8), panics, hangs, skipped}, RunnerOptions{State: state, Watchdog: 200 * time.Millisecond, Failed: func(f Failure) { told = append(told, f) }})
	if rep.OK() || len(told) != 4 || len(rep.Failures) != 4 {
		t.Fatalf("%+v", rep)
	}
	texts := ""
	for _, f := range rep.Failures {
		texts += fmt.Sprintf("%s %d %d %s %s\n", f.Row, f.Index, f.Seed, f.Error, f.Test)
	}
	for _, want := range []string{"c 3 7 three", "c 5 7 five: less func TestLess", "panics 0 7 panic: at the disco", "hangs 0 7 the case has not ended", "TestFailuresAreTold"} {
		if !strings.Contains(texts, want) {
			t.Errorf("%q is not in %s", want, texts)
		}
	}
	if rep.Rows[3].Skipped == "" || rep.Rows[3].Cases != 0 {
		t.Errorf("%+v", rep.Rows[3])
	}
	// A failure is not forgotten by going on.
	if rep := play(t, []Row{c.row("c", 8)}, RunnerOptions{State: state}); rep.OK() || rep.Rows[0].Failed != 2 {
		t.Errorf("%+v", rep)
	}
	var b strings.Builder
	if err := errors.Join(rep.Text(&b), rep.Markdown(&b)); err != nil || !strings.Contains(b.String(), "| skipped | skipped |") {
		t.Error(err, b.String())
	}
}

// A harm that a case counts without an error is a failure of the run.
func TestHarmIsNotOK(t *testing.T) {
	for _, harm := range []Tally{{Lost: 1}, {Silent: 1}, {Leaked: 1}, {FreedEarly: 1}} {
		row := Row{Name: "r", Full: 1, Run: func(context.Context, *Env, int64) (Tally, error) { return harm, nil }}
		if rep := play(t, []Row{row}, RunnerOptions{}); rep.OK() {
			t.Errorf("%+v is fine", harm)
		}
	}
}

// With a time, cases go on beyond the count until it is over, of all rows.
func TestTimeBound(t *testing.T) {
	var a, b counting
	began := time.Now()
	rep := play(t, []Row{a.row("a", 1), b.row("b", 2)}, RunnerOptions{For: 300 * time.Millisecond, Workers: 2})
	if rep.Total.Cases < 4 || time.Since(began) > time.Minute {
		t.Errorf("%+v in %s", rep.Total, time.Since(began))
	}
	if x, y := rep.Rows[0].Cases, rep.Rows[1].Cases; y < x || y > 2*x+8 {
		t.Errorf("%d and %d cases for counts of 1 and 2", x, y)
	}
}

// The same seed, row and index give the same numbers, others give others.
func TestRandIsOfTheCase(t *testing.T) {
	seen := map[uint64]string{}
	for seed := range uint64(4) {
		for _, row := range []string{"a", "b", "ab"} {
			for index := range int64(5) {
				e := &Env{Seed: seed}
				n, name := e.Rand(row, index).Uint64(), fmt.Sprint(seed, row, index)
				if n != e.Rand(row, index).Uint64() {
					t.Fatalf("%s gives two numbers", name)
				}
				if other, ok := seen[n]; ok {
					t.Errorf("%s and %s give one number", name, other)
				}
				seen[n] = name
			}
		}
	}
}
