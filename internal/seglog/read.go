package seglog

import (
	"errors"
	"fmt"
	"io"

	"github.com/snapstore/snapstore/internal/osfs"
)

// maxInFlight bounds the reads under way at one time.
const maxInFlight = 64

// ReadFrame reads one frame with one read, and verifies that it is the one
// that was written there. The payload lies in buf if that is large enough for
// the whole frame (loc.Length), else in a new buffer; to use one buffer again
// and again, keep buf itself, not the payload. Safe for concurrent use.
//
// ErrSegmentGone means that the segment was dropped: look up again where the
// content is. A *FrameError (ErrDamaged) means that the frame is not whole.
func (l *Log) ReadFrame(loc Loc, buf []byte) (Kind, []byte, error) {
	hdr, payload, err := l.readFrame(loc, buf)
	return hdr.kind, payload, err
}

// ReadPart fills buf with the payload of a frame from off on, as it is on disk:
// nothing is verified. It is for content that proves itself, of which less is
// wanted than the frame has; what does not prove itself is read with ReadFrame,
// which tells why. Its errors are those of ReadFrame, beside io.ErrUnexpectedEOF for
// what is beyond the frame. Safe for concurrent use.
func (l *Log) ReadPart(loc Loc, off int, buf []byte) error {
	seg, err := l.acquire(loc.Segment)
	if err != nil {
		return fmt.Errorf("seglog: %s: %w", loc, err)
	}
	defer l.release(seg)
	end := headerSize + int64(off) + int64(len(buf))
	if off < 0 || end > int64(loc.Length) || int64(loc.Offset)+end > seg.written.Load() {
		return fmt.Errorf("seglog: %s: %d bytes at %d of the payload: %w", loc, len(buf), off, io.ErrUnexpectedEOF)
	}
	err = l.readAt(seg, buf, int64(loc.Offset)+headerSize+int64(off))
	if isTransient(err) {
		return fmt.Errorf("seglog: %s: %w", loc, err)
	} else if err != nil {
		return l.frameError(loc, "can not be read", err)
	}
	return nil
}

// Prefetch asks the system to have n bytes from the frame at loc on at hand soon. It
// is a hint: what fails is not told. Safe for concurrent use.
func (l *Log) Prefetch(loc Loc, n int64) {
	seg, err := l.acquire(loc.Segment)
	if err != nil {
		return
	}
	defer l.release(seg)
	if n = min(n, seg.written.Load()-int64(loc.Offset)); n <= 0 {
		return
	}
	f, err := l.cache.get(seg.id, seg.path)
	if err != nil {
		return
	}
	defer l.cache.put(f)
	_ = osfs.Prefetch(f, int64(loc.Offset), n)
}

// PayloadSize is how long the payload of the frame at loc is.
func (l Loc) PayloadSize() int { return int(l.Length) - headerSize }

// Behind is what ReadOn saw of the frame behind the one it read; with a nil Head it
// saw none.
type Behind struct {
	Loc  Loc
	Kind Kind
	Head []byte // how the payload begins, as it is on disk
}

// ReadOn is ReadFrame for content that proves itself: the header is verified, the
// payload is as it is on disk. What was written together is mostly wanted together,
// so it reads on for the header behind and up to peek bytes of the payload there,
// where buf has room for more than the frame. Of what can not be read behind it says
// nothing. Safe for concurrent use.
func (l *Log) ReadOn(loc Loc, buf []byte, peek int) (Kind, []byte, Behind, error) {
	hdr, b, err := l.readOn(loc, buf, frameAlign+headerSize+peek)
	if err != nil {
		return 0, nil, Behind{}, err
	}
	payload := b[headerSize:loc.Length:loc.Length]
	next := alignUp(int64(loc.Length))
	if int64(len(b)) <= next+headerSize {
		return hdr.kind, payload, Behind{}, nil
	}
	b = b[next:]
	behind, err := l.seal.parseAt(b, loc.Segment, int64(loc.Offset)+next, l.now())
	if err != nil {
		return hdr.kind, payload, Behind{}, nil
	}
	head := b[headerSize:]
	return hdr.kind, payload, Behind{behind.loc(), behind.kind, head[:min(len(head), int(behind.length), peek)]}, nil
}

