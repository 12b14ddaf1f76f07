package chunk

import (
	"context"
	"slices"
	"sync"
	"testing"

	"github.com/snapstore/snapstore/internal/seglog"
)

func at(off, length uint32) seglog.Loc { return seglog.Loc{Segment: 1, Offset: off, Length: length} }

// Reads that go on, by workers in turns, have everything before them asked for once, and
// not much further than they have come.
func TestAheadOfReadsThatGoOn(t *testing.T) {
	r := newRand(t)
	a := newAhead()
	const frame, end = 30 << 10, 60 << 20
	var asked, front, calls int64
	for off := int64(1 << 20); off < end; off += 2 * frame {
		turn := []int64{off, off + frame}
		if r.IntN(2) == 0 {
			slices.Reverse(turn)
		}
		for _, off := range turn {
			front = max(front, off+frame)
			from, n := a.want(at(uint32(off), frame), 0)
			if n == 0 {
				continue
			}
			if asked != 0 && from != asked && from != off {
				t.Fatalf("asks for %d at %d, up to %d it has", n, from, asked)
			}
			if asked = from + n; asked > off+aheadMost {
				t.Fatalf("asks for what is %d further", asked-off)
			}
			if calls++; calls == 1 && n > aheadLeast {
				t.Fatalf("asks for %d at once", n)
			}
		}
		if off > 8<<20 && asked < front {
			t.Fatalf("at %d it has asked up to %d", off, asked)
		}
	}
	if most := int64(end) / (aheadLeast / 2); calls > most {
		t.Errorf("%d calls, %d would do", calls, most)
	}
}

// Reads that jump about ask for nothing, wherever others go on.
func TestAheadOfReadsThatJump(t *testing.T) {
	a := newAhead()
	for i := range uint32(20) {
		if _, n := a.want(at(i%2*(30<<20)+i*4096, 4096), 0); n != 0 {
			t.Fatalf("read %d asks for %d", i, n)
		}
	}
	a.reset()
	if _, n := a.want(at(0, 4096), 0); n != 0 {
		t.Error("one read is none that goes on")
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
	w := k.s.NewWriter(WriterOptions{})
	var nodes []ID
	var first ID
	var all []ID
	for n := range 200 {
		ids, pages := fillPages(uint64(n*GroupPages), GroupPages)
		if n == 0 {
			first = ids[0]
		}
		all = append(all, ids...)
		if err := w.AddGroup(Domain{}, CodecRaw, ids, pages); err != nil {
			t.Fatal(err)
		}
		id, node := testNode(n)
		if err := w.AddNodes(Domain{}, []ID{id}, [][]byte{node}); err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, id)
	}
	k.store(w)
	sweep := k.s.Sweep()
	for _, id := range nodes {
		if _, err := sweep.Node(context.Background(), id); err != nil {
			t.Fatal(err)
		}
	}
	if len(l.spans) == 0 {
		t.Fatal("nothing was asked for")
	}
	if from := l.spans[0][0]; from > int64(k.where(first).Offset) {
		t.Errorf("asks from %d on, and the first pages are at %d", from, k.where(first).Offset)
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
	if last := int64(k.where(all[len(all)-1]).Offset); len(l.spans) == 0 || l.spans[len(l.spans)-1][1] < last {
		t.Errorf("a restore up to %d asks for %v", last, l.spans)
	}
}
