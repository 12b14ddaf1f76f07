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

// rotten is a page that rottenFrame damages, and beside another that lies with it.
const rotten, beside testkit.Content = 104, 105

// rottenFrame makes a store of one canister, with pages of stable memory from 100 on, of
// which one rots. The index is not written.
func rottenFrame(t *testing.T, pages int) (*testkit.Disk, *engine.Options, *engine.Engine) {
	t.Helper()
	disk := testkit.NewDisk()
	o := &engine.Options{FS: disk.Mount(), Ballast: -1, NoBackground: true, NoCompression: true}
	e := created(o)
	takeFrom100(t, e, 0, pages)
	rotOn(t, disk, e, rotten)
	return disk, o, e
}

func takeFrom100(t *testing.T, e *engine.Engine, canister, pages int) {
	t.Helper()
	c := must(e.CreateCanister(bg, drive.Canister(canister)))
	m := must(c.Memory(engine.StableMemory))
	must0(m.Resize(uint64(pages) * engine.PageSize))
	for i := range pages {
		must(m.WriteAt(testkit.Content(i+100).Bytes(engine.PageSize), int64(i*engine.PageSize)))
	}
	must(c.Take(bg, engine.TakeOptions{}))
	must(c.Checkpoint(bg)) // what is not the last batch was synced
	quiet(t, e)
}

// What is whole in a damaged frame is not given up for a read that fails while it is
// looked for, by a repair, a rebuild or a replay. What the error was in the way of is
// there at the next open at the latest.
func TestReadErrorsBesideDamage(t *testing.T) {
	t.Parallel()
	const pages = 20
	disk, o, e := rottenFrame(t, pages)
	at, _, _ := e.Entry(pageID(rotten))
	killed := disk.Crash(100, nil)
	must0(e.Close())
	file := "store/log/" + seglog.SegmentID(at.Segment).String() + ".seg"
	run := func(what string, disk *testkit.Disk, f func(*engine.Options) error) {
		for _, fault := range []testkit.Fault{
			{Kind: testkit.OpOpen, Times: 1, Err: syscall.EMFILE},
			{Kind: testkit.OpRead, Times: 1, Err: syscall.EIO},
			{Kind: testkit.OpRead, Times: 30, Err: syscall.EIO},
		} {
			for met := true; met; fault.After++ {
				met = false
				fault := fault
				fault.Under, fault.Met = file, func() { met = true }
				d := disk.Crash(100, nil)
				o := *o
				fs := d.Mount()
				fs.Inject(&fault)
				o.FS = fs
				err := f(&o)
				o.FS, o.RebuildIndex = d.Mount(), false
				e := must(engine.Open("store", &o))
				m := must(must(e.Canister(drive.Canister(0))).Memory(engine.StableMemory))
				p := make([]byte, engine.PageSize)
				lost := 0
				for i := range pages {
					if _, err := m.ReadAt(p, int64(i*engine.PageSize)); err != nil {
						lost++
					}
				}
				must0(e.Close())
				if lost != 1 {
					t.Errorf("%s, %v %v %d times, after %d: %d pages are lost: %v", what, fault.Kind, fault.Err, fault.Times, fault.After, lost, err)
				}
			}
		}
	}
	run("repair", disk, func(o *engine.Options) error {
		r, err := engine.Repair(bg, "store", o, engine.RepairOptions{})
		return errors.Join(fmt.Errorf("%+v", r), err)
	})

	open := func(o *engine.Options) error {
		e, err := engine.Open("store", o)
		if err == nil {
			err = errors.Join(e.FlushIndex(), e.Close())
		}
		return err
	}
	run("replay", killed, open)
	run("rebuild", disk, func(o *engine.Options) error {
		o.RebuildIndex = true
		return open(o)
	})
}

// A process that died after a page of a damaged frame was written again has the page
// where it is whole when the log was replayed.
func TestReplayKeepsWhatHealed(t *testing.T) {
	disk, o, e := rottenFrame(t, 20)
	defer e.Close()
	old, _, _ := e.Entry(pageID(beside))
	for _, err := range e.Verify(bg, engine.VerifyOptions{}) { // marks what is in the frame lost
		must0(err)
	}
	waitLost(t, e, beside)
	takeFrom100(t, e, 1, 20)
	o.FS = disk.Crash(100, nil).Mount()
	again := must(engine.Open("store", o))
	defer again.Close()
	if now, _, _ := again.Entry(pageID(beside)); now.Lost || now.Location == old.Location {
		t.Errorf("the page is at %v (lost %t), and was at %v before it was written again", now.Location, now.Lost, old.Location)
	}
}

// An index that is built anew, or brought up to date, knows which pages lie in a damaged
// frame: the next take that brings one does not share it.
func TestPagesOfADamagedFrameAreNotShared(t *testing.T) {
	for _, rebuild := range []bool{false, true} {
		disk, o, e := rottenFrame(t, 20)
		old, _, _ := e.Entry(pageID(beside))
		o.FS, o.RebuildIndex = disk.Crash(100, nil).Mount(), rebuild
		must0(e.Close())
		e = must(engine.Open("store", o))
		if now, _, _ := e.Entry(pageID(beside)); now.Location != old.Location || !now.Lost || !e.Lossy() {
			t.Errorf("rebuilt %t: lost %t at %v, was at %v", rebuild, now.Lost, now.Location, old.Location)
		}
		takeFrom100(t, e, 1, 20)
		if now, _, _ := e.Entry(pageID(beside)); now.Location == old.Location || now.Lost {
			t.Errorf("rebuilt %t: a take shares the page at %v", rebuild, now.Location)
		}
		must0(e.Close())
	}
}

// Cleaning that fails after some parts tells what it wrote in them.
func TestBytesWrittenBeforeCleaningFails(t *testing.T) {
	told := false
	for after := 0; !told; after++ {
		disk := testkit.NewDisk()
		fs := disk.Mount()
		o := &engine.Options{FS: fs, NoBackground: true, NoCompression: true, SegmentSize: 8 << 20, Ballast: -1, CountStep: 16, CleanBelow: 0.95}
		e := created(o)
		c := must(e.CreateCanister(bg, drive.Canister(0)))
		m := must(c.Memory(engine.StableMemory))
		const pages = 100
		must0(m.Resize(pages * engine.PageSize))
		for i := range pages {
			must(m.WriteAt(testkit.Content(i+100).Bytes(engine.PageSize), int64(i*engine.PageSize)))
		}
		first := must(c.Take(bg, engine.TakeOptions{})).ID
		for i := 0; i < pages; i += 4 {
			must(m.WriteAt(testkit.Content(i+1000).Bytes(engine.PageSize), int64(i*engine.PageSize)))
		}
		must(c.Take(bg, engine.TakeOptions{}))
		must0(e.Delete(bg, first))
		before := e.Sequence()
		fs.Inject(&testkit.Fault{Kind: testkit.OpWrite, Under: "store/log", After: after, Err: syscall.EIO})
		r, err := e.GC(bg, engine.GCOptions{})
		if err == nil {
			t.Fatal("nothing failed after a part")
		}
		told = e.Sequence() > before+1 // of its parts, one at least
		if told && r.BytesWritten == 0 {
			t.Errorf("after %d batches: %v: %+v", e.Sequence()-before, err, r)
		}
		fs.Inject()
		_ = e.Close()
	}
}