func (l *Log) readFrame(loc Loc, buf []byte) (header, []byte, error) {
	hdr, b, err := l.readOn(loc, buf, 0)
	if err != nil {
		return header{}, nil, err
	}
	payload := b[headerSize:]
	if checksum(payload) != hdr.sum {
		return header{}, nil, l.frameError(loc, errBadPayload.Error(), nil)
	}
	return hdr, payload, nil
}

// readOn reads a frame whose header verifies, and up to more bytes of what lies
// behind it.
func (l *Log) readOn(loc Loc, buf []byte, more int) (header, []byte, error) {
	seg, err := l.acquire(loc.Segment)
	if err != nil {
		return header{}, nil, fmt.Errorf("seglog: %s: %w", loc, err)
	}
	defer l.release(seg)
	left := seg.written.Load() - int64(loc.Offset) - int64(loc.Length)
	if loc.Offset%frameAlign != 0 || loc.Length < headerSize || loc.Length > headerSize+MaxPayload || left < 0 {
		return header{}, nil, l.frameError(loc, fmt.Sprintf("no frame of %d bytes can be here", loc.Length), nil)
	}
	if cap(buf) < int(loc.Length) {
		buf = make([]byte, loc.Length)
	}
	n := int(loc.Length)
	buf = buf[:n+int(min(int64(more), int64(cap(buf)-n), left))]
	err = l.readAt(seg, buf, int64(loc.Offset))
	if err != nil && len(buf) > n && !isTransient(err) { // it may be what lies behind
		buf = buf[:n]
		err = l.readAt(seg, buf, int64(loc.Offset))
	}
	if isTransient(err) {
		return header{}, nil, fmt.Errorf("seglog: %s: %w", loc, err)
	} else if err != nil {
		return header{}, nil, l.frameError(loc, "can not be read", err)
	}
	hdr, err := l.seal.parseAt(buf[:n], seg.id, int64(loc.Offset), l.now())
	if err != nil {
		return header{}, nil, l.frameError(loc, err.Error(), nil)
	}
	if hdr.loc().Length != loc.Length {
		return header{}, nil, l.frameError(loc, fmt.Sprintf("a payload of %d bytes where %d were expected", hdr.length, loc.PayloadSize()), nil)
	}
	return hdr, buf, nil
}

// now is the epoch of this opening; nothing has one that is yet to come.
func (l *Log) now() Epoch {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.epoch
}

func (l *Log) frameError(loc Loc, reason string, err error) error {
	return &FrameError{Segment: loc.Segment, File: l.segmentPath(loc.Segment), Offset: loc.Offset, Reason: reason, Err: err}
}

func (l *Log) readAt(seg *segment, p []byte, off int64) error {
	l.gate.enter()
	defer l.gate.leave()
	f, err := l.cache.get(seg.id, seg.path)
	if err != nil {
		return openError(err)
	}
	defer l.cache.put(f)
	n, err := f.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// A transientError is a file that is there but could not be opened: too many
// are open, or memory is short. It says nothing about the content.
type transientError struct{ err error }

func (e *transientError) Error() string { return e.err.Error() }
func (e *transientError) Unwrap() error { return e.err }

func openError(err error) error {
	if err == nil || isNotExist(err) {
		return err
	}
	return &transientError{err}
}

func isTransient(err error) bool {
	var t *transientError
	return errors.As(err, &t)
}

// ReadRecord is ReadFrame for a record, taken apart.
func (l *Log) ReadRecord(loc Loc) (key []byte, recordSeq uint64, payload []byte, err error) {
	hdr, p, err := l.readFrame(loc, nil)
	if err != nil {
		return nil, 0, nil, err
	}
	var r record
	if hdr.kind != KindRecord {
		err = fmt.Errorf("a %s where a record was expected", hdr.kind)
	} else {
		r, err = decodeRecord(p)
	}
	if err != nil {
		return nil, 0, nil, l.frameError(loc, err.Error(), nil)
	}
	return r.key, r.recordSeq, r.payload, nil
}
