package engine_test

import (
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/seglog"
	"github.com/snapstore/snapstore/internal/testkit"
	"github.com/snapstore/snapstore/internal/testkit/drive"
)

// A disk that can not be read while a store is opened is no reason to lose what
// is on it: what replay or a rebuild could not read was left out of the index,
// and gc would have dropped it.
func TestReadErrorsWhileOpening(t *testing.T) {
	for _, rebuild := range []bool{false, true} {
		for _, times := range []int{1, 3} {
			t.Run(fmt.Sprintf("rebuild %t, %d times", rebuild, times), func(t *testing.T) {
				t.Parallel()
				cfg := quietly(func(o *engine.Options) { o.RebuildIndex = rebuild })
				base, err := drive.New(cfg)
				if err != nil {
					t.Fatal(err)
				}
				do(t, base, create(0), resize(0, wasm, 60*4096), fill(0, wasm, 0, contents(2, 50)...), take(0), fill(0, wasm, 10, contents(200, 30)...), take(0), checkpoint(0))
				disk, model := base.Disk.Crash(100, nil), base.M.Reopened()
				if err := base.Close(); err != nil {
					t.Fatal(err)
				}
				for n, met := 0, true; met; n += 7 {
					met = false
					c := drive.Resume(quietly(nil), disk.Crash(100, nil), model)
					c.FS.Inject(&testkit.Fault{Kind: testkit.OpRead, Under: "store/log", After: n, Times: times, Err: syscall.EIO, Met: func() { met = true }})
					o := engine.Options{FS: c.FS, NoBackground: true, IdleSync: -1, Ballast: -1, SnapshotLimit: 4, RebuildIndex: rebuild}
					if e, err := engine.Open("store", &o); err == nil {
						c.FS.Inject()
						_, _ = e.GC(bg, engine.GCOptions{}) // must not free what was not read
						if err := e.Close(); err != nil {
							t.Fatal(err)
						}
					}
					c.FS.Inject()
					if err := c.Open(); err != nil {
						t.Fatalf("errors from read %d on, then none: %v", n, err)
					}
					check(t, c, drive.Rebuild)
					if err := c.Close(); err != nil {
						t.Fatal(err)
					}
				}
			})
		}
	}
}

// Batches that are lost without a trace are no reason to serve what canisters
// were before them as if it were what they are, nor to let the store pass for
// one that has reached their sequence.
func TestBatchesWithoutATrace(t *testing.T) {
	r := newRun(t, nil)
	do(t, r, create(0), create(1), resize(0, wasm, 8*4096), fill(0, wasm, 0, contents(2, 8)...), take(0))
	must0(r.E.FlushIndex())
	before := r.E.Log().Segments()
	seg := "store/log/" + before[len(before)-1].ID.String() + ".seg"
	from := 0
	for f, err := range r.E.Log().Scan(bg) {
		must0(err)
		if "store/log/"+f.Loc.Segment.String()+".seg" == seg {
			from = int(f.Loc.Offset) + int(f.Loc.Length+63)/64*64
		}
	}
	do(t, r, take(0))
	to := 0
	for f, err := range r.E.Log().Scan(bg) {
		must0(err)
		if "store/log/"+f.Loc.Segment.String()+".seg" == seg {
			to = int(f.Loc.Offset) + int(f.Loc.Length+63)/64*64
		}
	}
	do(t, r, take(1), checkpoint(1), checkpoint(1))
	if to <= from {
		t.Fatalf("the take is not in %s", seg)
	}
	sequence := r.E.Sequence()
	crashed := r.Disk.Crash(100, nil)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	zeroed, missing := r.Disk.Crash(100, nil), r.Disk.Crash(100, nil)
	for _, d := range []*testkit.Disk{zeroed, crashed} {
		must0(d.Edit(seg, func(p []byte) { clear(p[from:to]) }))
	}
	must0(missing.Mount().Remove(seg))
	missing.SyncAll()
	for name, disk := range map[string]*testkit.Disk{"a batch is zeroed": zeroed, "and the store crashed": crashed, "the segment is missing": missing} {
		for _, rebuild := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, rebuild %t", name, rebuild), func(t *testing.T) {
				disk := disk.Crash(100, nil)
				o := engine.Options{FS: disk.Mount(), NoBackground: true, Ballast: -1, RebuildIndex: rebuild, MinSequence: sequence}
				for range 2 { // refusing changes nothing
					if e, err := engine.Open("store", &o); err == nil {
						e.Close()
						t.Fatal("it opens, and serves what was there before")
					} else if !errors.Is(err, engine.ErrLost) || !errors.Is(err, engine.ErrCorrupt) {
						t.Fatal(err)
					}
				}
				o.AcceptLoss = true
				e := must(engine.Open("store", &o))
				for id, err := range e.Snapshots(drive.Canister(0)) {
					if err == nil {
						must(e.Snapshot(bg, id.ID)).Close()
					} else if !errors.Is(err, engine.ErrNotFound) {
						t.Error(err)
					}
				}
				must0(e.Close())
				if !rebuild {
					o.AcceptLoss = false
					e = must(engine.Open("store", &o)) // it is known now
					must0(e.Close())
				}
			})
		}
	}
}

// An open that refuses a loss leaves nothing that lets the next one pass it by,
// also where so much is left to replay that closing writes the index out.
func TestRefusingIsNotForgotten(t *testing.T) {
	r := newRun(t, func(o *engine.Options) { o.SegmentSize = 64 << 10 })
	do(t, r, create(0), create(1), resize(0, wasm, 8*4096), fill(0, wasm, 0, contents(2, 8)...), take(0))
	must0(r.E.FlushIndex())
	do(t, r, checkpoint(1), take(0))
	batch, _ := r.E.Log().Last() // canister 1 needs nothing of it
	do(t, r, checkpoint(1))
	var lost []seglog.Loc
	for f, err := range r.E.Log().Scan(bg) {
		must0(err)
		if f.Batch == batch {
			lost = append(lost, f.Loc)
		}
	}
	for range 70 { // segments, behind which an open finds much to replay
		do(t, r, checkpoint(1))
		must0(r.E.Log().Seal(bg))
	}
	disk := r.Disk.Crash(100, nil)
	for _, at := range lost {
		must0(disk.Edit("store/log/"+at.Segment.String()+".seg", func(p []byte) { clear(p[at.Offset:][:at.Length]) }))
	}
	o := engine.Options{FS: disk.Mount(), NoBackground: true, Ballast: -1}
	for i := range 3 {
		if e, err := engine.Open("store", &o); err == nil {
			e.Close()
			t.Fatalf("open %d passes the loss by", i)
		} else if !errors.Is(err, engine.ErrLost) {
			t.Fatal(err)
		}
	}
}
