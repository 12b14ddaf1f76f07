package seglog

import (
	"container/list"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// maxOpenFiles bounds the read handles kept open. It is above the bound on
// operations in flight, so an idle handle to evict can always be found.
const maxOpenFiles = 128

// A fileCache keeps read handles of segments open, the most recently used ones.
type fileCache struct {
	fs  vfs.FS
	max int

	mu   sync.Mutex
	open map[SegmentID]*cachedFile
	lru  list.List // of *cachedFile, most recently used in front
}

// A cachedFile is closed when it has left the cache and nobody uses it.
type cachedFile struct {
	vfs.File
	id   SegmentID
	refs int           // guarded by fileCache.mu
	elem *list.Element // nil once out of the cache
}

func newFileCache(fs vfs.FS, most int) *fileCache {
	return &fileCache{fs: fs, max: most, open: make(map[SegmentID]*cachedFile)}
}

// get returns a handle, to be put back.
func (c *fileCache) get(id SegmentID, path string) (*cachedFile, error) {
	c.mu.Lock()
	if f := c.open[id]; f != nil {
		f.refs++
		c.lru.MoveToFront(f.elem)
		c.mu.Unlock()
		return f, nil
	}
	c.mu.Unlock()

	file, err := c.fs.Open(path)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	if f := c.open[id]; f != nil { // another reader was faster
		f.refs++
		c.lru.MoveToFront(f.elem)
		c.mu.Unlock()
		return f, file.Close()
	}
	f := &cachedFile{File: file, id: id, refs: 1}
	f.elem = c.lru.PushFront(f)
	c.open[id] = f
	var idle []vfs.File
	for e := c.lru.Back(); e != nil && len(c.open) > c.max; {
		old := e.Value.(*cachedFile)
		e = e.Prev()
		if old.refs == 0 {
			c.removeLocked(old)
			idle = append(idle, old.File)
		}
	}
	c.mu.Unlock()
	closeAll(idle)
	return f, nil
}

func (c *fileCache) put(f *cachedFile) {
	c.mu.Lock()
	f.refs--
	last := f.refs == 0 && f.elem == nil
	c.mu.Unlock()
	if last {
		_ = f.File.Close() // opened for reading: nothing to lose
	}
}

// forget closes the handle of a segment, as soon as nobody uses it.
func (c *fileCache) forget(id SegmentID) {
	c.mu.Lock()
	f := c.open[id]
	var idle []vfs.File
	if f != nil {
		c.removeLocked(f)
		if f.refs == 0 {
			idle = append(idle, f.File)
		}
	}
	c.mu.Unlock()
	closeAll(idle)
}

// clear forgets all.
func (c *fileCache) clear() {
	c.mu.Lock()
	var idle []vfs.File
	for _, f := range c.open {
		c.removeLocked(f)
		if f.refs == 0 {
			idle = append(idle, f.File)
		}
	}
	c.mu.Unlock()
	closeAll(idle)
}

func (c *fileCache) removeLocked(f *cachedFile) {
	c.lru.Remove(f.elem)
	f.elem = nil
	delete(c.open, f.id)
}

// closeAll closes handles that were opened for reading: nothing can be lost.
func closeAll(files []vfs.File) {
	for _, f := range files {
		_ = f.Close()
	}
}
