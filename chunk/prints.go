package chunk

import (
	"encoding/binary"
	"math/bits"
)

// scatter says where an ID falls, from its highest bit on. IDs are hashes already; the
// seed keeps those who can choose content from choosing where it falls.
func scatter(id *ID, seed uint64) uint64 {
	return (binary.LittleEndian.Uint64(id[8:]) ^ seed) * 0x9E3779B97F4A7C15
}

// prints is a table of numbers by 32 bits of an ID each, which stay when it grows. The
// zero value but for the seed is empty.
type prints struct {
	seed  uint64
	n     int
	shift uint
	slots []uint64 // 32 bits of an ID, and one more than its number; 0 where nothing is
}

const leastPrints = 7 // bits of slots: all that a small take sees

// of is what is known of an ID.
func (p *prints) of(id *ID) uint64 { return scatter(id, p.seed) >> 32 }

// slot is where a number with this print is of which same holds, or the first free
// place. There are slots.
func (p *prints) slot(print uint64, same func(number int) bool) *uint64 {
	for at := print >> p.shift; ; at = (at + 1) & uint64(len(p.slots)-1) {
		if s := &p.slots[at]; *s == 0 || *s>>32 == print && same(number(*s)) {
			return s
		}
	}
}

// number is what a slot that is not free holds.
func number(slot uint64) int { return int(uint32(slot)) - 1 }

// expect empties the table, and makes room for n numbers, in what it has if that is
// enough.
func (p *prints) expect(n int) {
	size := 1 << leastPrints
	for size < 2*n && size < 1<<32 {
		size *= 2
	}
	if len(p.slots) < size {
		p.slots = make([]uint64, size)
	} else {
		clear(p.slots)
	}
	p.n, p.shift = 0, uint(32-bits.TrailingZeros(uint(len(p.slots))))
}

// put fills a free slot.
func (p *prints) put(slot *uint64, print uint64, number int) {
	*slot = print<<32 | uint64(number+1)
	p.n++
}

// reserve makes room for one more.
func (p *prints) reserve() {
	switch {
	case 2*p.n < len(p.slots), p.slots != nil && p.shift == 0:
		return
	case p.slots == nil:
		p.expect(0)
		return
	}
	old := p.slots
	p.shift--
	p.slots = make([]uint64, 2*len(old))
	none := func(int) bool { return false } // each is another
	for _, v := range old {
		if v != 0 {
			*p.slot(v>>32, none) = v
		}
	}
}
