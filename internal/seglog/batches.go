package seglog

import (
	"bytes"
	"errors"
	"sort"

	"github.com/zeebo/blake3"
)

// A foundFrame is a frame of a batch as a scan found it.
type foundFrame struct {
	header
	err error  // not whole
	rec []byte // a record's payload, where payloads are kept
}

// A gap is a run of bytes in which no frame starts, and why.
type gap struct {
	span
	err error
}

// A foundBatch is what stands in a commit segment under one sequence.
type foundBatch struct {
	seg        *segment
	seq        Sequence
	start, end int64 // from the first frame to behind the trailer; as found, if that is lost
	before     span  // bytes between the batch before and this one: batches that are lost
	frames     []foundFrame
	gaps       []gap // bytes within that are no frames
	trailer    *trailer
	trailerLoc Loc
	hash       Hash
	lost       error // why there is no trailer
	whole      bool  // exactly what was written
}

// A batchReader gathers the frames of a commit segment into batches. Batches
// are contiguous, and a batch that failed is the last of its segment.
type batchReader struct {
	sc      *scanner
	seg     *segment
	records bool // keep the payloads of records
	keep    bool // keep entries

	entries []dirEntry // of all frames found
	// gaps are the bytes since the last batch that are no frames; at the end,
	// what follows the last batch.
	gaps []gap
	// covered is where the last batch with a trailer ends; -1 behind one
	// without, of which nobody knows where it ended.
	covered int64

	ahead  scanItem
	peeked bool
}

// next returns the next batch, or nil at the end.
func (r *batchReader) next() (*foundBatch, error) {
	var b *foundBatch
	for {
		it, err := r.peek()
		if err != nil {
			return nil, err
		}
		switch {
		case it == nil, it.frame && b != nil && it.hdr.seq != b.seq:
			if b != nil {
				r.endWithout(b)
			}
			return b, nil
		case !it.frame:
			r.gaps = append(r.gaps, gap{it.span, it.err})
		case it.hdr.kind == KindDirectory:
			r.note(it)
		default:
			r.note(it)
			if b == nil {
				b = &foundBatch{seg: r.seg, seq: it.hdr.seq, start: it.from}
			}
			b.end = it.to
			if it.hdr.kind == KindTrailer {
				r.endWith(b, it)
				r.peeked = false
				return b, nil
			}
			f := foundFrame{header: it.hdr, err: it.err}
			if r.records && it.hdr.kind == KindRecord && it.err == nil {
				f.rec = bytes.Clone(it.payload)
			}
			b.frames = append(b.frames, f)
		}
		r.peeked = false
	}
}

func (r *batchReader) peek() (*scanItem, error) {
	if !r.peeked {
		it, ok, err := r.sc.next()
		if err != nil || !ok {
			return nil, err
		}
		r.ahead, r.peeked = it, true
	}
	return &r.ahead, nil
}

func (r *batchReader) note(it *scanItem) {
	if r.keep {
		r.entries = append(r.entries, entryOf(&it.hdr))
	}
}

// endWithout ends a batch whose trailer was not met. The gaps around it may
// hold its frames, or those of its neighbours.
func (r *batchReader) endWithout(b *foundBatch) {
	b.gaps = r.gaps
	if n := len(r.gaps); b.lost == nil && n > 0 {
		b.lost = r.gaps[n-1].err
	}
	if b.lost == nil {
		b.lost = r.sc.fail(b.end, "the batch ends without a trailer", nil)
	}
	// Gaps behind the last frame stay known: they may be the next batch's.
	r.gaps = nil
	for _, g := range b.gaps {
		if g.from >= b.end {
			r.gaps = append(r.gaps, g)
		}
	}
	r.covered = -1
}

// endWith ends a batch at its trailer.
func (r *batchReader) endWith(b *foundBatch, it *scanItem) {
	b.trailerLoc = it.hdr.loc()
	if it.err != nil {
		b.lost = it.err
		r.endWithout(b)
		return
	}
	t, err := decodeTrailer(it.payload)
	switch {
	case err != nil:
		b.lost = r.sc.fail(it.from, err.Error(), nil)
	case t.seq != it.hdr.seq || int64(t.end) != it.from || t.epoch != it.hdr.epoch:
		b.lost = r.sc.fail(it.from, "the trailer is of another batch", nil)
	}
	if b.lost != nil {
		r.endWithout(b)
		return
	}
	head := make([]byte, headerSize)
	r.sc.seal.put(head, &it.hdr)
	b.hash = batchHash(head, it.payload)
	b.trailer, b.start = t, int64(t.start)
	if r.covered >= 0 && r.covered < b.start {
		b.before = span{r.covered, b.start}
	}

	headers, at, good := blake3.New(), b.start, true
	for i := range b.frames {
		f := &b.frames[i]
		if at < int64(f.offset) {
			b.gaps = append(b.gaps, r.gapAt(at, int64(f.offset)))
		}
		good = good && f.err == nil && int64(f.offset) >= b.start
		at = f.end()
		r.sc.seal.put(head, &f.header)
		headers.Write(head)
	}
	if at < int64(t.end) {
		b.gaps = append(b.gaps, r.gapAt(at, int64(t.end)))
	}
	var sum Hash
	headers.Sum(sum[:0])
	b.whole = good && len(b.gaps) == 0 && sum == t.headerHash &&
		len(b.frames) == int(t.frames) && b.recordsStand()
	r.gaps, r.covered = nil, b.end
}

