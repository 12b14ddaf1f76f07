package seglog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/zeebo/blake3"
)

func commitError(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("seglog: commit: %w", err)
}

// prepare checks a request and does, in the caller's goroutine, what can be
// done before the batch is known.
func (l *Log) prepare(r *Request) error {
	n := len(r.Frames) + len(r.Records)
	r.Locs, r.RecordLocs = make([]Loc, len(r.Frames)), make([]Loc, len(r.Records))
	r.sums, r.size = make([]uint64, 0, n), 0
	for i := range r.Frames {
		f := &r.Frames[i]
		if !f.Kind.data() {
			return fmt.Errorf("frame %d is a %s: want a group, nodes or a move", i, f.Kind)
		}
		if len(f.Payload) > MaxPayload {
			return fmt.Errorf("%w: frame %d has %d bytes", ErrTooLarge, i, len(f.Payload))
		}
		r.sums = append(r.sums, checksum(f.Payload))
		r.size += frameSize(len(f.Payload))
	}
	trailerBytes := int64(len(r.Ranges)) * trlRangeSize
	for i := range r.Records {
		rec := r.Records[i].record()
		if len(rec.key) == 0 || len(rec.key) > MaxKey || rec.size() > MaxPayload {
			return fmt.Errorf("%w: record %d has a key of %d bytes and a payload of %d",
				ErrTooLarge, i, len(rec.key), len(rec.payload))
		}
		r.size += frameSize(rec.size())
		trailerBytes += trlRecFixed + int64(len(rec.key))
	}
	if r.size > maxBatch || trailerBytes > MaxPayload/2 {
		return fmt.Errorf("%w: a batch of %d bytes", ErrTooLarge, r.size)
	}
	r.size += trailerBytes
	return nil
}

func (r *NewRecord) record() record {
	return record{key: r.Key, recordSeq: r.RecordSeq, moved: r.Moved, payload: r.Payload}
}

// syncRanges makes spilled data durable before a batch depends on it. Large
// takes wait here, each in its own goroutine, and not in the committer.
func (l *Log) syncRanges(ctx context.Context, ranges []Range) error {
	for _, rg := range ranges {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := l.syncRange(rg); err != nil {
			return fmt.Errorf("range %s: %w", rg, spaceError(err))
		}
	}
	return nil
}

func (l *Log) syncRange(rg Range) error {
	s, err := l.acquire(rg.Segment)
	if err != nil {
		return err
	}
	defer l.release(s)
	s.ioMu.Lock()
	defer s.ioMu.Unlock()
	l.mu.RLock()
	stream, size, failed := s.stream, s.size, s.failed
	l.mu.RUnlock()
	switch {
	case !rg.valid():
		return errors.New("is no range")
	case stream == StreamCommit:
		return errors.New("is in the commit stream")
	case size >= int64(rg.End):
		return nil
	case failed != nil:
		// A second sync might succeed without having written anything.
		return fmt.Errorf("the segment ended at %d: %w", size, failed)
	case s.file == nil || s.written.Load() < int64(rg.End):
		return errors.New("is not written: Flush first")
	}
	upTo := s.written.Load()
	if err := l.syncLocked(s); err != nil {
		l.failLocked(s, err)
		return err
	}
	l.mu.Lock()
	s.size = max(s.size, upTo)
	l.mu.Unlock()
	return nil
}

// failLocked ends a spill segment after a failed write or sync: what was not
// synced before is withdrawn. No batch names it, so nothing depends on the
// withdrawal being durable. ioMu is held.
func (l *Log) failLocked(s *segment, cause error) {
	l.mu.Lock()
	if s.failed == nil {
		s.failed = cause
	}
	size := s.size
	pooled := l.unpoolLocked(s)
	l.mu.Unlock()
	s.written.Store(size)
	if s.file != nil {
		// Sealing does it too, but who ran out of space may try again before that.
		if err := truncate(s.file, size); err != nil {
			l.log.Warn("cut segment", "file", s.path, "err", err)
		}
	}
	if pooled {
		l.retire(s)
	}
	l.log.Error("segment is closed after a failed write", "file", s.path, "good", size, "cause", cause)
}

