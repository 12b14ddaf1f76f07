package seglog

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestFailEverywhere lets the n-th operation fail, for every n, once or from
// then on, and sometimes crashes as well. What was acknowledged stays, what
// was refused stays away, and the log goes on where it says that it does.
func TestFailEverywhere(t *testing.T) {
	steps := 10
	for _, mode := range []string{"once", "forever", "once+crash"} {
		for seed := range uint64(2) {
			t.Run(fmt.Sprintf("%s/seed%d", mode, seed), func(t *testing.T) {
				n, ro := 0, 0
				for ; ; n++ {
					done, readOnly, err := failAt(t, seed, steps, int64(n), mode)
					if err != nil {
						t.Fatalf("operation %d fails %s: %v", n, mode, err)
					}
					if readOnly {
						ro++
					}
					if done {
						break
					}
				}
				t.Logf("%d operations failed, %d times read-only", n, ro)
			})
		}
	}
}

func failAt(t testing.TB, seed uint64, steps int, n int64, mode string) (done, readOnly bool, err error) {
	mem := vfs.NewCrashableMem()
	newStore(t, mem)
	var count atomic.Int64
	fault := fmt.Errorf("injected: %w", syscall.EIO)
	fs := &faultFS{FS: mem, before: func(op fsOp) error {
		i := count.Add(1) - 1
		if i == n || mode == "forever" && i > n {
			return fault
		}
		return nil
	}}
	h := &history{t: t, m: &model{}, rng: rand.New(rand.NewPCG(seed, 3))}
	l, err := Open(testOptions(fs))
	if err == nil {
		h.l = l
		if err = l.Start(context.Background()); err == nil {
			for range steps {
				if err := h.step(); err != nil && !errors.Is(err, syscall.EIO) && !errors.Is(err, ErrReadOnly) {
					return false, false, fmt.Errorf("step: %w", err)
				}
			}
			readOnly = l.ReadOnly() != nil
			if !readOnly && mode == "once" {
				// One fault is overcome, whatever it was; it may come only now.
				err := h.commit([]int{10}, nil)
				if errors.Is(err, syscall.EIO) {
					err = h.commit([]int{10}, nil)
				}
				if err != nil && l.ReadOnly() == nil {
					return false, false, fmt.Errorf("commit after the fault: %w", err)
				}
			}
			if mode == "once+crash" {
				next := l.nextSeqNow()
				rng := rand.New(rand.NewPCG(seed, uint64(n)))
				image := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
				l.Close()
				c := &crasher{t: t, rng: rng}
				return count.Load() <= n, readOnly, c.check(image, 1, h.m.snapshot(), next)
			}
			if !readOnly && mode == "once" {
				// A fault that is still to come would come in the check itself.
				over, damage := count.Load() > n, l.Damage()
				if err := checkHolds(l, h.m.snapshot()); err != nil && over && len(damage) == 0 {
					return false, false, fmt.Errorf("before close: %w", err)
				}
			}
		}
		l.Close()
	}
	done = count.Load() <= n
	l, err = Open(testOptions(mem))
	if err != nil {
		return false, false, err
	}
	defer l.Close()
	return done, readOnly, checkHolds(l, h.m.snapshot())
}

// nextSeqNow returns the next sequence to be given out.
func (l *Log) nextSeqNow() Sequence {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.nextSeq
}

