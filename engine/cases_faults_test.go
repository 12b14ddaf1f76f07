package engine_test

import (
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/testkit"
	"github.com/snapstore/snapstore/internal/testkit/drive"
)

// A disk that fails under the index alone is no reason to lose or refuse
// anything: takes and reads go on, and the next open repairs.
func TestIndexOnAFailingDisk(t *testing.T) {
	for _, fault := range []testkit.Fault{
		{Kind: testkit.Mutating},
		{Kind: testkit.OpSync},
		{Kind: testkit.OpWrite, Torn: true},
		{Kind: testkit.OpCreate, After: 1},
		{Kind: testkit.OpRead | testkit.OpOpen},
		{Kind: testkit.AnyOp, After: 3},
	} {
		for _, background := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v, background %t", &fault, background), func(t *testing.T) {
				t.Parallel()
				cfg := quietly(func(o *engine.Options) { o.NoBackground = !background })
				cfg.Faulty = true
				r, err := drive.New(cfg)
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				do(t, r, create(0), resize(0, wasm, 60*4096), fill(0, wasm, 0, contents(2, 50)...), take(0))
				fault := fault
				fault.Under = "store/index"
				r.FS.Inject(&fault)
				_ = r.E.FlushIndex() // so that it meets the fault
				for i := range 6 {
					before := len(r.M.Canisters[0].Snapshots)
					if before == r.M.Limit {
						do(t, r, remove(0, r.M.Canisters[0].Snapshots[0].Local))
						before--
					}
					do(t, r, fill(0, wasm, uint64(i), contents(testkit.Content(100*i+3), 20)...), take(0))
					if got := len(r.M.Canisters[0].Snapshots); got != before+1 {
						t.Fatalf("take %d failed", i)
					}
					_ = r.E.FlushIndex()
				}
				if err := r.Compare(); err != nil && fault.Kind&testkit.OpRead == 0 {
					t.Fatalf("reading with a failing index: %v", err)
				}
				if _, err := r.E.GC(bg, engine.GCOptions{}); err == nil && r.E.Stats().IndexUntrusted != "" {
					t.Error("gc worked on an index that is not trusted")
				}
				r.FS.Inject()
				do(t, r, op(testkit.Reopen))
				check(t, r, drive.Rebuild)
			})
		}
	}
}

// More deleted than gc may leave lying about holds takes back, for so long as
// was asked; what readers hold does not count.
func TestDebtLimit(t *testing.T) {
	r := newRun(t, func(o *engine.Options) { o.MaxDrops, o.DebtWait, o.SnapshotLimit = 2, 20*time.Millisecond, 100 })
	r.M.Limit = 100
	do(t, r, create(0), resize(0, wasm, 40*4096))
	var readers []*engine.Snapshot
	for i := range 6 {
		do(t, r, fill(0, wasm, 0, contents(testkit.Content(100*i+3), 30)...), take(0))
		readers = append(readers, must(r.E.Snapshot(bg, drive.SnapshotID(0, uint64(i)))))
	}
	for i := range 6 {
		do(t, r, remove(0, uint64(i)))
	}
	// All that waits is held by readers: nobody can do anything about it.
	do(t, r, take(0), remove(0, 6))
	for i, s := range readers {
		want := r.M // the model has let go of it
		_ = want
		got := make([]byte, 30*4096)
		must(must(s.Section(engine.WasmMemory)).ReadAt(got, 0))
		for p, c := range contents(testkit.Content(100*i+3), 30) {
			if string(got[p*4096:(p+1)*4096]) != string(c.Bytes(4096)) {
				t.Fatalf("reader %d, page %d", i, p)
			}
		}
		s.Close()
	}
	c := must(r.E.Canister(drive.Canister(0)))
	for name, f := range map[string]func() error{
		"take":       func() error { _, err := c.Take(bg, engine.TakeOptions{}); return err },
		"checkpoint": func() error { _, err := c.Checkpoint(bg); return err },
	} {
		if err := f(); !errors.Is(err, engine.ErrDebt) {
			t.Errorf("%s over the limit says %v", name, err)
		}
	}
	if err := r.Compare(); err != nil {
		t.Fatal(err)
	}
	do(t, r, op(testkit.GC), take(0))
	check(t, r, drive.Rebuild)
}

