package index

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// The filter is saved beside Pebble so that an Open need not read the whole
// index. The file is worth nothing: any doubt about it and the filter is built
// from the index. So it is not synced, and its checksum tells a torn one.
const (
	filterMagic      = "snapfilt"
	filterVersion    = 1
	filterHeaderSize = 8 + 4 + 4 + 16 + 8 + 8 + 8 + 8 + 8 + 8
	layerHeaderSize  = 8 + 8 + 8
	// maxFilterLayers bounds what is read; a saved filter has few.
	maxFilterLayers = 64
)

// filterHeader says which states of the index a saved filter covers. That takes
// more than a watermark: what is destroyed, and when, is not in the log.
type filterHeader struct {
	store [16]byte
	// opened is the state in which the session that saved the filter began.
	opened stateID
	// session and the serials from base through covers are the states which that
	// session went through while the filter was added to.
	session      uint64
	base, covers uint64
	seed         uint64
	layers       uint32
}

// has says whether every ID of the state s is in the filter.
func (h filterHeader) has(s stateID) bool {
	if s.session == h.session {
		return h.base <= s.serial && s.serial <= h.covers
	}
	return s == h.opened && h.base <= s.serial
}

func appendFilterHeader(dst []byte, h filterHeader) []byte {
	dst = append(dst, filterMagic...)
	dst = binary.LittleEndian.AppendUint32(dst, filterVersion)
	dst = binary.LittleEndian.AppendUint32(dst, h.layers)
	dst = append(dst, h.store[:]...)
	for _, v := range [...]uint64{h.opened.session, h.opened.serial, h.session, h.base, h.covers, h.seed} {
		dst = binary.LittleEndian.AppendUint64(dst, v)
	}
	return dst
}

var errFilter = errors.New("index: saved filter is not usable")

func decodeFilterHeader(b []byte) (filterHeader, error) {
	if len(b) != filterHeaderSize || string(b[:8]) != filterMagic ||
		binary.LittleEndian.Uint32(b[8:]) != filterVersion {
		return filterHeader{}, errFilter
	}
	h := filterHeader{layers: binary.LittleEndian.Uint32(b[12:]), store: [16]byte(b[16:32])}
	for i, v := range [...]*uint64{&h.opened.session, &h.opened.serial, &h.session, &h.base, &h.covers, &h.seed} {
		*v = binary.LittleEndian.Uint64(b[32+8*i:])
	}
	if h.layers == 0 || h.layers > maxFilterLayers || h.base > h.covers {
		return filterHeader{}, errFilter
	}
	return h, nil
}

// writeFilter writes a filter that may be added to meanwhile: what is added comes
// after h.covers and may be in the file or not. It sets base, seed and layers.
func writeFilter(w io.Writer, h filterHeader, f *filter) error {
	layers := *f.layers.Load()
	h.layers, h.base, h.seed = uint32(len(layers)), f.base, f.seed
	sum := xxhash.New()
	out := bufio.NewWriterSize(w, 256<<10)
	both := io.MultiWriter(out, sum)

	if _, err := both.Write(appendFilterHeader(nil, h)); err != nil {
		return err
	}
	var buf []byte
	for _, l := range layers {
		buf = binary.LittleEndian.AppendUint64(buf[:0], l.blocks)
		buf = binary.LittleEndian.AppendUint64(buf, l.capacity)
		buf = binary.LittleEndian.AppendUint64(buf, l.added.Load())
		if _, err := both.Write(buf); err != nil {
			return err
		}
		for words := l.words; len(words) > 0; {
			n := min(len(words), 8192)
			buf = buf[:0]
			for i := range words[:n] {
				buf = binary.LittleEndian.AppendUint64(buf, atomic.LoadUint64(&words[i]))
			}
			if _, err := both.Write(buf); err != nil {
				return err
			}
			words = words[n:]
		}
	}
	if _, err := out.Write(sum.Sum(nil)); err != nil {
		return err
	}
	return out.Flush()
}

// readFilter reads what writeFilter wrote, size bytes in all. It allocates no
// more than that.
func readFilter(r io.Reader, size int64) (filterHeader, *filter, error) {
	sum := xxhash.New()
	in := bufio.NewReaderSize(r, 256<<10)
	left := size
	read := func(b []byte) error {
		if left -= int64(len(b)); left < 0 {
			return errFilter
		}
		if _, err := io.ReadFull(in, b); err != nil {
			return fmt.Errorf("%w: %w", errFilter, err)
		}
		_, _ = sum.Write(b)
		return nil
	}

	head := make([]byte, filterHeaderSize)
	if err := read(head); err != nil {
		return filterHeader{}, nil, err
	}
	h, err := decodeFilterHeader(head)
	if err != nil {
		return filterHeader{}, nil, err
	}
	var layers []*bloomLayer
	chunk := make([]byte, 64<<10)
	for range h.layers {
		head := head[:layerHeaderSize]
		if err := read(head); err != nil {
			return filterHeader{}, nil, err
		}
		l := &bloomLayer{
			blocks:   binary.LittleEndian.Uint64(head),
			capacity: binary.LittleEndian.Uint64(head[8:]),
		}
		l.added.Store(binary.LittleEndian.Uint64(head[16:]))
		if l.blocks == 0 || l.blocks > uint64(left)/blockBytes || l.capacity == 0 {
			return filterHeader{}, nil, errFilter
		}
		l.words = make([]uint64, l.blocks*blockWords)
		for words := l.words; len(words) > 0; {
			part := chunk[:min(8*len(words), len(chunk))]
			if err := read(part); err != nil {
				return filterHeader{}, nil, err
			}
			for ; len(part) > 0; part, words = part[8:], words[1:] {
				words[0] = binary.LittleEndian.Uint64(part)
			}
		}
		layers = append(layers, l)
	}
	want := sum.Sum64()
	tail := head[:8]
	if err := read(tail); err != nil {
		return filterHeader{}, nil, err
	}
	if left != 0 || binary.BigEndian.Uint64(tail) != want {
		return filterHeader{}, nil, errFilter
	}
	f := &filter{base: h.base, seed: h.seed}
	f.layers.Store(&layers)
	return h, f, nil
}

// saveFilter replaces the saved filter in dir.
func saveFilter(fs vfs.FS, dir string, h filterHeader, f *filter) error {
	tmp := fs.PathJoin(dir, filterFile+".tmp")
	out, err := fs.Create(tmp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	if err := errors.Join(writeFilter(out, h, f), out.Close()); err != nil {
		return errors.Join(err, fs.Remove(tmp))
	}
	return fs.Rename(tmp, fs.PathJoin(dir, filterFile))
}

// loadFilter returns the saved filter of dir if it covers the state m.
func loadFilter(fs vfs.FS, dir string, m meta) (*filter, error) {
	in, err := fs.Open(fs.PathJoin(dir, filterFile))
	if err != nil {
		return nil, err
	}
	defer in.Close()
	stat, err := in.Stat()
	if err != nil {
		return nil, err
	}
	h, f, err := readFilter(in, stat.Size())
	if err != nil {
		return nil, err
	}
	if h.store != m.store || !h.has(m.state) {
		return nil, fmt.Errorf("%w: it is of other states than the one found", errFilter)
	}
	f.base = m.state.serial
	return f, nil
}
