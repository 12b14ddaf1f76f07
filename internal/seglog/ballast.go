package seglog

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A ballast is a file that takes up space until the disk is full. Then it is
// given up, so that those who make room (deletes, moves) have some to work
// with. Until it is whole again nobody else gets any.
type ballast struct {
	mu   sync.Mutex
	size int64
	held bool
	// refilling: makeLocked is at work, and takes what others may run short of.
	refilling atomic.Bool
}

func (b *ballast) init(l *Log) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.size > 0 && !b.held {
		b.makeLocked(l)
	}
}

func (b *ballast) isHeld() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.held
}

// restore reports whether the ballast is there, or again, or was never wanted.
func (b *ballast) restore(l *Log) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.size == 0 || b.held || b.makeLocked(l)
}

func (b *ballast) wanted() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.size
}

// adopt takes over the ballast that an earlier process left: it is there to be
// given up from the first write on.
func (b *ballast) adopt(l *Log) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.size = max(l.o.Ballast, 0)
	_, err := l.fs.Stat(l.ballastPath())
	b.held = err == nil
}

// release gives the ballast up; false if there is none left. True also when one
// that was being made again has just been given up: what it took is free.
func (b *ballast) release(l *Log) bool {
	refilling := b.refilling.Load()
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.held {
		return refilling
	}
	if err := l.fs.Remove(l.ballastPath()); err != nil {
		l.log.Warn("release ballast", "err", err)
		return false
	}
	b.held = false
	l.log.Warn("the disk is full: the ballast is released for deleting", "bytes", b.size)
	return true
}

// MakeRoom gives the ballast up for who works towards a Drop and does not write
// to the log. It tells whether there was one.
func (l *Log) MakeRoom() bool { return l.ballast.release(l) }

// Short tells whether the disk was full and is not known to have room again:
// what makes room is worth any price.
func (l *Log) Short() bool {
	l.ballast.mu.Lock()
	defer l.ballast.mu.Unlock()
	return l.ballast.size > 0 && !l.ballast.held
}

func (b *ballast) makeLocked(l *Log) bool {
	b.refilling.Store(true)
	defer b.refilling.Store(false)
	f, err := l.fs.Create(l.ballastPath(), writeCategory)
	if err == nil {
		err = errors.Join(fillBallast(f, b.size), f.Close())
		if err != nil {
			err = errors.Join(err, l.fs.Remove(l.ballastPath()))
		}
	}
	if err != nil {
		l.log.Debug("no room for the ballast", "err", err)
		return false
	}
	b.held = true
	return true
}

// fillBallast reserves blocks where the file system can, and writes zeros
// where it can not. It need not survive a crash: the next start makes another.
func fillBallast(f vfs.File, size int64) error {
	if f.Fd() != vfs.InvalidFd {
		if err := f.Preallocate(0, size); err == nil || isNoSpace(err) {
			return err
		}
	}
	buf := make([]byte, min(size, 1<<20))
	for off := int64(0); off < size; off += int64(len(buf)) {
		clear(buf)
		if _, err := f.Write(buf[:min(int64(len(buf)), size-off)]); err != nil {
			return err
		}
	}
	return nil
}

func (l *Log) ballastPath() string { return l.fs.PathJoin(l.o.Dir, ballastName) }
