package seglog

import (
	"fmt"
	"slices"

	"github.com/zeebo/blake3"
)

// The layout of a trailer's payload; docs/format.md shows it as a table.
const (
	trlSequence   = 0
	trlEpoch      = 8
	trlPrevious   = 16
	trlPrevHash   = 24
	trlHeaderHash = 56
	trlStart      = 88
	trlEnd        = 92
	trlFrames     = 96
	trlRecords    = 100
	trlRanges     = 104
	trlReserved   = 108
	trlFixed      = 112

	// A record in the trailer; its key follows.
	trlRecSeq    = 0
	trlRecOffset = 8
	trlRecKeyLen = 12
	trlRecFlags  = 13
	trlRecRsv    = 14
	trlRecFixed  = 16

	// A range in the trailer.
	trlRangeSegment = 0
	trlRangeStart   = 8
	trlRangeEnd     = 12
	trlRangeSize    = 16

	flagMoved = 1 << 0 // of a record
)

// A trailer ends a batch and says what belongs to it. That it exists says that
// every batch through previous was synced before this one was written.
type trailer struct {
	seq        Sequence
	epoch      Epoch
	previous   Sequence // 0 for the first batch of a store
	prevHash   Hash
	headerHash Hash // over the headers of the batch's frames, in order
	start, end uint32
	frames     uint32
	records    []trailerRecord
	ranges     []Range
}

// A trailerRecord names a record of the batch, so that a record which can not
// be read any more is still known by name.
type trailerRecord struct {
	recordSeq uint64
	offset    uint32
	moved     bool
	key       []byte
}

func (t *trailer) size() int {
	n := trlFixed + len(t.ranges)*trlRangeSize
	for i := range t.records {
		n += trlRecFixed + len(t.records[i].key)
	}
	return n
}

func (t *trailer) append(dst []byte) []byte {
	var fixed [trlFixed]byte
	le.PutUint64(fixed[trlSequence:], uint64(t.seq))
	le.PutUint64(fixed[trlEpoch:], uint64(t.epoch))
	le.PutUint64(fixed[trlPrevious:], uint64(t.previous))
	copy(fixed[trlPrevHash:], t.prevHash[:])
	copy(fixed[trlHeaderHash:], t.headerHash[:])
	le.PutUint32(fixed[trlStart:], t.start)
	le.PutUint32(fixed[trlEnd:], t.end)
	le.PutUint32(fixed[trlFrames:], t.frames)
	le.PutUint32(fixed[trlRecords:], uint32(len(t.records)))
	le.PutUint32(fixed[trlRanges:], uint32(len(t.ranges)))
	dst = append(dst, fixed[:]...)
	for i := range t.records {
		r := &t.records[i]
		var rec [trlRecFixed]byte
		le.PutUint64(rec[trlRecSeq:], r.recordSeq)
		le.PutUint32(rec[trlRecOffset:], r.offset)
		rec[trlRecKeyLen] = byte(len(r.key))
		if r.moved {
			rec[trlRecFlags] = flagMoved
		}
		dst = append(dst, rec[:]...)
		dst = append(dst, r.key...)
	}
	for _, r := range t.ranges {
		var rg [trlRangeSize]byte
		le.PutUint64(rg[trlRangeSegment:], uint64(r.Segment))
		le.PutUint32(rg[trlRangeStart:], r.Start)
		le.PutUint32(rg[trlRangeEnd:], r.End)
		dst = append(dst, rg[:]...)
	}
	return dst
}

// decodeTrailer copies what it keeps of src.
func decodeTrailer(src []byte) (*trailer, error) {
	if len(src) < trlFixed {
		return nil, fmt.Errorf("trailer of %d bytes", len(src))
	}
	t := &trailer{
		seq:      Sequence(le.Uint64(src[trlSequence:])),
		epoch:    Epoch(le.Uint64(src[trlEpoch:])),
		previous: Sequence(le.Uint64(src[trlPrevious:])),
		start:    le.Uint32(src[trlStart:]),
		end:      le.Uint32(src[trlEnd:]),
		frames:   le.Uint32(src[trlFrames:]),
	}
	copy(t.prevHash[:], src[trlPrevHash:])
	copy(t.headerHash[:], src[trlHeaderHash:])
	records, ranges := int64(le.Uint32(src[trlRecords:])), int64(le.Uint32(src[trlRanges:]))
	switch {
	case t.seq == 0 || t.epoch == 0 || t.previous >= t.seq:
		return nil, fmt.Errorf("trailer of batch %s after %s in epoch %s", t.seq, t.previous, t.epoch)
	case t.start > t.end || t.start%frameAlign != 0 || t.end%frameAlign != 0:
		return nil, fmt.Errorf("trailer of bytes %d to %d", t.start, t.end)
	case int64(t.frames) > int64(t.end-t.start)/frameAlign || records > int64(t.frames):
		return nil, fmt.Errorf("trailer with %d frames and %d records in %d bytes", t.frames, records, t.end-t.start)
	case le.Uint32(src[trlReserved:]) != 0:
		return nil, fmt.Errorf("trailer with reserved bits")
	}
	rest := src[trlFixed:]
	if records*trlRecFixed+ranges*trlRangeSize > int64(len(rest)) {
		return nil, fmt.Errorf("trailer with %d records and %d ranges in %d bytes", records, ranges, len(src))
	}
	if records > 0 {
		t.records = make([]trailerRecord, records)
	}
	after := int64(t.start) - 1
	for i := range t.records {
		if len(rest) < trlRecFixed {
			return nil, fmt.Errorf("trailer ends within record %d", i)
		}
		n, flags := int(rest[trlRecKeyLen]), rest[trlRecFlags]
		r := trailerRecord{
			recordSeq: le.Uint64(rest[trlRecSeq:]),
			offset:    le.Uint32(rest[trlRecOffset:]),
			moved:     flags&flagMoved != 0,
		}
		if n == 0 || n > MaxKey || flags&^flagMoved != 0 || le.Uint16(rest[trlRecRsv:]) != 0 ||
			len(rest) < trlRecFixed+n || r.offset%frameAlign != 0 ||
			int64(r.offset) <= after || r.offset >= t.end {
			return nil, fmt.Errorf("trailer with a malformed record %d", i)
		}
		r.key = append([]byte(nil), rest[trlRecFixed:trlRecFixed+n]...)
		after = int64(r.offset)
		rest = rest[trlRecFixed+n:]
		t.records[i] = r
	}
	if int64(len(rest)) != ranges*trlRangeSize {
		return nil, fmt.Errorf("trailer with %d bytes for %d ranges", len(rest), ranges)
	}
	if ranges > 0 {
		t.ranges = make([]Range, ranges)
	}
	for i := range t.ranges {
		r := Range{
			Segment: SegmentID(le.Uint64(rest[trlRangeSegment:])),
			Start:   le.Uint32(rest[trlRangeStart:]),
			End:     le.Uint32(rest[trlRangeEnd:]),
		}
		if !r.valid() {
			return nil, fmt.Errorf("trailer with the malformed range %s", r)
		}
		rest = rest[trlRangeSize:]
		t.ranges[i] = r
	}
	return t, nil
}

func (r Range) valid() bool {
	return r.Segment != 0 && r.Start < r.End && r.Start%frameAlign == 0 && r.End%frameAlign == 0
}

// batchHash is the name of a batch: over the trailer's header and payload, and
// through them over everything before.
func batchHash(head, payload []byte) Hash {
	return blake3.Sum256(slices.Concat(head, payload)) // a hasher has 11 KB, most trailers less than one
}
