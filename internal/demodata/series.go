package demodata

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/zeebo/blake3"

	motokoledger "github.com/snapstore/snapstore/testdata/motoko-ledger"
)

// PageSize is the grain of change, in bytes.
const PageSize = 4096

const (
	magic      = "SSIMAGES"
	version    = 1
	headerSize = 8 + 3*4 + 2*8 + 32
	entrySize  = 8 + 4 + 4 + 32
	sumSize    = 32

	maxImages    = 1000
	maxImageSize = 256 << 20
	windowSize   = 4 << 20
)

// ErrMalformed: the data is not a series of images, or is damaged.
var ErrMalformed = errors.New("malformed image series")

// Info describes an image without decompressing it.
type Info struct {
	// Name is the image's number in the series, from "000".
	Name string
	// Size in bytes, a multiple of PageSize.
	Size int64
	// Changed is the number of pages that differ from the image before.
	Changed int
	// BLAKE3 of the whole image.
	BLAKE3 [32]byte
}

// Image is one whole memory image.
type Image struct {
	Info
	// Bytes is the image, and Pages the numbers of the pages that differ from
	// the image before, ascending. Both are valid, and must not be modified,
	// until the next image is asked for.
	Bytes []byte
	Pages []uint32
}

// Series is a file of images. Safe for concurrent use.
type Series struct {
	infos   []Info
	payload string
}

// MotokoLedger is the series that comes with the module.
func MotokoLedger() (*Series, error) { return Parse(motokoledger.Images()) }

// Parse reads header and table, and checks them and the payload's checksum.
func Parse(data string) (*Series, error) {
	refuse := func(format string, args ...any) (*Series, error) {
		return nil, fmt.Errorf("%w: "+format, append([]any{ErrMalformed}, args...)...)
	}
	if len(data) < headerSize || data[:8] != magic {
		return refuse("no header")
	}
	h := []byte(data[8:headerSize])
	count := binary.LittleEndian.Uint32(h[8:])
	switch {
	case binary.LittleEndian.Uint32(h) != version:
		return refuse("version %d, want %d", binary.LittleEndian.Uint32(h), version)
	case binary.LittleEndian.Uint32(h[4:]) != PageSize:
		return refuse("pages of %d bytes", binary.LittleEndian.Uint32(h[4:]))
	case count > maxImages:
		return refuse("%d images", count)
	}
	tableEnd := headerSize + int(count)*entrySize
	if len(data) < tableEnd+sumSize {
		return refuse("cut off in the table")
	}
	if sum := blake3.Sum256([]byte(data[:tableEnd])); string(sum[:]) != data[tableEnd:tableEnd+sumSize] {
		return refuse("wrong checksum of the table")
	}
	s := &Series{payload: data[tableEnd+sumSize:]}
	if uint64(len(s.payload)) != binary.LittleEndian.Uint64(h[12:]) {
		return refuse("payload of %d bytes, want %d", len(s.payload), binary.LittleEndian.Uint64(h[12:]))
	}
	if sum := blake3.Sum256([]byte(s.payload)); !bytes.Equal(sum[:], h[28:]) {
		return refuse("wrong checksum of the payload")
	}
	raw := uint64(0)
	for i := range int(count) {
		e := []byte(data[headerSize+i*entrySize:][:entrySize])
		size, changed := binary.LittleEndian.Uint64(e), binary.LittleEndian.Uint32(e[8:])
		if size > maxImageSize || size%PageSize != 0 || uint64(changed) > size/PageSize || binary.LittleEndian.Uint32(e[12:]) != 0 {
			return refuse("image %d of %d bytes with %d pages", i, size, changed)
		}
		if i > 0 && int64(size) < s.infos[i-1].Size {
			return refuse("image %d is smaller than the one before", i)
		}
		raw += uint64(changed) * (4 + PageSize)
		s.infos = append(s.infos, Info{fmt.Sprintf("%03d", i), int64(size), int(changed), [32]byte(e[16:])})
	}
	if raw != binary.LittleEndian.Uint64(h[20:]) {
		return refuse("raw payload of %d bytes, want %d", binary.LittleEndian.Uint64(h[20:]), raw)
	}
	return s, nil
}

// Infos describes all images.
func (s *Series) Infos() []Info { return append([]Info(nil), s.infos...) }

// Images yields every image in order. An error is yielded last.
func (s *Series) Images() iter.Seq2[*Image, error] {
	return func(yield func(*Image, error) bool) {
		if err := s.images(func(i *Image) bool { return yield(i, nil) }); err != nil {
			yield(nil, err)
		}
	}
}

func (s *Series) images(yield func(*Image) bool) error {
	d, err := zstd.NewReader(strings.NewReader(s.payload),
		zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(windowSize), zstd.WithDecoderLowmem(true))
	if err != nil {
		return err
	}
	defer d.Close()
	var memory []byte
	for _, info := range s.infos {
		memory = append(memory, make([]byte, info.Size-int64(len(memory)))...)
		image := &Image{Info: info, Bytes: memory}
		if image.Pages, err = patch(d, memory, info.Changed); err != nil {
			return fmt.Errorf("%w: image %s: %w", ErrMalformed, info.Name, err)
		}
		if blake3.Sum256(memory) != info.BLAKE3 {
			return fmt.Errorf("%w: image %s: wrong checksum", ErrMalformed, info.Name)
		}
		if !yield(image) {
			return nil
		}
	}
	if n, err := d.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: more after the last image", ErrMalformed)
	}
	return nil
}

// patch reads count page numbers and pages into memory.
func patch(r io.Reader, memory []byte, count int) ([]uint32, error) {
	raw := make([]byte, 4*count)
	if _, err := io.ReadFull(r, raw); err != nil {
		return nil, err
	}
	pages := make([]uint32, count)
	for i := range pages {
		pages[i] = binary.LittleEndian.Uint32(raw[4*i:])
		if int(pages[i]) >= len(memory)/PageSize || (i > 0 && pages[i] <= pages[i-1]) {
			return nil, fmt.Errorf("page %d is out of order", pages[i])
		}
	}
	for _, p := range pages {
		if _, err := io.ReadFull(r, memory[int(p)*PageSize:][:PageSize]); err != nil {
			return nil, err
		}
	}
	return pages, nil
}
