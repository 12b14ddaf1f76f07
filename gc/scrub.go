package gc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/snapstore/snapstore/internal/index"
	"github.com/snapstore/snapstore/internal/seglog"
)

// ScrubOptions of a Scrubber.
type ScrubOptions struct {
	// Every is in what time the whole log is to be read once.
	Every time.Duration
	// Rate is the most bytes a second, whatever Every asks for.
	Rate int64
	// Now is the time of day; nil is time.Now.
	Now    func() time.Time
	Logger *slog.Logger
}

// ScrubStats is how far a Scrubber is. Times are zero for what never was.
type ScrubStats struct {
	// Bytes, Problems and Passes are totals since Open; Problems counts frames.
	Bytes, Problems, Passes uint64
	// Segment is the last one read, 0 before the first of a pass.
	Segment seglog.SegmentID
	// Began is when the pass under way began, Whole when the last one did that
	// came to its end: everything older than Whole was read since then.
	Began, Whole time.Time
}

// Scrubber reads the log from the disk again and again at a bounded rate, so
// that rot is found while what it hit can still be had from elsewhere. What it
// finds is marked lost: a take that brings it again heals it. Its progress is a
// state of the index, so it goes on after a restart where it was, and begins
// anew after a rebuild.
type Scrubber struct {
	o       ScrubOptions
	log     *seglog.Log
	idx     *index.Index
	counter *Counter

	mu    sync.Mutex
	stats ScrubStats
}

// scrubKey is a key among the counting states that is too long for a canister.
const scrubKey = "how far the scrubber is in the log"

// scrubSize is version, segment, began and whole.
const scrubSize = 1 + 3*8

// NewScrubber reads the progress.
func NewScrubber(log *seglog.Log, idx *index.Index, counter *Counter, o ScrubOptions) (*Scrubber, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Scrubber{o: o, log: log, idx: idx, counter: counter}
	v, ok, err := idx.StateValue([]byte(scrubKey))
	if err != nil {
		return nil, err
	}
	if ok && len(v) == scrubSize && v[0] == 1 {
		at := func(i int) uint64 { return binary.BigEndian.Uint64(v[1+8*i:]) }
		s.stats.Segment = seglog.SegmentID(at(0))
		s.stats.Began, s.stats.Whole = fromNanos(at(1)), fromNanos(at(2))
	}
	return s, nil
}

func fromNanos(n uint64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(n))
}

func toNanos(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(t.UnixNano())
}

// Stats may be called at any time.
func (s *Scrubber) Stats() ScrubStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

func (s *Scrubber) update(f func(*ScrubStats)) ScrubStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.stats)
	return s.stats
}

// Run scrubs until ctx ends, and returns nil then.
func (s *Scrubber) Run(ctx context.Context) error {
	for {
		if err := s.Pass(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		if !sleep(ctx, s.until(s.Stats().Whole)) {
			return nil
		}
	}
}

// until is how long it is until what began then is due again. A clock that was
// set back since makes it no longer than it ever is.
func (s *Scrubber) until(began time.Time) time.Duration {
	return min(began.Add(s.o.Every).Sub(s.o.Now()), s.o.Every)
}

// rate is how fast to go on with a pass of which so many bytes are left.
func (s *Scrubber) rate(began time.Time, left int64) int64 {
	due := s.until(began)
	if due <= 0 {
		return s.o.Rate
	}
	return min(s.o.Rate, max(1, int64(float64(left)/due.Seconds())))
}

// Pass brings the pass under way to its end, or does a whole one.
func (s *Scrubber) Pass(ctx context.Context) error {
	at := s.Stats()
	if at.Began.IsZero() {
		at = s.update(func(st *ScrubStats) { st.Began, st.Segment = s.o.Now(), 0 })
		// A store that is never open for long must show that it has no pass.
		if err := s.save(at); err != nil {
			return err
		}
	}
	for {
		info, left, ok := s.next(at.Segment)
		if !ok {
			break
		}
		// What is left of the pass, in what is left of its time.
		if err := s.segment(ctx, info.ID, s.rate(at.Began, left)); err != nil {
			return err
		}
		at = s.update(func(st *ScrubStats) { st.Segment = info.ID })
		if err := s.save(at); err != nil {
			return err
		}
	}
	return s.save(s.update(func(st *ScrubStats) {
		st.Whole, st.Began, st.Segment = st.Began, time.Time{}, 0
		st.Passes++
	}))
}

// next gives the first segment after one, and how many bytes are left from it
// on.
func (s *Scrubber) next(after seglog.SegmentID) (first seglog.SegmentInfo, left int64, ok bool) {
	for _, info := range s.log.Segments() {
		if info.ID <= after {
			continue
		}
		if !ok {
			first, ok = info, true
		}
		left += info.Size
	}
	return first, left, ok
}

// segment reads one segment from the disk and marks lost what can not be read.
func (s *Scrubber) segment(ctx context.Context, id seglog.SegmentID, rate int64) error {
	began, read := time.Now(), int64(0)
	var bad []seglog.Loc
	s.log.Forget(id)
	for f, err := range s.log.ScanSegment(ctx, id) {
		if errors.Is(err, seglog.ErrSegmentGone) {
			return nil
		}
		if err != nil {
			return err
		}
		read += int64(f.Loc.Length)
		s.update(func(st *ScrubStats) {
			st.Bytes += uint64(f.Loc.Length)
			if f.Damaged != nil {
				st.Problems++
			}
		})
		if f.Damaged != nil {
			s.o.Logger.Error("scrubber found damage", "frame", f.Loc.String(), "error", f.Damaged)
			if !unread(f.Damaged) {
				bad = append(bad, f.Loc)
			}
		}
		ahead := time.Duration(float64(read)/float64(rate)*float64(time.Second)) - time.Since(began)
		if ahead > time.Millisecond && !sleep(ctx, ahead) {
			return ctx.Err()
		}
	}
	if len(bad) == 0 {
		return nil
	}
	lost, err := s.within(ctx, id, bad)
	if err != nil {
		return err
	}
	return s.counter.MarkLost(lost)
}

// within lists what has its place in one of the frames. It looks at every entry,
// which only damage is worth.
func (s *Scrubber) within(ctx context.Context, segment seglog.SegmentID, frames []seglog.Loc) (lost []Lost, err error) {
	for e, err := range s.idx.Entries(ctx) {
		if err != nil {
			return nil, err
		}
		if e.Segment != uint64(segment) {
			continue
		}
		for _, f := range frames {
			if e.Offset >= f.Offset && e.Offset < f.Offset+f.Length {
				lost = append(lost, Lost{e.ID, e.Segment, e.Offset})
				break
			}
		}
	}
	return lost, nil
}

// save makes the progress part of the index; it is durable with its next flush.
func (s *Scrubber) save(st ScrubStats) error {
	v := make([]byte, 1, scrubSize)
	v[0] = 1
	for _, n := range []uint64{uint64(st.Segment), toNanos(st.Began), toNanos(st.Whole)} {
		v = binary.BigEndian.AppendUint64(v, n)
	}
	b := s.idx.NewBatch()
	b.PutState([]byte(scrubKey), v)
	if err := b.Commit(); err != nil {
		return fmt.Errorf("scrub: %w", err)
	}
	return nil
}

// sleep tells whether ctx is still alive afterwards.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
