package seglog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	// scanChunk is what a scan reads at once: large enough that the system
	// call does not show, small enough to be still cached when it is hashed.
	scanChunk = 1 << 20
	// scanSector is the piece in which an unreadable chunk is tried again, so
	// that one bad sector costs the frames on it and no others.
	scanSector = 4 << 10
)

// A span is a run of bytes in a file, [from, to).
type span struct{ from, to int64 }

func (s span) overlaps(o span) bool { return s.from < o.to && o.from < s.to }

// A window slides over a file that is read front to back.
type window struct {
	ctx   context.Context
	gate  gate
	pool  *sync.Pool // of *[]byte of scanChunk
	f     vfs.File
	limit int64 // nothing is read from here on

	buf        []byte
	start      int64 // of buf in the file
	bad        []span
	err        error // why bad is bad
	impatience int   // reads that were tried again
}

// view returns the bytes [off, off+n), or fewer where the limit cuts them. They
// are valid until the next call. Bytes that could not be read are zeros and
// known to unreadable. The error is that of the context.
func (w *window) view(off, n int64) ([]byte, error) {
	n = min(n, w.limit-off)
	if n <= 0 {
		return nil, nil
	}
	if off < w.start || off+n > w.start+int64(len(w.buf)) {
		if err := w.fill(off, n); err != nil {
			return nil, err
		}
		n = min(n, w.start+int64(len(w.buf))-off)
	}
	return w.buf[off-w.start:][:max(n, 0)], nil
}

func (w *window) fill(off, n int64) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	size := min(max(n, scanChunk), w.limit-off)
	have := 0
	if off >= w.start && off < w.start+int64(len(w.buf)) {
		have = copy(w.buf, w.buf[off-w.start:])
	}
	if int64(cap(w.buf)) < size {
		var grown []byte
		if size <= scanChunk {
			grown = *w.pool.Get().(*[]byte)
		} else {
			grown = make([]byte, size)
		}
		copy(grown, w.buf[:have])
		w.giveBack()
		w.buf = grown
	}
	w.buf, w.start = w.buf[:size], off
	w.forget(off)
	got, err := w.read(w.buf[have:], off+int64(have))
	w.buf = w.buf[:have+got]
	return err
}

// giveBack returns the buffer to the pool it came from.
func (w *window) giveBack() {
	if cap(w.buf) == scanChunk {
		buf := w.buf[:scanChunk]
		w.pool.Put(&buf)
	}
	w.buf = nil
}

// forget drops the bad spans before off.
func (w *window) forget(off int64) {
	for len(w.bad) > 0 && w.bad[0].to <= off {
		w.bad = w.bad[1:]
	}
}

// A sector that can not be read is read again so often, with a pause; of one
// segment no more than scanPatience times in all.
const (
	scanTries    = 3
	scanPatience = 32
	scanPause    = 5 * time.Millisecond
)

func (w *window) read(p []byte, off int64) (int, error) {
	w.gate.enter()
	defer w.gate.leave()
	n, err := w.f.ReadAt(p, off)
	if err == nil || n == len(p) {
		return len(p), nil
	}
	if errors.Is(err, io.EOF) {
		w.limit = off + int64(n)
		return n, nil
	}
	for done := 0; done < len(p); {
		if err := w.ctx.Err(); err != nil {
			return done, err
		}
		piece := p[done:min(done+scanSector, len(p))]
		at := off + int64(done)
		n, err := w.f.ReadAt(piece, at)
		for tries := 0; n < len(piece) && err != nil && !errors.Is(err, io.EOF) && tries < scanTries && w.impatience < scanPatience; tries++ {
			// What is taken for damage here may be sealed as such.
			w.impatience++
			time.Sleep(scanPause)
			n, err = w.f.ReadAt(piece, at)
		}
		if n < len(piece) && errors.Is(err, io.EOF) {
			w.limit = at + int64(n)
			return done + n, nil
		}
		if n < len(piece) {
			clear(piece)
			w.bad = append(w.bad, span{at, at + int64(len(piece))})
			w.err = err
		}
		done += len(piece)
	}
	return len(p), nil
}

// unreadable returns the error that [from, to) met, if it did.
func (w *window) unreadable(from, to int64) error {
	for _, b := range w.bad {
		if b.overlaps(span{from, to}) {
			return w.err
		}
	}
	return nil
}

// A scanItem is a frame, or a gap: a run of bytes in which no frame starts.
type scanItem struct {
	span
	frame   bool
	hdr     header
	payload []byte // valid until the next item; nil if err is set or nothing is verified
	err     error  // *FrameError: a frame that is not whole, or why this is a gap
	zero    bool   // a gap of zeros only
}

