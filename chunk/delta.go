package chunk

import (
	"encoding/binary"
	"errors"

	"github.com/klauspost/compress/s2"

	"github.com/snapstore/snapstore/internal/pagedelta"
)

// method is how a page of CodecDelta is stored. The values are part of the format.
type method uint16

const (
	methodRaw   method = 0
	methodDelta method = 1 // see package pagedelta; with the pages before it in its part
	methodS2    method = 2 // a block of s2
)

const (
	// A page starts with two bytes: its method above, how many bytes follow below.
	pageHead   = 2
	methodBits = 13

	// trySize is from how many bytes on s2 is tried as well: what memory it leaves
	// less of is text, for which pagedelta is not made, and comes out near a whole
	// page there. In memory of three canisters 0 to 3 % of the pages were tried,
	// and 0 to 0.5 % won.
	trySize = PageSize * 3 / 4
	// rawSize is from how many bytes on a page is stored as it is.
	rawSize = PageSize - PageSize/64
)

// deltaScratch is what compressing with CodecDelta works in.
type deltaScratch struct {
	encoder pagedelta.Encoder
	s2      [PageSize + PageSize/8]byte // at least s2.MaxEncodedLen(PageSize), by a test
}

// append appends the pages of a part.
func (w *deltaScratch) append(dst, pages []byte) []byte {
	for at := 0; at < len(pages); at += PageSize {
		head := len(dst)
		dst = append(dst, 0, 0)
		m := methodDelta
		dst = w.encoder.Append(dst, pages, at)
		page, size := pages[at:at+PageSize], len(dst)-head-pageHead
		if size >= trySize && !random(page) {
			if block := s2.Encode(w.s2[:], page); len(block) < size {
				dst, m, size = append(dst[:head+pageHead], block...), methodS2, len(block)
			}
		}
		if size > rawSize {
			dst, m, size = append(dst[:head+pageHead], page...), methodRaw, PageSize
		}
		binary.LittleEndian.PutUint16(dst[head:], uint16(m)<<methodBits|uint16(size))
	}
	return dst
}

// random says whether a page looks as if drawn at random, by one byte of each 64.
// Of random ones 57 values are expected, and fewer than 48 in one page of some
// thousands; text has up to 40. What repeats at a distance that is no multiple of
// four bytes, and is random otherwise, stays as it is by this. It takes a tenth of what s2 takes to find out.
func random(page []byte) bool {
	var seen [256]uint8
	n := 0
	for i := range PageSize / 64 {
		b := page[65*i]
		n += 1 - int(seen[b])
		seen[b] = 1
	}
	return n >= 48
}

var errPage = errors.New("a page that can not be")

// decompressDelta fills pages, the first of a part or all of them. A page that can
// not be decompressed is left as it comes, for the caller to compare with its ID;
// the error is that of the first.
func decompressDelta(pages, src []byte, all bool) (err error) {
	for at := 0; at < len(pages); at += PageSize {
		if len(src) < pageHead {
			return errLength
		}
		head := binary.LittleEndian.Uint16(src)
		m, end := method(head>>methodBits), pageHead+int(head&(1<<methodBits-1))
		if end > len(src) {
			return errLength
		}
		if bad := decompressPage(m, pages, at, src[pageHead:end:end]); bad != nil && err == nil {
			err = bad
		}
		src = src[end:]
	}
	if all && len(src) > 0 && err == nil {
		err = errLength
	}
	return err
}

func decompressPage(m method, pages []byte, at int, src []byte) error {
	page := pages[at : at+PageSize : at+PageSize]
	switch m {
	case methodRaw:
		if len(src) != PageSize {
			return errLength
		}
		copy(page, src)
		return nil
	case methodDelta:
		return pagedelta.Decode(pages, at, src)
	case methodS2:
		return decompressS2(page, src)
	}
	return errPage
}
