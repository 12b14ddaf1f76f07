package seglog

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A reserve is space that files take up until the disk is full. Then it is given up
// in two steps, so that those who make room have some to work with: the first for
// whoever makes room, by deleting or by moving what is alive out of the way, and the
// last for batches alone, which are deletes or what lets segments go without a durable
// index. What moves copy, and what others on the file system write meanwhile, can eat
// the first; without the last no delete could be recorded then, and there would be no
// way out. Until all of it is there again nobody else gets any, and until the last
// is, nothing is moved.
type reserve struct{ first, last ballast }

// lastShare of the reserve is its last step: 1 MiB of 4, and a delete takes some 10
// KiB, of which ROOT and the end of a segment are the most.
const lastShare = 4

// adopt takes over what an earlier process left: it is there to be given up from the
// first write on.
func (r *reserve) adopt(l *Log) {
	size := max(l.o.Ballast, 0)
	r.last.adopt(l, ballastLastName, size/lastShare)
	r.first.adopt(l, ballastName, size-size/lastShare)
}

// restore reports whether the reserve is there, or again, or was never wanted.
func (r *reserve) restore(l *Log) bool { return r.restoreLast(l) && r.first.restore(l) }

// restoreLast is restore for who moves. The last step comes before the first, which
// gives way to it where there is no room for both.
func (r *reserve) restoreLast(l *Log) bool {
	return r.last.restore(l) || r.first.release(l) && r.last.restore(l)
}

// release gives the first step up; false if there is none left.
func (r *reserve) release(l *Log) bool { return r.first.release(l) }

// releaseAny gives up the step that is next; false if there is none left.
func (r *reserve) releaseAny(l *Log) bool { return r.first.release(l) || r.last.release(l) }

func (r *reserve) isHeld() bool { return r.first.isHeld() && r.last.isHeld() }

// short: some of it is wanted and not there.
func (r *reserve) short() bool { return r.first.short() || r.last.short() }

func (r *reserve) size() int64 { return r.first.wanted() + r.last.wanted() }

// A ballast is one file of the reserve.
type ballast struct {
	mu   sync.Mutex
	name string
	size int64
	held bool
	// refilling: makeLocked is at work, and takes what others may run short of.
	refilling atomic.Bool
}

func (b *ballast) isHeld() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.held
}

func (b *ballast) short() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.size > 0 && !b.held
}

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

func (b *ballast) adopt(l *Log, name string, size int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.name, b.size = name, size
	_, err := l.fs.Stat(b.path(l))
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
	if err := l.fs.Remove(b.path(l)); err != nil {
		l.log.Warn("release ballast", "err", err)
		return false
	}
	b.held = false
	l.log.Warn("the disk is full: space kept back for deleting is released", "file", b.name, "bytes", b.size)
	return true
}

// MakeRoom gives the first step of the reserve up for who works towards a Drop and
// does not write to the log. It tells whether there was one.
func (l *Log) MakeRoom() bool { return l.reserve.release(l) }

// Short tells whether the disk was full and is not known to have room again:
// what makes room is worth any price.
func (l *Log) Short() bool { return l.reserve.short() }

func (b *ballast) makeLocked(l *Log) bool {
	b.refilling.Store(true)
	defer b.refilling.Store(false)
	f, err := l.fs.Create(b.path(l), writeCategory)
	if err == nil {
		err = errors.Join(fillBallast(f, b.size), f.Close())
		if err != nil {
			err = errors.Join(err, l.fs.Remove(b.path(l)))
		}
	}
	if err != nil {
		l.log.Debug("no room for the ballast", "file", b.name, "err", err)
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

func (b *ballast) path(l *Log) string { return l.fs.PathJoin(l.o.Dir, b.name) }