// A store on a disk that is full refuses takes with ErrNoSpace, goes on reading,
// deletes, collects, and takes again, without being opened anew.
func TestFullDisk(t *testing.T) {
	for _, background := range []bool{false, true} {
		t.Run(fmt.Sprintf("background %t", background), func(t *testing.T) {
			cfg := quietly(func(o *engine.Options) { o.Ballast, o.SnapshotLimit, o.NoBackground = 768<<10, 1000, !background })
			cfg.Limit, cfg.Faulty = 1000, true
			r, err := drive.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			do(t, r, create(0), create(1), resize(0, wasm, 60*4096), resize(1, wasm, 10*4096), fill(1, wasm, 0, contents(7, 9)...), take(1))
			r.Disk.SetCapacity(r.Disk.Used() + 3<<20)
			c := must(r.E.Canister(drive.Canister(0)))
			for round := range 3 {
				full := false
				for i := 0; !full; i++ {
					if i == 1000 {
						t.Fatal("the disk does not get full")
					}
					before := r.M
					do(t, r, fill(0, wasm, 0, contents(testkit.Content(1_000_000*(round+1)+60*i)*3+2, 50)...), take(0))
					// The write counts, the take may not.
					full = len(r.M.Canisters[0].Snapshots) == len(before.Canisters[0].Snapshots)
				}
				if _, err := c.Take(bg, engine.TakeOptions{}); !errors.Is(err, engine.ErrNoSpace) {
					t.Errorf("a take on a full disk says %v", err)
				}
				if r.E.Log().ReadOnly() != nil {
					t.Fatal("a full disk made the store read-only")
				}
				if err := r.Compare(); err != nil {
					t.Fatal(err)
				}
				// Not a byte is left but for the reserve.
				if !r.E.Log().Stats().BallastHeld {
					t.Error("takes used up the reserve")
				}
				capacity, before := r.Disk.Capacity(), r.Disk.Used()
				if round > 0 {
					r.Disk.SetCapacity(before)
				}
				have := r.M.Canisters[0].Snapshots
				for _, s := range have[:len(have)-1] {
					n := len(r.M.Canisters[0].Snapshots)
					do(t, r, remove(0, s.Local))
					if len(r.M.Canisters[0].Snapshots) != n-1 {
						t.Fatal("a delete failed on a full disk")
					}
				}
				if round == 0 {
					r.Disk.SetCapacity(r.Disk.Used())
				}
				if _, err := r.E.GC(bg, engine.GCOptions{}); err != nil {
					t.Fatalf("gc on a full disk: %v", err)
				}
				if after := r.Disk.Used(); after > before-1<<20 {
					t.Errorf("round %d: %d bytes used, %d after deleting %d snapshots", round, before, after, len(have)-1)
				}
				r.Disk.SetCapacity(capacity)
				n := len(r.M.Canisters[0].Snapshots)
				do(t, r, take(0), take(1))
				if len(r.M.Canisters[0].Snapshots) != n+1 {
					t.Fatal("no take after room was made")
				}
			}
			r.Disk.SetCapacity(0)
			do(t, r, op(testkit.Reopen))
			check(t, r, drive.Rebuild)
		})
	}
}

