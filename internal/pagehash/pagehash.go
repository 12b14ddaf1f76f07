package pagehash

import (
	"bytes"
	"fmt"
	"math"

	"github.com/zeebo/blake3"
)

const (
	// PageSize is the only length of input there is.
	PageSize = 4096
	// Size is the length of a hash.
	Size = 32
)

// A Kind is a way to hash. All kinds give the same hashes.
type Kind uint8

const (
	// Portable hashes one page after the other, on every machine.
	Portable Kind = iota
	// AVX2 hashes up to 8 pages at once.
	AVX2
	// AVX512 hashes up to 16 pages at once.
	AVX512
)

// Kinds lists all kinds, the slowest first, whether or not this machine has
// them.
func Kinds() []Kind { return []Kind{Portable, AVX2, AVX512} }

func (k Kind) String() string {
	switch k {
	case Portable:
		return "portable"
	case AVX2:
		return "avx2"
	case AVX512:
		return "avx512"
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// ParseKind parses what String prints of the kinds there are.
func ParseKind(s string) (Kind, error) {
	for _, k := range Kinds() {
		if s == k.String() {
			return k, nil
		}
	}
	return 0, fmt.Errorf("pagehash: kind %q: want portable, avx2 or avx512", s)
}

// A Hasher hashes pages in one way. It holds nothing else: it may be copied
// and used concurrently. The zero Hasher is portable.
type Hasher struct{ kind Kind }

// New returns a Hasher of a kind, or an error if this processor or its
// operating system lacks what the kind needs.
func New(k Kind) (Hasher, error) {
	if !supported(k) {
		return Hasher{}, fmt.Errorf("pagehash: this machine can not hash with %s; use portable", k)
	}
	return Hasher{k}, nil
}

// Best returns the fastest Hasher of this machine. It costs a few loads and
// need not be kept.
func Best() Hasher {
	switch {
	case supported(AVX512):
		return Hasher{AVX512}
	case supported(AVX2):
		return Hasher{AVX2}
	}
	return Hasher{}
}

// Kind returns how h hashes.
func (h Hasher) Kind() Kind { return h.kind }

// Sum sets dst to the BLAKE3-256 of pages, which lie side by side. The two
// must not overlap. Nothing is set when the lengths disagree.
func Sum[T ~[Size]byte](h Hasher, dst []T, pages []byte) error {
	return sum(h, dst, pages, false)
}

// SumNonZero is Sum, but a page of zeros is not hashed: what dst has for it is
// zero. A page that is not is seldom looked at beyond its first bytes for that.
func SumNonZero[T ~[Size]byte](h Hasher, dst []T, pages []byte) error {
	return sum(h, dst, pages, true)
}

// SumEach is SumNonZero for pages that lie anywhere.
func SumEach[T ~[Size]byte](h Hasher, dst []T, pages []*[PageSize]byte) error {
	if len(pages) != len(dst) {
		return fmt.Errorf("pagehash: %d pages for %d hashes", len(pages), len(dst))
	}
	var b batch
	for i, page := range pages {
		add(h, dst, &b, i, page, true)
	}
	finish(h, dst, &b)
	return nil
}

func sum[T ~[Size]byte](h Hasher, dst []T, pages []byte, skipZeros bool) error {
	if len(pages)%PageSize != 0 || len(pages)/PageSize != len(dst) {
		return fmt.Errorf("pagehash: %d bytes for %d hashes of pages of %d bytes", len(pages), len(dst), PageSize)
	}
	var b batch
	for i := range dst {
		add(h, dst, &b, i, (*[PageSize]byte)(pages[i*PageSize:]), skipZeros)
	}
	finish(h, dst, &b)
	return nil
}

// add puts page i into the batch, and hashes what is in it when it is full.
// Pages that are hashed together need not be neighbours, so pages of zeros among
// them leave no lane empty.
func add[T ~[Size]byte](h Hasher, dst []T, b *batch, i int, page *[PageSize]byte, skipZeros bool) {
	if skipZeros && bytes.Equal(page[:], zeroPage[:]) {
		dst[i] = T{}
		return
	}
	b.pages[b.n], b.at[b.n] = page, i
	if b.n++; b.n == h.kind.most() {
		b.more = i+1 < len(dst)
		flush(h, dst, b)
	}
}

func finish[T ~[Size]byte](h Hasher, dst []T, b *batch) {
	b.more = false
	flush(h, dst, b)
}

// zeroPage is never written.
var zeroPage [PageSize]byte

// most is how many pages a kind hashes at once.
func (k Kind) most() int {
	switch k {
	case AVX512:
		return 16
	case AVX2:
		return 8
	}
	return 1
}

// A batch is pages to be hashed at once, and where in dst their hashes go.
type batch struct {
	n     int
	more  bool // there are pages behind these
	pages [16]*[PageSize]byte
	at    [16]int
	sums  [16][Size]byte
}

// flush hashes what is in the batch and empties it.
func flush[T ~[Size]byte](h Hasher, dst []T, b *batch) {
	if b.n < h.kind.least() {
		for i := range b.n {
			dst[b.at[i]] = blake3.Sum256(b.pages[i][:])
		}
	} else {
		h.kind.hash(b)
		for i := range b.n {
			dst[b.at[i]] = T(b.sums[i])
		}
	}
	b.n = 0
}

// least is the number of pages from which a kind is at least as fast as one
// page after the other.
func (k Kind) least() int {
	switch k {
	case AVX512:
		return 2 // one page takes as long as four
	case AVX2:
		return 1 // half of the lanes are used, as the library does
	}
	return math.MaxInt
}
