package trackmem

import "iter"

// slabPages is how many pages of a PageBuf lie side by side: 1 MiB.
const slabPages = 256

// PageBuf holds copies of pages in the order in which they were copied. Its
// memory is kept and used again after Reset. The zero value is empty.
type PageBuf struct {
	index []uint64
	slabs [][]byte
}

// Len is how many copies are in b.
func (b *PageBuf) Len() int { return len(b.index) }

// Room is how many copies fit without asking the system for memory.
func (b *PageBuf) Room() int { return len(b.slabs) * slabPages }

// Reserve makes room for n copies in all, and touches it, so that copying in a
// pause does not wait for the system.
func (b *PageBuf) Reserve(n int) {
	for b.Room() < n {
		slab := make([]byte, slabPages*PageSize)
		for i := 0; i < len(slab); i += PageSize {
			slab[i] = 1
		}
		b.slabs = append(b.slabs, slab)
	}
	if cap(b.index) < n {
		b.index = append(make([]uint64, 0, n), b.index...)
	}
}

// Page gives the i-th copy and which page it is of. The bytes are b's and
// change after Reset.
func (b *PageBuf) Page(i int) (uint64, []byte) {
	at := i % slabPages * PageSize
	return b.index[i], b.slabs[i/slabPages][at : at+PageSize : at+PageSize]
}

// All yields the copies and which page each is of, as Page does.
func (b *PageBuf) All() iter.Seq2[uint64, []byte] {
	return func(yield func(uint64, []byte) bool) {
		for i := range b.Len() {
			if !yield(b.Page(i)) {
				return
			}
		}
	}
}

// Reset empties b.
func (b *PageBuf) Reset() { b.index = b.index[:0] }

// Shrink lets memory go that is beyond n copies. Call it on an empty b.
func (b *PageBuf) Shrink(n int) {
	keep := (n + slabPages - 1) / slabPages
	if keep < len(b.slabs) {
		clear(b.slabs[keep:])
		b.slabs = b.slabs[:keep]
	}
}

// add copies the pages of [first, end) from mem.
func (b *PageBuf) add(mem []byte, first, end uint64) {
	for first < end {
		at := len(b.index)
		if at == b.Room() {
			b.Reserve(at + slabPages)
		}
		n := min(end-first, uint64(slabPages-at%slabPages))
		copy(b.slabs[at/slabPages][at%slabPages*PageSize:], mem[first*PageSize:(first+n)*PageSize])
		for i := range n {
			b.index = append(b.index, first+i)
		}
		first += n
	}
}
