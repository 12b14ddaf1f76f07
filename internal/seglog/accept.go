package seglog

import (
	"context"
	"errors"
	"fmt"
)

// A link is the end of the chain of accepted batches.
type link struct {
	seq  Sequence
	hash Hash
	// known is false where the hash is not at hand: the batch stands in a
	// closed segment that Open does not read, or its trailer is lost.
	known bool
}

// accept decides which batches of the open segments happened, and leaves the
// end of the chain in l.last. What decides:
//
//   - A batch is written only after the sync of the one before has returned.
//     So any true frame of batch k proves that every batch before k was synced.
//     So do ROOT and the caller.
//   - Only the last batch can be unproved. It counts if it is whole, and not at
//     all otherwise.
//   - A proved batch counts whatever became of it: each of its frames stands on
//     its own checksum, and what is not whole is damage.
//   - A batch that does not continue the chain is of another history, and ends it.
func (l *Log) accept(r *root, rec *recovered, batches []*foundBatch) error {
	proved := max(r.last, l.o.ProvedSequence)
	next := max(r.nextSeq, l.o.ProvedSequence+1)
	for _, b := range batches {
		proved, next = max(proved, b.seq-1), max(next, b.seq+1)
	}
	if !rec.clean {
		next++ // a batch in flight may have left no trace at all
	}
	l.nextSeq = next

	end := link{}
	for _, s := range l.segs {
		if s.state != stateOpen && s.stream == StreamCommit {
			end.seq = max(end.seq, s.last)
		}
	}
	if end.seq == r.last {
		end.hash, end.known = r.lastHash, true
	}
	var prev *foundBatch
	for _, b := range batches {
		if why := l.follows(r, end, prev, b); why != "" {
			l.addDamage(Damage{
				File: b.seg.path, Segment: b.seg.id, Offset: uint32(b.start), Length: uint32(b.end - b.start),
				Batch: b.seq, Reason: why,
			})
			break
		}
		if !b.whole && b.seq > proved {
			if err := b.readError(); err != nil {
				return fmt.Errorf("can not tell whether batch %s was synced: %w", b.seq, err)
			}
			break // torn, and by the above the last
		}
		l.acceptBatch(rec, end, prev, b)
		end = link{seq: b.seq, hash: b.hash, known: b.trailer != nil}
		prev = b
		rec.accepted = append(rec.accepted, b)
	}
	if end.seq == r.last && !end.known {
		end.hash, end.known = r.lastHash, true
	}
	// Batches at or below the floor may stand in dropped segments; others
	// that are known to have been synced must be somewhere.
	file, off := l.fs.PathJoin(l.o.Dir, rootNameA), int64(0)
	if prev != nil {
		file, off = prev.seg.path, prev.end
	}
	if missing := max(r.last, l.o.ProvedSequence); missing > max(end.seq, r.floor) {
		l.addDamage(Damage{
			File: file, Offset: uint32(off), Batch: missing,
			Reason: fmt.Sprintf("batches after %s through %s were synced and are lost", end.seq, missing),
		})
		rec.keepSpills = true
		l.noteLost(missing)
	}
	if r.last > end.seq {
		end = link{seq: r.last, hash: r.lastHash}
	}
	l.last, l.lastHash = end.seq, end.hash
	return nil
}

// follows returns why b can not be the continuation of the chain, or "".
func (l *Log) follows(r *root, end link, prev, b *foundBatch) string {
	if b.seq <= end.seq {
		return fmt.Sprintf("a batch behind batch %s", end.seq)
	}
	if b.trailer == nil {
		return ""
	}
	before := b.trailer.previous
	switch {
	case before < end.seq:
		return fmt.Sprintf("a batch that follows %s, not %s", before, end.seq)
	case before == end.seq && end.known && b.trailer.prevHash != end.hash,
		before == r.last && before > 0 && b.trailer.prevHash != r.lastHash:
		return fmt.Sprintf("a batch that follows another batch %s", before)
	}
	return ""
}

