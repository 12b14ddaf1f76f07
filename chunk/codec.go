package chunk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
)

// Codec says how the pages of a group are stored. The values are part of the
// format.
type Codec uint8

// The codecs.
const (
	CodecRaw  Codec = 0
	CodecS2   Codec = 1
	CodecZstd Codec = 2
	// CodecS2Parts is s2 for each partPages pages, so that one page costs the
	// decoding of its part.
	CodecS2Parts Codec = 3
	// CodecDelta has each page as what differs from what stands before it in its
	// part, or by itself as s2 or raw. It is what takes write: two to three times as
	// fast as s2, and smaller.
	CodecDelta Codec = 4
)

// partPages is how many pages are compressed together where a group has parts. With
// 4, s2 made memory of three canisters 1.7, 3.9 and 6 % larger than in whole groups
// of 16, CodecDelta 2 to 10 %, and what a benchmark draws 0.5 and 0 %; a scattered
// page is decoded in a third of the time. With 8 it was half of the one, and half
// of the gain.
const (
	partPages = 4
	partRaw   = partPages * PageSize
	maxParts  = GroupPages / partPages
)

const lastCodec = CodecDelta

// String returns the name that ParseCodec takes.
func (c Codec) String() string {
	switch c {
	case CodecRaw:
		return "raw"
	case CodecS2:
		return "s2"
	case CodecZstd:
		return "zstd"
	case CodecS2Parts:
		return "s2-parts"
	case CodecDelta:
		return "delta"
	}
	return fmt.Sprintf("codec(%d)", uint8(c))
}

// ParseCodec parses what String prints.
func ParseCodec(s string) (Codec, error) {
	for c := CodecRaw; c <= lastCodec; c++ {
		if s == c.String() {
			return c, nil
		}
	}
	return 0, fmt.Errorf("chunk: codec %q: want raw, s2, zstd, s2-parts or delta", clip(s))
}

func (c Codec) check() error {
	if c > lastCodec {
		return fmt.Errorf("chunk: unknown %v", c)
	}
	return nil
}

// inParts says whether a part of a group can be read and decompressed alone.
func (c Codec) inParts() bool { return c == CodecS2Parts || c == CodecDelta }

// A Coder compresses and decompresses groups. It keeps the working memory of
// its codecs between calls. It is safe for concurrent use; the zero value is
// ready.
type Coder struct {
	encoders sync.Pool // *zstd.Encoder
	decoders sync.Pool // *zstd.Decoder
	deltas   sync.Pool // *deltaScratch
	scratch  sync.Pool // *[maxRaw]byte, for trying out what was compressed

	faults atomic.Int64

	// spoil, in tests only, stands for a codec that compresses wrongly.
	spoil func(compressed []byte)
}

// Faults returns how many groups did not decompress to what was compressed and
// were stored raw instead. Anything but zero is a bug of a codec or bad memory.
func (c *Coder) Faults() int64 { return c.faults.Load() }

// maxCompressed bounds what a codec needs to compress a full group, whether or
// not it pays (checked by a test).
const maxCompressed = maxRaw + 1024

// compress returns src compressed in the spare capacity of dst, which the
// caller made large enough for maxCompressed; nil if the codec can not. zstd's
// level stays at the fastest: higher ones gained nothing on memory pages, and
// the highest has corrupted data in the past.
func (c *Coder) compress(dst []byte, codec Codec, src []byte) []byte {
	var out []byte
	switch codec {
	case CodecS2:
		out = s2.Encode(dst[:0:cap(dst)], src)
	case CodecS2Parts:
		out = compressParts(dst, src, func(dst, part []byte) []byte {
			block := s2.Encode(dst[len(dst):cap(dst)], part)
			if end := len(dst) + len(block); end <= cap(dst) && &block[0] == &dst[:end][len(dst)] {
				return dst[:end]
			}
			return append(dst, block...)
		})
	case CodecDelta:
		w, _ := c.deltas.Get().(*deltaScratch)
		if w == nil {
			w = new(deltaScratch)
		}
		out = compressParts(dst, src, w.append)
		c.deltas.Put(w)
	case CodecZstd:
		enc, _ := c.encoders.Get().(*zstd.Encoder)
		if enc == nil {
			var err error
			enc, err = zstd.NewWriter(nil,
				zstd.WithEncoderLevel(zstd.SpeedFastest),
				zstd.WithEncoderConcurrency(1),
				zstd.WithEncoderCRC(false), // frames and IDs check already
				zstd.WithWindowSize(maxRaw),
				zstd.WithLowerEncoderMem(true))
			if err != nil {
				return nil
			}
		}
		out = enc.EncodeAll(src, dst[:0:cap(dst)])
		c.encoders.Put(enc)
	}
	if c.spoil != nil {
		c.spoil(out)
	}
	return out
}

var errLength = errors.New("decompresses to another length")

