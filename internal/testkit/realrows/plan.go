package realrows

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"os"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/osfs"
	"github.com/snapstore/snapstore/internal/testkit"
	"github.com/snapstore/snapstore/internal/testkit/drive"
	"github.com/snapstore/snapstore/internal/testkit/matrix"
)

// laneCanisters is how many canisters a lane has.
const laneCanisters = 2

// limit of snapshots of a canister.
const limit = 4

// A lie makes a worker wrong on purpose, to show that a row finds it.
type lie string

const (
	honest      lie = ""
	early       lie = "early"       // acknowledges operations before it does them
	neverSynced lie = "neverSynced" // its files are never synced
	deaf        lie = "deaf"        // a write to its files that fails counts as done
	vague       lie = "vague"       // errors are told without what they are
)

// plan is what a worker plays, and all that was played before. It travels as a
// file.
type plan struct {
	Dir     string `json:"dir"` // of the store
	Journal string `json:"journal"`
	Seed    uint64 `json:"seed"`
	Lanes   int    `json:"lanes"`
	Lie     lie    `json:"lie,omitempty"`
	// Proved is a sequence that was acknowledged: no older store will do.
	Proved uint64 `json:"proved"`
	// Before are the sessions that came to their end, which was a kill.
	Before []session `json:"before"`
}

// session is one life of a worker, lane by lane.
type session []played

// played is how far a lane came in a session.
type played struct {
	Acked int  `json:"acked"` // operations
	Begun bool `json:"begun"` // one more was begun
	Chose int  `json:"chose"` // which of the states allowed then was found
}

func (p *plan) save(file string) error {
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return os.WriteFile(file, b, 0o600)
}

func readPlan(file string) (*plan, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var p plan
	return &p, json.Unmarshal(b, &p)
}

// options are those of a test store, with everything running that runs in a
// host.
func (p *plan) options() *engine.Options {
	o := drive.Options(p.Seed)
	o.SnapshotLimit, o.NoBackground, o.MinSequence = limit, false, p.Proved
	return &o
}

// fs is what a worker keeps its store on; nil is what every engine does.
func (p *plan) fs() vfs.FS {
	switch p.Lie {
	case neverSynced:
		return lying{osfs.New(), func(f vfs.File) vfs.File { return unsyncedFile{f} }}
	case deaf:
		return lying{osfs.New(), func(f vfs.File) vfs.File { return deafFile{f} }}
	}
	return nil
}

// lane plays its own canisters.
type lane struct {
	n     int
	plan  *plan
	model *testkit.Model // of all canisters; only the lane's own are in it
}

// lanes are as they were after all sessions that came to their end.
func (p *plan) lanes() ([]*lane, error) {
	var out []*lane
	for n := range p.Lanes {
		l := &lane{n: n, plan: p, model: testkit.NewModel(p.Lanes*laneCanisters, limit)}
		for i, s := range p.Before {
			if n >= len(s) {
				return nil, fmt.Errorf("session %d has %d lanes", i, len(s))
			}
			states, _ := l.allowed(i, s[n])
			if s[n].Chose >= len(states) {
				return nil, fmt.Errorf("session %d, lane %d: no state %d of %d", i, n, s[n].Chose, len(states))
			}
			l.model = states[s[n].Chose].Reopened()
		}
		out = append(out, l)
	}
	return out, nil
}

// notInLanes are operations that are not a lane's: they end the process, or look
// at what the other lanes do.
var notInLanes = []testkit.OpName{
	testkit.GC, testkit.Verify, testkit.Compare, testkit.Reopen, testkit.Kill, testkit.KillSoon,
	testkit.PowerLoss, testkit.DropIndex, testkit.FlushIndex, testkit.Break, testkit.Mend,
}