// commitAll writes one batch for all items and answers them.
func (l *Log) commitAll(items []*pending) {
	if err := l.ReadOnly(); err != nil {
		answerAll(items, err)
		return
	}
	if lowest(items) == ReserveNone && !l.reserve.restore(l) {
		// The disk is full: what is left is for those who make room.
		items = l.refuse(items, ReserveFirst, ErrNoSpace)
	}
	if lowest(items) == ReserveFirst && !l.reserve.roomFor(l, sizeOf(items)) {
		items = l.refuse(items, ReserveAll, ErrNoSpace)
	}
	if len(items) == 0 {
		return
	}
	var err error
	_ = l.reserve.try(l, highest(items), func(given Reserve) error {
		if given > ReserveNone {
			items = l.refuse(items, given, err)
		}
		err = l.writeBatch(items)
		return err
	})
	if err != nil {
		l.stats.failed.Add(1)
		answerAll(items, spaceError(err))
	}
}

func answerAll(items []*pending, err error) {
	for _, p := range items {
		p.answer(0, err)
	}
}

func byReserve(a, b *pending) int { return cmp.Compare(a.req.Reserve, b.req.Reserve) }

// lowest and highest are what the items may use of the reserve; the lowest of none is
// ReserveAll.
func lowest(items []*pending) Reserve {
	if len(items) == 0 {
		return ReserveAll
	}
	return slices.MinFunc(items, byReserve).req.Reserve
}

func highest(items []*pending) Reserve { return slices.MaxFunc(items, byReserve).req.Reserve }

func sizeOf(items []*pending) (n int64) {
	for _, p := range items {
		n += p.req.size
	}
	return n
}

// refuse answers those that may use less of the reserve than least, and returns the
// others.
func (l *Log) refuse(items []*pending, least Reserve, err error) []*pending {
	var left []*pending
	for _, p := range items {
		if p.req.Reserve >= least {
			left = append(left, p)
		} else {
			p.answer(0, spaceError(err))
		}
	}
	return left
}

// writeBatch writes and syncs one batch for all items, publishes it, and
// answers them; without items it writes an empty one. On an error nothing of
// it is left, and nobody is answered. It runs in the committer.
func (l *Log) writeBatch(items []*pending) error {
	size := headerSize + trlFixed + frameAlign + sizeOf(items)
	// An empty batch is never a reason for a new segment.
	if l.cur != nil && len(items) > 0 && l.cur.off > 0 && l.cur.off+size > l.cur.capacity {
		l.retire(l.cur)
		l.cur = nil
	}
	if l.cur == nil {
		s, err := l.takeSegment(StreamCommit, size)
		if err != nil {
			return err
		}
		l.cur = s
	}
	s := l.cur
	l.mu.Lock()
	t := trailer{seq: l.nextSeq, epoch: l.epoch, previous: l.last, prevHash: l.lastHash, start: uint32(s.off)}
	l.nextSeq++ // burnt, whatever comes of it
	l.mu.Unlock()

	hash, empty := l.build(s, &t, items)
	if err := l.appendBatch(s); err != nil {
		return l.withdraw(s, err)
	}
	l.stats.streamBytes[StreamCommit].Add(uint64(len(l.buf)))
	l.stats.batches.Add(1)
	l.stats.requests.Add(uint64(len(items)))

	l.mu.Lock()
	if s.first == 0 {
		s.first = t.seq
	}
	s.last = t.seq
	s.empty = s.empty && empty
	s.size = s.off
	s.written.Store(s.off)
	l.proved = max(l.proved, l.last)
	l.last, l.lastHash = t.seq, hash
	if !empty {
		l.lastData = t.seq
	}
	l.mu.Unlock()
	if cap(l.buf) > 2*groupBytes {
		l.buf = nil
	}
	l.wantSpare(s)

	if l.o.OnCommit != nil && !l.finishing {
		c := Committed{Seq: t.seq, Hash: hash}
		for _, p := range items {
			c.Requests = append(c.Requests, p.req)
		}
		l.o.OnCommit(c)
	}
	for _, p := range items {
		p.answer(t.seq, nil)
	}
	return nil
}

