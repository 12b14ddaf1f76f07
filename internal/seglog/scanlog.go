package seglog

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime"

	"golang.org/x/sync/errgroup"
)

// Scan yields every frame of every segment, of all streams, in order of
// segment and offset. Directories are left out. See ScanSegment.
func (l *Log) Scan(ctx context.Context) iter.Seq2[FrameInfo, error] {
	return func(yield func(FrameInfo, error) bool) {
		for _, id := range l.segmentIDs() {
			for f, err := range l.ScanSegment(ctx, id) {
				if errors.Is(err, ErrSegmentGone) {
					break // dropped meanwhile
				}
				if !yield(f, err) || err != nil {
					return
				}
			}
		}
	}
}

// ScanEach is Scan for who does not mind the order of segments: they are read side
// by side, on all cores. each is called concurrently; frames of one segment come one
// after the other, in order. Its first error ends the scan.
func (l *Log) ScanEach(ctx context.Context, each func(FrameInfo) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, id := range l.segmentIDs() {
		g.Go(func() error {
			for f, err := range l.ScanSegment(ctx, id) {
				if errors.Is(err, ErrSegmentGone) {
					break // dropped meanwhile
				}
				if err == nil {
					err = each(f)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

func (l *Log) segmentIDs() (ids []SegmentID) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, s := range l.sortedLocked() {
		ids = append(ids, s.id)
	}
	return ids
}

// ScanSegment yields the frames of one segment as far as they are synced. A
// frame that is not whole comes with Damaged set. Where headers are lost, the
// directory says which frames there were; without it one FrameInfo of no Kind
// stands for all that was in those bytes. An error ends the sequence: that of
// ctx, or ErrSegmentGone.
func (l *Log) ScanSegment(ctx context.Context, id SegmentID) iter.Seq2[FrameInfo, error] {
	return func(yield func(FrameInfo, error) bool) {
		s, err := l.acquire(id)
		if err != nil {
			yield(FrameInfo{}, fmt.Errorf("seglog: scan segment %s: %w", id, err))
			return
		}
		defer l.release(s)
		if err := l.scanSegment(ctx, s, yield); err != nil {
			yield(FrameInfo{}, fmt.Errorf("seglog: scan segment %s: %w", id, err))
		}
	}
}

func (l *Log) scanSegment(ctx context.Context, s *segment, yield func(FrameInfo, error) bool) error {
	l.mu.RLock()
	stream, size, dirAt, hash, closed := s.stream, s.size, s.dirAt, s.hash, s.state != stateOpen
	l.mu.RUnlock()
	end := size
	if dirAt > 0 {
		end = dirAt
	}
	if end == 0 {
		return nil
	}
	sc, err := l.openScanner(ctx, s, 0, end, true)
	if isTransient(err) {
		return err
	}
	if err != nil {
		err := &FrameError{Segment: s.id, File: s.path, Reason: "can not be opened", Err: err}
		l.addDamage(Damage{File: s.path, Segment: s.id, Length: uint32(end), Reason: reasonOf(err)})
		yield(FrameInfo{Stream: stream, Loc: spanLoc(s.id, span{0, end}), Damaged: err}, nil)
		return nil
	}
	defer sc.close()
	dir, whole := newDirHasher(), true
	for {
		it, ok, err := sc.next()
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		if !it.frame {
			whole = false
			for _, f := range l.lostFrames(s, stream, hash, it) {
				if !yield(f, nil) {
					return nil
				}
			}
			continue
		}
		dir.add(entryOf(&it.hdr))
		f := infoOf(&it.hdr, it.err)
		f.Payload = it.payload
		if it.err != nil {
			l.addDamage(frameDamage(s, &it.hdr, it.hdr.seq, it.err))
		}
		if !yield(f, nil) {
			return nil
		}
	}
	if whole && closed && dir.sum() != hash {
		l.addDamage(Damage{File: s.path, Segment: s.id, Length: uint32(end), Reason: "these are not the frames that were sealed"})
	}
	return nil
}

// lostFrames lists the frames that a gap swallowed.
func (l *Log) lostFrames(s *segment, stream Stream, hash Hash, gap scanItem) []FrameInfo {
	l.addDamage(Damage{
		File: s.path, Segment: s.id, Offset: uint32(gap.from), Length: uint32(gap.to - gap.from), Reason: reasonOf(gap.err),
	})
	dir, err := l.readDirectory(s)
	if err != nil || hashEntries(dir.entries) != hash {
		return []FrameInfo{{Stream: stream, Loc: spanLoc(s.id, gap.span), Damaged: gap.err}}
	}
	var lost []FrameInfo
	for _, e := range dir.entries {
		if gap.overlaps(span{int64(e.offset), e.end()}) {
			lost = append(lost, FrameInfo{
				Kind: e.kind, Stream: stream, Damaged: gap.err,
				Loc: Loc{Segment: s.id, Offset: e.offset, Length: headerSize + e.length},
			})
		}
	}
	return lost
}

// CheckDirectories reads the directory of every sealed segment; what is wrong
// with them is in Damage afterwards. Without its directory a segment whose
// headers rot can not say what it held.
func (l *Log) CheckDirectories(ctx context.Context) error {
	for _, info := range l.Segments() {
		if err := ctx.Err(); err != nil {
			return err
		}
		s, err := l.acquire(info.ID)
		if errors.Is(err, ErrSegmentGone) {
			continue
		}
		if err != nil {
			return err
		}
		err = l.checkDirectory(s)
		l.release(s)
		if err != nil {
			return err
		}
	}
	return nil
}

func (l *Log) checkDirectory(s *segment) error {
	l.mu.RLock()
	at, size, hash, sealed := s.dirAt, s.size, s.hash, s.state == stateSealed
	l.mu.RUnlock()
	if !sealed || at == 0 || at >= size {
		return nil // it has none
	}
	dir, err := l.readDirectory(s)
	if isTransient(err) {
		return err
	}
	if err == nil && hashEntries(dir.entries) != hash {
		err = errors.New("it does not name the frames that were sealed")
	}
	if err != nil {
		l.addDamage(Damage{
			File: s.path, Segment: s.id, Offset: uint32(at), Length: uint32(size - at), Kind: KindDirectory, Reason: "directory: " + err.Error(),
		})
	}
	return nil
}

// readDirectory reads the directory frame of a sealed segment.
func (l *Log) readDirectory(s *segment) (*directory, error) {
	l.mu.RLock()
	size, at := s.size, s.dirAt
	l.mu.RUnlock()
	if at == 0 || at >= size {
		return nil, errors.New("no directory was written")
	}
	head := make([]byte, headerSize)
	if err := l.readAt(s, head, at); err != nil {
		return nil, err
	}
	hdr, err := l.seal.parseAt(head, s.id, at, maxEpoch)
	if err != nil {
		return nil, err
	}
	if hdr.kind != KindDirectory || hdr.end() > size {
		return nil, errors.New("no directory where it should be")
	}
	payload := make([]byte, hdr.length)
	if err := l.readAt(s, payload, at+headerSize); err != nil {
		return nil, err
	}
	if checksum(payload) != hdr.sum {
		return nil, errBadPayload
	}
	return decodeDirectory(payload)
}

// maxEpoch is for headers whose segment is known to be of a past epoch.
const maxEpoch = ^Epoch(0)

// ignore returns err unless it is the one that does not matter.
func ignore(err, harmless error) error {
	if errors.Is(err, harmless) {
		return nil
	}
	return err
}
