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

// The room that is given up for moving can be eaten by others before anything came
// free with it. A delete still has the last of the reserve, which nothing that is moved
// may use, and neither may it be moved beside until that is there again.
func TestOthersEatTheReserve(t *testing.T) {
	const ballast = 256 << 10
	disk, _, l, drop, last := sealedLog(t, func(o *Options) { o.Ballast, o.SegmentSize = ballast, 4*ballast })
	if !l.Stats().BallastHeld {
		t.Fatal("no reserve")
	}
	// eat is what others on the file system do.
	eat := func() { disk.SetCapacity(disk.Used()) }
	free := func() int64 { return disk.Capacity() - disk.Used() }
	reserved := func(r *Request) error {
		r.Reserve = ReserveAll
		_, err := l.Commit(context.Background(), r)
		return err
	}
	spill := func() *Spill {
		s, err := l.Spill(StreamMoved)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	move := func(s *Spill, bytes int) error {
		for i := 0; i < bytes; i += 4 << 10 {
			if _, err := s.Append(KindGroup, filler(uint64(i), 4<<10)); err != nil {
				return err
			}
		}
		return s.Flush()
	}
	eat()
	// What does not fit is withdrawn at once, and takes up nothing.
	s := spill()
	if err := move(s, 2*ballast); !errors.Is(err, ErrNoSpace) {
		t.Fatalf("moved on a full disk: %v", err)
	}
	if free() < ballast/2 {
		t.Fatalf("%d bytes are free of %d that were given up", free(), ballast*3/4)
	}
	s.Close()
	s = spill()
	if err := move(s, ballast/4); err != nil {
		t.Fatalf("there is room to move: %v", err)
	}
	if err := reserved(&Request{Ranges: s.Ranges()}); err != nil {
		t.Fatal(err)
	}
	eat()
	for i := uint64(0); l.reserve.last.isHeld(); i++ {
		if err := reserved(request("k", 200+i, 500)); err != nil {
			t.Fatalf("delete %d, while others have eaten what was given up for moving: %v", i, err)
		}
		if i > 100 {
			t.Fatal("the disk does not get full")
		}
	}
	// Half of what is left is for moving too: it may be the only way to make room.
	for i := 0; ; i++ {
		err := move(s, 4<<10)
		if errors.Is(err, ErrNoSpace) {
			break
		} else if err != nil || i > ballast/lastShare/2/(4<<10) {
			t.Fatalf("move %d with %d bytes free: %v", i, free(), err)
		}
		if err := reserved(&Request{Ranges: s.Ranges()}); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	half := int64(ballast / lastShare / 2)
	if n := free(); n < half-8<<10 || n > half+16<<10 {
		t.Fatalf("%d bytes are left for deletes, want about %d", n, half)
	}
	disk.SetCapacity(disk.Used() + half)
	s = spill()
	if err := move(s, 4<<10); !errors.Is(err, ErrNoSpace) {
		t.Fatalf("moved into the room of deletes, of %d bytes: %v", free(), err)
	}
	s.Close()
	moving := request("k", 298, 4<<10)
	moving.Reserve = ReserveFirst
	if _, err := l.Commit(context.Background(), moving); !errors.Is(err, ErrNoSpace) {
		t.Fatalf("a batch of cleaning in the room of deletes: %v", err)
	}
	if err := reserved(request("k", 299, 500)); err != nil {
		t.Fatalf("the last delete: %v", err)
	}
	if err := l.Drop(context.Background(), last, drop...); err != nil {
		t.Fatalf("drop: %v", err)
	}
	s = spill()
	if err := move(s, 4<<10); err != nil {
		t.Fatalf("moved with room again, of %d bytes: %v", free(), err)
	}
	s.Close()
	disk.SetCapacity(0)
	mustCommit(t, l, request("k", 300, 500))
	if !l.Stats().BallastHeld {
		t.Fatal("the reserve is not back")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// A store of before there was a last step has its whole reserve in one file. Where
// there is no room beside it, that gives way.
func TestReserveOfOneFile(t *testing.T) {
	disk := testkit.NewDisk()
	fs := disk.Mount()
	newStore(t, fs)
	o := testOptions(fs)
	o.Ballast = 256 << 10
	l := mustStart(t, o)
	mustCommit(t, l, request("k", 1, 500))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{ballastName, ballastLastName} {
		if err := fs.Remove(testDir + "/" + name); err != nil {
			t.Fatal(err)
		}
	}
	f, err := fs.Create(testDir+"/"+ballastName, writeCategory)
	if err == nil {
		err = errors.Join(fillBallast(f, o.Ballast), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	disk.SetCapacity(disk.Used() + 16<<10)
	l = mustStart(t, o)
	s, err := l.Spill(StreamMoved)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = s.Append(KindGroup, filler(1, 4<<10)); err == nil {
		err = s.Flush()
	}
	s.Close()
	if err != nil {
		t.Fatalf("moved: %v", err)
	}
	disk.SetCapacity(0)
	mustCommit(t, l, request("k", 2, 500))
	for name, size := range map[string]int64{ballastName: o.Ballast - o.Ballast/lastShare, ballastLastName: o.Ballast / lastShare} {
		if st, err := fs.Stat(testDir + "/" + name); err != nil || st.Size() != size {
			t.Fatalf("%s: %v, %v", name, st, err)
		}
	}
	// Close proves the last batch with the first step, if it has to, and leaves the last.
	disk.SetCapacity(disk.Used())
	for i := uint64(0); l.reserve.isHeld(); i++ {
		r := request("k", 10+i, 500)
		r.Reserve = ReserveAll
		mustCommit(t, l, r)
	}
	disk.SetCapacity(disk.Used())
	if err := l.Close(); err != nil && !errors.Is(err, ErrNoSpace) {
		t.Fatal(err)
	}
	if _, err := fs.Stat(testDir + "/" + ballastLastName); err != nil {
		t.Fatalf("Close used what the next Open may need: %v", err)
	}
}

// A batch that fails on a full disk and can not be taken back makes the log read-only,
// reserve or not: what came behind it would hide the batches before it from Open.
func TestReserveOfAReadOnlyLog(t *testing.T) {
	disk, fs, l, _, last := sealedLog(t, func(o *Options) { o.Ballast = 64 << 10 })
	// By its name: a segment that is created beside syncs too.
	fs.Inject(
		&testkit.Fault{Kind: testkit.OpSync, Under: l.cur.path, Times: 1, Err: syscall.ENOSPC},
		&testkit.Fault{Kind: testkit.OpTruncate, Under: l.cur.path, Times: 1, Err: syscall.ENOSPC},
	)
	for range 3 {
		r := request("k", 200, 500)
		r.Reserve = ReserveAll
		if _, err := l.Commit(context.Background(), r); !errors.Is(err, ErrReadOnly) {
			t.Fatalf("a delete behind a batch that may be there: %v", err)
		}
	}
	l.Close()
	for _, keep := range []int{0, 50, 100} {
		o := testOptions(disk.Crash(keep, rand.New(rand.NewPCG(11, 5))).Mount())
		l, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		if at, _ := l.Last(); at < last || len(l.Damage()) > 0 {
			t.Fatalf("at %v, want %v at least; damage %v", at, last, l.Damage())
		}
		l.Close()
	}
}
