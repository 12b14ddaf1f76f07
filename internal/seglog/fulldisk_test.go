package seglog

import (
	"context"
	"errors"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/snapstore/snapstore/internal/testkit"
)

// TestDropOnAFullDisk drops segments where there is not one free byte for a new
// ROOT, with a power loss before each operation of it.
func TestDropOnAFullDisk(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 5))
	for at := int64(1); ; at++ {
		disk := testkit.NewDisk()
		fs := disk.Mount()
		newStore(t, fs)
		l := mustStart(t, testOptions(fs))
		for i := range uint64(12) {
			mustCommit(t, l, request("k", 1+i, minSegmentSize/2))
		}
		if err := l.Seal(context.Background()); err != nil {
			t.Fatal(err)
		}
		last := mustCommit(t, l, request("k", 100, 10))
		var drop []SegmentID
		for _, s := range l.Segments() {
			if s.Sealed && s.LastSeq < last {
				drop = append(drop, s.ID)
			}
		}
		before := disk.Used()
		disk.SetCapacity(before)
		fs.KillAt(at)
		err := l.Drop(context.Background(), last, drop...)
		killed := fs.Dead()
		if !killed && err != nil {
			t.Fatalf("drop on a full disk: %v", err)
		}
		if !killed && disk.Used() > before/2 {
			t.Fatalf("%d bytes used, %d after the drop of %d segments", before, disk.Used(), len(drop))
		}
		disk.SetCapacity(0)
		for _, keep := range []int{0, 50, 100} {
			after := disk.Crash(keep, rng).Mount()
			l, err := Open(testOptions(after))
			if err != nil {
				t.Fatalf("killed before operation %d, %d%% kept: %v", at, keep, err)
			}
			if damage := l.Damage(); len(damage) > 0 {
				t.Fatalf("killed before operation %d, %d%% kept: what the crash left is taken for damage: %v", at, keep, damage)
			}
			if err := l.Start(context.Background()); err != nil {
				t.Fatalf("killed before operation %d, %d%% kept: %v", at, keep, err)
			}
			got, err := contents(l)
			if err != nil || got[100] == nil || l.Floor() == 0 && len(got) < 13 {
				t.Fatalf("killed before operation %d, %d%% kept: %d records, %v", at, keep, len(got), err)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if !killed {
			t.Logf("%d segments dropped in %d operations", len(drop), at-1)
			return
		}
	}
}

// TestOverwriteNeedsTheOther: a copy of ROOT is not touched while the other is
// not whole.
func TestOverwriteNeedsTheOther(t *testing.T) {
	disk := testkit.NewDisk()
	fs := disk.Mount()
	newStore(t, fs)
	r, _, err := readRootFiles(fs, testDir)
	if err != nil {
		t.Fatal(err)
	}
	if err := disk.Edit(testDir+"/"+rootNameB, func(p []byte) { p[20] ^= 1 }); err != nil {
		t.Fatal(err)
	}
	r.generation++
	w := &rootFiles{fs: fs, dir: testDir}
	if err := w.overwrite(rootNameA, rootNameB, r.append(nil)); !errors.Is(err, errBadRoot) {
		t.Fatalf("the only whole copy was overwritten: %v", err)
	}
	if err := w.overwrite(rootNameB, rootNameA, r.append(nil)); err != nil {
		t.Fatal(err)
	}
	if got, damage, err := readRootFiles(fs, testDir); err != nil || len(damage) > 0 || got.generation != r.generation {
		t.Fatal(got, damage, err)
	}
}

// sealedLog is a log with segments that may be dropped.
func sealedLog(t *testing.T, opts func(*Options)) (*testkit.Disk, *testkit.FS, *Log, []SegmentID, Sequence) {
	disk := testkit.NewDisk()
	fs := disk.Mount()
	newStore(t, fs)
	o := testOptions(fs)
	if opts != nil {
		opts(&o)
	}
	l := mustStart(t, o)
	for i := range uint64(12) {
		mustCommit(t, l, request("k", 1+i, minSegmentSize/2))
	}
	if err := l.Seal(context.Background()); err != nil {
		t.Fatal(err)
	}
	last := mustCommit(t, l, request("k", 100, 10))
	var drop []SegmentID
	for _, s := range l.Segments() {
		if s.Sealed && s.LastSeq < last {
			drop = append(drop, s.ID)
		}
	}
	return disk, fs, l, drop, last
}

// A write in place that fails half way leaves one whole copy; the next one begins
// with the other.
func TestTornCopyOfRoot(t *testing.T) {
	disk, fs, l, drop, last := sealedLog(t, nil)
	disk.SetCapacity(disk.Used())
	fs.Inject(&testkit.Fault{Kind: testkit.OpWrite, Under: testDir + "/" + rootNameB, Torn: true, Times: 1, Err: syscall.ENOSPC})
	if err := l.Drop(context.Background(), last, drop...); err == nil {
		t.Fatal("the fault does nothing")
	}
	fs.Inject()
	if err := l.Drop(context.Background(), last, drop...); err != nil {
		t.Errorf("one write failed half way, and nothing can be dropped any more: %v", err)
	}
}

// A name that could not be made durable is no success, though the file is whole.
func TestRootNameThatDoesNotSync(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 5))
	disk, fs, l, drop, last := sealedLog(t, nil)
	fs.OnOp(nil)
	fs.Inject(&testkit.Fault{Kind: testkit.OpSync, Under: testDir, Name: testDir, Err: syscall.ENOSPC})
	err := l.Drop(context.Background(), last, drop...)
	t.Logf("drop: %v", err)
	for range 200 {
		l2, err2 := Open(testOptions(disk.Crash(50, rng).Mount()))
		if err2 != nil {
			t.Fatalf("open: %v", err2)
		}
		if d := l2.Damage(); len(d) > 0 {
			t.Fatalf("drop said %v and after power loss: %d damages, e.g. %v", err, len(d), d[0])
		}
		l2.Close()
	}
}

// The reserve of an earlier process lets a log start on a full disk.
func TestStartOnAFullDisk(t *testing.T) {
	disk, _, l, _, _ := sealedLog(t, func(o *Options) { o.Ballast = 1 << 20 })
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	disk.SetCapacity(disk.Used())
	o := testOptions(disk.Mount())
	o.Ballast = 1 << 20
	l2 := mustOpen(t, o)
	t.Cleanup(func() { l2.Close() })
	if err := l2.Start(context.Background()); err != nil {
		t.Errorf("start on a full disk with a ballast: %v", err)
	}
}
