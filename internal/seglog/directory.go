package seglog

import (
	"fmt"

	"github.com/zeebo/blake3"
)

// The layout of a directory's payload; docs/format.md shows it as a table.
const (
	dirFirst    = 0
	dirLast     = 8
	dirFrames   = 16
	dirReserved = 20
	dirFixed    = 24

	// An entry, one for each frame of the segment in order of offset.
	dirEntOffset   = 0
	dirEntLength   = 4
	dirEntSum      = 8
	dirEntKind     = 16
	dirEntReserved = 17
	dirEntSize     = 24
)

// A dirEntry is the line of one frame.
type dirEntry struct {
	offset uint32
	length uint32 // of the payload
	sum    uint64
	kind   Kind
}

func entryOf(h *header) dirEntry {
	return dirEntry{offset: h.offset, length: h.length, sum: h.sum, kind: h.kind}
}

func (e *dirEntry) end() int64 { return int64(e.offset) + frameSize(int(e.length)) }

func (e *dirEntry) append(dst []byte) []byte {
	var b [dirEntSize]byte
	le.PutUint32(b[dirEntOffset:], e.offset)
	le.PutUint32(b[dirEntLength:], e.length)
	le.PutUint64(b[dirEntSum:], e.sum)
	b[dirEntKind] = byte(e.kind)
	return append(dst, b[:]...)
}

// A directory lists the frames of a closed segment. ROOT holds the hash of its
// entries even where no directory frame was written: a segment whose frames
// are not exactly those is not the one that was closed.
type directory struct {
	first, last Sequence
	entries     []dirEntry
}

func (d *directory) append(dst []byte) []byte {
	var fixed [dirFixed]byte
	le.PutUint64(fixed[dirFirst:], uint64(d.first))
	le.PutUint64(fixed[dirLast:], uint64(d.last))
	le.PutUint32(fixed[dirFrames:], uint32(len(d.entries)))
	dst = append(dst, fixed[:]...)
	for i := range d.entries {
		dst = d.entries[i].append(dst)
	}
	return dst
}

func decodeDirectory(src []byte) (*directory, error) {
	if len(src) < dirFixed {
		return nil, fmt.Errorf("directory of %d bytes", len(src))
	}
	d := &directory{
		first: Sequence(le.Uint64(src[dirFirst:])),
		last:  Sequence(le.Uint64(src[dirLast:])),
	}
	n, rest := int64(le.Uint32(src[dirFrames:])), src[dirFixed:]
	if int64(len(rest)) != n*dirEntSize || le.Uint32(src[dirReserved:]) != 0 || d.first > d.last {
		return nil, fmt.Errorf("directory with %d bytes for %d frames", len(rest), n)
	}
	if n > 0 {
		d.entries = make([]dirEntry, n)
	}
	var at int64
	for i := range d.entries {
		e := dirEntry{
			offset: le.Uint32(rest[dirEntOffset:]),
			length: le.Uint32(rest[dirEntLength:]),
			sum:    le.Uint64(rest[dirEntSum:]),
			kind:   Kind(rest[dirEntKind]),
		}
		if !e.kind.valid() || e.length > MaxPayload || e.offset%frameAlign != 0 ||
			int64(e.offset) < at || !isZero(rest[dirEntReserved:dirEntSize]) {
			return nil, fmt.Errorf("directory with a malformed entry %d", i)
		}
		at = e.end()
		rest = rest[dirEntSize:]
		d.entries[i] = e
	}
	return d, nil
}

// A dirHasher computes the hash of a directory while its segment is read.
type dirHasher struct {
	h   *blake3.Hasher
	buf []byte
}

func newDirHasher() *dirHasher { return &dirHasher{h: blake3.New()} }

func (d *dirHasher) add(e dirEntry) {
	d.buf = e.append(d.buf[:0])
	d.h.Write(d.buf)
}

func (d *dirHasher) sum() Hash {
	var sum Hash
	d.h.Sum(sum[:0])
	return sum
}

func hashEntries(entries []dirEntry) Hash {
	d := newDirHasher()
	for i := range entries {
		d.add(entries[i])
	}
	return d.sum()
}
