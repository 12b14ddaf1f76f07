package chunk

import "encoding/binary"

// An idSet is the set of the IDs that a writer has seen. A map of the two hundred
// thousand of a full take was 6 % of its CPU time, most of it waiting for memory: this
// one looks at an ID only where 32 bits of it are the same, and does not move IDs when
// it grows. The seed keeps those who can choose content from choosing where it falls.
// The zero value but for the seed is empty.
type idSet struct {
	seed   uint64
	n      int
	shift  uint
	slots  []uint64 // 32 bits of an ID, and one more than its index; 0 where nothing is
	blocks [][]ID   // idBlock in each but the last
}

const (
	idBlock      = 1024
	idLeastSlots = 7 // bits: all that a small take sees
)

func (s *idSet) at(i int) *ID { return &s.blocks[i/idBlock][i%idBlock] }

// slot is where an ID is, or would be, and what is known of it there.
func (s *idSet) slot(id *ID) (slot *uint64, print uint64) {
	print = (binary.LittleEndian.Uint64(id[8:]) ^ s.seed) * 0x9E3779B97F4A7C15 >> 32
	for at := print >> s.shift; ; at = (at + 1) & uint64(len(s.slots)-1) {
		v := &s.slots[at]
		if *v == 0 || *v>>32 == print && *s.at(int(uint32(*v)) - 1) == *id {
			return v, print
		}
	}
}

func (s *idSet) has(id *ID) bool {
	if s.n == 0 {
		return false
	}
	slot, _ := s.slot(id)
	return *slot != 0
}

// add adds an ID, and says whether it is new.
func (s *idSet) add(id *ID) bool {
	if 2*s.n >= len(s.slots) {
		s.grow()
	}
	slot, print := s.slot(id)
	if *slot != 0 {
		return false
	}
	if s.n%idBlock == 0 {
		s.blocks = append(s.blocks, make([]ID, 0, min(idBlock, max(1<<idLeastSlots/2, s.n))))
	}
	last := &s.blocks[len(s.blocks)-1]
	*last = append(*last, *id)
	s.n++
	*slot = print<<32 | uint64(s.n)
	return true
}

func (s *idSet) grow() {
	old := s.slots
	if old == nil {
		s.shift = 32 - idLeastSlots
		s.slots = make([]uint64, 1<<idLeastSlots)
		return
	}
	s.shift--
	s.slots = make([]uint64, 2*len(old))
	for _, v := range old {
		if v == 0 {
			continue
		}
		at := v >> 32 >> s.shift
		for s.slots[at] != 0 {
			at = (at + 1) & uint64(len(s.slots)-1)
		}
		s.slots[at] = v
	}
}
