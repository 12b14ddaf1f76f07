package pagedelta

import "golang.org/x/sys/cpu"

// supported says whether the processor has what a kind needs and the operating
// system saves the registers; cpu looks at both.
func supported(k kind) bool {
	return k == portable || cpu.X86.HasAVX2 && cpu.X86.HasBMI1 && cpu.X86.HasBMI2 && cpu.X86.HasPOPCNT
}

// The kernels trust what they are given.

// encode wants PageSize bytes of dst. Each eight of the page are written as eight, of
// which the next overwrite those that are not wanted: never behind their own.
func (k kind) encode(dst, window []byte, at int, seen *table, p *page) int {
	if k == portable {
		return encodePortable(dst, window, at, seen, p)
	}
	_, _ = dst[:PageSize], window[at:at+PageSize]
	n, changes := encodeAVX2(&dst[0], &window[0], at, seen, &p.masks, &p.distances)
	p.changes = changes
	return n
}

// pack wants as much of dst as src has, which is eight times len(masks), and that a
// multiple of two.
func (k kind) pack(dst, src, masks []byte) int {
	if k == portable {
		return packPortable(dst, src, masks)
	}
	_, _ = dst[:8*len(masks)], src[:8*len(masks)]
	return packAVX2(&dst[0], &src[0], &masks[0], len(masks)/2)
}

// unpack wants a multiple of two masks, and of src, which decode has added up, ahead
// more than these count.
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
