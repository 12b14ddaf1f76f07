package chunk

// heads finds the first of many refs with an ID. A map of them costs more than
// the reads that it plans: it is some megabytes of fresh memory for each window.
type heads struct {
	seed  uint64
	shift uint
	slots []int32 // index of a ref and one, 0 where nothing is
}

// reset makes room for n refs and empties it.
func (h *heads) reset(n int) {
	bits := uint(4)
	for 1<<bits < 2*n {
		bits++
	}
	h.shift = 64 - bits
	if size := 1 << bits; cap(h.slots) >= size {
		h.slots = h.slots[:size]
		clear(h.slots)
	} else {
		h.slots = make([]int32, size)
	}
}

// slot is where the ref with an ID is, or would be.
func (h *heads) slot(refs []PageRef, id *ID) *int32 {
	at := scatter(id, h.seed) >> h.shift
	for {
		s := &h.slots[at]
		if *s == 0 || refs[*s-1].ID == *id {
			return s
		}
		at = (at + 1) & (1<<(64-h.shift) - 1)
	}
}

// find gives the head of an ID.
func (h *heads) find(refs []PageRef, id *ID) (int32, bool) {
	j := *h.slot(refs, id) - 1
	return j, j >= 0
}

// lead makes ref i the head of its ID, and gives the one before it, or -1.
func (h *heads) lead(refs []PageRef, i int) int32 {
	s := h.slot(refs, &refs[i].ID)
	before := *s - 1
	*s = int32(i) + 1
	return before
}
