package engine_test

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/testkit"
	"github.com/snapstore/snapstore/internal/testkit/drive"
)

// A take that is given up at any operation on the file system, by its caller or
// by the disk, loses no dirty page, and the next one has them all.
func TestFailedTakeLosesNothing(t *testing.T) {
	for name, fail := range map[string]func(r *drive.Run, cancel func(), n int64){
		"cancelled": func(r *drive.Run, cancel func(), n int64) {
			at := r.FS.Ops() + n
			r.OnOp(func(op testkit.FileOp) {
				if op.N == at {
					cancel()
				}
			})
		},
		"full disk": func(r *drive.Run, _ func(), n int64) {
			r.FS.Inject(&testkit.Fault{Kind: testkit.OpWrite | testkit.OpCreate | testkit.OpReserve, Under: "store/log", After: int(n) - 1, Err: syscall.ENOSPC})
		},
		"failed write": func(r *drive.Run, _ func(), n int64) {
			r.FS.Inject(&testkit.Fault{Kind: testkit.OpWrite, Under: "store/log", After: int(n) - 1, Times: 1, Torn: true})
		},
		"failed sync": func(r *drive.Run, _ func(), n int64) {
			r.FS.Inject(&testkit.Fault{Kind: testkit.OpSync, Under: "store/log", After: int(n) - 1, Times: 1})
		},
	} {
		t.Run(name, func(t *testing.T) {
			for n, passed := int64(1), 0; passed < 2; n++ {
				cfg := quietly(nil)
				cfg.Faulty = true
				r, err := drive.New(cfg)
				if err != nil {
					t.Fatal(err)
				}
				do(t, r, create(0), resize(0, wasm, 200*engine.PageSize), fill(0, wasm, 0, contents(1, 30)...), take(0))
				do(t, r, fill(0, wasm, 20, contents(100, 50)...), resize(0, wasm, 60*engine.PageSize), resize(0, wasm, 90*engine.PageSize))
				ctx, cancel := context.WithCancel(t.Context())
				fail(r, cancel, n)
				before := r.M
				if err := r.Do(ctx, take(0)); err != nil {
					t.Fatalf("%d: %v", n, err)
				}
				cancel()
				if r.M != before {
					passed++ // it was not met
				}
				r.OnOp(nil)
				r.FS.Inject()
				if err := r.Compare(); err != nil {
					t.Fatalf("failed at %d: %v", n, err)
				}
				// Writing goes on, also to pages that were being taken.
				do(t, r, fill(0, wasm, 25, contents(300, 3)...), resize(0, wasm, 80*engine.PageSize), take(0))
				check(t, r, drive.Collect)
				if err := r.LosePower(0, nil); err != nil {
					t.Fatal(err)
				}
				check(t, r, drive.Look)
				r.Close()
			}
		})
	}
}