// Where there is no room for the index, gc gives back what is dead all the same,
// and a crash after it finds an index that ROOT has disowned, and builds another.
func TestGCWithoutRoomForTheIndex(t *testing.T) {
	for _, crash := range []bool{false, true} {
		cfg := quietly(func(o *engine.Options) { o.SnapshotLimit, o.NoBackground = 1000, true })
		cfg.Limit, cfg.Faulty = 1000, true
		r, err := drive.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		do(t, r, create(0), resize(0, wasm, 60*4096), fill(0, wasm, 0, contents(7, 9)...), take(0))
		for i := range 30 {
			do(t, r, fill(0, wasm, 0, contents(testkit.Content(60*i)*3+2, 50)...), take(0))
		}
		have := r.M.Canisters[0].Snapshots
		for _, s := range have[1 : len(have)-1] {
			do(t, r, remove(0, s.Local))
		}
		before, durable := r.Disk.Used(), r.E.Stats().DurableIndex
		var met atomic.Bool
		r.FS.Inject(&testkit.Fault{Kind: testkit.OpWrite, Under: "store/index", Name: ".sst", Err: syscall.ENOSPC, Met: func() { met.Store(true) }})
		if _, err := r.E.GC(bg, engine.GCOptions{}); err != nil {
			t.Fatalf("gc without room for the index: %v", err)
		}
		if after := r.Disk.Used(); after > before-1<<20 {
			t.Fatalf("%d bytes used, %d after gc", before, after)
		}
		if now := r.E.Stats().DurableIndex; now != durable || !met.Load() {
			t.Fatalf("the index was written: %d, then %d", durable, now)
		}
		if err := r.Compare(); err != nil {
			t.Fatal(err)
		}
		if crash {
			do(t, r, op(testkit.PowerLoss))
			if r.E.Stats().Rebuilt == "" {
				t.Error("an index from before the floor was taken for true")
			}
		} else {
			r.FS.Inject()
			do(t, r, op(testkit.GC), op(testkit.Reopen))
			if why := r.E.Stats().Rebuilt; why != "" {
				t.Errorf("there was room for the index again, and it was thrown away: %s", why)
			}
		}
		do(t, r, take(0))
		check(t, r, drive.Rebuild)
	}
}

// A full disk does not cost the index its trust while there is a reserve, though
// Pebble does not survive a MANIFEST that it can not write.
func TestFullDiskAtTheManifest(t *testing.T) {
	for _, ballast := range []int64{-1, 64 << 10} {
		cfg := quietly(func(o *engine.Options) { o.NoBackground, o.Ballast, o.SnapshotLimit = true, ballast, 1000 })
		cfg.Faulty, cfg.Limit = true, 1000
		r, err := drive.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		do(t, r, create(0), resize(0, wasm, 60*4096), fill(0, wasm, 0, contents(7, 9)...), take(0))
		for kind := range 3 {
			var met atomic.Int64
			r.FS.Inject(&testkit.Fault{
				Kind: testkit.OpWrite, Under: "store/index", Name: "MANIFEST-", Torn: kind > 0,
				Times: 1, Err: syscall.ENOSPC, Met: func() { met.Add(1) },
			})
			do(t, r, fill(0, wasm, 0, contents(testkit.Content(100+kind), 9)...), take(0))
			err := r.E.FlushIndex()
			for i := 0; met.Load() == 0 && i < 1000; i++ { // the take may not be applied yet
				time.Sleep(time.Millisecond)
				err = r.E.FlushIndex()
			}
			if met.Load() == 0 {
				t.Fatalf("ballast %d, kind %d: no MANIFEST was written: %v", ballast, kind, err)
			}
			if untrusted := r.E.Stats().IndexUntrusted; ballast > 0 && (err != nil || untrusted != "") {
				t.Fatalf("kind %d with a reserve: %v, untrusted %q %+v", kind, err, untrusted, r.E.Log().Stats())
			} else if ballast < 0 && untrusted == "" {
				t.Fatal("the fault does nothing")
			}
			if ballast < 0 {
				break
			}
			do(t, r, take(0)) // brings the reserve back
		}
		do(t, r, op(testkit.Reopen))
		if why := r.E.Stats().Rebuilt; (why == "") != (ballast > 0) {
			t.Errorf("ballast %d, rebuilt: %q", ballast, why)
		}
		check(t, r, drive.Rebuild)
	}
}