// TestFailedSync: a sync that failed closes its segment; nothing is written
// to that segment any more but what takes the batch back.
func TestFailedSync(t *testing.T) {
	mem := vfs.NewCrashableMem()
	newStore(t, mem)
	var bad, after atomic.Pointer[string]
	var fail, crash atomic.Bool
	var inFlight atomic.Pointer[vfs.MemFS]
	fs := &faultFS{FS: mem, before: func(op fsOp) error {
		if b := bad.Load(); b != nil && *b == op.path && op.name == "syncdata" {
			after.Store(&op.path)
		}
		if op.name == "syncdata" && op.segment() && crash.CompareAndSwap(true, false) {
			inFlight.Store(mem.CrashClone(vfs.CrashCloneCfg{}))
		}
		if op.name == "syncdata" && fail.Load() && op.segment() {
			fail.Store(false)
			bad.Store(&op.path)
			return syscall.EIO
		}
		return nil
	}}
	l := mustStart(t, testOptions(fs))
	first := mustCommit(t, l, request("k", 1, 100))
	// With a spare at hand no new segment has to be made after the failure.
	if err := l.sealRetired(true); err != nil {
		t.Fatal(err)
	}
	l.sealMu.Lock() // nor is ROOT written for any other reason
	fail.Store(true)
	if _, err := l.Commit(context.Background(), request("k", 2, 100)); !errors.Is(err, syscall.EIO) {
		t.Fatalf("commit over a failed sync: %v", err)
	}
	crash.Store(true)
	next := mustCommit(t, l, request("k", 3, 100))
	l.sealMu.Unlock()
	if next != first+2 {
		t.Fatalf("batch %s after %s: the failed one keeps its sequence", next, first)
	}
	// The failed batch and the one in flight left no trace on the disk.
	lost := mustStart(t, testOptions(inFlight.Load()))
	if seq, _ := lost.Last(); seq <= next {
		t.Errorf("sequence %s is used again: %s was in flight", seq, next)
	}
	if after.Load() != nil {
		t.Fatal("a segment was synced again after its sync had failed")
	}
	// A crash that keeps everything finds the first and the third.
	for _, percent := range []int{0, 100} {
		img := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(1, 1))})
		got, err := contents(mustOpen(t, testOptions(img)))
		if err != nil || len(got) != 2 || got[1] == nil || got[3] == nil {
			t.Fatalf("%d %%: %v %v", percent, got, err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestFailedSpillSync: what a failed sync of a spilled segment covered can
// not be committed by anyone, though a second sync would succeed.
func TestFailedSpillSync(t *testing.T) {
	mem := vfs.NewCrashableMem()
	newStore(t, mem)
	var fail atomic.Bool
	var spilled atomic.Pointer[string]
	fs := &faultFS{FS: mem, before: func(op fsOp) error {
		if p := spilled.Load(); op.name == "syncdata" && p != nil && op.path == *p && fail.CompareAndSwap(true, false) {
			return syscall.EIO
		}
		return nil
	}}
	l := mustStart(t, testOptions(fs))
	spill := func(seed uint64) (*Spill, *Request) {
		s, err := l.Spill(StreamBulk)
		if err != nil {
			t.Fatal(err)
		}
		loc, err := s.Append(KindGroup, filler(seed, 300))
		if err != nil {
			t.Fatal(err)
		}
		path := l.segmentPath(loc.Segment)
		spilled.Store(&path)
		if err := s.Flush(); err != nil {
			t.Fatal(err)
		}
		r := request("k", seed)
		r.Ranges = s.Ranges()
		return s, r
	}
	a, ra := spill(1)
	a.Close()
	b, rb := spill(2) // in the same segment, behind it
	if ra.Ranges[0].Segment != rb.Ranges[0].Segment {
		t.Fatal("two spills in two segments")
	}
	fail.Store(true)
	if _, err := l.Commit(context.Background(), ra); !errors.Is(err, syscall.EIO) {
		t.Fatalf("commit over a failed sync: %v", err)
	}
	for range 2 {
		if _, err := l.Commit(context.Background(), rb); err == nil {
			t.Fatal("committed what a failed sync covered")
		}
	}
	if _, err := b.Append(KindGroup, filler(9, 600)); err == nil && b.Flush() == nil {
		t.Fatal("appended to a segment whose sync failed")
	}
	b.Close()
	c, rc := spill(3)
	if rc.Ranges[0].Segment == ra.Ranges[0].Segment {
		t.Fatal("the failed segment was used again")
	}
	mustCommit(t, l, rc)
	c.Close()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = mustOpen(t, testOptions(mem))
	got, err := contents(l)
	if err != nil || len(got) != 1 || got[3] == nil {
		t.Fatalf("%v %v", got, err)
	}
	noDamage(t, l)
}

// TestSpillFailsBehind: a write fails when appending has gone on to another
// segment. What was laid out there was never written, and is no damage.
func TestSpillFailsBehind(t *testing.T) {
	mem := vfs.NewCrashableMem()
	newStore(t, mem)
	var path atomic.Pointer[string]
	further := make(chan struct{})
	fs := &faultFS{FS: mem, before: func(op fsOp) error {
		if p := path.Load(); op.name == "write" && p != nil && op.path == *p {
			<-further
			return syscall.EIO
		}
		return nil
	}}
	l := mustStart(t, testOptions(fs))
	s, err := l.Spill(StreamBulk)
	if err != nil {
		t.Fatal(err)
	}
	first, err := s.Append(KindGroup, filler(1, 300))
	if err != nil {
		t.Fatal(err)
	}
	p := l.segmentPath(first.Segment)
	path.Store(&p)
	// Its write stands while two more wait: the end of the segment, and the next.
	for last := first; last.Segment == first.Segment; {
		if last, err = s.Append(KindGroup, filler(2, 2500)); err != nil {
			t.Fatal(err)
		}
	}
	close(further)
	if err := s.Flush(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("flush behind a failed write: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	mustCommit(t, l, request("k", 1))
	if err := l.Seal(context.Background()); err != nil {
		t.Fatal(err)
	}
	for _, info := range l.Segments() {
		for f, err := range l.ScanSegment(context.Background(), info.ID) {
			if err != nil || f.Damaged != nil {
				t.Fatalf("segment %s: %v %v", info.ID, err, f.Damaged)
			}
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	noDamage(t, mustOpen(t, testOptions(mem)))
}

// TestReadOnly: where a failed batch can not be taken back either, nothing is
// written any more.
func TestReadOnly(t *testing.T) {
	mem := vfs.NewCrashableMem()
	newStore(t, mem)
	var fail atomic.Bool
	fs := &faultFS{FS: mem, before: func(op fsOp) error {
		if fail.Load() && op.segment() && (op.name == "write" || strings.HasPrefix(op.name, "sync")) {
			return syscall.EIO
		}
		return nil
	}}
	l := mustStart(t, testOptions(fs))
	r := request("k", 1, 100)
	mustCommit(t, l, r)
	fail.Store(true)
	for range 2 {
		if _, err := l.Commit(context.Background(), request("k", 2)); !errors.Is(err, ErrReadOnly) {
			t.Fatalf("commit: %v", err)
		}
	}
	fail.Store(false)
	if _, err := l.Commit(context.Background(), request("k", 2)); !errors.Is(err, ErrReadOnly) {
		t.Fatalf("commit: %v", err)
	}
	if _, err := l.Spill(StreamBulk); !errors.Is(err, ErrReadOnly) {
		t.Fatalf("spill: %v", err)
	}
	if err := l.Drop(context.Background(), 1); !errors.Is(err, ErrReadOnly) {
		t.Fatalf("drop: %v", err)
	}
	if _, _, err := l.ReadFrame(r.Locs[0], nil); err != nil {
		t.Fatalf("read: %v", err)
	}
	if !errors.Is(l.ReadOnly(), syscall.EIO) {
		t.Fatalf("reason: %v", l.ReadOnly())
	}
	l.Close()
	l = mustOpen(t, testOptions(mem))
	if got, err := contents(l); err != nil || got[1] == nil {
		t.Fatal(got, err)
	}
}

// A fullDisk has no room for new bytes, except what removing the ballast gives.
type fullDisk struct {
	full atomic.Bool
	room atomic.Int64
}

func (d *fullDisk) wrap(mem vfs.FS) *faultFS {
	return &faultFS{FS: mem, before: func(op fsOp) error {
		ballast := strings.Contains(op.path, ballastName)
		switch {
		case !d.full.Load():
		case ballast && op.name == "remove":
			d.room.Store(64 << 10)
		case op.grow && (ballast || d.room.Add(-op.n) < 0):
			return syscall.ENOSPC
		}
		return nil
	}}
}

func TestNoSpace(t *testing.T) {
	mem := vfs.NewCrashableMem()
	newStore(t, mem)
	var disk fullDisk
	o := testOptions(disk.wrap(mem))
	o.Ballast = 64 << 10
	l := mustStart(t, o)
	ctx := context.Background()
	mustCommit(t, l, request("k", 1, 500))
	if !l.Stats().BallastHeld {
		t.Fatal("no ballast")
	}
	disk.full.Store(true)
	for i := range uint64(3) {
		if _, err := l.Commit(ctx, request("k", 2+i, 500)); !errors.Is(err, ErrNoSpace) || !errors.Is(err, syscall.ENOSPC) && i == 0 {
			t.Fatalf("commit on a full disk: %v", err)
		}
	}
	// A delete goes through; a take still does not, though there is room now.
	r := request("k", 10)
	r.Reserve = ReserveAll
	mustCommit(t, l, r)
	if _, err := l.Commit(ctx, request("k", 11, 10)); !errors.Is(err, ErrNoSpace) {
		t.Fatalf("a take used the reserve: %v", err)
	}
	s, err := l.Spill(StreamBulk)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Append(KindGroup, filler(1, 900)); !errors.Is(err, ErrNoSpace) {
		t.Fatalf("a large take used the reserve: %v", err)
	}
	s.Close()
	if s, err = l.Spill(StreamMoved); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Append(KindGroup, filler(1, 900)); err != nil {
		t.Fatalf("cleaning may use the reserve: %v", err)
	}
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	m := &Request{Reserve: ReserveFirst, Ranges: s.Ranges(), Records: []NewRecord{{Key: []byte("k"), RecordSeq: 12, Moved: true}}}
	mustCommit(t, l, m)
	s.Close()
	if l.ReadOnly() != nil || l.Stats().BallastHeld {
		t.Fatal(l.ReadOnly(), l.Stats().BallastHeld)
	}
	// Space is back.
	disk.full.Store(false)
	mustCommit(t, l, request("k", 20, 500))
	if !l.Stats().BallastHeld {
		t.Fatal("the ballast is not back")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = mustOpen(t, testOptions(mem))
	got, err := contents(l)
	if err != nil || len(got) != 4 || got[1] == nil || got[10] == nil || got[12] == nil || got[20] == nil {
		t.Fatal(got, err)
	}
	noDamage(t, l)
}

// TestNoSpaceEverywhere fills the disk at every write of a history, and makes
// room again.
func TestNoSpaceEverywhere(t *testing.T) {
	for n := int64(0); ; n++ {
		mem := vfs.NewCrashableMem()
		newStore(t, mem)
		var count atomic.Int64
		var full atomic.Bool
		full.Store(true)
		fs := &faultFS{FS: mem, before: func(op fsOp) error {
			if op.grow && count.Add(1) > n && full.Load() {
				return syscall.ENOSPC
			}
			return nil
		}}
		h := &history{t: t, m: &model{}, rng: rand.New(rand.NewPCG(7, 3))}
		l := mustOpen(t, testOptions(fs))
		h.l = l
		started := l.Start(context.Background())
		if started == nil {
			for range 10 {
				if err := h.step(); err != nil && !errors.Is(err, ErrNoSpace) {
					t.Fatalf("full after %d writes: %v", n, err)
				}
			}
			if err := l.ReadOnly(); err != nil {
				t.Fatalf("full after %d writes: %v", n, err)
			}
			full.Store(false)
			if err := h.commit([]int{100}, []int{100}); err != nil {
				t.Fatalf("after %d writes, with room again: %v", n, err)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		} else if !errors.Is(started, ErrNoSpace) {
			t.Fatalf("start: %v", started)
		}
		l.Close()
		l = mustOpen(t, testOptions(mem))
		if err := checkHolds(l, h.m.snapshot()); err != nil {
			t.Fatalf("full after %d writes: %v", n, err)
		}
		if count.Load() <= n {
			t.Logf("full at each of %d writes", n)
			return
		}
	}
}

// TestCloseUnsynced: Close can not sync the batch that proves the last one,
// nor what ends the segment. ROOT must not say that it did.
func TestCloseUnsynced(t *testing.T) {
	mem := vfs.NewCrashableMem()
	newStore(t, mem)
	var fail atomic.Bool
	fs := &faultFS{FS: mem, before: func(op fsOp) error {
		if fail.Load() && op.segment() && op.name == "syncdata" {
			return syscall.EIO
		}
		return nil
	}}
	l := mustStart(t, testOptions(fs))
	mustCommit(t, l, request("k", 1, 100))
	fail.Store(true)
	if err := l.Close(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("close: %v", err)
	}
	for _, percent := range []int{0, 50, 100} {
		img := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(1, 2))})
		l := mustStart(t, testOptions(img))
		if got, err := contents(l); err != nil || len(got) != 1 || got[1] == nil {
			t.Errorf("%d %%: %v %v", percent, got, err)
		}
		noDamage(t, l)
	}
}

// A sector with the header of a frame that can not be read is no proof that the frame is
// gone, whoever comes to it: the batch is not dropped as torn, and a replay says why.
func TestUnreadableHeader(t *testing.T) {
	mem := vfs.NewMem()
	bad := int64(-1)
	fs := &faultFS{FS: mem, before: func(op fsOp) error {
		if bad >= 0 && op.name == "read" && op.segment() && op.off < bad+scanSector && op.off+op.n > bad {
			return syscall.EIO
		}
		return nil
	}}
	options := func(fs vfs.FS) Options {
		o := testOptions(fs)
		o.SegmentSize = 64 << 10
		return o
	}
	// The frame begins where a sector does, and ends in the next one.
	begin := func(fs vfs.FS, filler int) (l *Log, last *Request) {
		newStore(t, fs)
		l, last = mustStart(t, options(fs)), request("k", 2, scanSector+1000, 100)
		mustCommit(t, l, request("k", 1, filler))
		mustCommit(t, l, last)
		return l, last
	}
	_, last := begin(vfs.NewMem(), 0)
	l, last := begin(fs, scanSector-int(last.Locs[0].Offset%scanSector))
	sector := int64(last.Locs[0].Offset)
	seq, _ := l.Last()
	if sector%scanSector != 0 {
		t.Fatal(last.Locs)
	}
	crashed := copyLive(t, l, fs)
	mustCommit(t, l, request("k", 3))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	bad = sector
	l = mustOpen(t, options(fs))
	found := 0
	for _, b := range replayAll(t, l) {
		for _, f := range b.Frames {
			if f.Damaged != nil {
				if found++; b.Seq != seq || !errors.Is(f.Damaged, syscall.EIO) {
					t.Errorf("batch %s: %v", b.Seq, f.Damaged)
				}
			}
		}
		for _, r := range b.Records {
			if r.Damaged != nil && !errors.Is(r.Damaged, syscall.EIO) {
				t.Errorf("batch %s: record: %v", b.Seq, r.Damaged)
			}
		}
	}
	if found != 1 {
		t.Errorf("%d frames are damaged", found)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	fs.FS = crashed
	if l, err := Open(options(fs)); !errors.Is(err, syscall.EIO) {
		t.Errorf("a last batch of which a header can not be read: %v", err)
		_ = l.Close()
	}
	bad = -1
	l = mustOpen(t, options(fs))
	defer l.Close()
	if got, _ := l.Last(); got != seq {
		t.Errorf("the last batch is %s, want %s", got, seq)
	}
}
