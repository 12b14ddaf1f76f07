package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/testkit"
	"github.com/snapstore/snapstore/internal/testkit/drive"
)

// worker lives one canister through a life of its own, beside others: it writes
// pages that all share, takes, loads, deletes and reads, and knows what each of
// its snapshots holds.
type worker struct {
	e    *engine.Engine
	c    *engine.Canister
	rng  *rand.Rand
	live []byte
	have map[engine.SnapshotID][]byte
}

const workerPages = 24

func newWorker(ctx context.Context, e *engine.Engine, n int) (*worker, error) {
	c, err := e.CreateCanister(ctx, drive.Canister(n))
	if err != nil {
		return nil, err
	}
	w := &worker{e: e, c: c, rng: rand.New(rand.NewPCG(uint64(n), 9)), live: make([]byte, workerPages*4096), have: map[engine.SnapshotID][]byte{}}
	m, err := c.Memory(engine.WasmMemory)
	if err != nil {
		return nil, err
	}
	return w, m.Resize(uint64(len(w.live)))
}

func (w *worker) any() (id engine.SnapshotID) {
	n := w.rng.IntN(len(w.have))
	ids := make([]engine.SnapshotID, 0, len(w.have))
	for s := range w.have {
		ids = append(ids, s)
	}
	for _, s := range ids { // the n-th by age, whatever the order of the map
		older := 0
		for _, o := range ids {
			if o.Local < s.Local {
				older++
			}
		}
		if older == n {
			id = s
		}
	}
	return id
}

// step does one thing, and only fails for reasons of the engine.
func (w *worker) step(ctx context.Context) error {
	switch k := w.rng.IntN(10); {
	case k < 3 || len(w.have) == 0:
		m, err := w.c.Memory(engine.WasmMemory)
		if err != nil {
			return err
		}
		for range 1 + w.rng.IntN(6) {
			page := w.rng.IntN(workerPages)
			p := testkit.Content(w.rng.IntN(60)).Bytes(4096)
			if _, err := m.WriteAt(p, int64(page)*4096); err != nil {
				return err
			}
			copy(w.live[page*4096:], p)
		}
		var o engine.TakeOptions
		if len(w.have) >= 4 {
			o.Replace = w.any()
		}
		res, err := w.c.Take(ctx, o)
		if err != nil {
			return err
		}
		delete(w.have, o.Replace)
		w.have[res.ID] = bytes.Clone(w.live)
	case k < 5:
		id := w.any()
		if _, err := w.c.Load(ctx, id, engine.LoadOptions{}); err != nil {
			return err
		}
		copy(w.live, w.have[id])
	case k < 7:
		id := w.any()
		if err := w.e.Delete(ctx, id); err != nil {
			return err
		}
		delete(w.have, id)
	default:
		return w.read(w.any())
	}
	return nil
}

func (w *worker) read(id engine.SnapshotID) error {
	if err := readAll(w.e, id, w.have[id]); err != nil {
		return fmt.Errorf("snapshot %v: %w", id, err)
	}
	return nil
}

