package seglog

import (
	"context"
	"errors"
	"fmt"
)

// snapshotLocked is what ROOT has to say now. Log.mu is held.
func (l *Log) snapshotLocked() *root {
	r := &root{
		features: l.features, generation: l.generation, store: l.store, key: l.key, epoch: l.epoch,
		nextSegment: l.nextSegment, nextSeq: l.nextSeq, floor: l.floor,
		last: l.last, lastHash: l.lastHash, segmentSize: l.segmentSize,
	}
	for _, s := range l.sortedLocked() {
		if !s.unused() {
			r.segments = append(r.segments, s.entry())
		}
	}
	return r
}

// unused reports a closed segment in which nothing was accepted: the next ROOT
// does not list it, and then it goes. One that ended under a Spill stays until
// that is closed, to tell whoever commits it why. Log.mu is held.
func (s *segment) unused() bool {
	return s.state != stateOpen && s.size == 0 && !s.missing && s.busy == 0
}

// writeRoot puts the table in both copies of ROOT, durably. rootMu is held.
// edit, if given, changes what is written; the caller does the same in memory
// afterwards. A failure leaves the disk at the old table or the new one, and
// the next writeRoot settles it: nothing that ROOT decides is acted upon
// before it has succeeded.
func (l *Log) writeRoot(edit func(*root)) error {
	l.mu.Lock()
	// Never two ROOTs of one generation, not even if one of them failed.
	l.generation++
	r := l.snapshotLocked()
	l.mu.Unlock()
	if edit != nil {
		edit(r)
	}
	if len(r.segments) > maxSegments {
		return fmt.Errorf("%w: %d segments", ErrTooLarge, len(r.segments))
	}
	end := l.stats.syncTimes.begin() // it is little more than syncs
	err := l.rootFiles.write(r)
	end()
	if err != nil {
		return spaceError(err)
	}
	l.stats.roots.Add(1)
	l.rootDue = false
	var gone []*segment
	l.mu.Lock()
	for i := range r.segments {
		if s := l.segs[r.segments[i].id]; s != nil {
			s.listed = true
		}
	}
	// Closed meanwhile is not the same as closed in r: only what r left out goes.
	for id, s := range l.segs {
		if s.unused() && !r.lists(id) {
			delete(l.segs, id)
			gone = append(gone, s)
		}
	}
	l.proved = max(l.proved, r.last)
	l.mu.Unlock()
	for _, s := range gone {
		l.release(s)
	}
	return nil
}

func (r *root) lists(id SegmentID) bool {
	for i := range r.segments {
		if r.segments[i].id == id {
			return true
		}
	}
	return false
}

// takeSegment returns an open segment that nobody else appends to, for at
// least capacity bytes. It takes the spare, or makes one.
func (l *Log) takeSegment(stream Stream, capacity int64) (*segment, error) {
	l.rootMu.Lock()
	defer l.rootMu.Unlock()
	if l.over {
		return nil, ErrClosed
	}
	if err := l.provideSpare(l.rootDue); err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.spare
	l.spare = nil
	s.stream, s.capacity = stream, max(capacity, l.segmentSize)
	return s, nil
}

// provideSpare makes sure that there is a spare on disk and in ROOT. Where it
// does nothing, it writes ROOT all the same if asked to. rootMu is held.
func (l *Log) provideSpare(write bool) error {
	l.mu.RLock()
	have := l.spare
	ready := have != nil && have.listed
	l.mu.RUnlock()
	if ready && !write {
		return nil
	}
	if have == nil {
		if err := l.createSpare(); err != nil {
			return spaceError(err)
		}
	}
	return l.writeRoot(nil)
}

func (l *Log) createSpare() error {
	l.mu.Lock()
	id := l.nextSegment
	l.nextSegment++ // burnt, whatever comes of it
	l.mu.Unlock()
	s := newSegment(id, l.segmentPath(id))
	f, err := l.fs.OpenReadWrite(s.path, writeCategory)
	if err != nil {
		return err
	}
	// The name is durable before ROOT lists it.
	end := l.stats.syncTimes.begin()
	err = syncDir(l.fs, l.fs.PathJoin(l.o.Dir, logDirName))
	end()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	s.file = f
	l.mu.Lock()
	l.segs[id] = s
	l.spare = s
	l.mu.Unlock()
	return nil
}

// retire hands a segment that nobody appends to any more over to be sealed.
func (l *Log) retire(s *segment) {
	l.mu.Lock()
	l.toSeal = append(l.toSeal, s)
	l.mu.Unlock()
	l.wantChores()
}

