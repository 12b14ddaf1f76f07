package seglog

import (
	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"
)

// Forget asks the operating system to keep nothing of a segment in memory, so
// that the next read comes from the disk. It is a wish: what it can not do, it
// leaves.
func (l *Log) Forget(id SegmentID) {
	s, err := l.acquire(id)
	if err != nil {
		return
	}
	defer l.release(s)
	f, err := l.cache.get(s.id, s.path)
	if err != nil {
		return
	}
	defer l.cache.put(f)
	if fd := f.Fd(); fd != vfs.InvalidFd {
		_ = unix.Fadvise(int(fd), 0, 0, unix.FADV_DONTNEED)
	}
}
