package seglog

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// dropStore makes a log with two sealed segments, and tells the operations
// that change files.
func dropStore(t *testing.T, mem *vfs.MemFS) (l *Log, reqs []*Request, ops func() []string) {
	newStore(t, mem)
	var mu sync.Mutex
	var trace []string
	fs := &faultFS{FS: mem, before: func(op fsOp) error {
		if op.changes() && op.name != "openrw" {
			mu.Lock()
			trace = append(trace, op.name+" "+op.path)
			mu.Unlock()
		}
		return nil
	}}
	l = mustStart(t, testOptions(fs))
	for i := range uint64(2) {
		r := request("k", i+1, 100)
		mustCommit(t, l, r)
		reqs = append(reqs, r)
		if err := l.Seal(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	mu.Lock()
	trace = nil
	mu.Unlock()
	return l, reqs, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(trace)
	}
}

func TestDrop(t *testing.T) {
	mem := vfs.NewCrashableMem()
	l, reqs, ops := dropStore(t, mem)
	ctx := context.Background()
	victim, path := reqs[0].Locs[0].Segment, l.segmentPath(reqs[0].Locs[0].Segment)
	info := func() (i SegmentInfo) {
		for _, s := range l.Segments() {
			if s.ID == victim {
				return s
			}
		}
		return
	}()
	if !info.Sealed || info.Empty || info.Stream != StreamCommit || info.LastSeq == 0 {
		t.Fatalf("%+v", info)
	}
	// A reader holds up the file, but not the decision.
	reader, err := l.acquire(victim)
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithCancel(ctx)
	done := make(chan error)
	go func() { done <- l.Drop(short, 0, victim) }()
	for {
		if _, _, err := l.ReadFrame(reqs[0].Locs[0], nil); errors.Is(err, ErrSegmentGone) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := mem.Stat(path); err != nil {
		t.Fatal("the file went before its reader: ", err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	l.release(reader)
	if _, err := mem.Stat(path); !isNotExist(err) {
		t.Fatal("the file is still there: ", err)
	}
	// ROOT is durable in both copies before the file is touched.
	var files []string
	for _, op := range ops() {
		if op == "rename "+testDir+"/"+rootNameA || op == "rename "+testDir+"/"+rootNameB || op == "remove "+path || op == "sync "+testDir {
			files = append(files, op)
		}
	}
	if n := len(files); n < 5 || files[n-1] != "remove "+path || files[n-2] != "sync "+testDir || slices.Index(files, "remove "+path) != n-1 {
		t.Fatalf("order: %v", files)
	}
	if f := l.Floor(); f != info.LastSeq {
		t.Fatalf("floor %s, want %s", f, info.LastSeq)
	}
	if err := l.Drop(ctx, 0, victim); err != nil {
		t.Fatalf("dropping it again: %v", err)
	}
	// The batch is gone, its name is not: the next one has it.
	hash, ok, err := l.HashAt(info.LastSeq)
	if err != nil || !ok || (hash == Hash{}) {
		t.Fatal(hash, ok, err)
	}
	if _, ok, _ := l.HashAt(info.LastSeq - 1); ok {
		t.Fatal("a name from nowhere")
	}
	last, _ := l.Last()
	if err := l.Drop(ctx, last+1); err == nil {
		t.Fatal("a floor above the last batch")
	}
	mustCommit(t, l, request("k", 3))
	for _, s := range l.Segments() {
		if !s.Sealed {
			if err := l.Drop(ctx, 0, s.ID); err == nil {
				t.Fatal("an open segment was dropped")
			}
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = mustOpen(t, testOptions(mem))
	if f := l.Floor(); f != info.LastSeq {
		t.Fatalf("floor %s, want %s", f, info.LastSeq)
	}
	if b := replayAll(t, l); len(b) != 2 {
		t.Fatalf("%d batches", len(b))
	}
	noDamage(t, l)
}

func TestQuarantine(t *testing.T) {
	mem := vfs.NewCrashableMem()
	l, reqs, _ := dropStore(t, mem)
	victim := reqs[0].Locs[0].Segment
	want, err := readFile(mem, l.segmentPath(victim), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Quarantine(context.Background(), 0, victim); err != nil {
		t.Fatal(err)
	}
	got, err := readFile(mem, mem.PathJoin(testDir, quarantineDir, segmentName(victim)), 1<<20)
	if err != nil || !slices.Equal(got, want) {
		t.Fatalf("%d bytes of %d: %v", len(got), len(want), err)
	}
	if _, _, err := l.ReadFrame(reqs[0].Locs[0], nil); !errors.Is(err, ErrSegmentGone) {
		t.Fatal(err)
	}
}

// TestBusy: what a spill has written is not dropped before the spill is
// closed, though nothing points at it yet.
func TestBusy(t *testing.T) {
	mem := vfs.NewCrashableMem()
	l, _, _ := dropStore(t, mem)
	ctx := context.Background()
	s, err := l.Spill(StreamBulk)
	if err != nil {
		t.Fatal(err)
	}
	first, err := s.Append(KindGroup, filler(1, 3000))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Append(KindGroup, filler(2, 3000)); err != nil {
		t.Fatal(err)
	}
	if err := s.Flush(); err != nil { // what was left is written behind the caller's back
		t.Fatal(err)
	}
	if err := l.Seal(ctx); err != nil { // the first segment, which the spill has left
		t.Fatal(err)
	}
	busy := func() (info SegmentInfo) {
		for _, i := range l.Segments() {
			if i.ID == first.Segment {
				info = i
			}
		}
		return
	}
	if i := busy(); !i.Busy || !i.Sealed {
		t.Fatalf("%+v", i)
	}
	if err := l.Drop(ctx, 0, first.Segment); !errors.Is(err, ErrBusy) {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if i := busy(); i.Busy {
		t.Fatalf("%+v", i)
	}
	if err := l.Drop(ctx, 0, first.Segment); err != nil {
		t.Fatal(err)
	}
	r := request("k", 9)
	r.Ranges = []Range{{first.Segment, 0, uint32(first.end())}}
	if _, err := l.Commit(ctx, r); !errors.Is(err, ErrSegmentGone) {
		t.Fatal(err)
	}
	if _, err := s.Append(KindGroup, nil); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
}