// acceptBatch enters b in the table and names what of it is not whole.
func (l *Log) acceptBatch(rec *recovered, end link, prev, b *foundBatch) {
	if prev != nil && prev.trailer == nil && b.trailer != nil && b.trailer.previous == prev.seq {
		prev.hash = b.trailer.prevHash
	}
	if (prev == nil || prev.seg != b.seg) && b.trailer != nil && b.trailer.previous > max(end.seq, l.floor) {
		// They ended in an earlier segment that was open, or nowhere.
		d := Damage{
			File: b.seg.path, Segment: b.seg.id, Batch: b.trailer.previous,
			Reason: fmt.Sprintf("batches after %s through %s are lost", end.seq, b.trailer.previous),
		}
		for _, s := range rec.open {
			if s.id < b.seg.id && s.stream == StreamCommit {
				d.File, d.Segment, d.Offset = s.path, s.id, uint32(s.size)
			}
		}
		l.addDamage(d)
		rec.keepSpills = true
		if alone := b.trailer.previous == max(end.seq, l.floor)+1; !alone || b.start == 0 || b.start >= leastBatch {
			l.noteLost(b.trailer.previous)
		}
	}
	l.addDamage(b.damage()...)
	if b.trailer == nil || b.before.to > b.before.from {
		rec.keepSpills = true
	}
	s := b.seg
	if s.first == 0 {
		s.first = b.seq
	}
	s.last = b.seq
	s.empty = s.empty && b.empty()
	s.size = max(s.size, b.end)
}

// readError returns the error that kept a part of b from being read, if one did.
func (b *foundBatch) readError() error {
	errs := []error{b.lost}
	for i := range b.frames {
		errs = append(errs, b.frames[i].err)
	}
	for _, g := range b.gaps {
		errs = append(errs, g.err)
	}
	for _, err := range errs {
		if e := unreadable(err); e != nil {
			return e
		}
	}
	return nil
}

// unreadable returns err if it comes from the file system, not from the content.
func unreadable(err error) error {
	var f *FrameError
	if errors.As(err, &f) && f.Err != nil {
		return err
	}
	return nil
}

// sizeSpills finds out how much of the open bulk and moved segments is
// depended on. The rest was never committed.
func (l *Log) sizeSpills(rec *recovered) error {
	for _, b := range rec.accepted {
		if b.trailer == nil {
			continue
		}
		for _, rg := range b.trailer.ranges {
			s := l.segs[rg.Segment]
			if s == nil || s.state != stateOpen || s.stream == StreamCommit {
				continue
			}
			if s.stream == 0 {
				s.stream = StreamBulk // nothing in it tells, and moved is no different
			}
			s.size = max(s.size, int64(rg.End))
		}
	}
	for _, s := range rec.open {
		if s.missing || s.stream == StreamCommit {
			continue
		}
		if rec.keepSpills {
			entries, err := l.headers(context.Background(), s, -1)
			if err != nil {
				return err
			}
			if n := len(entries); n > 0 {
				s.size = max(s.size, entries[n-1].end())
			}
		}
		st, err := l.fs.Stat(s.path)
		if err != nil {
			return err
		}
		if st.Size() < s.size {
			l.addDamage(Damage{
				File: s.path, Segment: s.id, Offset: uint32(st.Size()),
				Length: uint32(s.size - st.Size()), Reason: "the file ends here",
			})
		}
		s.written.Store(s.size)
	}
	return nil
}

// headers lists the frames in the first listed bytes of a segment (all of it,
// if negative), without reading payloads.
func (l *Log) headers(ctx context.Context, s *segment, listed int64) ([]dirEntry, error) {
	sc, err := l.openScanner(ctx, s, 0, listed, false)
	if err != nil {
		return nil, err
	}
	defer sc.close()
	var entries []dirEntry
	for {
		it, ok, err := sc.next()
		if err != nil || !ok {
			return entries, err
		}
		if it.frame && it.err == nil && it.hdr.kind != KindDirectory {
			entries = append(entries, entryOf(&it.hdr))
		}
	}
}
