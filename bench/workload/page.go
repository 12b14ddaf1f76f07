package workload

import (
	"encoding/binary"
	"math/rand/v2"
)

// PageSize is the grain of everything here, in bytes.
const PageSize = 4096

// Pages makes pages that were never there before. Each has a generator of its
// own, keyed by the seed and the page's number in the order of making. The zero
// value is seed 0; it is not safe for concurrent use.
type Pages struct {
	Seed uint64
	next uint64
	r    rand.ChaCha8
}

// source is the generator of the next page or decision.
func (p *Pages) source() *rand.Rand {
	p.next++
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], p.Seed)
	binary.LittleEndian.PutUint64(key[8:], p.next)
	p.r.Seed(key)
	return rand.New(&p.r)
}

// Random fills a page that does not compress.
func (p *Pages) Random(page []byte) {
	p.source()
	_, _ = p.r.Read(page) // never fails
}

// object is the size of one in a structured page.
const object = 48

// Structured fills a page with objects of 48 bytes as a heap has them: the
// address of a class, a size and a tag, a pointer near the last one, a counter,
// a word of five random bytes, and one that is mostly empty. zstd makes 0.34 of
// a page, s2 0.53 of sixteen.
func (p *Pages) Structured(page []byte) {
	r := p.source()
	base, class := r.Uint64N(1<<30), r.Uint64N(1<<24)<<16
	for i := 0; i+object <= len(page); i += object {
		o := page[i : i+object]
		binary.LittleEndian.PutUint64(o, class+64*r.Uint64N(4))
		binary.LittleEndian.PutUint32(o[8:], object)
		binary.LittleEndian.PutUint32(o[12:], uint32(r.IntN(16)))
		binary.LittleEndian.PutUint64(o[16:], base+r.Uint64N(1<<16))
		binary.LittleEndian.PutUint64(o[24:], uint64(r.IntN(1000)))
		binary.LittleEndian.PutUint64(o[32:], r.Uint64()>>24)
		binary.LittleEndian.PutUint64(o[40:], 0)
		if r.IntN(4) == 0 {
			binary.LittleEndian.PutUint64(o[40:], r.Uint64()>>32)
		}
	}
	clear(page[len(page)/object*object:])
}

// Shares of the ideal mix, in percent of all pages. The rest is random.
const (
	zeroShare       = 25
	duplicateShare  = 10
	structuredShare = 45
)

// Fresh fills a page in the mix's proportion of structured and random ones.
func (p *Pages) Fresh(page []byte) {
	const random = 100 - zeroShare - duplicateShare - structuredShare
	if p.source().IntN(random+structuredShare) < random {
		p.Random(page)
		return
	}
	p.Structured(page)
}
