package gc

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/snapstore/snapstore/internal/seglog"
)

// moveVersion is the first byte of a move frame's payload.
const moveVersion = 1

const (
	moveHead  = 1 + 3 + 4 + 8
	moveEntry = 8 + 4 + 4
	// maxMoved bounds a move frame: a segment of 1 GiB holds fewer frames.
	maxMoved = 1 << 24
)

// ErrMove: bytes are not what a move frame holds.
var ErrMove = errors.New("malformed move frame")

// encodeMove names the frames of the moved stream that hold some of what was alive in
// the victim. A replay reads their ID tables again and repoints.
func encodeMove(victim seglog.SegmentID, frames []seglog.Loc) []byte {
	le := binary.LittleEndian
	b := make([]byte, 0, moveHead+len(frames)*moveEntry)
	b = append(b, moveVersion, 0, 0, 0)
	b = le.AppendUint32(b, uint32(len(frames)))
	b = le.AppendUint64(b, uint64(victim))
	for _, l := range frames {
		b = le.AppendUint64(b, uint64(l.Segment))
		b = le.AppendUint32(b, l.Offset)
		b = le.AppendUint32(b, l.Length)
	}
	return b
}

// DecodeMove reads a move frame's payload.
func DecodeMove(b []byte) (victim seglog.SegmentID, frames []seglog.Loc, err error) {
	le := binary.LittleEndian
	if len(b) < moveHead || b[0] != moveVersion || b[1]|b[2]|b[3] != 0 {
		return 0, nil, fmt.Errorf("%w: head", ErrMove)
	}
	n := le.Uint32(b[4:])
	if n > maxMoved || uint64(len(b)) != moveHead+uint64(n)*moveEntry {
		return 0, nil, fmt.Errorf("%w: %d frames in %d bytes", ErrMove, n, len(b))
	}
	victim = seglog.SegmentID(le.Uint64(b[8:]))
	frames = make([]seglog.Loc, n)
	for i := range frames {
		e := b[moveHead+i*moveEntry:]
		frames[i] = seglog.Loc{Segment: seglog.SegmentID(le.Uint64(e)), Offset: le.Uint32(e[8:]), Length: le.Uint32(e[12:])}
	}
	return victim, frames, nil
}
