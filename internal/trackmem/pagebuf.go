package trackmem

import (
	"iter"
	"runtime"
	"sync"
)

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

// list makes room for copies of the pages of [first, end), which fill makes.
func (b *PageBuf) list(first, end uint64) {
	if n := b.Len() + int(end-first); n > b.Room() {
		b.Reserve(n)
	}
	for ; first < end; first++ {
		b.index = append(b.index, first)
	}
}

// copyShare is how many copies are worth another goroutine: scattered pages wait for
// memory. In a pause the guest's core is free; where it runs, in a round of pre-copy,
// it shares it.
const copyShare = 512

// fill copies the pages listed from i on from mem.
func (b *PageBuf) fill(mem []byte, i int) {
	n := b.Len() - i
	share := max((n+runtime.GOMAXPROCS(0)-1)/runtime.GOMAXPROCS(0), copyShare)
	var wg sync.WaitGroup
	for ; n > share; i, n = i+share, n-share {
		from := i
		wg.Go(func() { b.fillTo(mem, from, from+share) })
	}
	b.fillTo(mem, i, i+n)
	wg.Wait()
}

func (b *PageBuf) fillTo(mem []byte, i, end int) {
	for i < end {
		// Neighbours in one slab at once.
		n := 1
		for i+n < end && (i+n)%slabPages != 0 && b.index[i+n] == b.index[i]+uint64(n) {
			n++
		}
		from := b.index[i] * PageSize
		copy(b.slabs[i/slabPages][i%slabPages*PageSize:], mem[from:from+uint64(n)*PageSize])
		i += n
	}
}
