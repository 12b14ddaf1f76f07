package testkit

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"
	"unsafe"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// file is an open handle. Like the operating system's it has a Truncate.
type file struct {
	fs       *FS
	name     string
	n        *inode
	writable bool

	mu     sync.Mutex
	pos    int64
	closed bool
}

var _ vfs.File = (*file)(nil)

func (h *file) begin(kind OpKind, size int) (torn bool, err error) {
	h.mu.Lock()
	closed := h.closed
	h.mu.Unlock()
	if closed {
		return false, &os.PathError{Op: kind.String(), Path: h.name, Err: fs.ErrClosed}
	}
	return h.fs.begin(kind, h.name, size)
}

// Close implements vfs.File.
func (h *file) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return &os.PathError{Op: "close", Path: h.name, Err: fs.ErrClosed}
	}
	h.closed = true
	h.fs.disk.mu.Lock()
	h.fs.disk.unlink(h.n)
	h.fs.disk.mu.Unlock()
	return nil
}

// Read implements vfs.File.
func (h *file) Read(p []byte) (int, error) {
	h.mu.Lock()
	at := h.pos
	h.mu.Unlock()
	n, err := h.ReadAt(p, at)
	if n > 0 {
		err = nil
	}
	h.mu.Lock()
	h.pos += int64(n)
	h.mu.Unlock()
	return n, err
}

// ReadAt implements vfs.File.
func (h *file) ReadAt(p []byte, off int64) (int, error) {
	if _, err := h.begin(OpRead, len(p)); err != nil {
		return 0, err
	}
	h.fs.disk.mu.Lock()
	n := h.n.readAt(p, off)
	h.fs.disk.mu.Unlock()
	h.fs.mu.Lock()
	change := h.fs.onRead
	h.fs.mu.Unlock()
	if change != nil && n > 0 {
		change(h.name, off, p[:n])
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Write implements vfs.File.
func (h *file) Write(p []byte) (int, error) {
	h.mu.Lock()
	at := h.pos
	h.mu.Unlock()
	n, err := h.WriteAt(p, at)
	h.mu.Lock()
	h.pos += int64(n)
	h.mu.Unlock()
	return n, err
}

// WriteAt implements vfs.File.
func (h *file) WriteAt(p []byte, off int64) (int, error) {
	if !h.writable {
		return 0, &os.PathError{Op: "write", Path: h.name, Err: fs.ErrPermission}
	}
	torn, err := h.begin(OpWrite, len(p))
	if err != nil && !torn {
		return 0, err
	}
	if torn {
		p = p[:len(p)/2]
	}
	h.fs.mu.Lock()
	change := h.fs.onSend
	h.fs.mu.Unlock()
	if change != nil {
		p = slices.Clone(p)
		change(h.name, off, p)
	}
	h.fs.disk.mu.Lock()
	defer h.fs.disk.mu.Unlock()
	if serr := h.fs.disk.grow(h.n, off+int64(len(p))); serr != nil {
		return 0, &os.PathError{Op: "write", Path: h.name, Err: serr}
	}
	h.n.write(p, off)
	return len(p), err
}

// Direct is a file that is written past the page cache. It refuses what a disk
// with blocks of 4096 bytes does.
type Direct struct{ h *file }

// ErrUnaligned: a direct write is not of whole blocks, or not from memory that is
// aligned like them.
var ErrUnaligned = errors.New("a direct write is not aligned")

// Align is what offset, length and address of a write are multiples of.
func (d *Direct) Align() int { return blockSize }

// WriteAt implements io.WriterAt.
func (d *Direct) WriteAt(p []byte, off int64) (int, error) {
	if off%blockSize != 0 || len(p)%blockSize != 0 || uintptr(unsafe.Pointer(unsafe.SliceData(p)))%blockSize != 0 {
		return 0, &os.PathError{Op: "direct write", Path: d.h.name, Err: ErrUnaligned}
	}
	return d.h.WriteAt(p, off)
}

// Close implements io.Closer.
func (d *Direct) Close() error { return d.h.Close() }

// Truncate cuts the file off or lengthens it with zeros.
func (h *file) Truncate(size int64) error {
	if _, err := h.begin(OpTruncate, int(size)); err != nil {
		return err
	}
	h.fs.disk.mu.Lock()
	defer h.fs.disk.mu.Unlock()
	return h.fs.disk.truncate(h.n, size)
}

// Preallocate implements vfs.File: it takes space and leaves the size.
func (h *file) Preallocate(off, length int64) error {
	if _, err := h.begin(OpReserve, int(length)); err != nil {
		return err
	}
	h.fs.disk.mu.Lock()
	defer h.fs.disk.mu.Unlock()
	if err := h.fs.disk.grow(h.n, off+length); err != nil {
		return &os.PathError{Op: "fallocate", Path: h.name, Err: err}
	}
	h.n.reserved = max(h.n.reserved, off+length)
	return nil
}

// Sync implements vfs.File.
func (h *file) Sync() error {
	if _, err := h.begin(OpSync, 0); err != nil {
		if !h.fs.Dead() {
			h.fs.disk.mu.Lock()
			h.n.giveUp()
			h.fs.disk.mu.Unlock()
		}
		return err
	}
	h.fs.disk.mu.Lock()
	defer h.fs.disk.mu.Unlock()
	h.n.sync()
	return nil
}

// SyncData implements vfs.File.
func (h *file) SyncData() error { return h.Sync() }

// SyncTo implements vfs.File: it promises nothing and does nothing.
func (h *file) SyncTo(int64) (bool, error) { return false, nil }

// Prefetch implements vfs.File.
func (h *file) Prefetch(int64, int64) error { return nil }

// Fd implements vfs.File.
func (h *file) Fd() uintptr { return vfs.InvalidFd }

// Stat implements vfs.File.
func (h *file) Stat() (vfs.FileInfo, error) {
	if _, err := h.begin(OpOpen, 0); err != nil {
		return nil, err
	}
	h.fs.disk.mu.Lock()
	defer h.fs.disk.mu.Unlock()
	return h.n.info(h.fs.PathBase(h.name)), nil
}

type info struct {
	name string
	size int64
	mod  time.Time
	dir  bool
}

func (n *inode) info(name string) info { return info{name, n.size, n.mod, n.dir} }

func (i info) Name() string           { return i.name }
func (i info) Size() int64            { return i.size }
func (i info) ModTime() time.Time     { return i.mod }
func (i info) IsDir() bool            { return i.dir }
func (i info) Sys() any               { return nil }
func (i info) DeviceID() vfs.DeviceID { return vfs.DeviceID{} }
func (i info) Mode() os.FileMode {
	if i.dir {
		return os.ModeDir | 0o700
	}
	return 0o600
}