func (l *Log) wantChores() {
	select {
	case l.chores <- struct{}{}:
	default:
	}
}

// wantSpare asks for the next segment before the current one is full.
func (l *Log) wantSpare(s *segment) {
	if s.off <= s.capacity/2 {
		return
	}
	l.mu.RLock()
	have := l.spare != nil
	l.mu.RUnlock()
	if !have {
		l.wantChores()
	}
}

// choreLoop seals and creates segments beside the committer.
func (l *Log) choreLoop() {
	for {
		select {
		case <-l.stop:
			return
		case <-l.chores:
		}
		if err := l.sealRetired(true); err != nil {
			l.log.Warn("segments could not be sealed or created; that is tried again with the next one", "err", err)
		}
	}
}

// sealRetired seals what was retired and writes ROOT, with a new spare in it
// if wanted.
func (l *Log) sealRetired(spare bool) error {
	l.sealMu.Lock()
	defer l.sealMu.Unlock()
	l.mu.Lock()
	retired := l.toSeal
	l.toSeal = nil
	ro := l.readOnly
	l.mu.Unlock()
	if ro != nil {
		return ro
	}
	var failed error
	for _, s := range retired {
		failed = errors.Join(failed, l.sealSegment(s))
	}
	if l.finishing && failed != nil {
		// The last batch was to be synced with its segment. ROOT must not take
		// for proved what was not.
		return failed
	}
	l.rootMu.Lock()
	defer l.rootMu.Unlock()
	if spare {
		return l.provideSpare(len(retired) > 0)
	}
	if len(retired) == 0 {
		return nil
	}
	return l.writeRoot(nil)
}

// sealSegment ends a segment with a directory and syncs it, or ends it where
// it was last synced if that fails now, and says why. Nobody appends to it any
// more.
func (l *Log) sealSegment(s *segment) (err error) {
	s.ioMu.Lock()
	defer s.ioMu.Unlock()
	l.mu.RLock()
	failed := s.failed
	l.mu.RUnlock()
	state, size, dirAt := stateSealed, s.off, s.off
	if failed == nil && s.off > 0 {
		if size, err = l.writeDirectory(s); err != nil {
			failed = err
			l.log.Warn("segment could not be sealed; it ends where it was last synced", "file", s.path, "err", err)
			l.mu.Lock()
			s.failed = err
			l.mu.Unlock()
		}
	}
	l.mu.Lock()
	if failed != nil {
		state, size, dirAt = stateRecovered, s.size, 0
	}
	s.size, s.dirAt = size, dirAt
	s.close(state)
	l.mu.Unlock()
	// Gives back blocks that were reserved or withdrawn; ROOT has the length.
	if cerr := errors.Join(truncate(s.file, size), s.closeFile()); cerr != nil {
		l.log.Warn("close segment", "file", s.path, "err", cerr)
	}
	return err
}

// writeDirectory appends the directory and syncs the segment. ioMu is held.
func (l *Log) writeDirectory(s *segment) (size int64, err error) {
	d := directory{first: s.first, last: s.last, entries: s.entries}
	payload := d.append(make([]byte, 0, dirFixed+len(d.entries)*dirEntSize))
	if len(payload) > MaxPayload {
		return s.off, l.syncLocked(s) // it does without: ROOT has the hash
	}
	buf := make([]byte, frameSize(len(payload)))
	copy(buf[headerSize:], payload)
	hdr := header{
		kind: KindDirectory, stream: s.stream, length: uint32(len(payload)), offset: uint32(s.off),
		segment: s.id, epoch: l.epoch, sum: checksum(payload),
	}
	l.seal.put(buf, &hdr)
	if _, err := s.file.WriteAt(buf, s.off); err != nil {
		return 0, err
	}
	if err := l.syncLocked(s); err != nil {
		return 0, err
	}
	l.stats.streamBytes[s.stream].Add(uint64(len(buf)))
	return s.off + int64(len(buf)), nil
}

// syncLocked syncs all that was written to s. ioMu is held.
func (l *Log) syncLocked(s *segment) error {
	l.stats.syncs.Add(1)
	defer l.stats.syncTimes.begin()()
	return s.file.SyncData()
}

