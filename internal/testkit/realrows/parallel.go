package realrows

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/testkit"
	"github.com/snapstore/snapstore/internal/testkit/drive"
	"github.com/snapstore/snapstore/internal/testkit/matrix"
)

const (
	parallelWorkers   = 8
	parallelCanisters = 3
	parallelSteps     = 60
	// parallelLimit of snapshots, so that many takes are refused or replace.
	parallelLimit = 5
)

func parallelRow() matrix.Row {
	return matrix.Row{
		Name:  "parallel",
		Fault: "8 workers write, take, replace, load, delete, list and read in 3 canisters, beside gc, a scrubber, verify and a metrics scrape",
		Holds: "what they were told is linearizable, canister by canister; verify finds nothing afterwards",
		Fast:  1, Full: 100,
		Needs: func() error { return nil },
		Run:   parallel,
	}
}

// The model of a canister: one value in the first page of either memory, and
// snapshots of both. All that a call does is done at one moment between call and
// return, but for a take, which has two: the one it shows, and the one at which
// it can be seen. In the history a take is two calls of the same time.

type callKind uint8

const (
	callWrite callKind = iota
	callLook           // at live memory
	callSeal           // of a take that succeeds
	callCommit
	callRefused // a take
	callLoad
	callDelete
	callList
	callRead // a snapshot
)

type call struct {
	kind     callKind
	canister int
	section  int // 0 or 1
	value    uint64
	local    uint64
	replace  uint64 // testkit.NoSnapshot for none
	take     int    // which, for seal and commit
}

type reply struct {
	refused testkit.Refusal
	local   uint64
	values  [2]uint64
	locals  []uint64
}

type snapshotState struct {
	local  uint64
	values [2]uint64
}

type pendingTake struct {
	take   int
	values [2]uint64
}

// canisterState is immutable.
type canisterState struct {
	live    [2]uint64
	next    uint64
	snaps   []snapshotState
	pending []pendingTake
}

func (s canisterState) find(local uint64) int {
	return slices.IndexFunc(s.snaps, func(x snapshotState) bool { return x.local == local })
}

func (s canisterState) equal(o canisterState) bool {
	return s.live == o.live && s.next == o.next && slices.Equal(s.snaps, o.snaps) && slices.Equal(s.pending, o.pending)
}

func without[T any](list []T, i int) []T { return slices.Delete(slices.Clone(list), i, i+1) }

// step says whether a call may be answered so in a state, and what comes after.
func (s canisterState) step(c call, r reply) (bool, canisterState) {
	switch c.kind {
	case callWrite:
		s.live[c.section] = c.value
		return true, s
	case callLook:
		return r.values[c.section] == s.live[c.section], s
	case callSeal:
		s.pending = append(slices.Clone(s.pending), pendingTake{c.take, s.live})
		return true, s
	case callCommit:
		at := slices.IndexFunc(s.pending, func(p pendingTake) bool { return p.take == c.take })
		if at < 0 || r.local != s.next {
			return false, s
		}
		snap := snapshotState{s.next, s.pending[at].values}
		s.pending = without(s.pending, at)
		if c.replace != testkit.NoSnapshot {
			i := s.find(c.replace)
			if i < 0 {
				return false, s
			}
			s.snaps = without(s.snaps, i)
		}
		if len(s.snaps) >= parallelLimit {
			return false, s
		}
		s.snaps = append(slices.Clone(s.snaps), snap)
		s.next++
		return true, s
	case callRefused:
		if r.refused == testkit.NotFound {
			return c.replace != testkit.NoSnapshot && s.find(c.replace) < 0, s
		}
		return c.replace == testkit.NoSnapshot && len(s.snaps) >= parallelLimit, s
	case callLoad:
		i := s.find(c.local)
		if i >= 0 && r.refused == testkit.OK {
			s.live = s.snaps[i].values
		}
		return (i >= 0) == (r.refused == testkit.OK), s
	case callDelete:
		i := s.find(c.local)
		if i >= 0 && r.refused == testkit.OK {
			s.snaps = without(s.snaps, i)
		}
		return (i >= 0) == (r.refused == testkit.OK), s
	case callList:
		return slices.EqualFunc(s.snaps, r.locals, func(x snapshotState, l uint64) bool { return x.local == l }), s
	case callRead:
		i := s.find(c.local)
		if i >= 0 && r.refused == testkit.OK {
			return s.snaps[i].values == r.values, s
		}
		return (i >= 0) == (r.refused == testkit.OK), s
	}
	return false, s
}