// A context that is done before anything began refuses without a trace.
func TestTakeWithADeadContext(t *testing.T) {
	r := newRun(t, nil)
	do(t, r, create(0), resize(0, wasm, 8*engine.PageSize), fill(0, wasm, 0, contents(1, 8)...))
	ctx, cancel := context.WithCancel(bg)
	cancel()
	c := must(r.E.Canister(drive.Canister(0)))
	if _, err := c.Take(ctx, engine.TakeOptions{}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if _, err := c.Checkpoint(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	check(t, r, drive.Look)
	do(t, r, take(0))
	check(t, r, drive.Rebuild)
}

// Sections may end anywhere in a page, and what lies behind the end is never
// seen again.
func TestOddSizes(t *testing.T) {
	r := newRun(t, func(o *engine.Options) { o.SnapshotLimit = 100 })
	do(t, r, create(0))
	sizes := []uint64{1, 4095, 4096, 4097, 8191, 1, 16*4096 - 1, 16 * 4096, 16*4096 + 1, 5000, 257*4096 - 7, 4097, 0, 12345, 1 << 33, 70000, 1<<33 + 4097, 3}
	for i, size := range sizes {
		for _, s := range []testkit.Section{{Kind: 1}, wasm, stable, {Kind: 4, Chunk: 1}} {
			do(t, r, resize(0, s, size))
			if n := min(size, 300*4096); n > 0 {
				do(t, r, testkit.Op{Name: testkit.Write, C: 0, Section: s, Spans: []testkit.Span{
					{Off: size - n, Len: int(n), Content: testkit.Content(i + 1)}, {Off: 0, Len: int(min(n, 3)), Content: 77},
				}})
			}
		}
		do(t, r, checkpoint(0), op(testkit.Compare))
		if i%3 == 0 {
			o := take(0)
			if c := r.M.Canisters[0]; len(c.Snapshots) == r.M.Limit {
				o.Replace = c.Snapshots[0].Local
			}
			do(t, r, o)
		}
		if i%5 == 0 {
			do(t, r, op(testkit.Reopen))
		}
	}
	check(t, r, drive.Rebuild)
}

// A section that shrank and grew again shows zeros where it was cut off, with
// nothing in between, with a checkpoint, with a take, and with a take that
// fails, and so does the snapshot.
func TestShrinkAndGrowAgain(t *testing.T) {
	between := map[string]func(t *testing.T, r *drive.Run){
		"nothing":    func(*testing.T, *drive.Run) {},
		"checkpoint": func(t *testing.T, r *drive.Run) { do(t, r, checkpoint(0)) },
		"take":       func(t *testing.T, r *drive.Run) { do(t, r, take(0)) },
		"failing take": func(t *testing.T, r *drive.Run) {
			r.FS.Inject(&testkit.Fault{Kind: testkit.OpWrite, Under: "store/log"})
			before := r.M
			do(t, r, take(0))
			r.FS.Inject()
			if r.M != before {
				t.Fatal("the take did not fail")
			}
		},
		"reopen": func(t *testing.T, r *drive.Run) { do(t, r, checkpoint(0), op(testkit.Reopen)) },
	}
	for name, f := range between {
		for name2, g := range between {
			t.Run(fmt.Sprintf("%s, %s", name, name2), func(t *testing.T) {
				cfg := quietly(nil)
				cfg.Faulty = true
				r, err := drive.New(cfg)
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				do(t, r, create(0), resize(0, wasm, 50*4096), fill(0, wasm, 0, contents(1, 50)...), take(0))
				do(t, r, fill(0, wasm, 30, contents(100, 10)...), resize(0, wasm, 20*4096+100))
				f(t, r)
				do(t, r, op(testkit.Compare), resize(0, wasm, 45*4096))
				g(t, r)
				do(t, r, op(testkit.Compare), fill(0, wasm, 40, 7), resize(0, wasm, 10*4096), resize(0, wasm, 60*4096))
				do(t, r, op(testkit.Compare), take(0))
				check(t, r, drive.Rebuild)
			})
		}
	}
}

// What a load brings replaces what is dirty, also where head and snapshot agree
// and only the memory differs.
func TestLoadOverADirtyPageThatBothTreesShare(t *testing.T) {
	r := newRun(t, nil)
	do(t, r, create(0), resize(0, wasm, 20*4096), fill(0, wasm, 0, contents(1, 20)...), take(0))
	do(t, r, fill(0, wasm, 10, contents(50, 3)...), checkpoint(0))
	do(t, r, fill(0, wasm, 4, 99, 0, 98), fill(0, wasm, 11, 97), resize(0, wasm, 15*4096), resize(0, stable, 4096), fill(0, stable, 0, 5))
	do(t, r, load(0, 0, 0), op(testkit.Compare))
	do(t, r, fill(0, wasm, 4, 5, 6, 7), op(testkit.Reopen), op(testkit.Compare))
	do(t, r, load(0, 0, 0), take(0))
	check(t, r, drive.Rebuild)
}

// Ids that were never given out, or not any more, are not found, and ids are
// never given out twice: not after deleting the newest, nor the canister, nor
// when cleaning moved its last record and the index was built anew.
func TestIdsAreNeverUsedAgain(t *testing.T) {
	r := newRun(t, nil)
	do(t, r, create(0), create(1), resize(0, wasm, 8*4096), fill(0, wasm, 0, contents(1, 8)...), take(0), take(0), take(0))
	do(t, r, load(0, 0, 3), load(0, 0, 1<<63), load(1, 0, 77), load(0, 2, 0), remove(0, 9), load(0, 0, 0)) // the model refuses what must be refused
	do(t, r, remove(0, 2), take(0), destroy(0), op(testkit.GC))
	for i := range 6 {
		// Push the record of the canister that is gone through the cleaner.
		do(t, r, resize(1, wasm, 64*4096), fill(1, wasm, 0, contents(testkit.Content(1000*i+7), 60)...), checkpoint(1), op(testkit.GC))
	}
	do(t, r, op(testkit.DropIndex), create(0), resize(0, wasm, 4096), fill(0, wasm, 0, 4), take(0))
	if s := r.M.Canisters[0].Snapshots; len(s) != 1 || s[0].Local != 4 {
		t.Fatalf("%+v", s)
	}
	do(t, r, destroy(0), op(testkit.GC), testkit.Op{Name: testkit.PowerLoss, Seed: 3}, op(testkit.DropIndex), create(0), take(0))
	check(t, r, drive.Rebuild)
}

// A snapshot that was replaced or deleted while it was being uploaded takes its
// upload with it.
func TestUploadOfWhatIsGone(t *testing.T) {
	r := newRun(t, nil)
	do(t, r, create(0))
	c := must(r.E.Canister(drive.Canister(0)))
	begin := func() *engine.Upload {
		return must(c.Upload(bg, engine.Metadata{}, []engine.UploadSection{{Section: engine.WasmMemory, Size: 8192}}, engine.UploadOptions{}))
	}
	for name, end := range map[string]func(id engine.SnapshotID) error{
		"deleted": func(id engine.SnapshotID) error { return r.E.Delete(bg, id) },
		"replaced by a take": func(id engine.SnapshotID) error {
			_, err := c.Take(bg, engine.TakeOptions{Replace: id})
			return err
		},
		"replaced by an upload": func(id engine.SnapshotID) error {
			_, err := c.Upload(bg, engine.Metadata{}, nil, engine.UploadOptions{Replace: id})
			return err
		},
	} {
		u := begin()
		if _, err := u.WriteAt(engine.WasmMemory, []byte("x"), 1); err != nil {
			t.Fatal(name, err)
		}
		if err := end(u.ID()); err != nil {
			t.Fatal(name, err)
		}
		if _, err := u.WriteAt(engine.WasmMemory, []byte("x"), 1); !errors.Is(err, engine.ErrNotFound) {
			t.Errorf("%s: write says %v", name, err)
		}
		if _, err := u.Flush(bg); !errors.Is(err, engine.ErrNotFound) {
			t.Errorf("%s: flush says %v", name, err)
		}
		if _, err := c.OpenUpload(bg, u.ID()); !errors.Is(err, engine.ErrNotFound) {
			t.Errorf("%s: open says %v", name, err)
		}
		for _, id := range list(t, r.E, c.ID()) {
			if err := r.E.Delete(bg, id); err != nil {
				t.Fatal(err)
			}
		}
	}
	sound(t, r.E)
}