// Seal seals all open segments that hold data and are not being appended to,
// the others as soon as they are let go. New ones are made when needed.
func (l *Log) Seal(ctx context.Context) error {
	if err := l.check(); err != nil {
		return fmt.Errorf("seglog: seal: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	err := l.inCommitter(func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.cur != nil && !l.cur.empty {
			l.toSeal = append(l.toSeal, l.cur)
			l.cur = nil
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("seglog: seal: %w", err)
	}
	l.mu.Lock()
	for stream, pooled := range l.pool {
		l.toSeal = append(l.toSeal, pooled...)
		l.pool[stream] = nil
	}
	for _, s := range l.segs {
		if s.busy > 0 && s.state == stateOpen {
			s.sealSoon = true
		}
	}
	l.mu.Unlock()
	if err := l.sealRetired(false); err != nil {
		return fmt.Errorf("seglog: seal: %w", err)
	}
	return nil
}

// Drop removes closed segments. When it returns nil, ROOT does not list them
// any more and has a floor of at least floor and of their last batches; then
// their readers were waited for and the files removed. The caller has proved
// that nothing points into them, in an index state that is durable.
//
// If ctx ends while readers are waited for, the last reader removes the file.
func (l *Log) Drop(ctx context.Context, floor Sequence, segs ...SegmentID) error {
	if err := l.unlist(ctx, floor, segs, nil); err != nil {
		return fmt.Errorf("seglog: drop: %w", err)
	}
	return nil
}

// Quarantine is Drop for a segment with damage in it: the file is kept in the
// quarantine directory.
func (l *Log) Quarantine(ctx context.Context, floor Sequence, seg SegmentID) error {
	keep := func(s *segment) error {
		dir, err := l.quarantineDir()
		if err != nil {
			return err
		}
		// A second name, durable before ROOT forgets the first.
		dst := l.fs.PathJoin(dir, segmentName(s.id))
		if err := l.fs.Remove(dst); err != nil && !isNotExist(err) {
			return err
		}
		if err := l.fs.Link(s.path, dst); err != nil && !isNotExist(err) {
			return err
		}
		s.kept = true
		return syncDir(l.fs, dir)
	}
	if err := l.unlist(ctx, floor, []SegmentID{seg}, keep); err != nil {
		return fmt.Errorf("seglog: quarantine: %w", err)
	}
	return nil
}

func (l *Log) unlist(ctx context.Context, floor Sequence, ids []SegmentID, keep func(*segment) error) error {
	if err := l.check(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	l.rootMu.Lock()
	segs, floor, err := l.droppable(floor, ids)
	if err == nil && keep != nil {
		for _, s := range segs {
			if err = keep(s); err != nil {
				break
			}
		}
	}
	if err == nil {
		err = l.writeRoot(func(r *root) {
			r.floor = floor
			left := r.segments[:0]
			for _, e := range r.segments {
				if !contains(segs, e.id) {
					left = append(left, e)
				}
			}
			r.segments = left
		})
	}
	if err == nil {
		l.mu.Lock()
		l.floor = floor
		for _, s := range segs {
			delete(l.segs, s.id)
		}
		l.mu.Unlock()
	}
	l.rootMu.Unlock()
	if err != nil {
		return err
	}
	for _, s := range segs {
		l.release(s)
	}
	for _, s := range segs {
		select {
		case <-s.reaped:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	// The next full disk needs it again; whoever makes room may want what came
	// free before that.
	if du, err := l.fs.GetDiskUsage(l.o.Dir); err == nil && int64(du.AvailBytes) > 4*l.reserve.size() {
		l.reserve.restore(l)
	}
	return nil
}

// droppable returns the segments that may leave the table, and the floor that
// goes with it.
func (l *Log) droppable(floor Sequence, ids []SegmentID) ([]*segment, Sequence, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if floor > l.last {
		return nil, 0, fmt.Errorf("floor %s is above the last batch %s", floor, l.last)
	}
	floor = max(floor, l.floor)
	var segs []*segment
	for _, id := range ids {
		s := l.segs[id]
		switch {
		case s == nil || s.unused():
			continue // gone already, or with the ROOT that is about to be written
		case s.state == stateOpen:
			return nil, 0, fmt.Errorf("segment %s is open", id)
		case s.busy > 0:
			return nil, 0, fmt.Errorf("segment %s: %w", id, ErrBusy)
		case contains(segs, id):
			continue
		}
		floor = max(floor, s.last)
		segs = append(segs, s)
	}
	return segs, floor, nil
}

func contains(segs []*segment, id SegmentID) bool {
	for _, s := range segs {
		if s.id == id {
			return true
		}
	}
	return false
}
