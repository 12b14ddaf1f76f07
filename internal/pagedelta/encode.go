package pagedelta

import (
	"encoding/binary"
	"math/bits"
	"slices"
)

const (
	// PageSize is the size of a page in bytes.
	PageSize = 4096
	// MaxWindow is how many bytes can stand before the end of a page, itself
	// included: distances have 16 bits.
	MaxWindow = 1 << 16
	// MaxEncoded bounds the size of a compressed page. Random bytes reach 4695.
	MaxEncoded = PageSize + maskBytes + topBytes + 2*lines + 2*bitmap

	line      = 64
	lines     = PageSize / line
	maskBytes = PageSize / 8  // a bit for each byte of the page
	topBytes  = maskBytes / 8 // a bit for each byte of the masks
	bitmap    = topBytes / 8  // a bit for each byte of the tops, or each line
)

// What the search for a distance goes by. With these, structured pages of the
// benchmark and memory of three canisters took 0.38, 0.41, 0.30 and 0.20 of their
// size, where s2 takes 0.53, 0.50, 0.45 and 0.25. With no bound on what is good
// enough, four times as many tries and every word remembered it was 0.37, 0.39,
// 0.28 and 0.18, for twice the time.
const (
	// goodEnough is how many bytes of a line may differ from what stands at the
	// distance of the line before without a search for a better one.
	goodEnough = 16
	// rememberEvery is which words are noted for later searches: every fourth, and
	// of the next line those beside them. With all of them pages were up to 5 %
	// smaller, and a fourth of the time went there.
	rememberEvery = 4
	// rounds is how often a search compares two distances, those at which the first
	// and the last were seen of the words in question.
	rounds = 2
	// farther is by how many bytes a new distance must be better: it takes two.
	farther = 2
	// hopeless is from how many bytes on nothing is won by a line. After idleAfter
	// such lines only each idleEvery-th is searched for, and remembered.
	hopeless  = 56
	idleAfter = 4
	idleEvery = 8
)

// tableBits is the size of the table of words: for as many as four pages have, of
// which a quarter are remembered.
const tableBits = 12

type table = [1 << tableBits]uint16

// hash is where a word of four bytes is in the table.
func hash(w uint32) uint32 { return w * 2654435761 >> (32 - tableBits) }

// An Encoder compresses the pages of a window one after the other. The zero value
// is ready.
type Encoder struct {
	seen table // where in the window a word was last seen
	next int   // where the page after those begins
	page page
}

// page is what a page comes to, beside the bytes that differ.
type page struct {
	masks     [maskBytes]byte // which bytes of the page differ
	distances [lines]uint16   // of the lines in changes, in order
	changes   uint64          // lines whose distance is not that of the line before
}

// Append compresses the page that starts at window[at:], with what stands before
// it, and appends it to dst. The pages of a window are given in order, and another
// window begins with its first; what stands behind the page is not looked at.
// A page that ends behind MaxWindow is compressed alone.
//
// At most MaxEncoded bytes are appended, which may be more than the page has: then
// the caller stores it some other way.
func (e *Encoder) Append(dst, window []byte, at int) []byte { return e.append(best(), dst, window, at) }

func (e *Encoder) append(k kind, dst, window []byte, at int) []byte {
	window = window[: at+PageSize : at+PageSize]
	if at+PageSize > MaxWindow {
		window, at = window[at:], 0 // and nothing before it
	}
	if at != e.next {
		// The kernels trust that what was seen lies in the window.
		clear(e.seen[:])
	}
	e.next = at + PageSize
	p := &e.page
	n := len(dst)
	dst = slices.Grow(dst, MaxEncoded)[:n+MaxEncoded]
	n += k.encode(dst[n:n+PageSize], window, at, &e.seen, p)

	// The masks are stored as the page is: those that are not zero, behind a
	// bitmap of its own, and that the same way.
	var tops [topBytes]byte
	var top [bitmap]byte
	n += k.pack(dst[n:n+maskBytes], p.masks[:], tops[:])
	n += k.pack(dst[n:n+topBytes], tops[:], top[:])
	for i := range bits.OnesCount64(p.changes) {
		binary.LittleEndian.PutUint16(dst[n:n+2], p.distances[i])
		n += 2
	}
	n += copy(dst[n:n+bitmap], top[:])
	binary.LittleEndian.PutUint64(dst[n:n+bitmap], p.changes)
	return dst[:n+bitmap]
}

