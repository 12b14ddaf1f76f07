package seglog

import (
	"errors"
	"io"
	"unsafe"
)

const (
	// directAlign is what every alignment for direct writes divides.
	directAlign = 4096
	// defaultDirectLeast is the least that is written past the page cache: a direct
	// write waits for the disk, 0.3 to 1 ms here, and a buffered one for memory.
	defaultDirectLeast = 256 << 10
)

// DirectFile is a file that is written past the page cache, next to the handle
// that syncs it. Its errors wrap errors.ErrUnsupported where it turns out that the
// file system can not do that.
type DirectFile interface {
	io.WriterAt
	io.Closer
	// Align is what offset, length and address of a write must be multiples of. It
	// divides 4096.
	Align() int
}

// writeOut writes what a Spill gathered. Most of it goes past the page cache, where
// the file system can: it is read once more at most, soon by nobody, and pages of
// the cache cost more than the disk where the system has to get them from
// somewhere first (a virtual machine whose host takes free memory back wrote 0.26
// to 0.5 GB/s through the cache, and 1.0 past it, with hardly any CPU time). The
// ends, which are no whole blocks, go through the cache. It says whether that was
// all. ioMu is held, and only one Spill at a time writes to a segment.
func (l *Log) writeOut(seg *segment, p []byte, off int64) (buffered bool, err error) {
	first := (off + directAlign - 1) / directAlign * directAlign
	last := (off + int64(len(p))) / directAlign * directAlign
	d := l.directOf(seg, last-first)
	if d == nil || uintptr(unsafe.Pointer(&p[first-off]))%uintptr(d.Align()) != 0 {
		_, err = seg.file.WriteAt(p, off)
		return true, err
	}
	if _, err = d.WriteAt(p[first-off:last-off], first); errors.Is(err, errors.ErrUnsupported) {
		l.noDirect.Store(true)
		_, err = seg.file.WriteAt(p, off)
		return true, err
	}
	if err != nil {
		return false, err
	}
	l.stats.directBytes.Add(uint64(last - first))
	if first > off {
		if _, err = seg.file.WriteAt(p[:first-off], off); err != nil {
			return false, err
		}
	}
	if end := p[last-off:]; len(end) > 0 {
		_, err = seg.file.WriteAt(end, last)
	}
	return false, err
}

// directOf gives the handle for direct writes of n bytes, nil where they should not
// be. ioMu is held.
func (l *Log) directOf(seg *segment, n int64) DirectFile {
	if n < int64(l.o.DirectLeast) || l.o.OpenDirect == nil || l.noDirect.Load() {
		return nil
	}
	if seg.direct == nil {
		d, err := l.o.OpenDirect(seg.path)
		if err != nil {
			if errors.Is(err, errors.ErrUnsupported) {
				l.noDirect.Store(true)
			}
			return nil // what is amiss with the file, the other handle tells
		}
		seg.direct = d
	}
	return seg.direct
}

// closeFile closes what is open of the segment. ioMu is held, or nobody writes.
func (s *segment) closeFile() error {
	err := s.file.Close()
	s.file = nil
	if s.direct != nil {
		err = errors.Join(err, s.direct.Close())
		s.direct = nil
	}
	return err
}