// gapAt is the gap that a trailer knows of. Where some of it could not be read, that is
// why.
func (r *batchReader) gapAt(from, to int64) gap {
	g := gap{span: span{from, to}}
	for _, met := range r.gaps {
		if met.overlaps(g.span) && (g.err == nil || unreadable(met.err) != nil) {
			g.err = met.err
		}
	}
	return g
}

// failedAt is the error of reading where a frame should be, if that is why there is none.
func (b *foundBatch) failedAt(off uint32) error {
	var f *FrameError
	for _, g := range b.gaps {
		if g.from <= int64(off) && int64(off) < g.to && errors.As(g.err, &f) {
			return f.Err
		}
	}
	return nil
}

// recordsStand reports whether the records are where the trailer says.
func (b *foundBatch) recordsStand() bool {
	n := 0
	for i := range b.frames {
		f := &b.frames[i]
		if f.kind != KindRecord {
			continue
		}
		if n == len(b.trailer.records) || b.trailer.records[n].offset != f.offset {
			return false
		}
		n++
	}
	return n == len(b.trailer.records)
}

// frameAt returns the frame that starts at off, or nil.
func (b *foundBatch) frameAt(off uint32) *foundFrame {
	i := sort.Search(len(b.frames), func(i int) bool { return b.frames[i].offset >= off })
	if i < len(b.frames) && b.frames[i].offset == off {
		return &b.frames[i]
	}
	return nil
}

// empty reports a batch of nothing but a trailer.
func (b *foundBatch) empty() bool {
	return b.trailer != nil && b.trailer.frames == 0 && len(b.trailer.ranges) == 0
}

// damage names everything of a batch that is not whole. Only for batches that
// were proved synced: of others nothing is expected.
func (b *foundBatch) damage() []Damage {
	var all []Damage
	d := func(off, length int64, kind Kind, reason string) *Damage {
		all = append(all, Damage{
			File: b.seg.path, Segment: b.seg.id, Offset: uint32(off), Length: uint32(length),
			Batch: b.seq, Kind: kind, Reason: reason,
		})
		return &all[len(all)-1]
	}
	if b.before.to > b.before.from {
		d(b.before.from, b.before.to-b.before.from, 0, "the batches that stood here are lost").Batch = b.trailer.previous
	}
	for _, g := range b.gaps {
		gap := d(g.from, g.to-g.from, 0, "no frames where there were some")
		for _, r := range b.trailerRecords() {
			if int64(r.offset) >= g.from && int64(r.offset) < g.to {
				gap.Records = append(gap.Records, RecordKey{Key: r.key, RecordSeq: r.recordSeq})
			}
		}
	}
	for i := range b.frames {
		f := &b.frames[i]
		if f.err == nil {
			continue
		}
		bad := d(int64(f.offset), headerSize+int64(f.length), f.kind, reasonOf(f.err))
		for _, r := range b.trailerRecords() {
			if r.offset == f.offset {
				bad.Records = append(bad.Records, RecordKey{Key: r.key, RecordSeq: r.recordSeq})
			}
		}
	}
	switch {
	case b.trailer == nil && b.trailerLoc.Length > 0:
		d(int64(b.trailerLoc.Offset), int64(b.trailerLoc.Length), KindTrailer, reasonOf(b.lost))
	case b.trailer == nil:
		d(b.end, 0, KindTrailer, "the trailer is lost: "+reasonOf(b.lost))
	case !b.whole && len(all) == 0:
		d(b.start, b.end-b.start, 0, "frames and trailer contradict each other")
	}
	return all
}

func (b *foundBatch) trailerRecords() []trailerRecord {
	if b.trailer == nil {
		return nil
	}
	return b.trailer.records
}

// reasonOf returns the bare reason of a FrameError: the place is said elsewhere.
func reasonOf(err error) string {
	var f *FrameError
	if errors.As(err, &f) {
		if f.Err != nil {
			return f.Reason + ": " + f.Err.Error()
		}
		return f.Reason
	}
	return err.Error()
}
