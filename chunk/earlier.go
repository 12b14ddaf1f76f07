package chunk

import "encoding/binary"

// Earlier finds, by ID, pages that a caller has had read to its memory before, so
// that what occurs again further on is copied from there: a tenth of an image's pages,
// and reading one alone costs as much as five of those that lie side by side. It is a
// hint and takes 16 to 32 bytes a page that it knows: of an ID that is 32 bits, and a page
// that it gives is compared with the ID before it is used. Not safe for concurrent use.
type Earlier struct {
	seed  uint64
	mem   []byte
	n     int
	shift uint
	slots []uint64 // 32 bits of an ID, and one more than the page; 0 where nothing is
}

// NewEarlier knows of no page yet. mem, of whole pages, is where they will be. While
// pages are read nobody else writes to what it has given; see PageRef.
func (s *Store) NewEarlier(mem []byte) *Earlier {
	const least = 10 // bits; it grows
	return &Earlier{seed: s.seed, mem: mem, shift: 32 - least, slots: make([]uint64, 1<<least)}
}

// print is what is known of an ID. The seed keeps those who can choose content from
// choosing where it falls.
func (e *Earlier) print(id *ID) uint64 {
	return (binary.LittleEndian.Uint64(id[8:]) ^ e.seed) * 0x9E3779B97F4A7C15 >> 32
}

// slot is where a print is, or would be.
func (e *Earlier) slot(print uint64) *uint64 {
	for at := print >> e.shift; ; at = (at + 1) & uint64(len(e.slots)-1) {
		if s := &e.slots[at]; *s == 0 || *s>>32 == print {
			return s
		}
	}
}

// Add says that page i of the memory has an ID. The first that has it stays.
func (e *Earlier) Add(id ID, i int) {
	if id.IsZero() || uint64(i) >= 1<<32-1 {
		return
	}
	print := e.print(&id)
	s := e.slot(print)
	if *s != 0 {
		return
	}
	*s = print<<32 | uint64(i+1)
	if e.n++; 2*e.n > len(e.slots) && e.shift > 0 {
		old := e.slots
		e.shift--
		e.slots = make([]uint64, 2*len(old))
		for _, v := range old {
			if v != 0 {
				*e.slot(v >> 32) = v
			}
		}
	}
}

// Find gives a page that may have an ID, nil where there is none.
func (e *Earlier) Find(id ID) *[PageSize]byte {
	s := *e.slot(e.print(&id))
	if s == 0 || id.IsZero() {
		return nil
	}
	at := int(uint32(s)-1) * PageSize
	return (*[PageSize]byte)(e.mem[at:])
}
