package seglog

import (
	"errors"
	"fmt"
	"io"
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
		return &FrameError{Segment: seg.id, File: seg.path, Offset: loc.Offset, Reason: "can not be read", Err: err}
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
	_ = f.Prefetch(int64(loc.Offset), n)
}

// PayloadSize is how long the payload of the frame at loc is.
func (l Loc) PayloadSize() int { return int(l.Length) - headerSize }

func (l *Log) readFrame(loc Loc, buf []byte) (header, []byte, error) {
	seg, err := l.acquire(loc.Segment)
	if err != nil {
		return header{}, nil, fmt.Errorf("seglog: %s: %w", loc, err)
	}
	defer l.release(seg)
	fail := func(reason string, err error) (header, []byte, error) {
		return header{}, nil, &FrameError{Segment: seg.id, File: seg.path, Offset: loc.Offset, Reason: reason, Err: err}
	}
	if loc.Offset%frameAlign != 0 || loc.Length < headerSize || loc.Length > headerSize+MaxPayload ||
		int64(loc.Offset)+int64(loc.Length) > seg.written.Load() {
		return fail(fmt.Sprintf("no frame of %d bytes can be here", loc.Length), nil)
	}
	if cap(buf) < int(loc.Length) {
		buf = make([]byte, loc.Length)
	}
	buf = buf[:loc.Length]
	if err := l.readAt(seg, buf, int64(loc.Offset)); isTransient(err) {
		return header{}, nil, fmt.Errorf("seglog: %s: %w", loc, err)
	} else if err != nil {
		return fail("can not be read", err)
	}
	l.mu.RLock()
	now := l.epoch
	l.mu.RUnlock()
	hdr, err := l.seal.parseAt(buf, seg.id, int64(loc.Offset), now)
	if err != nil {
		return fail(err.Error(), nil)
	}
	payload := buf[headerSize:]
	if int(hdr.length) != len(payload) {
		return fail(fmt.Sprintf("a payload of %d bytes where %d were expected", hdr.length, len(payload)), nil)
	}
	if checksum(payload) != hdr.sum {
		return fail(errBadPayload.Error(), nil)
	}
	return hdr, payload, nil
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
		return nil, 0, nil, &FrameError{
			Segment: loc.Segment, File: l.segmentPath(loc.Segment), Offset: loc.Offset, Reason: err.Error(),
		}
	}
	return r.key, r.recordSeq, r.payload, nil
}