func canisterModel() porcupine.Model {
	return porcupine.Model{
		Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
			parts := make([][]porcupine.Operation, parallelCanisters)
			for _, o := range history {
				c := o.Input.(call).canister
				parts[c] = append(parts[c], o)
			}
			return parts
		},
		Init: func() any { return canisterState{} },
		Step: func(state, input, output any) (bool, any) {
			ok, next := state.(canisterState).step(input.(call), output.(reply))
			return ok, next
		},
		Equal: func(a, b any) bool { return a.(canisterState).equal(b.(canisterState)) },
	}
}

// crowd is what the workers share.
type crowd struct {
	e     *engine.Engine
	began time.Time
	takes atomic.Int64
	next  [parallelCanisters]atomic.Uint64 // about how many snapshots there have been

	mu      sync.Mutex
	history []porcupine.Operation
}

func (w *crowd) now() int64 { return time.Since(w.began).Nanoseconds() }

func (w *crowd) note(client int, c call, r reply, from, to int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.history = append(w.history, porcupine.Operation{ClientId: client, Input: c, Call: from, Output: r, Return: to})
}

var parallelSections = [2]engine.Section{engine.WasmMemory, engine.StableMemory}

// valuePage is a page that shows a value. Values are few, so that canisters
// share pages and pages come again.
func valuePage(value uint64) []byte {
	if value == 0 {
		return make([]byte, engine.PageSize)
	}
	p := testkit.Content(value).Bytes(engine.PageSize)
	binary.LittleEndian.PutUint64(p, value)
	return p
}

func pageValue(p []byte) (uint64, error) {
	v := binary.LittleEndian.Uint64(p)
	if want := valuePage(v); !slices.Equal(p, want) {
		return 0, fmt.Errorf("a page that nobody wrote: %x...", p[:16])
	}
	return v, nil
}

// one does one call and notes it.
func (w *crowd) one(ctx context.Context, client int, rng *rand.Rand) error {
	c := call{canister: rng.IntN(parallelCanisters), section: rng.IntN(2), replace: testkit.NoSnapshot}
	h, err := w.e.Canister(drive.Canister(c.canister))
	if err != nil {
		return err
	}
	if next := w.next[c.canister].Load(); next > 0 {
		c.local = next - 1 - min(next-1, rng.Uint64N(parallelLimit+2))
	}
	id := drive.SnapshotID(c.canister, c.local)
	var r reply
	told := func(err error) error {
		switch {
		case errors.Is(err, engine.ErrNotFound):
			r.refused = testkit.NotFound
		case errors.Is(err, engine.ErrSnapshotLimit):
			r.refused = testkit.Limit
		default:
			return err
		}
		return nil
	}
	from := w.now()
	switch k := rng.IntN(20); {
	case k < 6:
		m, merr := h.Memory(parallelSections[c.section])
		if merr != nil {
			return merr
		}
		if rng.IntN(3) == 0 { // pages that no model knows, for gc to work on
			_, err = m.WriteAt(valuePage(rng.Uint64N(60)), int64(1+rng.IntN(30))*engine.PageSize)
			return err
		}
		c.kind, c.value = callWrite, rng.Uint64N(40)
		page := valuePage(c.value)
		from = w.now()
		_, err = m.WriteAt(page, 0)
	case k < 8:
		c.kind = callLook
		m, merr := h.Memory(parallelSections[c.section])
		if merr != nil {
			return merr
		}
		page := make([]byte, engine.PageSize)
		if _, err = m.ReadAt(page, 0); err == nil {
			r.values[c.section], err = pageValue(page)
		}
	case k < 12:
		var o engine.TakeOptions
		if rng.IntN(2) == 0 {
			c.replace, o.Replace = c.local, id
		}
		var res engine.TakeResult
		res, err = h.Take(ctx, o)
		to := w.now()
		if err == nil {
			c.take, c.kind = int(w.takes.Add(1)), callSeal
			w.note(client, c, r, from, to)
			c.kind, r.local = callCommit, res.ID.Local
			w.note(client, c, r, from, to)
			w.next[c.canister].Store(res.ID.Local + 1)
			return nil
		}
		c.kind = callRefused
		err = told(err)
	case k < 14:
		c.kind = callLoad
		_, err = h.Load(ctx, id, engine.LoadOptions{})
		err = told(err)
	case k < 16:
		c.kind = callDelete
		err = told(w.e.Delete(ctx, id))
	case k < 18:
		c.kind = callList
		for info, lerr := range w.e.Snapshots(drive.Canister(c.canister)) {
			if lerr != nil {
				return lerr
			}
			r.locals = append(r.locals, info.ID.Local)
		}
	default:
		c.kind = callRead
		s, serr := w.e.Snapshot(ctx, id)
		if err = told(serr); err == nil && s != nil {
			for i, sec := range parallelSections {
				page := make([]byte, engine.PageSize)
				in, ierr := s.Section(sec)
				if ierr == nil {
					_, ierr = in.ReadAt(page, 0)
				}
				if ierr == nil {
					r.values[i], ierr = pageValue(page)
				}
				err = errors.Join(err, ierr)
			}
			s.Close()
		}
	}
	if err != nil {
		return fmt.Errorf("%+v: %w", c, err)
	}
	w.note(client, c, r, from, w.now())
	return nil
}