// ops are what the lane does in a session, as long as it is shown the models
// that follow.
func (l *lane) ops(session int, model func() *testkit.Model) iter.Seq[testkit.Op] {
	g := testkit.NewGenerator(l.plan.Seed^uint64(session)<<20^uint64(l.n)<<40, notInLanes...)
	return func(yield func(testkit.Op) bool) {
		for {
			m := model()
			first := l.n * laneCanisters
			own := &testkit.Model{Limit: m.Limit, Canisters: m.Canisters[first : first+laneCanisters]}
			o := g.Next(own)
			o.C += first
			o.From += first
			if !yield(o) {
				return
			}
		}
	}
}

// allowed plays what a journal tells, from the lane's model, and gives the
// states that a crash then may leave, and the snapshots that had to be there.
func (l *lane) allowed(session int, p played) (states []*testkit.Model, acknowledged int) {
	m := l.model
	n := 0
	for o := range l.ops(session, func() *testkit.Model { return m }) {
		out := m.Apply(o)
		if n == p.Acked {
			states = []*testkit.Model{m}
			if p.Begun {
				states = append(append(states, out.Between...), out.Next)
			}
			break
		}
		n++
		m = out.Next
	}
	for _, c := range states[0].Canisters {
		acknowledged += len(c.Snapshots)
	}
	return states, acknowledged
}

// durable tells whether an operation changes what must survive.
func durable(o testkit.Op) bool {
	switch o.Name {
	case testkit.Create, testkit.Destroy, testkit.Checkpoint, testkit.Take, testkit.Load, testkit.Delete, testkit.BeginUpload, testkit.FlushUpload:
		return true
	}
	return false
}

// The journal has a line for each thing that happened:
//
//	start            the store is about to be opened
//	open             it was
//	begin LANE N     the N-th operation of a lane begins, from 0
//	ack LANE N SEQ   it is acknowledged, and the store was at SEQ or later
type journal struct{ f *os.File }

func openJournal(file string) (*journal, error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	return &journal{f}, err
}

// note writes a line in one piece, and makes it durable if asked to.
func (j *journal) note(sync bool, format string, args ...any) error {
	if _, err := fmt.Fprintf(j.f, format+"\n", args...); err != nil {
		return err
	}
	if sync {
		return j.f.Sync()
	}
	return nil
}

// told is what a journal says of one session.
type told struct {
	started, opened bool
	lanes           session
	proved          uint64
	durable         int // operations that were acknowledged and must survive
}

// readJournal reads a journal; its last line may be torn.
func (p *plan) readJournal() (told, error) {
	t := told{lanes: make(session, p.Lanes), proved: p.Proved}
	b, err := os.ReadFile(p.Journal)
	if errors.Is(err, os.ErrNotExist) {
		return t, nil
	} else if err != nil {
		return t, err
	}
	if i := bytes.LastIndexByte(b, '\n'); i >= 0 {
		b = b[:i+1]
	} else {
		b = nil
	}
	for sc := bufio.NewScanner(bytes.NewReader(b)); sc.Scan(); {
		var what string
		var lane, n int
		var seq uint64
		fields, _ := fmt.Sscan(sc.Text(), &what, &lane, &n, &seq)
		if fields > 1 && lane >= p.Lanes {
			return t, fmt.Errorf("journal: %q", sc.Text())
		}
		switch {
		case what == "start":
			t.started = true
		case what == "open":
			t.opened = true
		case what == "begin" && fields == 3 && n == t.lanes[lane].Acked:
			t.lanes[lane].Begun = true
		case what == "ack" && fields == 4 && n == t.lanes[lane].Acked:
			t.lanes[lane].Acked, t.lanes[lane].Begun = n+1, false
			if seq > 0 {
				t.proved = max(t.proved, seq)
				t.durable++
			}
		default:
			return t, fmt.Errorf("journal: %q", sc.Text())
		}
	}
	return t, nil
}

