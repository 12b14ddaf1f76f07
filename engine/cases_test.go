package engine_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/testkit"
	"github.com/snapstore/snapstore/internal/testkit/drive"
)

// What the named cases have in common: a driven store without work in the
// background, and short ways to write operations down.

var (
	wasm   = testkit.Section{Kind: 2}
	stable = testkit.Section{Kind: 3}
)

func newRun(t *testing.T, change func(*engine.Options)) *drive.Run {
	t.Helper()
	r, err := drive.New(quietly(change))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// quietly is a configuration that leaves nothing to chance.
func quietly(change func(*engine.Options)) drive.Config {
	return drive.Config{Seed: 1, Options: func(o *engine.Options) {
		o.NoBackground, o.IdleSync, o.Ballast, o.CleanBelow, o.NoCompression = true, -1, -1, 0.8, false
		if change != nil {
			change(o)
		}
	}}
}

func do(t *testing.T, r *drive.Run, ops ...testkit.Op) {
	t.Helper()
	for _, o := range ops {
		if err := r.Do(t.Context(), o); err != nil {
			t.Fatalf("%v\n%s", err, r.History())
		}
	}
}

func check(t *testing.T, r *drive.Run, d drive.Depth) {
	t.Helper()
	if err := r.Check(t.Context(), d); err != nil {
		t.Fatalf("%v\n%s", err, r.History())
	}
}

func create(c int) testkit.Op  { return testkit.Op{Name: testkit.Create, C: c} }
func destroy(c int) testkit.Op { return testkit.Op{Name: testkit.Destroy, C: c} }

func resize(c int, s testkit.Section, size uint64) testkit.Op {
	return testkit.Op{Name: testkit.Resize, C: c, Section: s, Size: size}
}

// fill writes pages one after the other; content 0 is zeros.
func fill(c int, s testkit.Section, page uint64, contents ...testkit.Content) testkit.Op {
	o := testkit.Op{Name: testkit.Write, C: c, Section: s}
	for i, x := range contents {
		o.Spans = append(o.Spans, testkit.Span{Off: (page + uint64(i)) * engine.PageSize, Len: engine.PageSize, Content: x})
	}
	return o
}

// contents gives n contents from a number on.
func contents(from testkit.Content, n int) []testkit.Content {
	out := make([]testkit.Content, n)
	for i := range out {
		out[i] = from + testkit.Content(i)
	}
	return out
}

func take(c int) testkit.Op {
	return testkit.Op{Name: testkit.Take, C: c, Replace: testkit.NoSnapshot, At: 1}
}

func checkpoint(c int) testkit.Op { return testkit.Op{Name: testkit.Checkpoint, C: c} }

func remove(c int, local uint64) testkit.Op {
	return testkit.Op{Name: testkit.Delete, C: c, Local: local}
}

func load(c, from int, local uint64) testkit.Op {
	return testkit.Op{Name: testkit.Load, C: c, From: from, Local: local}
}

func op(name testkit.OpName) testkit.Op { return testkit.Op{Name: name} }

// Histories that failed once, as short as they could be made.
func TestHistoriesThatFailedOnce(t *testing.T) {
	broken := testkit.Op{Name: testkit.Break, Fault: testkit.Fault{Kind: testkit.Mutating, After: 1}}
	unsynced := testkit.Op{Name: testkit.Break, Fault: testkit.Fault{Kind: testkit.OpSync, Under: "store/log", After: 1}}
	upload := testkit.Op{Name: testkit.BeginUpload, C: 2, Replace: testkit.NoSnapshot, Sizes: map[testkit.Section]uint64{stable: 24500}}
	uploaded := testkit.Op{Name: testkit.WriteUpload, C: 2, Local: 0, Section: stable, Spans: []testkit.Span{{Off: 4096, Len: 4096, Content: 238}}}
	for name, h := range map[string]struct {
		faulty bool
		ops    []testkit.Op
	}{
		"a load of an upload that was not flushed": {ops: []testkit.Op{create(2), upload, uploaded, load(2, 2, 0)}},
		"a load into another canister of it":       {ops: []testkit.Op{create(2), create(1), upload, uploaded, load(1, 2, 0)}},
		"a record after a rebuild":                 {ops: []testkit.Op{create(2), take(2), op(testkit.DropIndex), take(2), take(2)}},
		"a sync that failed at close, believed at open": {faulty: true, ops: []testkit.Op{
			create(2), broken, op(testkit.Reopen), {Name: testkit.PowerLoss, Seed: 863070695462502818},
		}},
		"a sync that failed at close, believed by ROOT": {faulty: true, ops: []testkit.Op{
			create(0), unsynced, take(0), op(testkit.Reopen), {Name: testkit.PowerLoss, Seed: 12760202756262015732},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := quietly(nil)
			cfg.Faulty = h.faulty
			r, err := drive.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if err := r.Play(t.Context(), slices.Values(h.ops), drive.Rebuild); err != nil {
				t.Fatalf("%v\n%s", err, r.History())
			}
		})
	}
}

// An index that was put back to an older state must not be believed when it
// names segments that were dropped since, and pages equal to deleted ones must
// be stored again then.
func TestOlderIndexPutBack(t *testing.T) {
	r := newRun(t, nil)
	do(t, r, create(0), create(1), resize(0, wasm, 60*engine.PageSize), resize(1, wasm, 60*engine.PageSize))
	var older []*testkit.Disk
	keep := func() {
		if err := r.E.FlushIndex(); err != nil {
			t.Fatal(err)
		}
		older = append(older, r.Disk.Crash(100, nil))
	}
	keep()
	for k := range 4 {
		do(t, r, fill(0, wasm, 0, contents(testkit.Content(100*k+2), 40)...), take(0))
		keep()
	}
	for k := range uint64(4) {
		do(t, r, remove(0, k))
		keep()
		do(t, r, op(testkit.GC))
		keep()
	}
	do(t, r, fill(0, wasm, 0, make([]testkit.Content, 40)...), checkpoint(0), op(testkit.GC))
	keep()
	stale := 0
	for i, old := range older {
		for _, clean := range []bool{true, false} {
			disk := r.Disk.Crash(100, nil)
			if clean {
				c := drive.Resume(r.Config, disk, r.M)
				if err := c.Open(); err != nil {
					t.Fatal(err)
				}
				if err := c.Close(); err != nil {
					t.Fatal(err)
				}
			}
			if err := old.Copy(disk, "store/index"); err != nil {
				t.Fatal(err)
			}
			c := drive.Resume(r.Config, disk, r.M)
			if err := c.Open(); err != nil {
				t.Fatalf("index %d: %v", i, err)
			}
			if c.E.Stats().Rebuilt != "" {
				stale++
			}
			// All pages that were ever deleted, again.
			for k := range 4 {
				do(t, c, fill(1, wasm, uint64(10*k), contents(testkit.Content(100*k+2), 20)...), take(1))
			}
			check(t, c, drive.Rebuild)
			c.Close()
		}
	}
	if stale == 0 || stale == 2*len(older) {
		t.Errorf("%d of %d older indexes were refused: the test tests nothing", stale, 2*len(older))
	}
}

// The process is killed at every operation of a take, between the write and the
// sync among others. The next one opens what is in the page cache, takes from
// it, and only then the power goes.
func TestKilledThenTakenFromThenPowerLoss(t *testing.T) {
	for n := int64(1); ; n++ {
		r := newRun(t, nil)
		do(t, r, create(0), create(1), resize(0, wasm, 40*engine.PageSize), resize(1, wasm, 40*engine.PageSize))
		do(t, r, fill(0, wasm, 0, contents(10, 8)...), take(0))
		do(t, r, fill(0, wasm, 4, contents(50, 20)...), fill(1, wasm, 0, contents(50, 5)...))
		r.FS.KillAt(n)
		err := r.Do(t.Context(), take(0))
		if err == nil {
			if n < 3 {
				t.Fatalf("a take of %d operations", n-1)
			}
			t.Logf("a take has %d operations", n-1)
			return
		}
		if !errors.Is(err, drive.ErrCrashed) {
			t.Fatal(err)
		}
		if err := r.Recover(); err != nil {
			t.Fatalf("killed at %d: %v", n, err)
		}
		// The pages of the take that was cut short, from another canister.
		do(t, r, fill(1, wasm, 0, contents(50, 20)...), take(1))
		if err := r.LosePower(0, nil); err != nil {
			t.Fatalf("killed at %d, then power loss: %v", n, err)
		}
		check(t, r, drive.Rebuild)
		r.Close()
	}
}

// Equal pages that two canisters bring at once, and one lets go again, stay for
// the other.
func TestRacingTakesOfEqualPages(t *testing.T) {
	r := newRun(t, func(o *engine.Options) { o.NoBackground = false })
	var cs [2]*engine.Canister
	for i := range cs {
		do(t, r, create(i), resize(i, wasm, 32*engine.PageSize))
		cs[i] = must(r.E.Canister(drive.Canister(i)))
	}
	for round := range 40 {
		for i := range cs {
			do(t, r, fill(i, wasm, 0, contents(testkit.Content(1000+30*round), 30)...))
		}
		var ids [2]engine.SnapshotID
		errs := make(chan error, 2)
		for i := range cs {
			go func() {
				res, err := cs[i].Take(context.Background(), engine.TakeOptions{})
				ids[i] = res.ID
				errs <- err
			}()
		}
		if err := errors.Join(<-errs, <-errs); err != nil {
			t.Fatal(err)
		}
		gone, stays := ids[round%2], ids[1-round%2]
		if err := r.E.Delete(bg, gone); err != nil {
			t.Fatal(err)
		}
		for i := range cs { // the live states let go of them, too
			m := must(cs[i].Memory(engine.WasmMemory))
			if _, err := m.WriteAt(make([]byte, 30*engine.PageSize), 0); err != nil {
				t.Fatal(err)
			}
			must(cs[i].Checkpoint(bg))
		}
		if round%4 == 0 {
			must(r.E.GC(bg, engine.GCOptions{}))
		}
		want := make([]byte, 0, 30*engine.PageSize)
		for _, c := range contents(testkit.Content(1000+30*round), 30) {
			want = append(want, c.Bytes(engine.PageSize)...)
		}
		if got := content(t, r.E, stays, engine.WasmMemory); !slices.Equal(got[:len(want)], want) {
			t.Fatalf("round %d: a snapshot changed", round)
		}
		if err := r.E.Delete(bg, stays); err != nil {
			t.Fatal(err)
		}
	}
	must(r.E.GC(bg, engine.GCOptions{}))
	sound(t, r.E)
	if u := must(r.E.Usage(bg)); u.Pages != 0 || u.Limbo != 0 {
		t.Errorf("%+v is left", u)
	}
}

// A filter that forgets costs space and nothing else.
func TestForgetfulFilter(t *testing.T) {
	for _, seed := range seeds(t, 3_000, 10) {
		cfg := config(seed)
		cfg.Opened = func(e *engine.Engine) {
			e.ForgetInFilter(func(id engine.IndexID) bool {
				n := int(id[3])<<8 | int(id[7])
				return n%[]int{1, 2, 10, 100}[seed/4%4] == 0
			})
		}
		history(t, cfg, 80, testkit.Break, testkit.Mend)
	}
}
