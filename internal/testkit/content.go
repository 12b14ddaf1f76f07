package testkit

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"

	"github.com/zeebo/blake3"
)

// PageSize is the grain of sharing, in bytes.
const PageSize = 4096

// Page is the content of a page and its name. Immutable.
type Page struct {
	Data [PageSize]byte
	ID   [32]byte
}

// NewPage names a content; nil for zeros, which are no page.
func NewPage(data *[PageSize]byte) *Page {
	if *data == ([PageSize]byte{}) {
		return nil
	}
	return &Page{Data: *data, ID: blake3.Sum256(data[:])}
}

// Content is a number that stands for the bytes of a page; 0 is zeros. Equal
// numbers give equal bytes for ever.
type Content uint64

// Fill writes the content. A third of all contents is like text, a third like
// tables of small integers, and the rest does not compress.
func (c Content) Fill(p []byte) {
	if c == 0 {
		clear(p)
		return
	}
	rng := rand.New(rand.NewPCG(uint64(c), 0x5ca1ab1e))
	switch c % 3 {
	case 0:
		for i := 0; i < len(p); {
			i += copy(p[i:], fmt.Sprintf("line %d of content %d\n", rng.IntN(100), uint64(c)))
		}
	case 1:
		for i := 0; i+8 <= len(p); i += 8 {
			binary.LittleEndian.PutUint64(p[i:], uint64(rng.IntN(1000)))
		}
		binary.LittleEndian.PutUint64(p, uint64(c))
	default:
		for i := 0; i+8 <= len(p); i += 8 {
			binary.LittleEndian.PutUint64(p[i:], rng.Uint64())
		}
	}
}

// Bytes gives n bytes of the content.
func (c Content) Bytes(n int) []byte {
	p := make([]byte, (n+7)/8*8)
	c.Fill(p)
	return p[:n]
}
