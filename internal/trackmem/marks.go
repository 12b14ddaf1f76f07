package trackmem

import (
	"math/bits"
	"sync/atomic"
	"unsafe"
)

// marks is a bitmap of pages that many goroutines may set bits in, with a
// second level of one bit for each word of the first, so that a memory of
// which little was written is not walked. Both lie in reservations and cost
// memory only where bits were set. Taking bits out excludes setting them; the
// caller sees to that.
type marks struct {
	words, summary []atomic.Uint64
	res            []reservation
}

func newMarks(pages uint64) (marks, error) {
	var m marks
	for _, p := range []struct {
		level *[]atomic.Uint64
		bits  uint64
	}{{&m.words, pages}, {&m.summary, (pages + 63) / 64}} {
		n := (p.bits + 63) / 64
		r, err := reserve(max(n*8, 8), false)
		if err == nil {
			err = r.commit(0, uint64(len(r.bytes)))
		}
		if err != nil {
			m.release()
			return marks{}, err
		}
		m.res = append(m.res, r)
		*p.level = unsafe.Slice((*atomic.Uint64)(unsafe.Pointer(unsafe.SliceData(r.bytes))), n)
	}
	return m, nil
}

func (m *marks) release() {
	for _, r := range m.res {
		_ = r.release() // what was mapped can be unmapped
	}
	*m = marks{}
}

// set puts the pages of [first, end) in, which is not empty.
func (m *marks) set(first, end uint64) {
	for w := first / 64; w <= (end-1)/64; w++ {
		m.or(w, span(w, first, end))
	}
}

func (m *marks) or(w, mask uint64) {
	if m.words[w].Load()&mask == mask {
		return
	}
	m.words[w].Or(mask)
	m.summary[w/64].Or(1 << (w % 64))
}

// has tells whether a page is in.
func (m *marks) has(page uint64) bool { return m.words[page/64].Load()&(1<<(page%64)) != 0 }

// take moves the pages before end into d.
func (m *marks) take(d *DirtySet, end uint64) {
	if end == 0 {
		return
	}
	last := (end - 1) / 64
	for s := uint64(0); s <= last/64; s++ {
		left := uint64(0)
		for sum := m.summary[s].Load(); sum != 0; sum &= sum - 1 {
			w := s*64 + uint64(bits.TrailingZeros64(sum))
			have := m.words[w].Load()
			out := have
			switch {
			case w > last:
				out = 0
			case w == last:
				out &= span(w, 0, end)
			}
			d.or(w, out)
			if have != 0 {
				m.words[w].Store(have &^ out)
			}
			if have != out {
				left |= 1 << (w % 64)
			}
		}
		if m.summary[s].Load() != left {
			m.summary[s].Store(left)
		}
	}
}
