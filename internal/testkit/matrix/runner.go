package matrix

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"time"
)

// A Reducer is what the error of a case may be as well: it looks for less that
// fails too, and says it as a Go test that can be pasted.
type Reducer interface {
	error
	Reduce(ctx context.Context) (test string)
}

// Failure is a case in which what must hold did not.
type Failure struct {
	Row   string `json:"row"`
	Seed  uint64 `json:"seed"`
	Index int64  `json:"index"`
	Error string `json:"error"`
	Test  string `json:"test,omitempty"`
}

// RunnerOptions say what to play, and how much of it.
type RunnerOptions struct {
	Seed uint64
	Self string // see Env
	// For is how long cases are begun; 0 is until every row has its count. With
	// a time, rows go on beyond their count when all have it.
	For time.Duration
	// Count is how many cases each row has; nil is Row.Full.
	Count func(Row) int64
	// Workers is how many cases are played at a time; 0 is one a core.
	Workers int
	// Watchdog is after what time a case counts as hanging; 0 is ten minutes.
	Watchdog time.Duration
	// Failures is after how many a row stops; 0 is 3.
	Failures int
	// ReduceFor bounds the search for a smaller case that fails; 0 is a minute,
	// negative is none.
	ReduceFor time.Duration
	// State, when not empty, is the file that keeps how far the rows are. Version
	// names the program; a state of another seed or version is not gone on with.
	State, Version string
	// Progress is called after each case, Failed for each that failed, Logf for
	// what else there is to say. They are not called at the same time.
	Progress func(Status)
	Failed   func(Failure)
	Logf     func(string, ...any)
}

// Status is how far a run is.
type Status struct {
	Total      Tally
	Done, Want int64 // cases
	Failed     int
	Left       time.Duration // of the time; 0 where there is none
}

// Runner plays the cases of rows.
type Runner struct {
	o     RunnerOptions
	rows  []*running
	began time.Time
	dir   string
	spent time.Duration // by earlier runs that this one goes on with

	mu    sync.Mutex
	saved time.Time
	says  sync.Mutex // held around callbacks
}

// running is a row and how far it is. Guarded by the runner's mutex.
type running struct {
	Row
	want     int64 // cases
	next     int64 // to be begun
	folded   int64 // all below are in tally
	tally    Tally
	done     map[int64]Tally // beyond folded
	failures []Failure
	skipped  string
	busy     time.Duration
}

// NewRunner makes a runner of rows, and goes on where the state file says.
func NewRunner(rows []Row, o RunnerOptions) (*Runner, error) {
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.Watchdog == 0 {
		o.Watchdog = 10 * time.Minute
	}
	if o.Failures == 0 {
		o.Failures = 3
	}
	if o.ReduceFor == 0 {
		o.ReduceFor = time.Minute
	}
	if o.Count == nil {
		o.Count = func(r Row) int64 { return r.Full }
	}
	if o.Logf == nil {
		o.Logf = func(string, ...any) {}
	}
	r := &Runner{o: o}
	names := map[string]bool{}
	for _, row := range rows {
		if names[row.Name] || row.Name == "" || row.Run == nil {
			return nil, fmt.Errorf("row %q is there twice or has nothing to run", row.Name)
		}
		names[row.Name] = true
		run := &running{Row: row, want: o.Count(row), done: map[int64]Tally{}}
		if row.Needs != nil {
			if err := row.Needs(); err != nil {
				run.skipped = err.Error()
			}
		}
		r.rows = append(r.rows, run)
	}
	return r, r.load()
}

