package seglog

import "fmt"

// The layout of a record's payload; docs/format.md shows it as a table. The
// key and the caller's bytes follow.
const (
	recKeyLen   = 0
	recFlags    = 1
	recReserved = 2
	recSequence = 8
	recFixed    = 16
)

// A record is the payload of a record frame.
type record struct {
	key       []byte
	recordSeq uint64
	moved     bool
	payload   []byte
}

func (r *record) size() int { return recFixed + len(r.key) + len(r.payload) }

func (r *record) append(dst []byte) []byte {
	var fixed [recFixed]byte
	fixed[recKeyLen] = byte(len(r.key))
	if r.moved {
		fixed[recFlags] = flagMoved
	}
	le.PutUint64(fixed[recSequence:], r.recordSeq)
	dst = append(dst, fixed[:]...)
	dst = append(dst, r.key...)
	return append(dst, r.payload...)
}

// decodeRecord returns parts of src.
func decodeRecord(src []byte) (record, error) {
	if len(src) < recFixed {
		return record{}, fmt.Errorf("record of %d bytes", len(src))
	}
	n, flags := int(src[recKeyLen]), src[recFlags]
	if n == 0 || n > MaxKey || len(src) < recFixed+n || flags&^flagMoved != 0 ||
		!isZero(src[recReserved:recSequence]) {
		return record{}, fmt.Errorf("record with a malformed head")
	}
	return record{
		key:       src[recFixed : recFixed+n : recFixed+n],
		recordSeq: le.Uint64(src[recSequence:]),
		moved:     flags&flagMoved != 0,
		payload:   src[recFixed+n:],
	}, nil
}
