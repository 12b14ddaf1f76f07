package demodata

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/klauspost/compress/zstd"
	"github.com/zeebo/blake3"
)

// Build makes the file of a series. The same images give the same bytes as
// long as the compressor's version is the same; an image may not be smaller
// than the one before.
func Build(images [][]byte) ([]byte, error) {
	if len(images) > maxImages {
		return nil, fmt.Errorf("%d images, at most %d", len(images), maxImages)
	}
	var table, raw []byte
	var before []byte
	for i, image := range images {
		if len(image)%PageSize != 0 || len(image) < len(before) || len(image) > maxImageSize {
			return nil, fmt.Errorf("image %d of %d bytes", i, len(image))
		}
		pages := changed(before, image)
		for _, p := range pages {
			raw = binary.LittleEndian.AppendUint32(raw, p)
		}
		for _, p := range pages {
			raw = append(raw, image[int(p)*PageSize:][:PageSize]...)
		}
		table = binary.LittleEndian.AppendUint64(table, uint64(len(image)))
		table = binary.LittleEndian.AppendUint32(table, uint32(len(pages)))
		table = binary.LittleEndian.AppendUint32(table, 0)
		sum := blake3.Sum256(image)
		table = append(table, sum[:]...)
		before = image
	}
	// One worker, since the cut between workers' blocks would depend on their
	// number. Time does not matter here, size does.
	e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(windowSize),
		zstd.WithEncoderLevel(zstd.SpeedBestCompression))
	if err != nil {
		return nil, err
	}
	payload := e.EncodeAll(raw, nil)
	if err := e.Close(); err != nil {
		return nil, err
	}
	out := []byte(magic)
	out = binary.LittleEndian.AppendUint32(out, version)
	out = binary.LittleEndian.AppendUint32(out, PageSize)
	out = binary.LittleEndian.AppendUint32(out, uint32(len(images)))
	out = binary.LittleEndian.AppendUint64(out, uint64(len(payload)))
	out = binary.LittleEndian.AppendUint64(out, uint64(len(raw)))
	sum := blake3.Sum256(payload)
	out = append(out, sum[:]...)
	out = append(out, table...)
	sum = blake3.Sum256(out)
	out = append(out, sum[:]...)
	return append(out, payload...), nil
}

// changed lists the pages of b that differ from those of a; beyond the end of
// a there are zeros.
func changed(a, b []byte) []uint32 {
	var pages []uint32
	zero := make([]byte, PageSize)
	for off := 0; off < len(b); off += PageSize {
		old := zero
		if off < len(a) {
			old = a[off:][:PageSize]
		}
		if !bytes.Equal(old, b[off:][:PageSize]) {
			pages = append(pages, uint32(off/PageSize))
		}
	}
	return pages
}
