package trackmem

import (
	"iter"
	"math/bits"
)

// DirtySet is a set of page indexes. The zero value is empty. It is not safe
// for concurrent use.
type DirtySet struct {
	words []uint64
	n     int
}

// Len is how many pages are in d.
func (d *DirtySet) Len() int { return d.n }

// Has tells whether a page is in d.
func (d *DirtySet) Has(page uint64) bool {
	w := page / 64
	return w < uint64(len(d.words)) && d.words[w]&(1<<(page%64)) != 0
}

// Add puts a page in.
func (d *DirtySet) Add(page uint64) { d.or(page/64, 1<<(page%64)) }

// AddRange puts the pages from first up to, not including, end in.
func (d *DirtySet) AddRange(first, end uint64) {
	if first >= end {
		return
	}
	d.room((end - 1) / 64) // once, not word by word
	for w := first / 64; w <= (end-1)/64; w++ {
		d.or(w, span(w, first, end))
	}
}

// span is the bits of word w that are within [first, end), which must touch it.
func span(w, first, end uint64) uint64 {
	mask := ^uint64(0)
	if w == first/64 {
		mask <<= first % 64
	}
	if w == (end-1)/64 {
		mask &= ^uint64(0) >> (63 - (end-1)%64)
	}
	return mask
}

func (d *DirtySet) room(w uint64) {
	if n := int(w) + 1 - len(d.words); n > 0 {
		d.words = append(d.words, make([]uint64, n)...)
	}
}

func (d *DirtySet) or(w, mask uint64) {
	if mask == 0 {
		return
	}
	d.room(w)
	d.n += bits.OnesCount64(mask &^ d.words[w])
	d.words[w] |= mask
}

// Union puts all pages of o in.
func (d *DirtySet) Union(o *DirtySet) {
	if n := len(o.words); n > 0 {
		d.room(uint64(n - 1))
	}
	for w, mask := range o.words {
		d.or(uint64(w), mask)
	}
}

// Remove takes a page out.
func (d *DirtySet) Remove(page uint64) {
	if d.Has(page) {
		d.words[page/64] &^= 1 << (page % 64)
		d.n--
	}
}

// RemoveFrom takes out the pages from first on.
func (d *DirtySet) RemoveFrom(first uint64) {
	for w := first / 64; w < uint64(len(d.words)); w++ {
		gone := d.words[w]
		if w == first/64 {
			gone &= ^uint64(0) << (first % 64)
		}
		d.n -= bits.OnesCount64(gone)
		d.words[w] &^= gone
	}
}

// Clear empties d and keeps its room.
func (d *DirtySet) Clear() {
	clear(d.words)
	d.n = 0
}

// Ranges yields first and end of each run of pages, ascending.
func (d *DirtySet) Ranges() iter.Seq2[uint64, uint64] {
	return func(yield func(uint64, uint64) bool) {
		for at, limit := uint64(0), uint64(len(d.words))*64; ; {
			first := d.next(at, limit, 0)
			if first == limit {
				return
			}
			at = d.next(first, limit, ^uint64(0))
			if !yield(first, at) {
				return
			}
		}
	}
}

// next finds the first page from at on whose bit differs from flip's.
func (d *DirtySet) next(at, limit, flip uint64) uint64 {
	for at < limit {
		if w := (d.words[at/64] ^ flip) >> (at % 64); w != 0 {
			return at + uint64(bits.TrailingZeros64(w))
		}
		at = (at/64 + 1) * 64
	}
	return limit
}

// Pages yields the pages, ascending.
func (d *DirtySet) Pages() iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		for i, w := range d.words {
			for ; w != 0; w &= w - 1 {
				if !yield(uint64(i)*64 + uint64(bits.TrailingZeros64(w))) {
					return
				}
			}
		}
	}
}
