package seglog

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Reserve is how much of the space that is kept back a request may use.
type Reserve uint8

const (
	// ReserveNone is for takes.
	ReserveNone Reserve = iota
	// ReserveFirst is for what moves what is alive, to make room.
	ReserveFirst
	// ReserveAll is for deletes, and for what lets segments go without a durable index.
	ReserveAll
)

// A reserve is space that files take up until the disk is full. Then it is given up
// in two steps, so that those who make room have some to work with: the first for
// all of them, and the last for batches that delete, and for opening. What moves copy,
// and what others on the file system write meanwhile, can eat the first; without the
// last no delete could be recorded then, and there would be no way out. Until all of it
// is there again no take gets any, and of the room of the last nothing that moves may
// use more than half.
type reserve struct{ first, last ballast }

// The last step is a quarter: 1 MiB of 4, and a delete takes some 10 KiB, of which the
// end of a segment, and ROOT with 72 bytes for each, are the most. More than maxLast
// no ROOT needs, and less than minLast is of no use.
const (
	lastShare = 4
	minLast   = 64 << 10
	maxLast   = 2 * maxRootFile
)

// adopt takes over what an earlier process left: it is there to be given up from the
// first write on.
func (r *reserve) adopt(l *Log) {
	size := max(l.o.Ballast, 0)
	last := min(size/lastShare, maxLast)
	if last < minLast {
		last = 0
	}
	r.last.adopt(l, ballastLastName, last)
	r.first.adopt(l, ballastName, size-last)
}

// start makes what is not there. The last step comes before the first, which gives
// way to it where there is no room for both.
func (r *reserve) start(l *Log) {
	if !r.last.restore(l) && r.first.release(l) {
		r.last.restore(l)
	}
	r.first.restore(l)
}

// restore reports whether the reserve is there, or again, or was never wanted.
func (r *reserve) restore(l *Log) bool { return r.last.restore(l) && r.first.restore(l) }

// roomFor tells whether something that moves may write so many bytes: not into the
// second half of the last step, if that is given up. Where there is twice the room it
// is made again.
func (r *reserve) roomFor(l *Log, bytes int64) bool {
	if !r.last.short() {
		return true
	}
	du, err := l.fs.GetDiskUsage(l.o.Dir)
	if err != nil {
		return false
	}
	free, size := int64(du.AvailBytes), r.last.wanted()
	return free >= 2*size && r.last.restore(l) || free-bytes >= size/2
}

// try does something, and again after each step of the reserve that is given up for it:
// as far as it may use that, and while there is no room. do is told which step has just
// been given up; who may not use that does not get any of it.
func (r *reserve) try(l *Log, may Reserve, do func(given Reserve) error) error {
	err := do(ReserveNone)
	if may >= ReserveFirst && isNoSpace(err) && r.first.release(l) {
		err = do(ReserveFirst)
	}
	if may >= ReserveAll && isNoSpace(err) && r.last.release(l) {
		err = do(ReserveAll)
	}
	return err
}

func (r *reserve) isHeld() bool { return r.size() > 0 && !r.short() }

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
func (l *Log) MakeRoom() bool { return l.reserve.first.release(l) }

// Short tells whether the disk was full and is not known to have room again:
// what makes room is worth any price.
func (l *Log) Short() bool { return l.reserve.short() }

func (b *ballast) makeLocked(l *Log) bool {
	b.refilling.Store(true)
	defer b.refilling.Store(false)
	// What has the name is whole: a process may end half way.
	temp := b.path(l) + tempSuffix
	f, err := l.fs.Create(temp, writeCategory)
	if err == nil {
		err = errors.Join(fillBallast(f, b.size), f.Close())
		if err == nil {
			err = l.fs.Rename(temp, b.path(l))
		}
		if err != nil {
			err = errors.Join(err, l.fs.Remove(temp))
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
