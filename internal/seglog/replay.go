package seglog

import (
	"context"
	"fmt"
)

// Replay calls fn for every accepted batch with a higher sequence than after,
// in order. It verifies all it reads. What is not whole is marked where it
// stands, noted in Damage, and no reason to stop. An error is that of fn or ctx.
func (l *Log) Replay(ctx context.Context, after Sequence, fn func(*Batch) error) error {
	return l.replay(ctx, after, true, fn)
}

// Records is Replay of all batches without what lies in ranges, which it does not
// read: for who wants the records, and reads all frames elsewhere.
func (l *Log) Records(ctx context.Context, fn func(*Batch) error) error {
	return l.replay(ctx, 0, false, fn)
}

func (l *Log) replay(ctx context.Context, after Sequence, ranges bool, fn func(*Batch) error) error {
	// One without batches has lost them, if there is anything in it.
	segs := l.commitSegments(func(s *segment) bool { return s.last > after || s.last == 0 && s.size > 0 })
	defer l.releaseAll(segs)
	for _, s := range segs {
		if err := l.replaySegment(ctx, s, after, ranges, fn); err != nil {
			return fmt.Errorf("seglog: replay: %w", err)
		}
	}
	return nil
}

// lastBefore returns the last batch before those of s that is in the table, or
// that may have been dropped.
func (l *Log) lastBefore(s *segment) Sequence {
	l.mu.RLock()
	defer l.mu.RUnlock()
	last := l.floor
	for _, o := range l.segs {
		if o.id < s.id && o.stream == StreamCommit {
			last = max(last, o.last)
		}
	}
	return last
}

// commitSegments returns the matching segments of the commit stream in order,
// each to be released.
func (l *Log) commitSegments(match func(*segment) bool) []*segment {
	l.mu.RLock()
	defer l.mu.RUnlock()
	var segs []*segment
	for _, s := range l.sortedLocked() {
		if s.stream == StreamCommit && match(s) {
			s.refs.Add(1)
			segs = append(segs, s)
		}
	}
	return segs
}

// releaseAll releases all, also those that were not looked at: a reference that
// is kept would hold up the segment's drop for ever.
func (l *Log) releaseAll(segs []*segment) {
	for _, s := range segs {
		l.release(s)
	}
}

// bounds returns what is accepted of a segment.
func (l *Log) bounds(s *segment) (size int64, first, last Sequence) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return s.size, s.first, s.last
}

func (l *Log) replaySegment(ctx context.Context, s *segment, after Sequence, ranges bool, fn func(*Batch) error) error {
	size, first, last := l.bounds(s)
	lost := func(seq Sequence, hash Hash, reason string, off, gap int64) error {
		d := Damage{File: s.path, Segment: s.id, Offset: uint32(off), Batch: seq, Reason: reason}
		l.addDamage(d)
		if gap >= leastBatch {
			l.noteLost(seq)
		}
		if seq <= after {
			return nil
		}
		return fn(&Batch{Seq: seq, Hash: hash, Damaged: fmt.Errorf("%w: %s", ErrDamaged, d)})
	}
	sc, err := l.openScanner(ctx, s, 0, size, true)
	if isTransient(err) {
		return err
	}
	if err != nil {
		return lost(last, Hash{}, err.Error(), 0, size)
	}
	defer sc.close()
	rd := &batchReader{sc: sc, seg: s, records: true}
	var prev *foundBatch
	next, err := rd.next()
	if err != nil {
		return err
	}
	if next != nil && next.trailer == nil && first < next.seq {
		if err := lost(next.seq-1, Hash{}, "the batches that stood here are lost", 0, leastBatch); err != nil {
			return err
		}
	}
	if next != nil && next.trailer != nil && next.start == 0 && next.trailer.previous > l.lastBefore(s) {
		if err := lost(next.trailer.previous, next.trailer.prevHash, "the batches before this segment are lost", 0, leastBatch); err != nil {
			return err
		}
	}
	for next != nil {
		b := next
		if next, err = rd.next(); err != nil {
			return err
		}
		if b.trailer == nil && next != nil && next.trailer != nil && next.trailer.previous == b.seq {
			b.hash = next.trailer.prevHash
		}
		before, hash := b.seq-1, Hash{} // the batch before b, as it was written
		if b.trailer != nil {
			before, hash = b.trailer.previous, b.trailer.prevHash
		}
		switch {
		case prev == nil && b.before.to > b.before.from:
			err = lost(before, hash, "the batches that stood here are lost", b.before.from, b.before.to-b.before.from)
		case prev != nil && before > prev.seq && b.trailer != nil:
			// Whatever became of prev: its trailer may be lost as well.
			err = lost(before, hash, "the batches that stood here are lost", prev.end, b.start-prev.end)
		case prev != nil && before > prev.seq:
			// Sequences follow one another within a segment.
			err = lost(before, hash, "the batches that stood here are lost", prev.end, leastBatch)
		}
		if err != nil {
			return err
		}
		prev = b
		l.addDamage(b.damage()...)
		if b.seq > after {
			batch, err := l.batchOf(ctx, b, ranges)
			if err != nil {
				return err
			}
			if err := fn(batch); err != nil {
				return err
			}
		}
	}
	end := int64(0)
	if prev != nil {
		end = prev.end
	}
	if prev == nil || prev.seq < last {
		return lost(last, l.hashIfLast(last), "the batches that stood here are lost", end, max(size-end, leastBatch))
	}
	for _, g := range rd.gaps {
		l.addDamage(Damage{
			File: s.path, Segment: s.id, Offset: uint32(g.from), Length: uint32(g.to - g.from),
			Reason: "the end of the segment: " + reasonOf(g.err),
		})
	}
	return nil
}

