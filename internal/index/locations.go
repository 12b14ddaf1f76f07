package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"slices"
	"sort"
	"sync"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// locations is what AddLocation gathered, one location for each ID.
type locations interface {
	// lookup may be called by any number of goroutines.
	lookup(id ID) (located, bool, error)
	// count adds to the count of an ID, or returns false where it keeps none. Any
	// number of goroutines may call it.
	count(id ID, n int64) bool
	// walk gives all in order, with their counts: 0 where none are kept.
	walk() func() (l located, n int64, more bool, err error)
	len() uint64
	close() error
}

// locationTable is locations in memory, for as many as a sorter has room for. It
// keeps the counts as well.
type locationTable struct {
	arena  arena
	items  []item // in order, one of each ID
	counts []atomic.Int64
	// starts is where the items begin whose prefixes, less the first one, agree but
	// for their last shift bits, and at the end how many items there are. IDs are
	// hashes, so these are one or two.
	starts []uint32
	shift  int
}

// newLocationTable takes over what a sorter has in memory, sorted. The first of each
// ID is the lowest and wins.
func newLocationTable(s *sorter) *locationTable {
	s.sort()
	t := &locationTable{arena: s.arena}
	t.items = slices.CompactFunc(s.items, func(a, b item) bool {
		return a.prefix == b.prefix && t.id(a) == t.id(b)
	})
	t.counts = make([]atomic.Int64, len(t.items))
	s.items, s.arena = nil, arena{}
	t.divide()
	return t
}

// divide makes starts: two for an item at most, and two more.
func (t *locationTable) divide() {
	n := len(t.items)
	if n == 0 {
		return
	}
	first, last := t.items[0].prefix, t.items[n-1].prefix
	t.shift = max(0, bits.Len64(last-first)-bits.Len(uint(n)))
	t.starts = make([]uint32, (last-first)>>t.shift+2)
	next := uint64(0)
	for i, it := range t.items {
		for part := (it.prefix - first) >> t.shift; next <= part; next++ {
			t.starts[next] = uint32(i)
		}
	}
	for ; next < uint64(len(t.starts)); next++ {
		t.starts[next] = uint32(n)
	}
}

func (t *locationTable) pair(it item) []byte { return t.arena.from(it.at)[pairOverhead:] }
func (t *locationTable) id(it item) ID       { return ID(t.pair(it)) }

func (t *locationTable) find(id ID) (int, bool) {
	p, n := prefixOf(id[:]), len(t.items)
	if n == 0 || p < t.items[0].prefix || p > t.items[n-1].prefix {
		return 0, false
	}
	part := (p - t.items[0].prefix) >> t.shift
	from, to := int(t.starts[part]), int(t.starts[part+1])
	i := from + sort.Search(to-from, func(i int) bool {
		it := t.items[from+i]
		if it.prefix != p {
			return it.prefix > p
		}
		return !less(t.id(it), id)
	})
	return i, i < to && t.items[i].prefix == p && t.id(t.items[i]) == id
}

func (t *locationTable) lookup(id ID) (located, bool, error) {
	i, ok := t.find(id)
	if !ok {
		return located{}, false, nil
	}
	return decodeLocation(t.pair(t.items[i])), true, nil
}

func (t *locationTable) count(id ID, n int64) bool {
	i, ok := t.find(id)
	if ok {
		t.counts[i].Add(n)
	}
	return ok
}

func (t *locationTable) walk() func() (located, int64, bool, error) {
	i := -1
	return func() (located, int64, bool, error) {
		if i++; i >= len(t.items) {
			return located{}, 0, false, nil
		}
		return decodeLocation(t.pair(t.items[i])), t.counts[i].Load(), true, nil
	}
}

func (t *locationTable) len() uint64  { return uint64(len(t.items)) }
func (t *locationTable) close() error { return nil }

// locationFile is locations on disk, sorted by ID in blocks of fixed size, each with
// a checksum. The first eight bytes of
// each block's first ID stay in memory, so a look-up reads one block.
//
// It lives for one rebuild and is not synced.
type locationFile struct {
	f      vfs.File
	firsts []uint64
	n      uint64
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
	l = &locationFile{}
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
		if id := ID(key); l.n == 0 || id != last {
			last = id
		} else {
			continue
		}
		if len(block) == 0 {
			l.firsts = append(l.firsts, prefixOf(key))
		}
		block = append(append(block, key...), value...)
		l.n++
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
	n := min(l.n-uint64(i)*locationsBlock, locationsBlock)
	return buf[:int(n)*locationSize], nil
}

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

func (l *locationFile) walk() func() (located, int64, bool, error) {
	buf := new([locationBlock]byte)
	var rest []byte
	block := 0
	return func() (at located, kept int64, more bool, err error) {
		if len(rest) == 0 {
			if block == len(l.firsts) {
				return at, 0, false, nil
			}
			if rest, err = l.readBlock(block, buf); err != nil {
				return at, 0, false, err
			}
			block++
		}
		at = decodeLocation(rest)
		rest = rest[locationSize:]
		return at, 0, true, nil
	}
}

func (l *locationFile) count(ID, int64) bool { return false }
func (l *locationFile) len() uint64          { return l.n }
func (l *locationFile) close() error         { return l.f.Close() }
