package pagehash

import (
	"encoding/binary"

	"golang.org/x/sys/cpu"
)

// Flags of BLAKE3 that the kernels are told; those of chunks they know.
const (
	flagParent = 1 << 2
	flagRoot   = 1 << 3
)

// values are chaining values of all lanes: a word of each lane, then the next
// word. With eight lanes, half of it is used.
type values = [8 * 16]uint32

// supported says whether the processor has what a kind needs and the operating
// system saves the registers; cpu looks at both.
func supported(k Kind) bool {
	switch k {
	case Portable:
		return true
	case AVX2:
		return cpu.X86.HasAVX2
	case AVX512:
		return cpu.X86.HasAVX512F
	}
	return false
}

func (k Kind) chunks(out *values, pages *[4]*byte, ahead uintptr) {
	if k == AVX512 {
		chunksAVX512(out, pages, ahead)
		return
	}
	chunksAVX2(out, pages, ahead)
}

func (k Kind) parents(out, a, b *values, flags uint32) {
	if k == AVX512 {
		parentsAVX512(out, a, b, flags)
		return
	}
	parentsAVX2(out, a, b, flags)
}

// hash hashes a batch of at least one page, in at most four sets of pages; a set
// is what the lanes hold. Where pages are too few, lanes repeat others.
func (k Kind) hash(b *batch) {
	set := k.most() / 4
	sets := (b.n + set - 1) / set
	var v [4]values
	for s := range sets {
		var pages [4]*byte
		for i := range set {
			pages[i] = &b.pages[min(s*set+i, b.n-1)][0]
		}
		// Four chunks of a page are more streams than processors foresee. As
		// long as pages are neighbours, what is read next is a set further;
		// where they are not, a wrong guess fetches a little too much.
		ahead := 0
		if s < sets-1 || b.more {
			ahead = set * PageSize
		}
		k.chunks(&v[s], &pages, uintptr(ahead))
	}
	k.parents(&v[0], &v[0], &v[min(1, sets-1)], flagParent)
	second := &v[0]
	if sets > 2 {
		second = &v[2]
		k.parents(second, &v[2], &v[sets-1], flagParent)
	}
	k.parents(&v[0], &v[0], second, flagParent|flagRoot)
	// Each joining put one set's lanes behind the other's in each 128-bit part,
	// and a part is a page of a set: lanes count the sets first.
	for i := range b.n {
		lane := i%set*4 + i/set
		for w := range 8 {
			binary.LittleEndian.PutUint32(b.sums[i][4*w:], v[0][w*set*4+lane])
		}
	}
}
