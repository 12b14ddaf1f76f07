package seglog

import (
	"fmt"
	"sync"
	"sync/atomic"
)

// A Spill appends to the bulk or moved stream, alone in its segments, for one
// large take or one cleaning. What it appends is durable, and means anything,
// only when a Commit has named its Ranges. Not safe for concurrent use.
//
// Full buffers are written by a goroutine of the Spill's own, in order, while
// the next one is filled: writing into the page cache takes a good part of a
// core, which would be missed by those who compress.
type Spill struct {
	l      *Log
	stream Stream
	seg    *segment // nil before the first Append
	from   int64    // in seg, where this spill began
	buf    []byte   // laid out, not yet handed on; ends at seg.off
	pad    int      // bytes in front of it, so that address and offset are aligned alike
	ranges []Range  // in segments that were left
	used   []*segment
	err    error // sticky
	closed bool

	writes  chan spillWrite // nil before the first full buffer
	writer  sync.WaitGroup
	waiting sync.WaitGroup        // writes that were handed on and are not done
	failed  atomic.Pointer[error] // of the first write that failed
}

// A spillWrite is a buffer on its way to its segment, or, without one, a segment
// that is full and may be sealed once what comes before is written.
type spillWrite struct {
	seg *segment
	buf []byte
	pad int // bytes of buf that are none
	at  int64
}

// spillWrites is how many buffers may wait to be written besides the one that
// is: more would only use memory.
const spillWrites = 2

// keptSpills is how many buffers stay for the next Spill: all that one has in use.
const keptSpills = spillWrites + 2

// Spill returns a new appender. Segments are made, or taken over from an
// earlier Spill, when the first frame is appended.
func (l *Log) Spill(stream Stream) (*Spill, error) {
	if err := l.check(); err != nil {
		return nil, fmt.Errorf("seglog: spill: %w", err)
	}
	if stream != StreamBulk && stream != StreamMoved {
		return nil, fmt.Errorf("seglog: spill: no spilling to the %s stream", stream)
	}
	return &Spill{l: l, stream: stream}, nil
}

// Append adds a frame and returns where it will be. It can be read after Flush.
// After an error nothing of this Spill can be committed.
func (s *Spill) Append(kind Kind, payload []byte) (Loc, error) {
	if err := s.usable(); err != nil {
		return Loc{}, err
	}
	if !kind.data() {
		return Loc{}, fmt.Errorf("seglog: spill: a %s: want a group, nodes or a move", kind)
	}
	if len(payload) > MaxPayload {
		return Loc{}, fmt.Errorf("seglog: spill: %w: a frame of %d bytes", ErrTooLarge, len(payload))
	}
	size := frameSize(len(payload))
	if s.seg == nil || (s.seg.off > 0 && s.seg.off+size > s.seg.capacity) {
		if err := s.next(size); err != nil {
			return Loc{}, s.fail(err)
		}
	}
	hdr := header{
		kind: kind, stream: s.stream, length: uint32(len(payload)), offset: uint32(s.seg.off),
		segment: s.seg.id, epoch: s.l.epoch, sum: checksum(payload),
	}
	if s.buf == nil {
		s.pad = int(s.seg.off % directAlign)
		s.buf = s.l.spillBufs.Get()[:s.pad]
	}
	at := len(s.buf)
	s.buf = append(s.buf, zeros[:headerSize]...)
	s.l.seal.put(s.buf[at:], &hdr)
	s.buf = append(s.buf, payload...)
	s.buf = append(s.buf, zeros[:at+int(size)-len(s.buf)]...)
	s.seg.note(&hdr)
	if s.gathered() >= s.l.o.SpillBuffer {
		s.hand()
	}
	return hdr.loc(), nil
}

func (s *Spill) usable() error {
	if s.closed {
		return fmt.Errorf("seglog: spill: %w", ErrClosed)
	}
	if s.err != nil {
		return s.err
	}
	if err := s.failed.Load(); err != nil {
		return s.fail(*err)
	}
	if err := s.l.check(); err != nil {
		return s.fail(err)
	}
	return nil
}

func (s *Spill) fail(err error) error {
	s.err = fmt.Errorf("seglog: spill: %w", spaceError(err))
	return s.err
}

// Flush writes out what is buffered, and waits for it; it does not sync.
func (s *Spill) Flush() error {
	if err := s.usable(); err != nil {
		return err
	}
	s.hand()
	s.waiting.Wait()
	return s.usable()
}

// gathered is how many bytes are buffered.
func (s *Spill) gathered() int { return len(s.buf) - s.pad }

// hand hands what is buffered on to be written.
func (s *Spill) hand() {
	if s.gathered() == 0 {
		return
	}
	s.put(spillWrite{seg: s.seg, buf: s.buf, pad: s.pad, at: s.seg.off - int64(s.gathered())})
	s.l.wantSpare(s.seg)
	s.buf, s.pad = nil, 0
}

func (s *Spill) put(w spillWrite) {
	if s.writes == nil {
		s.writes = make(chan spillWrite, spillWrites)
		s.writer.Go(s.writeLoop)
	}
	s.waiting.Add(1)
	s.writes <- w
}