// Run plays cases until the time or the counts are reached, or the context
// ends; what was begun is finished. The error is about the runner itself, not
// about cases: those are in the report.
func (r *Runner) Run(ctx context.Context) (*Report, error) {
	dir, err := os.MkdirTemp("", "snapstore-torture-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // scratch of a run that is over
	r.dir, r.began = dir, time.Now()
	begin := ctx
	if r.o.For > 0 {
		var stop context.CancelFunc
		begin, stop = context.WithTimeout(ctx, r.o.For)
		defer stop()
	}
	var all sync.WaitGroup
	for range r.o.Workers {
		all.Go(func() {
			for begin.Err() == nil {
				row, index := r.pick()
				if row == nil {
					return
				}
				r.play(ctx, row, index)
			}
		})
	}
	all.Wait()
	return r.report(), r.save()
}

// pick chooses the next case: of the row that lacks the largest share of its
// count, so that a run that ends early has something of every row.
func (r *Runner) pick() (*running, int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var best *running
	least := 0.0
	for _, row := range r.rows {
		if row.skipped != "" || len(row.failures) >= r.o.Failures || row.want <= 0 {
			continue
		}
		if row.next >= row.want && r.o.For == 0 {
			continue
		}
		if share := float64(row.next) / float64(row.want); best == nil || share < least {
			best, least = row, share
		}
	}
	if best == nil {
		return nil, 0
	}
	best.next++
	return best, best.next - 1
}

// play plays a case and takes down what it showed.
func (r *Runner) play(ctx context.Context, row *running, index int64) {
	began := time.Now()
	tally, err := r.guarded(ctx, row, index)
	took := time.Since(began)
	tally.Cases = 1
	var failed *Failure
	if err != nil && ctx.Err() == nil {
		failed = &Failure{Row: row.Name, Seed: r.o.Seed, Index: index, Error: err.Error()}
		var smaller Reducer
		if errors.As(err, &smaller) && r.o.ReduceFor > 0 {
			rctx, stop := context.WithTimeout(ctx, r.o.ReduceFor)
			failed.Test = smaller.Reduce(rctx)
			stop()
		}
	}
	r.mu.Lock()
	row.busy += took
	if err != nil && ctx.Err() != nil {
		// It was cut short: it shows nothing, and is played again.
		r.mu.Unlock()
		return
	}
	row.done[index] = tally
	for {
		t, ok := row.done[row.folded]
		if !ok {
			break
		}
		row.tally.Add(t)
		delete(row.done, row.folded)
		row.folded++
	}
	if failed != nil {
		row.failures = append(row.failures, *failed)
	}
	var s Status
	for _, o := range r.rows {
		s.Total.Add(o.tally)
		for _, t := range o.done {
			s.Total.Add(t)
		}
		s.Failed += len(o.failures)
		if o.skipped == "" {
			s.Done += min(o.next, o.want)
			s.Want += o.want
		}
	}
	if r.o.For > 0 {
		s.Left = max(1, r.o.For-time.Since(r.began))
	}
	due := time.Since(r.saved) > 2*time.Second
	if due {
		r.saved = time.Now()
	}
	r.mu.Unlock()
	r.says.Lock()
	defer r.says.Unlock()
	if failed != nil && r.o.Failed != nil {
		r.o.Failed(*failed)
	}
	if r.o.Progress != nil {
		r.o.Progress(s)
	}
	if due {
		if err := r.save(); err != nil {
			r.o.Logf("how far the run is could not be kept: %v", err)
		}
	}
}

// guarded plays a case; a panic and a case without end are failures of it.
func (r *Runner) guarded(ctx context.Context, row *running, index int64) (Tally, error) {
	dir, err := os.MkdirTemp(r.dir, row.Name+"-"+strconv.FormatInt(index, 10)+"-")
	if err != nil {
		return Tally{}, err
	}
	env := &Env{Seed: r.o.Seed, Dir: dir, Self: r.o.Self, Logf: func(format string, args ...any) {
		r.says.Lock()
		defer r.says.Unlock()
		r.o.Logf("%s %d: %s", row.Name, index, fmt.Sprintf(format, args...))
	}}
	type outcome struct {
		tally Tally
		err   error
	}
	ended := make(chan outcome, 1)
	go func() {
		var o outcome
		defer func() {
			if p := recover(); p != nil {
				o.err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
			}
			ended <- o
		}()
		o.tally, o.err = row.Run(ctx, env, index)
	}()
	watchdog := time.NewTimer(r.o.Watchdog)
	defer watchdog.Stop()
	select {
	case o := <-ended:
		return o.tally, errors.Join(o.err, os.RemoveAll(dir))
	case <-watchdog.C:
		stacks := make([]byte, 4<<20)
		return Tally{}, fmt.Errorf("the case has not ended after %s:\n%s", r.o.Watchdog, stacks[:runtime.Stack(stacks, true)])
	}
}

// report says what the run showed so far.
func (r *Runner) report() *Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	rep := &Report{Version: r.o.Version, Seed: r.o.Seed, Seconds: (r.spent + time.Since(r.began)).Seconds()}
	for _, row := range r.rows {
		t := row.tally
		for _, d := range row.done {
			t.Add(d)
		}
		rep.Rows = append(rep.Rows, RowReport{
			Row: row.Name, Fault: row.Fault, Holds: row.Holds, Tally: t, Want: row.want,
			Failed: len(row.failures), Skipped: row.skipped, BusySeconds: row.busy.Seconds(),
		})
		rep.Total.Add(t)
		rep.Failures = append(rep.Failures, row.failures...)
	}
	slices.SortStableFunc(rep.Failures, func(a, b Failure) int { return int(a.Index - b.Index) })
	return rep
}
