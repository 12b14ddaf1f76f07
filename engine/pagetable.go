package engine

import (
	"iter"
	"math/bits"
	"slices"
)

type pageBytes = [PageSize]byte

// blockPages is how many neighbouring pages share one bitmap word.
const blockPages = 64

// pageTable holds the pages of a section that differ from the store, by index.
// It is not safe for concurrent use.
type pageTable struct {
	blocks map[uint64]*pageBlock
	n      int
}

type pageBlock struct {
	present uint64
	pages   [blockPages]*pageBytes
}

func newPageTable() *pageTable { return &pageTable{blocks: map[uint64]*pageBlock{}} }

func (t *pageTable) get(page uint64) *pageBytes {
	if b := t.blocks[page/blockPages]; b != nil {
		return b.pages[page%blockPages]
	}
	return nil
}

func (t *pageTable) set(page uint64, p *pageBytes) {
	b := t.blocks[page/blockPages]
	if b == nil {
		b = &pageBlock{}
		t.blocks[page/blockPages] = b
	}
	i := page % blockPages
	if b.present&(1<<i) == 0 {
		b.present |= 1 << i
		t.n++
	}
	b.pages[i] = p
}

// truncate forgets every page from the given one on.
func (t *pageTable) truncate(from uint64) {
	for k, b := range t.blocks {
		if (k+1)*blockPages <= from {
			continue
		}
		for i := uint64(0); i < blockPages; i++ {
			if b.present&(1<<i) != 0 && k*blockPages+i >= from {
				b.present &^= 1 << i
				b.pages[i] = nil
				t.n--
			}
		}
		if b.present == 0 {
			delete(t.blocks, k)
		}
	}
}

// all yields the pages in ascending order.
func (t *pageTable) all() iter.Seq2[uint64, *pageBytes] {
	return func(yield func(uint64, *pageBytes) bool) {
		keys := make([]uint64, 0, len(t.blocks))
		for k := range t.blocks {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for _, k := range keys {
			b := t.blocks[k]
			for w := b.present; w != 0; w &= w - 1 {
				i := uint64(bits.TrailingZeros64(w))
				if !yield(k*blockPages+i, b.pages[i]) {
					return
				}
			}
		}
	}
}
