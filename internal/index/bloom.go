package index

import (
	"encoding/binary"
	"math/bits"
	"sync/atomic"
)

const (
	// bloomBitsPerID keeps false positives of a full layer near 4 in 100,000.
	bloomBitsPerID = 28
	// A block is one cache line. An ID sets one bit in each word of its block,
	// so a look-up costs one cache miss.
	blockWords = 8
	blockBits  = blockWords * 64
	blockBytes = blockBits / 8
)

// bloomLayer is a blocked Bloom filter of a fixed size. Adding and asking may run at
// the same time on any number of goroutines; an add is seen by whoever is
// ordered after it.
type bloomLayer struct {
	words  []uint64
	blocks uint64
	// capacity is the number of IDs it was made for.
	capacity uint64
	added    atomic.Uint64
}

func newLayer(capacity uint64) *bloomLayer {
	capacity = max(capacity, 1)
	blocks := (capacity*bloomBitsPerID + blockBits - 1) / blockBits
	return &bloomLayer{words: make([]uint64, blocks*blockWords), blocks: blocks, capacity: capacity}
}

// place turns an ID into a block and the bits in it. IDs are hashes already, but
// who writes pages can choose among them; the seed keeps him from filling one
// block.
func (b *bloomLayer) place(id *ID, seed uint64) (block []uint64, mask uint64) {
	x := binary.LittleEndian.Uint64(id[:8]) ^ bits.RotateLeft64(binary.LittleEndian.Uint64(id[16:]), 17) ^ seed
	y := binary.LittleEndian.Uint64(id[8:]) ^ bits.RotateLeft64(binary.LittleEndian.Uint64(id[24:]), 31) + seed
	hi, lo := bits.Mul64(x|1, 0x9e3779b97f4a7c15)
	h := hi ^ lo ^ y
	n, _ := bits.Mul64(h, b.blocks)
	// 8 words take 6 bits each.
	h2, l2 := bits.Mul64(y^bits.RotateLeft64(x, 29), 0xd6e8feb86659fd93)
	return b.words[n*blockWords:][:blockWords:blockWords], h2 ^ l2
}

// add reports whether the ID was not yet there.
func (b *bloomLayer) add(id *ID, seed uint64) bool {
	block, mask := b.place(id, seed)
	fresh := false
	for i := range block {
		bit := uint64(1) << (mask & 63)
		mask >>= 6
		if atomic.LoadUint64(&block[i])&bit == 0 {
			atomic.OrUint64(&block[i], bit)
			fresh = true
		}
	}
	if fresh {
		b.added.Add(1)
	}
	return fresh
}

// touch reads the block of an ID, for who will ask for it soon.
func (b *bloomLayer) touch(id *ID, seed uint64) {
	block, _ := b.place(id, seed)
	atomic.LoadUint64(&block[0])
}

func (b *bloomLayer) has(id *ID, seed uint64) bool {
	block, mask := b.place(id, seed)
	for i := range block {
		if atomic.LoadUint64(&block[i])>>(mask&63)&1 == 0 {
			return false
		}
		mask >>= 6
	}
	return true
}

func (b *bloomLayer) full() bool { return b.added.Load() >= b.capacity }
