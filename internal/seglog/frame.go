package seglog

import (
	"bytes"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/cespare/xxhash/v2"
	"github.com/zeebo/blake3"
)

// The layout of a frame header; docs/format.md shows it as a table.
const (
	frameAlign   = 64
	frameVersion = 1
	frameMagic   = "SNFR"

	headerSize = 64
	macSize    = 16

	hdrMagic    = 0
	hdrKind     = 4
	hdrVersion  = 5
	hdrStream   = 6
	hdrReserved = 7
	hdrLength   = 8
	hdrOffset   = 12
	hdrSegment  = 16
	hdrEpoch    = 24
	hdrSequence = 32
	hdrSum      = 40
	hdrMAC      = 48
)

// Limits of the format. They bound what a decoder may be made to allocate.
const (
	// MaxPayload is the longest payload of one frame.
	MaxPayload = 64 << 20
	// MaxKey is the longest key of a record.
	MaxKey = 64
	// maxBatch is the most one batch may write; offsets are 32 bits.
	maxBatch = 1 << 30

	minSegmentSize     = 4 << 10
	maxSegmentSize     = 1 << 30
	defaultSegmentSize = 32 << 20
)

// A header describes the frame behind it, and where it must stand.
type header struct {
	kind    Kind
	stream  Stream
	length  uint32 // of the payload
	offset  uint32
	segment SegmentID
	epoch   Epoch
	seq     Sequence // of the batch; 0 for directories and outside the commit stream
	sum     uint64   // xxhash64 of the payload
}

// loc is where the frame stands.
func (h *header) loc() Loc {
	return Loc{Segment: h.segment, Offset: h.offset, Length: headerSize + h.length}
}

// end is the offset behind the frame's padding.
func (h *header) end() int64 { return int64(h.offset) + frameSize(int(h.length)) }

// alignUp rounds up to where the next frame may start.
func alignUp(n int64) int64 { return (n + frameAlign - 1) &^ (frameAlign - 1) }

// frameSize is what a frame with a payload of n bytes takes up.
func frameSize(n int) int64 { return alignUp(headerSize + int64(n)) }

// checksum is what a header says of its payload.
func checksum(payload []byte) uint64 { return xxhash.Sum64(payload) }

// A sealer authenticates headers with the store's frame key. Without that key
// nobody can make bytes that pass for a header, and the segment, offset and
// epoch under the MAC keep a true header from passing at any other place.
type sealer struct {
	pool sync.Pool // of *blake3.Hasher: one is 10 KiB, and every header needs one
}

func newSealer(key [32]byte) *sealer {
	s := &sealer{}
	s.pool.New = func() any {
		h, err := blake3.NewKeyed(key[:])
		if err != nil { // only for keys that are not 32 bytes long
			return blake3.New()
		}
		return h
	}
	return s
}

func (s *sealer) mac(head []byte) (mac [macSize]byte) {
	h := s.pool.Get().(*blake3.Hasher)
	h.Reset()
	h.Write(head)
	var sum [32]byte
	h.Sum(sum[:0])
	s.pool.Put(h)
	copy(mac[:], sum[:])
	return mac
}

// put writes the header of 64 bytes.
func (s *sealer) put(dst []byte, h *header) {
	_ = dst[headerSize-1]
	copy(dst[hdrMagic:], frameMagic)
	dst[hdrKind] = byte(h.kind)
	dst[hdrVersion] = frameVersion
	dst[hdrStream] = byte(h.stream)
	dst[hdrReserved] = 0
	le.PutUint32(dst[hdrLength:], h.length)
	le.PutUint32(dst[hdrOffset:], h.offset)
	le.PutUint64(dst[hdrSegment:], uint64(h.segment))
	le.PutUint64(dst[hdrEpoch:], uint64(h.epoch))
	le.PutUint64(dst[hdrSequence:], uint64(h.seq))
	le.PutUint64(dst[hdrSum:], h.sum)
	mac := s.mac(dst[:hdrMAC])
	copy(dst[hdrMAC:headerSize], mac[:])
}

var (
	errNoHeader   = errors.New("no frame header")
	errBadHeader  = errors.New("frame header does not verify")
	errMisplaced  = errors.New("frame belongs to another place")
	errBadPayload = errors.New("payload does not match its checksum")
)

// parse decodes and authenticates a header, wherever it claims to stand.
func (s *sealer) parse(src []byte) (header, error) {
	if len(src) < headerSize || string(src[:len(frameMagic)]) != frameMagic {
		return header{}, errNoHeader
	}
	mac := s.mac(src[:hdrMAC])
	if subtle.ConstantTimeCompare(mac[:], src[hdrMAC:headerSize]) != 1 {
		return header{}, errBadHeader
	}
	h := header{
		kind:    Kind(src[hdrKind]),
		stream:  Stream(src[hdrStream]),
		length:  le.Uint32(src[hdrLength:]),
		offset:  le.Uint32(src[hdrOffset:]),
		segment: SegmentID(le.Uint64(src[hdrSegment:])),
		epoch:   Epoch(le.Uint64(src[hdrEpoch:])),
		seq:     Sequence(le.Uint64(src[hdrSequence:])),
		sum:     le.Uint64(src[hdrSum:]),
	}
	switch {
	case src[hdrVersion] != frameVersion || src[hdrReserved] != 0:
		return header{}, fmt.Errorf("%w: version %d", errBadHeader, src[hdrVersion])
	case !h.kind.valid():
		return header{}, fmt.Errorf("%w: %s", errBadHeader, h.kind)
	case h.stream < StreamCommit || h.stream > StreamMoved:
		return header{}, fmt.Errorf("%w: %s", errBadHeader, h.stream)
	case h.length > MaxPayload:
		return header{}, fmt.Errorf("%w: payload of %d bytes", errBadHeader, h.length)
	}
	return h, nil
}

// parseAt is parse for the header that must stand at this place. Where the
// cheap fields already tell that it does not, no MAC is computed: a search
// through foreign bytes costs three comparisons a step.
func (s *sealer) parseAt(src []byte, seg SegmentID, off int64, now Epoch) (header, error) {
	if len(src) < headerSize || string(src[:len(frameMagic)]) != frameMagic {
		return header{}, errNoHeader
	}
	if SegmentID(le.Uint64(src[hdrSegment:])) != seg || int64(le.Uint32(src[hdrOffset:])) != off {
		return header{}, errMisplaced
	}
	h, err := s.parse(src)
	if err != nil {
		return header{}, err
	}
	if h.epoch == 0 || h.epoch > now {
		return header{}, fmt.Errorf("%w: epoch %s is yet to come", errMisplaced, h.epoch)
	}
	return h, nil
}

var le = binary.LittleEndian

// isZero reports whether b holds nothing but zeros.
func isZero(b []byte) bool {
	for len(b) > 0 {
		n := min(len(b), len(zeros))
		if !bytes.Equal(b[:n], zeros[:n]) {
			return false
		}
		b = b[n:]
	}
	return true
}

// zeros is read only.
var zeros [4096]byte