// writeLoop writes what is handed on. After a failure it writes no more: what was
// laid out behind it, in other segments too, never comes to be, and they end
// where they were last synced.
func (s *Spill) writeLoop() {
	for w := range s.writes {
		switch failed := s.failed.Load(); {
		case w.buf == nil:
			s.l.retire(w.seg)
		case failed != nil:
			w.seg.ioMu.Lock()
			s.l.failLocked(w.seg, *failed)
			w.seg.ioMu.Unlock()
		default:
			if err := s.write(w); err != nil {
				s.failed.Store(&err)
			} else {
				s.l.stats.streamBytes[s.stream].Add(uint64(len(w.buf) - w.pad))
			}
		}
		s.l.spillBufs.Put(w.buf)
		s.waiting.Done()
	}
}

// write puts a buffer in the file and lets the disk begin with it: the sync
// before the commit then finds little left to do. After an error the segment
// is closed for ever.
func (s *Spill) write(w spillWrite) (err error) {
	seg, data := w.seg, w.buf[w.pad:]
	end := w.at + int64(len(data))
	seg.ioMu.Lock()
	defer seg.ioMu.Unlock()
	s.l.mu.RLock()
	failed := seg.failed
	s.l.mu.RUnlock()
	if failed != nil {
		return failed
	}
	if seg.file == nil {
		return ErrClosed
	}
	defer func() {
		if err != nil {
			s.l.failLocked(seg, err)
		}
	}()
	if !s.l.reserve.roomFor(s.l, int64(len(data))) {
		return ErrNoSpace // what is left is for deletes
	}
	var buffered bool
	err = s.l.reserve.try(s.l, s.may(), func(Reserve) (err error) {
		buffered, err = s.l.writeOut(seg, data, w.at)
		return err
	})
	if err != nil {
		return err
	}
	seg.written.Store(end)
	if !buffered || s.l.noEarly.Load() {
		return nil
	}
	full, err := seg.file.SyncTo(end)
	if full {
		// This file system knows no asynchronous write-out, and waited for
		// the disk instead.
		s.l.noEarly.Store(true)
	}
	return err
}

// next leaves the segment, if there is one, and finds one with room for size bytes.
func (s *Spill) next(size int64) error {
	l := s.l
	if s.seg != nil {
		s.hand()
		s.leave()
		s.put(spillWrite{seg: s.seg})
		s.seg = nil
	}
	if s.may() == ReserveNone && !l.reserve.restore(l) || !l.reserve.roomFor(l, size) {
		return ErrNoSpace
	}
	var full []*segment
	l.mu.Lock()
	for n := len(l.pool[s.stream]); n > 0 && s.seg == nil; n = len(l.pool[s.stream]) {
		seg := l.pool[s.stream][n-1]
		l.pool[s.stream] = l.pool[s.stream][:n-1]
		if seg.off+size > seg.capacity {
			full = append(full, seg)
			continue
		}
		seg.busy++
		s.seg = seg
	}
	l.mu.Unlock()
	for _, seg := range full {
		l.retire(seg)
	}
	if s.seg == nil {
		var seg *segment
		if err := l.reserve.try(l, s.may(), func(Reserve) (err error) {
			seg, err = l.takeSegment(s.stream, size)
			return err
		}); err != nil {
			return err
		}
		l.mu.Lock()
		seg.busy++
		l.mu.Unlock()
		s.seg = seg
	}
	s.from = s.seg.off
	s.used = append(s.used, s.seg)
	return nil
}

// may is what this spill may use of the reserve: cleaning makes room.
func (s *Spill) may() Reserve {
	if s.stream == StreamMoved {
		return ReserveFirst
	}
	return ReserveNone
}

// leave notes what was appended to the current segment.
func (s *Spill) leave() {
	if s.seg.off > s.from {
		s.ranges = append(s.ranges, Range{Segment: s.seg.id, Start: uint32(s.from), End: uint32(s.seg.off)})
	}
}

// Ranges returns where everything is that was appended, for Request.Ranges.
// Flush comes first.
func (s *Spill) Ranges() []Range {
	ranges := append([]Range(nil), s.ranges...)
	if s.seg != nil && s.seg.off > s.from {
		ranges = append(ranges, Range{Segment: s.seg.id, Start: uint32(s.from), End: uint32(s.seg.off)})
	}
	return ranges
}

// Close lets the segments go; the last one waits for the next taker. What was
// not flushed is forgotten, what was not committed is garbage. Idempotent.
func (s *Spill) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	l := s.l
	if s.writes != nil {
		close(s.writes)
		s.writer.Wait()
	}
	seg := s.seg
	if seg != nil && s.gathered() > 0 {
		// The frames in the buffer never came to be.
		seg.off -= int64(s.gathered())
		for n := len(seg.entries); n > 0 && int64(seg.entries[n-1].offset) >= seg.off; n-- {
			seg.entries = seg.entries[:n-1]
		}
	}
	l.spillBufs.Put(s.buf)
	s.buf, s.pad = nil, 0
	l.mu.Lock()
	for _, u := range s.used {
		u.busy--
	}
	var full bool
	if seg != nil {
		full = seg.failed != nil || seg.sealSoon || seg.capacity-seg.off < seg.capacity/16
		if !full {
			l.pool[s.stream] = append(l.pool[s.stream], seg)
		}
	}
	l.mu.Unlock()
	if full {
		l.retire(seg)
	}
	s.seg, s.used = nil, nil
	return nil
}

// unpoolLocked takes a segment out of the pool, if it is there. Log.mu is held.
func (l *Log) unpoolLocked(s *segment) bool {
	for i, other := range l.pool[s.stream] {
		if other == s {
			l.pool[s.stream] = append(l.pool[s.stream][:i], l.pool[s.stream][i+1:]...)
			return true
		}
	}
	return false
}