// Canisters live beside each other while gc runs, statistics are asked for and
// the store verifies itself.
func TestCanistersInParallel(t *testing.T) {
	r := newRun(t, func(o *engine.Options) { o.NoBackground, o.CleanBelow = false, 0.95 })
	steps := int(number(t, "SNAPSTORE_STEPS", 150))
	var workers [5]*worker
	for i := range workers {
		workers[i] = must(newWorker(bg, r.E, i))
	}
	var busy, beside sync.WaitGroup
	done := make(chan struct{})
	for _, f := range []func() error{
		func() error { _, err := r.E.GC(bg, engine.GCOptions{}); return err },
		func() error { r.E.Stats(); _, err := r.E.Usage(bg); return err },
		func() error { return r.E.FlushIndex() },
		func() error {
			for p, err := range r.E.Verify(bg, engine.VerifyOptions{}) {
				if err != nil {
					return err
				}
				return fmt.Errorf("verify: %+v", p)
			}
			return nil
		},
	} {
		beside.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if err := f(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for _, w := range workers {
		busy.Go(func() {
			for range steps {
				if err := w.step(bg); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	busy.Wait()
	close(done)
	beside.Wait()
	for _, w := range workers {
		for id := range w.have {
			if err := w.read(id); err != nil {
				t.Error(err)
			}
		}
	}
	must(r.E.GC(bg, engine.GCOptions{}))
	sound(t, r.E)
	if u := must(r.E.Usage(bg)); u.Limbo != 0 || u.Lost != 0 {
		t.Errorf("%+v", u)
	}
}

// A store that is closed under its users ends every call with ErrClosed, and
// holds afterwards what was acknowledged. Nothing counts as damage.
func TestCloseUnderUsers(t *testing.T) {
	for round := range 12 {
		r, err := drive.New(quietly(func(o *engine.Options) { o.NoBackground = round%2 == 0 }))
		if err != nil {
			t.Fatal(err)
		}
		var workers [4]*worker
		var before [4]map[engine.SnapshotID][]byte
		for i := range workers {
			workers[i] = must(newWorker(bg, r.E, i))
		}
		var wg sync.WaitGroup
		var stepsDone atomic.Int64
		problem := func(err error) {
			if !errors.Is(err, engine.ErrClosed) {
				t.Errorf("round %d: %v", round, err)
			}
		}
		for i, w := range workers {
			wg.Go(func() {
				for {
					before[i] = map[engine.SnapshotID][]byte{}
					for id, p := range w.have {
						before[i][id] = p
					}
					if err := w.step(bg); err != nil {
						problem(err)
						return
					}
					stepsDone.Add(1)
				}
			})
		}
		for _, f := range []func() error{
			func() error { _, err := r.E.GC(bg, engine.GCOptions{}); return err },
			func() error { _, err := r.E.Usage(bg); return err },
			func() error {
				for p, err := range r.E.Verify(bg, engine.VerifyOptions{}) {
					if err != nil {
						return err
					}
					return fmt.Errorf("verify: %+v", p)
				}
				return nil
			},
			func() error {
				for _, err := range r.E.Canisters() {
					if err != nil {
						return err
					}
				}
				r.E.Stats()
				return nil
			},
		} {
			wg.Go(func() {
				for {
					if err := f(); err != nil {
						problem(err)
						return
					}
				}
			})
		}
		for stepsDone.Load() < int64(10+5*round) && !t.Failed() {
			time.Sleep(time.Millisecond)
		}
		if err := r.E.Close(); err != nil {
			t.Errorf("round %d: close: %v", round, err)
		}
		wg.Wait()
		r.E = nil
		e, err := engine.Open("store", &engine.Options{FS: r.FS, Ballast: -1, NoBackground: true})
		if err != nil {
			t.Fatal(err)
		}
		for i, w := range workers {
			// The step that was cut off may have added or taken away one.
			for id, want := range before[i] {
				err := readAll(e, id, want)
				if err != nil && !(errors.Is(err, engine.ErrNotFound) && len(list(t, e, w.c.ID())) >= len(before[i])-1) {
					t.Errorf("round %d: %v: %v", round, id, err)
				}
			}
		}
		sound(t, e)
		if u := must(e.Usage(bg)); u.Lost != 0 {
			t.Errorf("round %d: closing marked %d chunks lost", round, u.Lost)
		}
		e.Close()
	}
}

// Readers go on, bit for bit, while what they read is deleted around them and
// its segments are cleaned.
func TestReadersWhileCleaning(t *testing.T) {
	r := newRun(t, func(o *engine.Options) { o.NoBackground, o.CleanBelow, o.SnapshotLimit = false, 0.99, 100 })
	r.M.Limit = 100
	do(t, r, create(0), resize(0, wasm, 64*4096))
	for i := range 12 {
		do(t, r, fill(0, wasm, uint64(4*i), contents(testkit.Content(20*i+2), 16)...), take(0))
	}
	var readers sync.WaitGroup
	stop := make(chan struct{})
	for _, s := range r.M.Canisters[0].Snapshots {
		want := make([]byte, 64*4096)
		s.State.Sections[wasm].ReadAt(want, 0)
		snap := must(r.E.Snapshot(bg, drive.SnapshotID(0, s.Local)))
		readers.Go(func() {
			defer snap.Close()
			sec := must(snap.Section(engine.WasmMemory))
			got := &bytes.Buffer{}
			for {
				select {
				case <-stop:
					return
				default:
				}
				got.Reset()
				if _, err := sec.WriteTo(got); err != nil || !bytes.Equal(got.Bytes(), want) {
					t.Errorf("snapshot %d changed under its reader: %v", s.Local, err)
					return
				}
			}
		})
	}
	for i := range uint64(8) {
		if i%3 != 0 {
			do(t, r, remove(0, i))
		}
		do(t, r, fill(0, wasm, 2*i, contents(testkit.Content(1000+40*i), 30)...), checkpoint(0))
		must(r.E.GC(bg, engine.GCOptions{}))
	}
	close(stop)
	readers.Wait()
	check(t, r, drive.Rebuild)
}

// The segment with a canister's newest record is cleaned while the canister
// takes, and the power goes at any moment of it.
func TestCleaningUnderTheNewestRecord(t *testing.T) {
	cfg := quietly(func(o *engine.Options) { o.CleanBelow, o.SnapshotLimit = 0.99, 4 })
	r, err := drive.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	do(t, r, create(0), create(1), resize(0, wasm, 8*4096), resize(1, wasm, 64*4096), checkpoint(0))
	rng := rng(1)
	var mu sync.Mutex
	var points []*drive.Point
	r.OnOp(func(op testkit.FileOp) {
		mu.Lock()
		defer mu.Unlock()
		if rng.IntN(12) == 0 && strings.HasPrefix(op.Path, "store") {
			points = append(points, r.Catch(rng, fmt.Sprintf("before %v", op)))
		}
	})
	for i := range 25 {
		// Garbage around the records, then cleaning beside takes.
		do(t, r, fill(1, wasm, 0, contents(testkit.Content(100*i+2), 20)...), checkpoint(1), fill(1, wasm, 0, make([]testkit.Content, 20)...), checkpoint(1))
		gc := make(chan error, 1)
		go func() {
			_, err := r.E.GC(bg, engine.GCOptions{})
			gc <- err
		}()
		for k := range 3 {
			o := take(0)
			if c := r.M.Canisters[0]; len(c.Snapshots) == r.M.Limit {
				o.Replace = c.Snapshots[0].Local
			}
			do(t, r, fill(0, wasm, uint64(k), testkit.Content(7*i+k+1)), o)
		}
		if err := <-gc; err != nil {
			t.Fatal(err)
		}
	}
	r.OnOp(nil)
	if r.E.Stats().GC.SegmentsCleaned == 0 {
		t.Error("nothing was cleaned")
	}
	check(t, r, drive.Rebuild)
	rng.Shuffle(len(points), func(i, j int) { points[i], points[j] = points[j], points[i] })
	rc := drive.Recheck{Levels: 2}
	for _, p := range points[:min(len(points), int(number(t, "SNAPSTORE_CRASH_POINTS", 100)))] {
		if err := p.Check(bg, &rc); err != nil {
			t.Fatal(err)
		}
	}
}