func parallel(ctx context.Context, env *matrix.Env, index int64) (t matrix.Tally, err error) {
	t.Cases, t.Points = 1, 1
	rng := env.Rand("parallel", index)
	seed := rng.Uint64()
	r, err := drive.New(drive.Config{Seed: seed, Limit: parallelLimit, Options: func(o *engine.Options) {
		o.NoBackground, o.CleanBelow, o.ScrubEvery = false, 0.95, 200*time.Millisecond
	}})
	if err != nil {
		return t, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	w := &crowd{e: r.E, began: time.Now()}
	for c := range parallelCanisters {
		h, err := w.e.CreateCanister(ctx, drive.Canister(c))
		if err != nil {
			return t, err
		}
		for _, sec := range parallelSections {
			m, err := h.Memory(sec)
			if err != nil {
				return t, err
			}
			if err := m.Resize(32 * engine.PageSize); err != nil {
				return t, err
			}
		}
	}
	if err := w.run(ctx, seed); err != nil {
		t.Silent++
		return t, err
	}
	for c := range parallelCanisters {
		for _, err := range w.e.Snapshots(drive.Canister(c)) {
			if err != nil {
				return t, err
			}
			t.Acknowledged++
		}
	}
	verdict := porcupine.CheckOperationsTimeout(canisterModel(), w.history, patience)
	env.Logf("parallel %d: %d calls, %s", index, len(w.history), verdict)
	switch verdict {
	case porcupine.Unknown:
		return t, fmt.Errorf("seed %d: whether %d calls are linearizable is not decided after %s", seed, len(w.history), patience)
	case porcupine.Illegal:
		t.Lost++
		return t, fmt.Errorf("seed %d: what the workers were told is not linearizable:\n%s", seed, w.tell())
	}
	if _, err := r.E.GC(ctx, engine.GCOptions{}); err != nil {
		return t, err
	}
	if err := judge(&t, r.Verify(ctx)); err != nil {
		return t, err
	}
	if u, err := r.E.Usage(ctx); err != nil || u.Limbo != 0 || u.Lost != 0 {
		t.Leaked++
		return t, fmt.Errorf("after gc: %+v, %w", u, err)
	}
	return t, nil
}

// run lets the workers work, and what goes on beside them.
func (w *crowd) run(ctx context.Context, seed uint64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var workers, beside sync.WaitGroup
	failed := make(chan error, parallelWorkers+4)
	for i := range parallelWorkers {
		workers.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(i)))
			for range parallelSteps {
				if err := w.one(ctx, i, rng); err != nil {
					failed <- err
					return
				}
				for range rng.IntN(3) {
					runtime.Gosched()
				}
			}
		})
	}
	for _, f := range []func() error{
		func() error { _, err := w.e.GC(ctx, engine.GCOptions{}); return err },
		func() error { _, err := scrape(w.e, "snapstore_segments"); return err },
		func() error {
			for p, err := range w.e.Verify(ctx, engine.VerifyOptions{}) {
				if err != nil {
					return err
				}
				return fmt.Errorf("verify: %+v", p)
			}
			return nil
		},
	} {
		beside.Go(func() {
			for ctx.Err() == nil {
				if err := f(); err != nil && ctx.Err() == nil {
					failed <- err
					return
				}
			}
		})
	}
	workers.Wait()
	cancel()
	beside.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// tell lists the calls by the time they began.
func (w *crowd) tell() string {
	slices.SortFunc(w.history, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
	var b []byte
	for _, o := range w.history {
		b = fmt.Appendf(b, "%10d %10d worker %d: %+v: %+v\n", o.Call, o.Return, o.ClientId, o.Input, o.Output)
	}
	return string(b)
}
