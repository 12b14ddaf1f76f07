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

// What is whole in a damaged frame is not given up for a read that fails while it is
// looked for, by a repair, a rebuild or a replay. What the error was in the way of is
// there at the next open at the latest.
func TestReadErrorsBesideDamage(t *testing.T) {
	t.Parallel()
	disk := testkit.NewDisk()
	o := engine.Options{FS: disk.Mount(), Ballast: -1, NoBackground: true, NoCompression: true}
	must0(engine.Create("store", &o))
	e := must(engine.Open("store", &o))
	c := must(e.CreateCanister(bg, drive.Canister(0)))
	m := must(c.Memory(engine.StableMemory))
	const pages, rotten = 20, 4
	must0(m.Resize(pages * engine.PageSize))
	for i := range pages {
		must(m.WriteAt(testkit.Content(i+100).Bytes(engine.PageSize), int64(i*engine.PageSize)))
	}
	must(c.Take(bg, engine.TakeOptions{}))
	must(c.Checkpoint(bg)) // what is not the last batch was synced
	quiet(t, e)
	rotOn(t, disk, e, testkit.Content(100+rotten))
	at, _, _ := e.Entry(pageID(100 + rotten))
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
				o := o
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
