package seglog

import (
	"errors"
	"fmt"
)

// Close ends the log: what waits is committed, the last batch is proved, open
// segments are sealed, and ROOT says so. Idempotent. An error means that the
// next Open has some recovering to do, nothing worse.
func (l *Log) Close() error {
	l.once.Do(func() { l.closed = l.close() })
	return l.closed
}

func (l *Log) close() error {
	l.mu.Lock()
	started := l.phase == phaseStarted
	l.phase = phaseClosed
	l.mu.Unlock()
	defer l.cache.clear()
	l.queue.close()
	close(l.stop)
	l.done.Wait()
	var err error
	if started && l.ReadOnly() == nil {
		err = l.finish()
	}
	l.rootMu.Lock()
	l.over = true
	l.rootMu.Unlock()
	// What is open still was left so by a failure, or by a spill that nobody
	// closed and that may be at it right now.
	l.mu.RLock()
	segs := l.sortedLocked()
	l.mu.RUnlock()
	for _, s := range segs {
		s.ioMu.Lock()
		if s.file != nil {
			err = errors.Join(err, s.closeFile())
		}
		s.ioMu.Unlock()
	}
	if err != nil {
		return fmt.Errorf("seglog: close: %w", spaceError(err))
	}
	return nil
}

// finish brings the log to rest, so that the next Open has nothing to find out.
func (l *Log) finish() error {
	l.finishing = true
	if l.cur != nil {
		if l.unproved() {
			// Not with the last of the reserve: nothing is lost without this batch, and
			// the next Open may need that.
			if err := l.reserve.try(l, ReserveFirst, func(Reserve) error { return l.writeBatch(nil) }); err != nil {
				return err
			}
		}
	}
	// Who is about to take the spare gets it whole or is refused, and is followed by
	// nobody.
	l.rootMu.Lock()
	l.over = true
	l.mu.Lock()
	if l.cur != nil {
		l.toSeal = append(l.toSeal, l.cur)
		l.cur = nil
	}
	for stream, pooled := range l.pool {
		l.toSeal = append(l.toSeal, pooled...)
		l.pool[stream] = nil
	}
	if l.spare != nil {
		l.toSeal = append(l.toSeal, l.spare)
		l.spare = nil
	}
	l.mu.Unlock()
	l.rootMu.Unlock()
	return l.sealRetired(false)
}
