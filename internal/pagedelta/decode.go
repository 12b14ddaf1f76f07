package pagedelta

import (
	"encoding/binary"
	"errors"
	"math/bits"
)

// ErrMalformed is what Decode returns for bytes that no Encoder has written.
var ErrMalformed = errors.New("pagedelta: malformed page")

// Decode decompresses src into the page at window[at:], with what stands before
// it. Behind the page nothing is written; after an error the page's content is
// undefined. What it accepts has exactly the length that src says, and no
// distance leads out of the window.
func Decode(window []byte, at int, src []byte) error { return decode(best(), window, at, src) }

// ahead is by how much the kernels may read behind what they are asked for: within
// src, since two bitmaps follow.
const (
	ahead = 8
	_     = uint(2*bitmap - ahead)
)

func decode(k kind, window []byte, at int, src []byte) error {
	window = window[: at+PageSize : at+PageSize]
	// From the end: changes say how many distances there are, top how many tops,
	// these how many masks, and these how many bytes.
	at16 := len(src) - 2*bitmap
	if at16 < 0 {
		return ErrMalformed
	}
	changes := binary.LittleEndian.Uint64(src[at16+bitmap:])
	distances := at16 - 2*bits.OnesCount64(changes)
	top := src[at16 : at16+bitmap]
	topsAt := distances - ones(top)
	if topsAt < 0 {
		return ErrMalformed
	}
	var tops [topBytes]byte
	k.unpack(tops[:], top, src[topsAt:])
	masksAt := topsAt - ones(tops[:])
	if masksAt < 0 {
		return ErrMalformed
	}
	var masks [maskBytes]byte
	k.unpack(masks[:], tops[:], src[masksAt:])
	if masksAt != ones(masks[:]) {
		return ErrMalformed
	}

	page, distance, bytes := window[at:], 0, src
	for i := 0; i < lines; {
		if changes&(1<<i) != 0 {
			distance = int(binary.LittleEndian.Uint16(src[distances:]))
			distances += 2
			if distance != 0 && (distance < line || distance > at+i*line) {
				return ErrMalformed
			}
		}
		// Lines of one distance are done in one go.
		end := lines
		if more := changes >> i >> 1; more != 0 {
			end = i + 1 + bits.TrailingZeros64(more)
		}
		m := masks[8*i : 8*end]
		if distance == 0 {
			bytes = bytes[k.unpack(page[i*line:end*line], m, bytes):]
		} else {
			bytes = bytes[k.unpackXOR(window[:at+end*line], at+i*line, distance, m, bytes):]
		}
		i = end
	}
	return nil
}

// ones counts bits; the length of b is a multiple of eight.
func ones(b []byte) (n int) {
	for ; len(b) > 0; b = b[8:] {
		n += bits.OnesCount64(binary.LittleEndian.Uint64(b))
	}
	return n
}

// unpackPortable fills dst: bytes that are in masks come from src, one after the
// other, the rest are zero. It returns how many came from src.
func unpackPortable(dst, masks, src []byte) (n int) {
	for i, m := range masks {
		d, used := unpackWord(m, src[n:])
		binary.LittleEndian.PutUint64(dst[8*i:], d)
		n += used
	}
	return n
}

// unpackXORPortable is unpackPortable for the bytes of window from at on, which
// are changed by what stands distance before them.
func unpackXORPortable(window []byte, at, distance int, masks, src []byte) (n int) {
	for i, m := range masks {
		d, used := unpackWord(m, src[n:])
		d ^= binary.LittleEndian.Uint64(window[at-distance+8*i:])
		binary.LittleEndian.PutUint64(window[at+8*i:], d)
		n += used
	}
	return n
}

// unpackWord puts bytes of src where m says.
func unpackWord(m byte, src []byte) (d uint64, n int) {
	if m == 0xff {
		return binary.LittleEndian.Uint64(src), 8
	}
	for ; m != 0; m &= m - 1 {
		d |= uint64(src[n]) << (8 * bits.TrailingZeros8(m))
		n++
	}
	return d, n
}
