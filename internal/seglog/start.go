package seglog

import (
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Start makes the log writable. When it returns, what Open accepted can not be
// taken back by any crash, and what it did not accept can not come back.
//
// No listed segment is changed before the new ROOT, which lists every replayed
// one with the length that was accepted: until then a crash leaves all evidence
// for the next Open to come to the same decision, and afterwards bytes behind
// those lengths mean nothing.
func (l *Log) Start(ctx context.Context) error {
	l.mu.Lock()
	p, rec := l.phase, l.found
	l.found = nil
	l.mu.Unlock()
	if p == phaseClosed {
		return fmt.Errorf("seglog: start: %w", ErrClosed)
	}
	if rec == nil {
		return errors.New("seglog: start: it was tried before; open the log again")
	}
	if err := l.start(ctx, rec); err != nil {
		return fmt.Errorf("seglog: start: %w", spaceError(err))
	}
	return nil
}

func (l *Log) start(ctx context.Context, rec *recovered) error {
	for _, s := range rec.open {
		if s.missing {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := l.withReserve(func() error { return l.settle(ctx, s, rec.lastIn(s)) }); err != nil {
			return err
		}
	}
	for _, f := range rec.foreign {
		if err := l.withReserve(func() error { return l.putAside(f) }); err != nil {
			return err
		}
	}

	l.mu.Lock()
	for _, s := range rec.open {
		s.close(stateRecovered)
	}
	l.epoch++
	l.mu.Unlock()
	l.reserve.start(l)
	var cur *segment
	take := func() (err error) {
		cur, err = l.takeSegment(StreamCommit, l.segmentSize)
		return err
	}
	err := l.withReserve(take)
	if isNoSpace(err) && len(rec.unlisted) > 0 {
		if err = l.rootFiles.sync(); err == nil {
			err = l.removeUnlisted(rec)
		}
		if err == nil {
			err = take()
		}
	}
	if err != nil {
		return err
	}
	// Only now: the ROOT that was read, and lists them no more, may have been in
	// memory alone, left by a process that was killed. A power loss would bring back
	// the one before it.
	if err := l.removeUnlisted(rec); err != nil {
		return err
	}
	for _, s := range rec.open {
		if !s.missing && s.size > 0 {
			if err := l.cutFile(s); err != nil {
				// ROOT has the length: these bytes only take up space.
				l.log.Warn("cut segment", "file", s.path, "err", err)
			}
		}
	}

	l.mu.Lock()
	l.phase = phaseStarted
	l.mu.Unlock()
	l.cur = cur
	l.done.Go(l.commitLoop)
	l.done.Go(l.choreLoop)
	// The first batch names the last accepted one.
	return l.withReserve(func() error { return l.inCommitter(func() error { return l.writeBatch(nil) }) })
}

// removeUnlisted ends drops that did not finish. A ROOT without the segments is
// durable.
func (l *Log) removeUnlisted(rec *recovered) error {
	for _, id := range rec.unlisted {
		if err := l.fs.Remove(l.segmentPath(id)); err != nil && !isNotExist(err) {
			return err
		}
	}
	return nil
}

// withReserve does a step of Start, again with the room of the reserve when there is
// none: a store on a full disk must open, or nothing can be deleted.
func (l *Log) withReserve(step func() error) error {
	return l.reserve.try(l, ReserveAll, func(Reserve) error { return step() })
}

// lastIn returns the bytes of the last accepted batch, if it stands in s and is
// whole: one that is not was proved synced by something else.
func (rec *recovered) lastIn(s *segment) span {
	if n := len(rec.accepted); n > 0 && rec.accepted[n-1].seg == s && rec.accepted[n-1].whole {
		return span{rec.accepted[n-1].start, rec.accepted[n-1].end}
	}
	return span{}
}

// writeAgain writes what a file shows over itself. A sync that failed may have
// left bytes in the page cache that count as clean, and no later sync writes
// those.
func writeAgain(f vfs.File, at span) error {
	buf := make([]byte, min(at.to-at.from, scanChunk))
	for off := at.from; off < at.to; {
		n, err := f.ReadAt(buf[:min(int64(len(buf)), at.to-off)], off)
		if n == 0 {
			return err
		}
		if _, err := f.WriteAt(buf[:n], off); err != nil {
			return err
		}
		off += int64(n)
	}
	return nil
}

// stillWhole looks once more at a batch that was written again: the page that
// Open read may have left the cache meanwhile, and what came back from the disk
// be something else.
func (l *Log) stillWhole(ctx context.Context, s *segment, at span) error {
	if at.from == at.to {
		return nil
	}
	sc, err := l.openScanner(ctx, s, at.from, at.to, true)
	if err != nil {
		return err
	}
	defer sc.close()
	b, err := (&batchReader{sc: sc, seg: s, covered: at.from}).next()
	if err != nil {
		return err
	}
	if b == nil || !b.whole || (span{b.start, b.end}) != at {
		return fmt.Errorf("%s: %w: the last batch, at %d, reads otherwise than before; open the log again", s.path, ErrDamaged, at.from)
	}
	return nil
}

// settle makes what was accepted of a segment durable, and saves what was not.
// last is the batch that nothing proves to have been synced, if it stands here;
// what it depends on was synced before it.
func (l *Log) settle(ctx context.Context, s *segment, last span) (err error) {
	f, err := l.fs.OpenReadWrite(s.path, writeCategory)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	end := st.Size()
	if s.size > 0 {
		// That it could be read does not mean that it is on disk.
		if err := writeAgain(f, last); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
		l.stats.syncs.Add(1)
		if err := l.stillWhole(ctx, s, last); err != nil {
			return err
		}
	}
	if s.stream == StreamBulk || s.stream == StreamMoved {
		if s.entries, err = l.headers(ctx, s, s.size); err != nil {
			return err
		}
	}
	if end <= s.size {
		return nil
	}
	from, to, err := occupied(f, s.size, end)
	if err != nil || from == to {
		return err
	}
	if s.stream == StreamBulk || s.stream == StreamMoved {
		// No batch names it, so nobody was told that it is there.
		l.stats.discardedB.Add(uint64(to - from))
		l.log.Info("spilled data without a batch is discarded", "file", s.path, "bytes", to-from)
		return nil
	}
	name := fmt.Sprintf("%s-%010d.tail", s.id, s.size)
	if err := l.quarantine(name, f, s.size, to); err != nil {
		return err
	}
	l.stats.quarantinedB.Add(uint64(to - s.size))
	l.log.Warn("unproved tail is quarantined", "file", s.path, "offset", s.size, "bytes", to-s.size, "as", name)
	return nil
}

// occupied narrows [from, end) down to what is not zeros.
func occupied(f vfs.File, from, end int64) (int64, int64, error) {
	buf := make([]byte, min(end-from, scanChunk))
	first, last := end, from
	for off := from; off < end; {
		n, err := f.ReadAt(buf[:min(int64(len(buf)), end-off)], off)
		if n == 0 {
			return from, from, err
		}
		for i := 0; i < n; i += frameAlign {
			if c := buf[i:min(i+frameAlign, n)]; !isZero(c) {
				first = min(first, off+int64(i))
				last = off + int64(i+len(c))
			}
		}
		off += int64(n)
	}
	if first >= last {
		return from, from, nil
	}
	return first, last, nil
}

// quarantine saves bytes of f under a name that is the same however often
// recovery is interrupted.
func (l *Log) quarantine(name string, f vfs.File, from, to int64) error {
	dir, err := l.quarantineDir()
	if err != nil {
		return err
	}
	if err := copyTail(l.fs, l.fs.PathJoin(dir, name), f, from, to); err != nil {
		return err
	}
	return syncDir(l.fs, dir)
}

func (l *Log) quarantineDir() (string, error) {
	dir := l.fs.PathJoin(l.o.Dir, quarantineDir)
	if _, err := l.fs.Stat(dir); err == nil {
		return dir, nil
	}
	if err := l.fs.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	return dir, syncDir(l.fs, l.o.Dir)
}

// putAside deals with a file whose number ROOT has not given out.
func (l *Log) putAside(f foreignFile) error {
	path := l.segmentPath(f.id)
	if !f.used {
		return l.fs.Remove(path)
	}
	dir, err := l.quarantineDir()
	if err != nil {
		return err
	}
	if err := l.fs.Rename(path, l.fs.PathJoin(dir, segmentName(f.id))); err != nil {
		return err
	}
	return syncDir(l.fs, dir)
}

// cutFile gives back what is behind the accepted end.
func (l *Log) cutFile(s *segment) error {
	f, err := l.fs.OpenReadWrite(s.path, writeCategory)
	if err != nil {
		return err
	}
	return errors.Join(truncate(f, s.size), f.Close())
}
