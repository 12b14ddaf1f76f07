package engine_test

import (
	"encoding/binary"
	"math/rand/v2"

	"github.com/snapstore/snapstore/engine"
)

// mix makes pages like those of a canister's memory: a quarter zeros, a tenth
// duplicates, nearly half structured, a fifth random. The same seed gives the
// same pages. Each page has a generator of its own: with one generator for all
// a step of the seed once made neighbours shifted copies of each other.
type mix struct {
	seed uint64
	next uint64
}

func (m *mix) rand() *rand.Rand {
	m.next++
	var s [32]byte
	binary.LittleEndian.PutUint64(s[:], m.seed)
	binary.LittleEndian.PutUint64(s[8:], m.next)
	return rand.New(rand.NewChaCha8(s))
}

// fresh fills a page that was not there before and is not zero.
func (m *mix) fresh(p []byte) {
	r := m.rand()
	if r.IntN(65) < 20 {
		for i := 0; i < len(p); i += 8 {
			binary.LittleEndian.PutUint64(p[i:], r.Uint64())
		}
		return
	}
	// Records as a heap has them: tags, small counters, pointers into a range.
	base := r.Uint64N(1 << 30)
	for i := 0; i < len(p); i += 32 {
		binary.LittleEndian.PutUint32(p[i:], uint32(r.IntN(16)))
		binary.LittleEndian.PutUint32(p[i+4:], uint32(i))
		binary.LittleEndian.PutUint64(p[i+8:], base+r.Uint64N(1<<16))
		binary.LittleEndian.PutUint64(p[i+16:], uint64(r.IntN(1000)))
		binary.LittleEndian.PutUint64(p[i+24:], r.Uint64())
	}
}

// image fills a whole memory.
func (m *mix) image(b []byte) {
	for off := 0; off < len(b); off += engine.PageSize {
		p := b[off : off+engine.PageSize]
		switch k := m.rand().IntN(100); {
		case k < 25:
			clear(p)
		case k < 35 && off > 0:
			j := m.rand().IntN(off/engine.PageSize) * engine.PageSize
			copy(p, b[j:j+engine.PageSize])
		default:
			m.fresh(p)
		}
	}
}

// touch rewrites one page in a hundred, half of them in runs of 16, and calls
// write for each.
func (m *mix) touch(pages int, write func(page int, p []byte)) int {
	r := m.rand()
	dirty := map[int]bool{}
	want := max(pages/100, 1)
	for len(dirty) < want/2 {
		at := r.IntN(pages)
		for i := at; i < min(at+16, pages) && len(dirty) < want/2; i++ {
			dirty[i] = true
		}
	}
	for len(dirty) < want {
		dirty[r.IntN(pages)] = true
	}
	p := make([]byte, engine.PageSize)
	for i := range pages {
		if dirty[i] {
			m.fresh(p)
			write(i, p)
		}
	}
	return len(dirty)
}
