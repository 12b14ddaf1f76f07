package chunk

import (
	"context"
	"sync"
	"testing"

	"github.com/snapstore/snapstore/internal/seglog"
)

func frameAt(off, length int64) seglog.Loc {
	return seglog.Loc{Segment: 1, Offset: uint32(off), Length: uint32(length)}
}

// Reads that go on, by workers in turns, have what they come to asked for once, and no
// more in front of them than is behind.
func TestAheadOfReadsThatGoOn(t *testing.T) {
	r := newRand(t)
	for _, workers := range []int{1, 2, 8, 16, 32} {
		for _, frame := range []int64{8 << 10, 30 << 10, 64 << 10} {
			a := aheadOf(workers)
			const start, size = 1 << 20, 128 << 20
			var front, asked, all int64
			calls, late := 0, int64(0)
			span := restoreSpan / GroupPages * frame
			for off := int64(start); off < start+size; off += int64(workers) * span {
				for i := range int64(restoreSpan / GroupPages) {
					for _, w := range r.Perm(workers) {
						at, front0 := off+int64(w)*span+i*frame, front
						front = max(front, at+frame)
						if front0 > start+2*aheadMost && at+frame > asked {
							late++
						}
						from, n := a.want(frameAt(at, frame))
						if n == 0 {
							continue
						}
						calls, all = calls+1, all+n
						if asked != 0 && from < asked {
							t.Fatalf("%d workers, frames of %d: asks for %d at %d, and has up to %d", workers, frame, n, from, asked)
						}
						if asked = from + n; asked-start > 2*(front-start) {
							t.Fatalf("%d workers, frames of %d: asks up to %d, and %d were read", workers, frame, asked-start, front-start)
						}
					}
				}
			}
			if all > front-start+aheadMost || calls > int(all/aheadLeast) || late > 0 {
				t.Errorf("%d workers, frames of %d: asks for %d of %d in %d calls, %d late", workers, frame, all, front-start, calls, late)
			}
		}
	}
}

// Reads that jump about ask for nothing.
func TestAheadOfReadsThatJump(t *testing.T) {
	a := newAhead(aheadGap, pagesBefore)
	for i := range int64(200) {
		if _, n := a.want(frameAt(i%2*(30<<20)+i*4096, 4096)); n != 0 {
			t.Fatalf("read %d asks for %d", i, n)
		}
	}
}

type askedLog struct {
	*fakeLog
	mu    sync.Mutex
	spans [][2]int64
}

func (l *askedLog) Prefetch(loc seglog.Loc, n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.spans = append(l.spans, [2]int64{int64(loc.Offset), int64(loc.Offset) + n})
}

// A sweep asks for what lies before the nodes that it reads as well, and a reader of pages
// for what lies behind.
func TestSweepAsksForPages(t *testing.T) {
	l := &askedLog{}
	k := newKit(t, func(o *StoreOptions) {
		l.fakeLog = o.Log.(*fakeLog)
		o.Log = l
	})
	var nodes, all []ID
	const others = 40 // groups in front, which are not asked for
	for n := range 240 {
		ids, pages := fillPages(uint64(n*GroupPages), GroupPages)
		w := k.s.NewWriter(WriterOptions{})
		if err := w.AddGroup(Domain{}, CodecRaw, ids, pages); err != nil {
			t.Fatal(err)
		}
		k.store(w)
		if all = append(all, ids...); n < others {
			continue
		}
		id, node := testNode(n)
		w = k.s.NewWriter(WriterOptions{})
		if err := w.AddNodes(Domain{}, []ID{id}, [][]byte{node}); err != nil {
			t.Fatal(err)
		}
		k.store(w)
		nodes = append(nodes, id)
	}
	sweep := k.s.Sweep()
	for _, id := range nodes {
		if _, err := sweep.Node(context.Background(), id); err != nil {
			t.Fatal(err)
		}
	}
	if len(l.spans) == 0 {
		t.Fatal("nothing was asked for")
	}
	if from, first := l.spans[0][0], int64(k.where(all[others*GroupPages]).Offset); from > first || from < first-pagesBefore {
		t.Errorf("asks from %d on, and the first pages are at %d", from, first)
	}
	for i, s := range l.spans[1:] {
		if s[0] != l.spans[i][1] {
			t.Errorf("%v after %v", s, l.spans[i])
		}
	}
	before := len(l.spans)
	for _, id := range nodes {
		if _, err := k.s.Node(context.Background(), id); err != nil {
			t.Fatal(err)
		}
	}
	if len(l.spans) != before {
		t.Error("single reads of nodes ask for what is behind")
	}

	l.spans = nil
	refs, check := k.refs(all)
	if err := k.s.Pages(context.Background(), refs); err != nil {
		t.Fatal(err)
	}
	check()
	if last := int64(k.where(all[len(all)-1]).Offset); len(l.spans) == 0 || l.spans[len(l.spans)-1][1] < last-2<<20 || l.spans[len(l.spans)-1][1] > 2*last {
		t.Errorf("a restore up to %d asks for %v", last, l.spans)
	}
}