// hashIfLast returns the hash of the last batch, if seq is that.
func (l *Log) hashIfLast(seq Sequence) Hash {
	if last, hash := l.Last(); last == seq {
		return hash
	}
	return Hash{}
}

// batchOf lists what belongs to a batch, and of what is in ranges only if that is
// wanted.
func (l *Log) batchOf(ctx context.Context, b *foundBatch, ranges bool) (*Batch, error) {
	out := &Batch{Seq: b.seq, Hash: b.hash}
	if b.trailer == nil {
		out.Damaged = b.lost
		if (out.Hash == Hash{}) {
			out.Hash = l.hashIfLast(b.seq)
		}
		if b.mayLackRecords() {
			l.noteLost(b.seq)
		}
	}
	for _, g := range b.gaps {
		out.Frames = append(out.Frames, FrameInfo{
			Stream: StreamCommit, Loc: spanLoc(b.seg.id, g.span), Batch: b.seq,
			Damaged: &FrameError{Segment: b.seg.id, File: b.seg.path, Offset: uint32(g.from), Reason: "no frames where there were some", Err: b.failedAt(uint32(g.from))},
		})
	}
	for i := range b.frames {
		f := &b.frames[i]
		if f.kind != KindRecord {
			out.Frames = append(out.Frames, infoOf(&f.header, f.err))
		} else if b.trailer == nil {
			out.Records = append(out.Records, recordOf(b, f, nil))
		}
	}
	for i := range b.trailerRecords() {
		r := &b.trailer.records[i]
		out.Records = append(out.Records, recordOf(b, b.frameAt(r.offset), r))
	}
	if b.trailer != nil && ranges {
		for _, rg := range b.trailer.ranges {
			if err := l.scanRange(ctx, b, rg, out); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// leastBatch is as long as a batch with a record is at least: a frame for it, and
// a trailer that names it. What is shorter was empty, and changed nothing.
const leastBatch = 2*headerSize + (headerSize+trlFixed+trlRecFixed+frameAlign-1)/frameAlign*frameAlign

// mayLackRecords tells whether, in a batch without a trailer, more is gone than
// the trailer: records of which nothing else knows. In doubt it says so.
func (b *foundBatch) mayLackRecords() bool {
	gone := int64(0)
	for _, g := range b.gaps {
		gone += g.to - g.from
	}
	t := trailer{}
	for i := range b.frames {
		if f := &b.frames[i]; f.kind == KindRecord {
			r, err := decodeRecord(f.rec)
			if f.err != nil || err != nil {
				return true // only the trailer knew whose it is
			}
			t.records = append(t.records, trailerRecord{key: r.key})
		}
	}
	if b.trailerLoc.Length > 0 {
		return gone > 0 // the trailer is there, though damaged, and so is no part of it
	}
	// The least record is as long as two frames' headers; one of them may be the
	// list of ranges that the batch depends on.
	return gone > alignUp(int64(headerSize+t.size()))+headerSize
}

func infoOf(h *header, err error) FrameInfo {
	return FrameInfo{Kind: h.kind, Stream: h.stream, Loc: h.loc(), Epoch: h.epoch, Batch: h.seq, Damaged: err}
}

func spanLoc(seg SegmentID, g span) Loc {
	return Loc{Segment: seg, Offset: uint32(g.from), Length: uint32(g.to - g.from)}
}

// recordOf makes the RecordInfo of a record frame that was found, or not, and
// of what the trailer says about it, if the trailer was found.
func recordOf(b *foundBatch, f *foundFrame, t *trailerRecord) RecordInfo {
	var info RecordInfo
	if t != nil {
		info = RecordInfo{Key: t.key, RecordSeq: t.recordSeq, Moved: t.moved, Loc: Loc{Segment: b.seg.id, Offset: t.offset}}
	}
	fail := func(reason string, err error) RecordInfo {
		info.Damaged = &FrameError{Segment: b.seg.id, File: b.seg.path, Offset: info.Loc.Offset, Reason: reason, Err: err}
		return info
	}
	if f == nil {
		return fail("the record is lost", b.failedAt(info.Loc.Offset))
	}
	info.Loc = f.loc()
	if f.err != nil {
		info.Damaged = f.err
		return info
	}
	r, err := decodeRecord(f.rec)
	if err != nil {
		return fail(err.Error(), nil)
	}
	if t != nil && (string(r.key) != string(t.key) || r.recordSeq != t.recordSeq || r.moved != t.moved) {
		return fail("the record is not the one its trailer names", nil)
	}
	return RecordInfo{Key: r.key, RecordSeq: r.recordSeq, Moved: r.moved, Loc: f.loc(), Payload: r.payload}
}

// scanRange adds the frames of a range that a batch depends on. Ranges in
// segments that were dropped since are left out: nothing needs them.
func (l *Log) scanRange(ctx context.Context, b *foundBatch, rg Range, out *Batch) error {
	s, err := l.acquire(rg.Segment)
	if err != nil {
		return ignore(err, ErrSegmentGone)
	}
	defer l.release(s)
	bad := func(g span, err error) {
		out.Frames = append(out.Frames, FrameInfo{Stream: s.stream, Loc: spanLoc(s.id, g), Damaged: err})
		l.addDamage(Damage{
			File: s.path, Segment: s.id, Offset: uint32(g.from), Length: uint32(g.to - g.from),
			Batch: b.seq, Reason: reasonOf(err),
		})
	}
	sc, err := l.openScanner(ctx, s, int64(rg.Start), int64(rg.End), true)
	if isTransient(err) {
		return err
	}
	if err != nil {
		bad(span{int64(rg.Start), int64(rg.End)}, err)
		return nil
	}
	defer sc.close()
	for {
		it, ok, err := sc.next()
		if err != nil || !ok {
			return err
		}
		if !it.frame {
			bad(it.span, it.err)
			continue
		}
		out.Frames = append(out.Frames, infoOf(&it.hdr, it.err))
		if it.err != nil {
			l.addDamage(frameDamage(s, &it.hdr, b.seq, it.err))
		}
	}
}

func frameDamage(s *segment, h *header, batch Sequence, err error) Damage {
	return Damage{
		File: s.path, Segment: s.id, Offset: h.offset, Length: headerSize + h.length,
		Batch: batch, Kind: h.kind, Reason: reasonOf(err),
	}
}

// HashAt returns the hash of an accepted batch: from its own trailer, or from
// the one that names it as the batch before. False means that this log has no
// such batch, or has dropped both.
func (l *Log) HashAt(seq Sequence) (Hash, bool, error) {
	if seq == 0 {
		return Hash{}, true, nil // before the first batch
	}
	if last, hash := l.Last(); seq == last && hash != (Hash{}) {
		return hash, true, nil
	}
	segs := l.commitSegments(func(s *segment) bool { return s.last >= seq })
	defer l.releaseAll(segs)
	for _, s := range segs {
		hash, ok, done, err := l.hashIn(s, seq)
		if err != nil {
			return Hash{}, false, fmt.Errorf("seglog: %w", err)
		}
		if ok || done {
			return hash, ok, nil
		}
	}
	return Hash{}, false, nil
}

// hashIn looks for the hash of batch seq in one segment; done says that it can
// not be in a later one.
func (l *Log) hashIn(s *segment, seq Sequence) (hash Hash, ok, done bool, err error) {
	size, _, _ := l.bounds(s)
	sc, err := l.openScanner(context.Background(), s, 0, size, true)
	if isTransient(err) {
		return Hash{}, false, false, err
	}
	if err != nil {
		return Hash{}, false, false, nil // a segment that is lost tells nothing
	}
	defer sc.close()
	rd := &batchReader{sc: sc, seg: s}
	for {
		b, err := rd.next()
		if err != nil || b == nil {
			return Hash{}, false, false, err
		}
		switch {
		case b.trailer == nil:
		case b.seq == seq:
			return b.hash, true, true, nil
		case b.seq > seq:
			return b.trailer.prevHash, b.trailer.previous == seq, true, nil
		}
	}
}
