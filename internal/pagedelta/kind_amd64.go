package pagedelta

import "golang.org/x/sys/cpu"

// supported says whether the processor has what a kind needs and the operating
// system saves the registers; cpu looks at both.
func supported(k kind) bool {
	return k == portable || cpu.X86.HasAVX2 && cpu.X86.HasBMI1 && cpu.X86.HasBMI2 && cpu.X86.HasPOPCNT
}

// The kernels trust what they are given. What is beyond the slices by less than
// slack may be read of src, and written of dst, where these have it.

// encode wants PageSize+slack bytes of dst.
func (k kind) encode(dst, window []byte, at int, seen *table, p *page) int {
	if k == portable {
		return encodePortable(dst, window, at, seen, p)
	}
	_, _ = dst[:PageSize+slack], window[at:at+PageSize]
	n, changes := encodeAVX2(&dst[0], &window[0], at, seen, &p.masks, &p.distances)
	p.changes = changes
	return n
}

// pack wants slack more of dst than src has that is not zero. len(src) is eight
// times len(masks), and that a multiple of two.
func (k kind) pack(dst, src, masks []byte) int {
	if k == portable {
		return packPortable(dst, src, masks)
	}
	_, _ = dst[:len(src)+slack], src[:8*len(masks)]
	return packAVX2(&dst[0], &src[0], &masks[0], len(masks)/2)
}

// unpack wants slack more of src than masks count, and a multiple of two masks.
func (k kind) unpack(dst, masks, src []byte) int {
	if k == portable {
		return unpackPortable(dst, masks, src)
	}
	_ = dst[:8*len(masks)]
	return unpackAVX2(&dst[0], &masks[0], &src[0], len(masks)/2)
}

// unpackXOR wants what unpack wants, and a distance of at least a line.
func (k kind) unpackXOR(window []byte, at, distance int, masks, src []byte) int {
	if k == portable {
		return unpackXORPortable(window, at, distance, masks, src)
	}
	_, _ = window[at:at+8*len(masks)], window[at-distance]
	return unpackXORAVX2(&window[at], &window[at-distance], &masks[0], &src[0], len(masks)/2)
}
