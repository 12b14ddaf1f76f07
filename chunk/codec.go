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
)

// String returns the name that ParseCodec takes.
func (c Codec) String() string {
	switch c {
	case CodecRaw:
		return "raw"
	case CodecS2:
		return "s2"
	case CodecZstd:
		return "zstd"
	}
	return fmt.Sprintf("codec(%d)", uint8(c))
}

// ParseCodec parses what String prints.
func ParseCodec(s string) (Codec, error) {
	for _, c := range []Codec{CodecRaw, CodecS2, CodecZstd} {
		if s == c.String() {
			return c, nil
		}
	}
	return 0, fmt.Errorf("chunk: codec %q: want raw, s2 or zstd", clip(s))
}

func (c Codec) check() error {
	if c > CodecZstd {
		return fmt.Errorf("chunk: unknown %v", c)
	}
	return nil
}

// A Coder compresses and decompresses groups. It keeps the working memory of
// its codecs between calls. It is safe for concurrent use; the zero value is
// ready.
type Coder struct {
	encoders sync.Pool // *zstd.Encoder
	decoders sync.Pool // *zstd.Decoder
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
const maxCompressed = maxRaw + 512

// compress returns src compressed in the spare capacity of dst, which the
// caller made large enough for maxCompressed; nil if the codec can not. zstd's
// level stays at the fastest: higher ones gained nothing on memory pages, and
// the highest has corrupted data in the past.
func (c *Coder) compress(dst []byte, codec Codec, src []byte) []byte {
	var out []byte
	switch codec {
	case CodecS2:
		out = s2.Encode(dst[:0:cap(dst)], src)
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
		// s2 would allocate what the data declares, so look first.
		declared, lerr := s2.DecodedLen(src)
		if lerr != nil {
			return lerr
		}
		if declared != n {
			return errLength
		}
		out, err = s2.Decode(dst[:0:n], src)
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

// prefixSlack is by how much decompressPrefix aims beyond what is wanted. The
// last match or literal that it meets does not fit and is not written; few are
// longer than a page.
const prefixSlack = PageSize

// decompressPrefix fills dst with the start of what src decompresses to, and
// saves the work on the rest where the codec can be stopped. It promises
// nothing about what it wrote: the caller compares pages with their IDs, and
// decompresses everything when one does not match. dst has raw bytes of room, of
// which the first n are wanted; src may be changed.
func (c *Coder) decompressPrefix(dst []byte, n int, codec Codec, src []byte) error {
	switch end := n + prefixSlack; {
	case codec == CodecRaw && len(src) == len(dst):
		copy(dst[:n], src)
		return nil
	case codec == CodecS2 && end < len(dst):
		// A block starts with its decompressed length, of three bytes for these.
		// With a smaller one the decoder stops at the first thing that goes
		// beyond it.
		if v, size := binary.Uvarint(src); size == 3 && v == uint64(len(dst)) {
			head := [3]byte(src)
			src[0], src[1], src[2] = byte(end)|0x80, byte(end>>7)|0x80, byte(end>>14)
			_, _ = s2.Decode(dst[:0:end], src) // corrupt, as it must be
			copy(src, head[:])
			return nil
		}
	}
	return c.decompress(dst, codec, src)
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
