package workload

import (
	"iter"
	"math/rand/v2"
)

// Sparse chooses pages of a memory of which little is there: what it costs must
// follow what is written, and not how large the memory is. It is not safe for
// concurrent use.
type Sparse struct {
	Pages uint64 // of the memory
	fresh Pages
	order *rand.Rand
}

// NewSparse makes the writer of a memory of size bytes.
func NewSparse(seed, size uint64) *Sparse {
	return &Sparse{Pages: size / PageSize, fresh: Pages{Seed: seed}, order: rand.New(rand.NewPCG(seed, 0x737061))}
}

// Step calls write with n pages, half in runs and half scattered, ascending.
func (s *Sparse) Step(n int, write func(index uint64, page []byte) error) error {
	page := make([]byte, PageSize)
	for _, i := range Choose(s.order, s.Pages, n) {
		s.fresh.Fresh(page)
		if err := write(i, page); err != nil {
			return err
		}
	}
	return nil
}

// Indexes yields n pages, any of them, in no order.
func (s *Sparse) Indexes(n int) iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		for range n {
			if !yield(s.order.Uint64N(s.Pages)) {
				return
			}
		}
	}
}