// A scanner finds the frames of a segment. Behind bytes that are no header it
// goes on at the next header that verifies for the place where it stands, so
// one damaged frame never hides its neighbours, and no payload can forge one.
type scanner struct {
	w      window
	seal   *sealer
	seg    SegmentID
	file   string
	now    Epoch // frames of a later epoch are not ours
	off    int64
	listed int64 // how long the file should be
	verify bool  // check payloads too
}

// next returns the next item; ok is false at the end. Its error is that of the
// context.
func (s *scanner) next() (it scanItem, ok bool, err error) {
	if s.off >= s.w.limit {
		if s.off < s.listed {
			it = scanItem{span: span{s.off, s.listed}, zero: true}
			it.err = s.fail(s.off, "the file ends here", nil)
			s.off = s.listed
			return it, true, nil
		}
		return scanItem{}, false, nil
	}
	head, err := s.w.view(s.off, headerSize)
	if err != nil {
		return scanItem{}, false, err
	}
	hdr, bad := s.seal.parseAt(head, s.seg, s.off, s.now)
	if bad != nil {
		return s.gap(bad)
	}
	it = scanItem{span: span{s.off, hdr.end()}, frame: true, hdr: hdr}
	whole := s.off + headerSize + int64(hdr.length)
	switch {
	case whole > s.w.limit:
		it.err = s.fail(s.off, "the frame is cut short", nil)
	case s.verify:
		b, err := s.w.view(s.off, whole-s.off)
		if err != nil {
			return scanItem{}, false, err
		}
		if err := s.w.unreadable(s.off, whole); err != nil {
			it.err = s.fail(s.off, "can not be read", err)
		} else if int64(len(b)) < whole-s.off {
			it.err = s.fail(s.off, "the frame is cut short", nil)
		} else if p := b[headerSize:]; checksum(p) != hdr.sum {
			it.err = s.fail(s.off, errBadPayload.Error(), nil)
		} else {
			it.payload = p
		}
	}
	s.off = it.to
	return it, true, nil
}

// gap skips to the next header, or to the end.
func (s *scanner) gap(reason error) (scanItem, bool, error) {
	it := scanItem{span: span{from: s.off}, zero: true}
	var unreadable error
	off := s.off
search:
	for off < s.w.limit {
		b, err := s.w.view(off, scanSector)
		if err != nil {
			return scanItem{}, false, err
		}
		if len(b) == 0 {
			break // the file became shorter
		}
		if unreadable == nil {
			unreadable = s.w.unreadable(off, off+int64(len(b)))
		}
		for i := 0; i < len(b); i += frameAlign {
			c := b[i:min(i+frameAlign, len(b))]
			if off > s.off || i > 0 {
				if _, err := s.seal.parseAt(c, s.seg, off+int64(i), s.now); err == nil {
					off += int64(i)
					break search
				}
			}
			it.zero = it.zero && isZero(c)
		}
		off += int64(len(b))
	}
	it.to = off
	if unreadable != nil {
		it.zero = false
		it.err = s.fail(s.off, "can not be read", unreadable)
	} else {
		it.err = s.fail(s.off, reason.Error(), nil)
	}
	s.off = off
	return it, true, nil
}

func (s *scanner) fail(off int64, reason string, err error) *FrameError {
	return &FrameError{Segment: s.seg, File: s.file, Offset: uint32(off), Reason: reason, Err: err}
}

// A gate bounds how many file operations are in flight: each one that blocks
// holds a thread.
type gate chan struct{}

func newGate(n int) gate { return make(gate, n) }
func (g gate) enter()    { g <- struct{}{} }
func (g gate) leave()    { <-g }

// openScanner starts a scan of the first listed bytes of a segment (all there
// are, if listed is negative). The caller closes the file.
func (l *Log) openScanner(ctx context.Context, seg *segment, from, listed int64, verify bool) (*scanner, error) {
	f, err := l.fs.Open(seg.path)
	if err != nil {
		return nil, openError(err)
	}
	st, err := f.Stat()
	if err != nil {
		return nil, errors.Join(openError(err), f.Close())
	}
	limit := st.Size()
	if listed >= 0 {
		limit = min(limit, listed)
	}
	if limit > maxSegmentFile {
		return nil, errors.Join(fmt.Errorf("%s: %d bytes are too many for a segment", seg.path, limit), f.Close())
	}
	l.mu.RLock()
	now := l.epoch
	l.mu.RUnlock()
	return &scanner{
		w:    window{ctx: ctx, gate: l.gate, pool: &l.chunks, f: f, limit: limit},
		seal: l.seal, seg: seg.id, file: seg.path, now: now, off: from, listed: listed, verify: verify,
	}, nil
}

// close ends the scan; no payload of it is valid any more.
func (s *scanner) close() error {
	s.w.giveBack()
	return s.w.f.Close()
}

// maxSegmentFile is what offsets of 32 bits can reach.
const maxSegmentFile = 1<<32 - frameAlign