// settle holds the store, which nobody has open, against what the journal
// tells, and adds the session to the plan. Whatever must hold and does not is in
// the error and in the tally.
func (p *plan) settle(ctx context.Context) (t matrix.Tally, err error) {
	t.Points = 1
	said, err := p.readJournal()
	if err != nil {
		return t, err
	}
	p.Proved = said.proved
	lanes, err := p.lanes()
	if err != nil {
		return t, err
	}
	o := p.options()
	o.NoBackground = true
	e, err := engine.Open(p.Dir, o)
	if err != nil {
		for i, l := range lanes {
			_, n := l.allowed(len(p.Before), said.lanes[i])
			t.Acknowledged += int64(n)
		}
		t.Lost = t.Acknowledged
		return t, fmt.Errorf("open: %w", err)
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	whole := testkit.NewModel(p.Lanes*laneCanisters, limit)
	cfg := drive.Config{Seed: p.Seed, Canisters: p.Lanes * laneCanisters, Limit: limit}
	for i, l := range lanes {
		states, n := l.allowed(len(p.Before), said.lanes[i])
		t.Acknowledged += int64(n)
		chose, err := l.find(e, cfg, states)
		if err != nil {
			t.Lost++
			return t, fmt.Errorf("lane %d after %d operations: the store holds nothing that was right: %w", i, said.lanes[i].Acked, err)
		}
		said.lanes[i].Chose = chose
		l.model = states[chose].Reopened()
		copy(whole.Canisters[l.n*laneCanisters:], l.model.Canisters[l.n*laneCanisters:(l.n+1)*laneCanisters])
	}
	p.Before = append(p.Before, said.lanes)
	// The lanes together: that nothing else is there, and the counts.
	r := drive.Beside(cfg, e, whole)
	if err := r.Compare(); err != nil {
		t.Silent++
		return t, err
	}
	if err := judge(&t, r.Verify(ctx)); err != nil {
		return t, err
	}
	if err := r.CheckGC(ctx); err != nil {
		_ = judge(&t, err)
		t.Leaked++
		return t, err
	}
	if err := r.Compare(); err != nil {
		t.FreedEarly++
		return t, fmt.Errorf("after gc: %w", err)
	}
	return t, nil
}

// judge counts what verify found.
func judge(t *matrix.Tally, err error) error {
	if err == nil {
		return nil
	}
	if bytes.Contains([]byte(err.Error()), []byte("Kind:"+engine.ProblemLeak)) {
		t.Leaked++
	} else {
		t.FreedEarly++
	}
	return err
}

// find says which of the states a lane's canisters are in.
func (l *lane) find(e *engine.Engine, cfg drive.Config, states []*testkit.Model) (int, error) {
	var errs []error
	for i, m := range slices.Backward(states) {
		m := m.Reopened()
		r := drive.Beside(cfg, e, m)
		var err error
		for c := l.n * laneCanisters; c < (l.n+1)*laneCanisters && err == nil; c++ {
			err = r.CompareCanister(c, m.Canisters[c])
		}
		if err == nil {
			return i, nil
		}
		errs = append(errs, fmt.Errorf("state %d of %d: %w", i+1, len(states), err))
	}
	return 0, errors.Join(errs...)
}

// reopened opens the store once more, which must change nothing.
func (p *plan) reopened() error {
	lanes, err := p.lanes()
	if err != nil {
		return err
	}
	o := p.options()
	o.NoBackground = true
	e, err := engine.Open(p.Dir, o)
	if err != nil {
		return fmt.Errorf("open again: %w", err)
	}
	defer e.Close()
	cfg := drive.Config{Seed: p.Seed, Canisters: p.Lanes * laneCanisters, Limit: limit}
	for _, l := range lanes {
		if _, err := l.find(e, cfg, []*testkit.Model{l.model}); err != nil {
			return fmt.Errorf("opened again: %w", err)
		}
	}
	return nil
}

// patience is how long something may take that is not a matter of speed before
// it counts as stuck.
const patience = 2 * time.Minute