// appendBatch writes l.buf at the end of what is good, and syncs it.
func (l *Log) appendBatch(s *segment) error {
	s.ioMu.Lock()
	defer s.ioMu.Unlock()
	if _, err := s.file.WriteAt(l.buf, s.size); err != nil {
		return err
	}
	if l.finishing {
		return nil // sealing the segment syncs it
	}
	return l.syncLocked(s)
}

// withdraw takes a batch back whose write or sync failed. Only when it is
// gone for sure may its callers be told that it never happened.
func (l *Log) withdraw(s *segment, cause error) error {
	l.log.Error("batch failed; its segment is closed", "file", s.path, "good", s.size, "cause", cause)
	s.ioMu.Lock()
	err := truncate(s.file, s.size)
	if err == nil {
		l.stats.syncs.Add(1)
		err = s.file.Sync()
	}
	s.ioMu.Unlock()
	l.mu.Lock()
	s.failed = cause
	s.off = s.size
	l.mu.Unlock()
	l.cur = nil
	if err != nil {
		l.setReadOnly(errors.Join(cause, err))
		return l.ReadOnly()
	}
	l.rootMu.Lock()
	l.rootDue = true
	l.rootMu.Unlock()
	l.retire(s)
	return cause
}

// A batchBuilder lays frames out one after the other.
type batchBuilder struct {
	l       *Log
	s       *segment
	seq     Sequence
	buf     []byte
	headers *blake3.Hasher
	frames  uint32
}

// build lays out a batch in l.buf, fills in where everything will be, and
// returns its hash and whether it is empty.
func (l *Log) build(s *segment, t *trailer, items []*pending) (Hash, bool) {
	if l.headHash == nil {
		l.headHash = blake3.New()
	}
	l.headHash.Reset()
	b := batchBuilder{l: l, s: s, seq: t.seq, buf: l.buf[:0], headers: l.headHash}
	for _, p := range items {
		for i := range p.req.Frames {
			f := &p.req.Frames[i]
			at := b.open()
			b.buf = append(b.buf, f.Payload...)
			p.req.Locs[i] = b.shut(at, f.Kind, p.req.sums[i])
		}
		t.ranges = append(t.ranges, p.req.Ranges...)
	}
	for _, p := range items {
		for i := range p.req.Records {
			r := p.req.Records[i].record()
			at := b.open()
			b.buf = r.append(b.buf)
			loc := b.shut(at, KindRecord, checksum(b.buf[at+headerSize:]))
			p.req.RecordLocs[i] = loc
			t.records = append(t.records, trailerRecord{
				recordSeq: r.recordSeq, offset: loc.Offset, moved: r.moved, key: r.key,
			})
		}
	}
	t.end, t.frames = uint32(s.off), b.frames
	b.headers.Sum(t.headerHash[:0])
	at := b.open()
	b.buf = t.append(b.buf)
	end := len(b.buf)
	b.shut(at, KindTrailer, checksum(b.buf[at+headerSize:]))
	l.buf = b.buf
	hash := batchHash(b.buf[at:at+headerSize], b.buf[at+headerSize:end])
	return hash, t.frames == 0 && len(t.ranges) == 0
}

// open leaves room for a header and returns where it goes.
func (b *batchBuilder) open() int {
	at := len(b.buf)
	b.buf = append(b.buf, zeros[:headerSize]...)
	return at
}

// shut writes the header of the frame that began at at, and pads it.
func (b *batchBuilder) shut(at int, kind Kind, sum uint64) Loc {
	hdr := header{
		kind: kind, stream: StreamCommit, length: uint32(len(b.buf) - at - headerSize),
		offset: uint32(b.s.off), segment: b.s.id, epoch: b.l.epoch, seq: b.seq, sum: sum,
	}
	b.l.seal.put(b.buf[at:], &hdr)
	if kind != KindTrailer {
		b.headers.Write(b.buf[at : at+headerSize])
		b.frames++
	}
	b.buf = append(b.buf, zeros[:at+int(frameSize(int(hdr.length)))-len(b.buf)]...)
	b.s.note(&hdr)
	return hdr.loc()
}
