package chunk

import (
	"context"
	"sync"

	"github.com/snapstore/snapstore/internal/seglog"
)

const (
	// aheadLeast is what is asked for where two reads follow each other; each that goes on
	// doubles how far ahead that is, up to aheadMost. With 4 MiB a cold restore of 1 GiB
	// took a twentieth longer, with 32 and 64 no less.
	aheadLeast = 512 << 10
	aheadMost  = 16 << 20
	// aheadGap is how far from the last a read goes on from it: workers take spans of half
	// a MiB in turns, and frames of nodes stand up to a MiB apart.
	aheadGap = 2 << 20
	// pagesBefore is where the pages lie that a frame of nodes is about: before it, those of
	// 16 nodes, compressed or not.
	pagesBefore = FrameNodes * 16 * PageSize
)

// ahead asks the system to read on where reads go on through a segment. Several take
// turns there, which no readahead of the system's own recognises: a restore of what was
// not in memory read 150 MB/s from a disk that gives 620. What jumps about asks for
// nothing. Safe for concurrent use.
type ahead struct {
	mu sync.Mutex
	at map[seglog.SegmentID]*stream
}

// A stream is reads of one segment that go on, in bytes of it.
type stream struct {
	front int64 // behind the furthest
	asked int64 // up to here
	dist  int64 // how far ahead of a read
}

func newAhead() *ahead { return &ahead{at: map[seglog.SegmentID]*stream{}} }

// reset forgets all streams.
func (a *ahead) reset() { clear(a.at) }

// want notes a read of a frame, of which the bytes before it may be wanted too, and gives
// what to ask for: n bytes from from on, and mostly none.
func (a *ahead) want(loc seglog.Loc, before int64) (from, n int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	at := int64(loc.Offset)
	s := a.at[loc.Segment]
	if s == nil || at < s.front-aheadGap || at > s.front+aheadGap {
		a.at[loc.Segment] = &stream{front: at, asked: max(0, at-before)}
		return 0, 0
	}
	s.front = max(s.front, at+int64(loc.Length))
	s.dist = min(max(2*s.dist, aheadLeast), aheadMost)
	from = max(s.asked, at-before)
	if n = at + s.dist - from; n < aheadLeast/2 { // a call for each frame would cost more
		return 0, 0
	}
	s.asked = from + n
	return from, n
}

// goOn is want, and asks, where the log can be asked. A nil a asks for nothing.
func (s *Store) goOn(a *ahead, loc seglog.Loc, before int64) {
	if a == nil {
		return
	}
	log, ok := s.log.(interface{ Prefetch(seglog.Loc, int64) })
	if !ok {
		return
	}
	if from, n := a.want(loc, before); n > 0 {
		log.Prefetch(seglog.Loc{Segment: loc.Segment, Offset: uint32(from)}, n)
	}
}

// Sweep returns a reader of nodes for who walks through much of a tree and reads its pages
// next: where frames of nodes follow each other, the pages between them are asked for as
// well. For one walk at a time.
func (s *Store) Sweep() Sweep { return Sweep{s, newAhead()} }

// Sweep reads nodes as Store does; see Store.Sweep.
type Sweep struct {
	s     *Store
	ahead *ahead
}

// Node is Store.Node.
func (w Sweep) Node(ctx context.Context, id ID) ([]byte, error) {
	return w.s.node(ctx, id, true, w.ahead)
}
