package chunk

import (
	"context"
	"sync"

	"github.com/snapstore/snapstore/internal/seglog"
)

const (
	// aheadMost is how far ahead of reads that go on the system is asked to read. With 4
	// MiB a cold restore of 1 GiB took a twentieth longer, with 32 and 64 no less.
	aheadMost = 16 << 20
	// aheadLeast is what is worth a call.
	aheadLeast = 256 << 10
	// aheadGap is how far from the others a read goes on from them, at least: frames of
	// nodes stand up to a MiB apart.
	aheadGap = 2 << 20
	// pagesBefore is where the pages lie that a frame of nodes is about: before it, those
	// of its nodes, compressed or not.
	pagesBefore = FrameNodes * 16 * PageSize
)

// ahead asks the system to read on where reads go on through a segment. Several take
// turns there, which no readahead of the system's own recognises: a restore of what was
// not in memory read 150 MB/s from a disk that gives 620. It is as far ahead as the reads
// have come, so that no more is read in vain than in earnest, and what jumps about asks
// for nothing. want may be called concurrently.
type ahead struct {
	gap    int64 // what a read is away from the others at most, to go on from them
	before int64 // how much in front of a frame is wanted with it

	mu sync.Mutex
	at map[seglog.SegmentID]stream
}

// A stream is reads of one segment that go on, in bytes of it.
type stream struct {
	start, front int64 // from the first to behind the furthest
	asked        int64 // up to here
}

func newAhead(gap, before int64) *ahead {
	return &ahead{gap: gap, before: before, at: map[seglog.SegmentID]stream{}}
}

// aheadOf is for so many workers, which take spans of a plan in turns.
func aheadOf(workers int) *ahead {
	return newAhead(max(aheadGap, int64(workers)*restoreSpan*PageSize), 0)
}

// reset forgets all streams. Nobody calls want meanwhile.
func (a *ahead) reset() { clear(a.at) }

// want notes a read of a frame and gives what to ask for: n bytes from from on, and mostly
// none.
func (a *ahead) want(loc seglog.Loc) (from, n int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	at := int64(loc.Offset)
	end := at + int64(loc.Length)
	s, ok := a.at[loc.Segment]
	if !ok || at < s.start-a.gap || at > s.front+a.gap {
		a.at[loc.Segment] = stream{start: at, front: end, asked: max(0, at-a.before)}
		return 0, 0
	}
	s.front = max(s.front, end)
	from = s.asked
	if n = at + min(s.front-s.start, aheadMost) - from; n < aheadLeast {
		n = 0
	} else {
		s.asked = from + n
	}
	a.at[loc.Segment] = s
	return from, n
}

// goOn is want, and asks, where the log can be asked. A nil a asks for nothing.
func (s *Store) goOn(a *ahead, loc seglog.Loc) {
	if a == nil {
		return
	}
	log, ok := s.log.(interface{ Prefetch(seglog.Loc, int64) })
	if !ok {
		return
	}
	if from, n := a.want(loc); n > 0 {
		log.Prefetch(seglog.Loc{Segment: loc.Segment, Offset: uint32(from)}, n)
	}
}

// Sweep returns a reader of nodes for who walks through much of a tree and reads its pages
// next: where frames of nodes follow each other, the pages between them are asked for as
// well. For one walk at a time.
func (s *Store) Sweep() Sweep { return Sweep{s, newAhead(aheadGap, pagesBefore)} }

// Sweep reads nodes as Store does; see Store.Sweep.
type Sweep struct {
	s     *Store
	ahead *ahead
}

// Node is Store.Node.
func (w Sweep) Node(ctx context.Context, id ID) ([]byte, error) {
	return w.s.node(ctx, id, true, w.ahead)
}
