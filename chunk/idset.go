package chunk

// An idSet is the set of the IDs that a writer has seen. A map of the two hundred
// thousand of a full take was 6 % of its CPU time, most of it waiting for memory: this
// one looks at an ID only where 32 bits of it are the same, and does not move IDs when
// it grows. The zero value but for the seed is empty.
type idSet struct {
	at     prints // indexes
	blocks [][]ID // idBlock in each but the last
}

const idBlock = 1024

func newIDSet(seed uint64) idSet { return idSet{at: prints{seed: seed}} }

func (s *idSet) slot(id *ID) (slot *uint64, print uint64) {
	print = s.at.of(id)
	return s.at.slot(print, func(i int) bool { return s.blocks[i/idBlock][i%idBlock] == *id }), print
}

// add adds an ID, and says whether it is new.
func (s *idSet) add(id *ID) bool {
	s.at.reserve()
	slot, print := s.slot(id)
	if *slot != 0 {
		return false
	}
	n := s.at.n
	if n%idBlock == 0 {
		s.blocks = append(s.blocks, make([]ID, 0, min(idBlock, max(1<<leastPrints/2, n))))
	}
	last := &s.blocks[len(s.blocks)-1]
	*last = append(*last, *id)
	s.at.put(slot, print, n)
	return true
}
