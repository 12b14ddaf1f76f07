package workload

import (
	"math/rand/v2"
	"slices"
)

// Image is a memory that changes. It is not safe for concurrent use; Step writes
// into Mem.
type Image struct {
	Mem   []byte
	pages Pages
	order *rand.Rand
}

// Mix fills mem, of whole pages, as the memory of a canister is: 25 % zero
// pages, 10 % duplicates of earlier ones, 45 % structured, 20 % random.
func Mix(seed uint64, mem []byte) *Image {
	clear(mem)
	m := &Image{Mem: mem[:len(mem)/PageSize*PageSize], pages: Pages{Seed: seed}, order: rand.New(rand.NewPCG(seed, 0x6d6978))}
	for off := 0; off < len(m.Mem); off += PageSize {
		p := m.Mem[off : off+PageSize]
		switch k := m.order.IntN(100); {
		case k < zeroShare:
		case k < zeroShare+duplicateShare && off > 0:
			from := m.order.IntN(off/PageSize) * PageSize
			copy(p, m.Mem[from:from+PageSize])
		default:
			m.pages.Fresh(p)
		}
	}
	return m
}

// PageCount is how many pages the image has.
func (m *Image) PageCount() int { return len(m.Mem) / PageSize }

// Page is one of them.
func (m *Image) Page(i uint64) []byte { return m.Mem[i*PageSize : (i+1)*PageSize] }

// Step rewrites a share of the pages, one at least, half of them in aligned
// runs of 16 and half scattered, and returns their indexes, ascending. Every
// rewritten page is new.
func (m *Image) Step(share float64) []uint64 {
	dirty := Choose(m.order, uint64(m.PageCount()), max(1, int(share*float64(m.PageCount()))))
	for _, i := range dirty {
		m.pages.Fresh(m.Page(i))
	}
	return dirty
}

// run is how many neighbours are rewritten together.
const run = 16

// Choose picks n of pages, half in aligned runs of 16 and half scattered, in
// ascending order.
func Choose(r *rand.Rand, pages uint64, n int) []uint64 {
	n = min(n, int(min(pages, 1<<40)))
	seen := make(map[uint64]struct{}, n)
	add := func(i uint64) {
		if i < pages && len(seen) < n {
			seen[i] = struct{}{}
		}
	}
	for half := n / 2; len(seen) < half; {
		at := r.Uint64N((pages+run-1)/run) * run
		for i := range uint64(run) {
			if len(seen) < half {
				add(at + i)
			}
		}
	}
	for len(seen) < n {
		add(r.Uint64N(pages))
	}
	out := make([]uint64, 0, n)
	for i := range seen {
		out = append(out, i)
	}
	slices.Sort(out)
	return out
}