// decompress fills dst, all of it and nothing beyond. The codecs get a slice
// whose capacity ends with dst, since some write ahead of what they return.
func (c *Coder) decompress(dst []byte, codec Codec, src []byte) error {
	n := len(dst)
	var out []byte
	var err error
	switch codec {
	case CodecRaw:
		if len(src) != n {
			return errLength
		}
		copy(dst, src)
		return nil
	case CodecS2:
		return decompressS2(dst, src)
	case CodecS2Parts, CodecDelta:
		for i := range blocksOf(n) {
			off, end, ok := blockAt(src, len(src), blocksOf(n), i)
			if !ok {
				return errLength
			}
			if err := decompressPart(partOf(dst, i), codec, src[off:end:end]); err != nil {
				return err
			}
		}
		return nil
	case CodecZstd:
		dec, _ := c.decoders.Get().(*zstd.Decoder)
		if dec == nil {
			dec, err = zstd.NewReader(nil,
				zstd.WithDecoderConcurrency(1),
				zstd.WithDecoderLowmem(true),
				zstd.WithDecoderMaxMemory(maxRaw),
				zstd.WithDecoderMaxWindow(maxRaw),
				zstd.WithDecodeAllCapLimit(true))
			if err != nil {
				return err
			}
		}
		out, err = dec.DecodeAll(src, dst[:0:n])
		c.decoders.Put(dec)
	default:
		return codec.check()
	}
	if err != nil {
		return err
	}
	if len(out) != n || n > 0 && &out[0] != &dst[0] {
		return errLength
	}
	return nil
}

// decompressS2 fills dst from one block.
func decompressS2(dst, src []byte) error {
	// s2 would allocate what the data declares, so look first.
	switch declared, err := s2.DecodedLen(src); {
	case err != nil:
		return err
	case declared != len(dst):
		return errLength
	}
	out, err := s2.Decode(dst[:0:len(dst)], src)
	if err == nil && (len(out) != len(dst) || len(out) > 0 && &out[0] != &dst[0]) {
		err = errLength
	}
	return err
}

// decompressPart fills dst, all of it, from one part of a group that has parts.
func decompressPart(dst []byte, codec Codec, src []byte) error {
	if codec == CodecDelta {
		return decompressDelta(dst, src, true)
	}
	return decompressS2(dst, src)
}

// blocksOf is how many blocks raw bytes become where a group has parts.
func blocksOf(raw int) int { return (raw + partRaw - 1) / partRaw }

// partOf is what part i of a group decompresses to, in pages.
func partOf(pages []byte, i int) []byte {
	end := min((i+1)*partRaw, len(pages))
	return pages[i*partRaw : end : end]
}

// compressParts puts the lengths of all blocks but the last in front of them.
func compressParts(dst, src []byte, compress func(dst, part []byte) []byte) []byte {
	n := blocksOf(len(src))
	out := dst[: 2*(n-1) : cap(dst)]
	for i := range n {
		start := len(out)
		out = compress(out, partOf(src, i))
		if i < n-1 {
			binary.LittleEndian.PutUint16(out[2*i:], uint16(len(out)-start))
		}
	}
	return out
}

// blockAt is where block i of n is in data of size bytes. Of the data only the
// lengths in front need be there.
func blockAt(data []byte, size, n, i int) (off, end int, ok bool) {
	off = 2 * (n - 1)
	if len(data) < off {
		return 0, 0, false
	}
	for j := range n - 1 {
		end = off + int(binary.LittleEndian.Uint16(data[2*j:]))
		if j == i {
			return off, end, off < end && end < size
		}
		off = end
	}
	return off, size, off < size
}

// prefixSlack is by how much decompressPrefix aims beyond what is wanted. The
// last match or literal that it meets does not fit and is not written; few are
// longer than a page.
const prefixSlack = PageSize

// decompressPrefix is decompressS2 for the first n bytes of dst. A block starts
// with its decompressed length. With a smaller one in its place, in as many bytes,
// the decoder stops at the first thing that goes beyond it. It promises nothing
// about what it wrote: the caller compares pages with their IDs, and decompresses
// everything when one does not match. src is changed for the time of the call.
func decompressPrefix(dst []byte, n int, src []byte) error {
	end := n + prefixSlack
	v, size := binary.Uvarint(src)
	if end >= len(dst) || v != uint64(len(dst)) || size > 3 {
		return decompressS2(dst, src)
	}
	var head [3]byte
	copy(head[:], src)
	for i := range size {
		src[i] = byte(end>>(7*i)) | 0x80
	}
	src[size-1] &^= 0x80
	_, _ = s2.Decode(dst[:0:end], src) // corrupt, as it must be
	copy(src, head[:size])
	return nil
}

// proves says whether compressed decompresses to raw.
func (c *Coder) proves(codec Codec, compressed, raw []byte) bool {
	buf, _ := c.scratch.Get().(*[maxRaw]byte)
	if buf == nil {
		buf = new([maxRaw]byte)
	}
	defer c.scratch.Put(buf)
	return c.decompress(buf[:len(raw)], codec, compressed) == nil && bytes.Equal(buf[:len(raw)], raw)
}
