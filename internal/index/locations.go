package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sort"
	"sync"

	"github.com/cespare/xxhash/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// locationFile is what AddLocation gathered, one location for each ID, sorted by
// ID in blocks of fixed size, each with a checksum. The first eight bytes of
// each block's first ID stay in memory, so a look-up reads one block.
//
// It lives for one rebuild and is not synced.
type locationFile struct {
	f      vfs.File
	path   string
	firsts []uint64
	count  uint64
	blocks sync.Pool
}

const (
	locationSize   = len(ID{}) + 8 + 4 + 4 + 1 + 1 + 1
	locationsBlock = 64
	locationBlock  = locationsBlock*locationSize + 8
)

// located is what is known of an ID before its count is.
type located struct {
	id       ID
	loc      Location
	node     bool
	salvaged bool
}

// salvagedBit is set in the segment of what lies in a damaged frame, so that it
// comes behind all that does not. Segments are numbered from 1 on.
const salvagedBit = 1 << 63

// The sort key of a location is the ID and what the lowest location is chosen
// by; the rest is the value.
func appendLocationKey(dst []byte, l located) []byte {
	dst = append(dst, l.id[:]...)
	segment := l.loc.Segment
	if l.salvaged {
		segment |= salvagedBit
	}
	dst = binary.BigEndian.AppendUint64(dst, segment)
	dst = binary.BigEndian.AppendUint32(dst, l.loc.Offset)
	return append(dst, l.loc.Slot)
}

func appendLocationValue(dst []byte, l located) []byte {
	dst = binary.BigEndian.AppendUint32(dst, l.loc.Length)
	var node byte
	if l.node {
		node = 1
	}
	return append(dst, l.loc.Slots, node)
}

func decodeLocation(b []byte) (l located) {
	l.id = ID(b)
	b = b[len(l.id):]
	l.loc.Segment = binary.BigEndian.Uint64(b)
	l.salvaged = l.loc.Segment&salvagedBit != 0
	l.loc.Segment &^= salvagedBit
	l.loc.Offset = binary.BigEndian.Uint32(b[8:])
	l.loc.Slot = b[12]
	l.loc.Length = binary.BigEndian.Uint32(b[13:])
	l.loc.Slots = b[17]
	l.node = b[18] == 1
	return l
}

// writeLocations makes the file of a sort of locations. The first of each ID is
// the lowest and wins.
func writeLocations(fs vfs.FS, path string, m *merged) (l *locationFile, err error) {
	out, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, err
	}
	l = &locationFile{path: path}
	l.blocks.New = func() any { return new([locationBlock]byte) }
	err = errors.Join(l.write(out, m), out.Close())
	if err == nil {
		l.f, err = fs.Open(path, vfs.RandomReadsOption)
	}
	if err != nil {
		return nil, err
	}
	return l, nil
}

func (l *locationFile) write(out io.Writer, m *merged) error {
	var block []byte
	flush := func() error {
		if len(block) == 0 {
			return nil
		}
		// A short last block is filled up with zeros.
		for len(block) < locationBlock-8 {
			block = append(block, 0)
		}
		block = binary.LittleEndian.AppendUint64(block, xxhash.Sum64(block))
		_, err := out.Write(block)
		block = block[:0]
		return err
	}
	var last ID
	for {
		key, value, err := m.next()
		if err == io.EOF {
			return flush()
		}
		if err != nil {
			return err
		}
		if id := ID(key); l.count == 0 || id != last {
			last = id
		} else {
			continue
		}
		if len(block) == 0 {
			l.firsts = append(l.firsts, prefixOf(key))
		}
		block = append(append(block, key...), value...)
		l.count++
		if len(block) == locationBlock-8 {
			if err := flush(); err != nil {
				return err
			}
		}
	}
}

var errLocations = errors.New("index: file of locations is damaged")

// readBlock reads block i into buf and returns its locations.
func (l *locationFile) readBlock(i int, buf *[locationBlock]byte) ([]byte, error) {
	if _, err := l.f.ReadAt(buf[:], int64(i)*int64(locationBlock)); err != nil {
		return nil, fmt.Errorf("%w: %w", errLocations, err)
	}
	const body = locationBlock - 8
	if binary.LittleEndian.Uint64(buf[body:]) != xxhash.Sum64(buf[:body]) {
		return nil, errLocations
	}
	n := min(l.count-uint64(i)*locationsBlock, locationsBlock)
	return buf[:int(n)*locationSize], nil
}

// lookup may be called by any number of goroutines.
func (l *locationFile) lookup(id ID) (located, bool, error) {
	p := prefixOf(id[:])
	// IDs that start like p are in the last block that starts below p and in
	// those that start with p.
	i := sort.Search(len(l.firsts), func(i int) bool { return l.firsts[i] >= p })
	i = max(i-1, 0)
	buf := l.blocks.Get().(*[locationBlock]byte)
	defer l.blocks.Put(buf)
	for ; i < len(l.firsts) && l.firsts[i] <= p; i++ {
		block, err := l.readBlock(i, buf)
		if err != nil {
			return located{}, false, err
		}
		n := len(block) / locationSize
		at := func(k int) ID { return ID(block[k*locationSize:]) }
		k := sort.Search(n, func(k int) bool { return !less(at(k), id) })
		if k < n && at(k) == id {
			return decodeLocation(block[k*locationSize:]), true, nil
		}
	}
	return located{}, false, nil
}

func less(a, b ID) bool { return string(a[:]) < string(b[:]) }

// locationCursor reads the file from its start.
type locationCursor struct {
	l     *locationFile
	buf   [locationBlock]byte
	rest  []byte
	block int
}

// next returns the next location or false at the end.
func (c *locationCursor) next() (located, bool, error) {
	if len(c.rest) == 0 {
		if c.block == len(c.l.firsts) {
			return located{}, false, nil
		}
		var err error
		if c.rest, err = c.l.readBlock(c.block, &c.buf); err != nil {
			return located{}, false, err
		}
		c.block++
	}
	l := decodeLocation(c.rest)
	c.rest = c.rest[locationSize:]
	return l, true, nil
}

func (l *locationFile) close() error { return l.f.Close() }
