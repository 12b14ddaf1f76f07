package pagedelta

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"
)

// guarded returns n bytes, a multiple of a page, that end where nothing may be read
// or written, and begin behind such a place.
func guarded(t *testing.T, n int) []byte {
	t.Helper()
	b, err := unix.Mmap(-1, 0, n+2*PageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(b) })
	for _, guard := range [][]byte{b[:PageSize], b[PageSize+n:]} {
		if err := unix.Mprotect(guard, unix.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	return b[PageSize : PageSize+n : PageSize+n]
}

// crafted is a page whose lengths agree, with bits and distances that nobody writes.
func crafted(r *rand.Rand, at int) []byte {
	bitsOf := func(n int, sparse int) []byte {
		b := make([]byte, n)
		for i := range b {
			if b[i] = byte(r.Uint32()); r.IntN(4) < sparse {
				b[i] = 0
			}
		}
		return b
	}
	sparse := r.IntN(5)
	top := bitsOf(bitmap, r.IntN(5))
	tops, masks := bitsOf(ones(top), sparse), []byte(nil)
	var all [topBytes]byte
	unpackPortable(all[:], top, append(tops, make([]byte, 8)...))
	masks = bitsOf(ones(all[:]), sparse)
	var every [maskBytes]byte
	unpackPortable(every[:], all[:], append(masks, make([]byte, 8)...))
	out := bitsOf(ones(every[:]), 0)
	out = append(append(out, masks...), tops...)
	changes := r.Uint64() & r.Uint64() & r.Uint64()
	for i := range lines {
		if changes&(1<<i) == 0 {
			continue
		}
		far := at + i*line
		d := []int{0, line, far, far + 1, line - 1, far - 1, r.IntN(far + 2)}[r.IntN(7)]
		if r.IntN(20) > 0 && (d < line || d > far) {
			d = 0
		}
		out = binary.LittleEndian.AppendUint16(out, uint16(d))
	}
	return binary.LittleEndian.AppendUint64(append(out, top...), changes)
}

// Nothing outside of what was handed over is read or written, whatever is decoded.
func TestNothingOutside(t *testing.T) {
	r := seeded(t)
	const most = 2 * PageSize
	src, accepted := guarded(t, most), 0
	windows := map[kind][]byte{}
	for _, k := range kinds(t) {
		windows[k] = guarded(t, 4*PageSize)
	}
	for range 20000 {
		at := r.IntN(4) * PageSize
		b := crafted(r, at)
		if r.IntN(4) == 0 {
			b[r.IntN(len(b))] ^= 1 << r.IntN(8)
		}
		b = src[most-copy(src[most-len(b):], b):]
		var first error
		for i, k := range kinds(t) {
			w := windows[k]
			clear(w)
			err := decode(k, w, at, b)
			if err != nil && !errors.Is(err, ErrMalformed) {
				t.Fatal(err)
			}
			if i == 0 {
				first = err
			} else if (err == nil) != (first == nil) || err == nil && string(w) != string(windows[portable]) {
				t.Fatalf("%v disagrees: %v and %v", k, err, first)
			}
		}
		if first == nil {
			accepted++
		}
	}
	if accepted < 5000 {
		t.Errorf("%d pages were decoded", accepted)
	}
	// And whatever is encoded.
	for _, k := range kinds(t) {
		var e Encoder
		for range 300 {
			n := 1 + r.IntN(4)
			w := windows[k][(4-n)*PageSize:]
			for i := 0; i < len(w); i++ {
				if w[i] = 0; r.IntN(3) > 0 {
					w[i] = byte(r.IntN(1 << r.IntN(9)))
				} else if far := 4 * r.IntN(100); r.IntN(2) > 0 && far > 0 && far < i {
					for end := min(i+r.IntN(500), len(w)); i < end; i++ {
						w[i] = w[i-far]
					}
					i--
				}
			}
			for at := 0; at < len(w); at += PageSize {
				out := guarded(t, most)
				dst := out[most-MaxEncoded : most-MaxEncoded : most]
				e.append(k, dst, w, at)
				if at > 0 && r.IntN(20) == 0 {
					break // and begin anew, with what is remembered
				}
			}
		}
	}
}
