package seglog

import (
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A segment is a file of the log, open or closed.
type segment struct {
	id   SegmentID
	path string

	// Guarded by Log.mu.

	stream      Stream
	state       segState
	size        int64 // what is accepted and synced; grows while open
	dirAt       int64
	first, last Sequence
	hash        Hash
	empty       bool  // no frames but trailers
	listed      bool  // the ROOT on disk knows it: only then may it be written
	missing     bool  // listed, but Open found no file
	busy        int   // spills that wrote to it and are not closed
	failed      error // a write or sync failed; nothing is written any more
	sealSoon    bool  // seal it as soon as its appender lets go
	kept        bool  // the file has a second name in quarantine; under rootMu

	// Owned by the one who appends: the committer, a Spill, or after both the
	// one who seals. Handed over under Log.mu.

	file     vfs.File   // nil once closed
	direct   DirectFile // the same file, once a Spill wrote much to it; nil once closed
	off      int64      // where the next frame goes; ahead of written while a Spill buffers
	entries  []dirEntry
	capacity int64

	// ioMu is held over writes and syncs of file: vfs allows one at a time,
	// and a Commit syncs what the next Spill already appends to.
	ioMu    sync.Mutex
	written atomic.Int64 // bytes that ReadFrame can find in the file

	// refs counts readers, and one for standing in the table. Incremented only
	// under Log.mu while the segment stands in the table.
	refs   atomic.Int64
	reaped chan struct{} // closed when the file is gone
}

func newSegment(id SegmentID, path string) *segment {
	s := &segment{id: id, path: path, empty: true, state: stateOpen, reaped: make(chan struct{})}
	s.refs.Store(1)
	return s
}

// entry is the segment's line in ROOT. Log.mu is held.
func (s *segment) entry() segEntry {
	return segEntry{
		id: s.id, stream: s.stream, state: s.state, length: uint32(s.size), dirAt: uint32(s.dirAt),
		first: s.first, last: s.last, hash: s.hash, empty: s.empty,
	}
}

// close ends the segment at s.size, in memory. Log.mu is held.
func (s *segment) close(state segState) {
	for len(s.entries) > 0 && s.entries[len(s.entries)-1].end() > s.size {
		s.entries = s.entries[:len(s.entries)-1]
	}
	s.state = state
	s.hash = hashEntries(s.entries)
	s.entries = nil
	s.written.Store(s.size)
}

// note records in memory that a frame was, or is about to be, appended.
func (s *segment) note(h *header) {
	s.entries = append(s.entries, entryOf(h))
	s.off = h.end()
}

// acquire returns a segment of the table, to be released.
func (l *Log) acquire(id SegmentID) (*segment, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.phase == phaseClosed {
		return nil, ErrClosed
	}
	s := l.segs[id]
	if s == nil {
		return nil, ErrSegmentGone
	}
	s.refs.Add(1)
	return s, nil
}

// release gives back what acquire gave. The last one out removes the file of
// a segment that left the table.
func (l *Log) release(s *segment) {
	if s.refs.Add(-1) > 0 {
		return
	}
	l.cache.forget(s.id)
	remove := removeInSteps
	if s.kept {
		remove = vfs.FS.Remove // the bytes live on under another name
	}
	if err := remove(l.fs, s.path); err != nil && !isNotExist(err) {
		// The next Start finds a file that ROOT does not list, and removes it.
		l.log.Warn("remove segment", "file", s.path, "err", err)
	}
	close(s.reaped)
}

// dropStep is how much of a file is given up at once: freeing extents holds
// the file system's journal, and with it other writers' syncs.
const dropStep = 8 << 20

// removeInSteps unlinks a file after shrinking it bit by bit.
func removeInSteps(fs vfs.FS, path string) error {
	f, err := fs.OpenReadWrite(path, writeCategory)
	if err != nil {
		return err
	}
	if t, ok := f.(interface{ Truncate(int64) error }); ok {
		if st, err := f.Stat(); err == nil {
			for size := st.Size() - dropStep; size > 0; size -= dropStep {
				if t.Truncate(size) != nil {
					break // unlinking does it all the same
				}
			}
		}
	}
	if err := f.Close(); err != nil {
		return err
	}
	return fs.Remove(path)
}