// encodePortable finds the distances of a page, and writes to dst the bytes that
// differ.
func encodePortable(dst, window []byte, at int, seen *table, p *page) (n int) {
	p.changes = 0
	changes, distance, poor := 0, 0, 0
	for i := range lines {
		a := at + i*line
		idle := poor >= idleAfter && i%idleEvery != 0
		mask := differs(window, a, distance)
		cost, from := bits.OnesCount64(mask), distance
		if !idle && cost > 0 {
			if cost > goodEnough {
				mask, cost, from = search(window, a, distance, mask, cost, seen)
			}
			for k := a + 4*(-i&(rememberEvery-1)); k < a+line; k += 4 * rememberEvery {
				seen[hash(word(window, k))] = uint16(k)
			}
		}
		if poor++; cost <= hopeless {
			poor = 0
		}
		if from != distance {
			p.changes |= 1 << i
			p.distances[changes] = uint16(from)
			changes++
			distance = from
		}
		binary.LittleEndian.PutUint64(p.masks[8*i:], mask)
		n += packLine(dst[n:], window, a, distance, mask)
	}
	return n
}

// search compares the line with zeros, and with those that have a word in common
// with it which the distance so far does not foresee. cost is what the mask counts,
// and more by farther for another distance.
func search(window []byte, a, distance int, mask uint64, cost int, seen *table) (uint64, int, int) {
	const words = line / 4
	var places [words]uint16
	matches := uint16(0)
	for k := range words {
		w := word(window, a+4*k)
		places[k] = seen[hash(w)]
		if word(window, int(places[k])) == w && w != 0 && mask>>(4*k)&15 != 0 {
			matches |= 1 << k
		}
	}
	from := distance
	if m := differs(window, a, 0); bits.OnesCount64(m)+farther < cost {
		mask, cost, from = m, bits.OnesCount64(m)+farther, 0
	}
	for left := rounds; left > 0 && matches != 0 && (left == rounds || cost > goodEnough); left-- {
		done := uint16(0)
		for _, k := range [2]int{bits.TrailingZeros16(matches), bits.Len16(matches) - 1} {
			done |= 1 << k
			d := a + 4*k - int(places[k])
			if d < line {
				// What repeats every d bytes repeats every 2d: the line must end
				// before it begins.
				d <<= 7 - bits.Len(uint(d))
			}
			if d == 0 || d > a {
				continue
			}
			m := differs(window, a, d)
			if c := bits.OnesCount64(m) + farther; c < cost {
				mask, cost, from = m, c, d
			}
			// What this distance foresees would only ask for it again.
			for l := range words {
				if m>>(4*l)&15 == 0 {
					done |= 1 << l
				}
			}
		}
		matches &^= done
	}
	return mask, cost, from
}

// packLine writes the bytes of a line that are in mask.
func packLine(dst, window []byte, at, distance int, mask uint64) (n int) {
	for q := 0; mask != 0; q += 8 {
		m := byte(mask)
		mask >>= 8
		if m == 0 {
			continue
		}
		d := binary.LittleEndian.Uint64(window[at+q:])
		if distance != 0 {
			d ^= binary.LittleEndian.Uint64(window[at+q-distance:])
		}
		n += packWord(dst[n:], d, m)
	}
	return n
}

// packWord writes the bytes of d that are in m, and may write beyond them.
func packWord(dst []byte, d uint64, m byte) (n int) {
	if m == 0xff {
		binary.LittleEndian.PutUint64(dst, d)
		return 8
	}
	for ; m != 0; m &= m - 1 {
		dst[n] = byte(d >> (8 * bits.TrailingZeros8(m)))
		n++
	}
	return n
}

// packPortable writes to dst the bytes of src that are not zero, and to masks
// which they are: a bit for each.
func packPortable(dst, src, masks []byte) (n int) {
	for i := range masks {
		d := binary.LittleEndian.Uint64(src[8*i:])
		m := byte(nonzero(d))
		masks[i] = m
		n += packWord(dst[n:], d, m)
	}
	return n
}

// word is four bytes of a window.
func word(window []byte, at int) uint32 { return binary.LittleEndian.Uint32(window[at:]) }

// differs has a bit for each byte of a line that is not what stands distance
// before; distance 0 stands for zeros.
func differs(window []byte, at, distance int) (mask uint64) {
	a := window[at : at+line]
	if distance == 0 {
		for q := 0; q < line; q += 8 {
			mask |= nonzero(binary.LittleEndian.Uint64(a[q:])) << q
		}
		return mask
	}
	b := window[at-distance : at-distance+line]
	for q := 0; q < line; q += 8 {
		mask |= nonzero(binary.LittleEndian.Uint64(a[q:])^binary.LittleEndian.Uint64(b[q:])) << q
	}
	return mask
}

// nonzero has a bit for each byte of d that is not zero.
func nonzero(d uint64) uint64 {
	const low = 0x7f7f7f7f7f7f7f7f
	top := (d | (d&low + low)) &^ low
	return top >> 7 * 0x0102040810204080 >> 56
}
