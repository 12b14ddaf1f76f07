package testkit

import (
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// FS is one process's view of a Disk. Safe for concurrent use.
type FS struct {
	disk *Disk

	mu     sync.Mutex // guards what follows; never held over the hook
	n      int64
	hook   func(FileOp)
	faults []*Fault
	onRead func(name string, off int64, p []byte)
	onSend func(name string, off int64, p []byte)
	spared int // above 0 while reads pass
	dead   bool
	killAt int64
}

var _ vfs.FS = (*FS)(nil)

// Disk is what the view shows.
func (f *FS) Disk() *Disk { return f.disk }

// Ops is how many mutating operations were begun.
func (f *FS) Ops() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.n
}

// OnOp sets what is called before every mutating operation, from the goroutine
// that asks for it and with nothing held; nil is nothing. A process that its
// hook kills does not get to the operation.
func (f *FS) OnOp(hook func(FileOp)) {
	f.mu.Lock()
	f.hook = hook
	f.mu.Unlock()
}

// Inject replaces the faults that are armed.
func (f *FS) Inject(faults ...*Fault) {
	f.mu.Lock()
	f.faults = faults
	f.mu.Unlock()
}

// Spare lets reads pass unharmed until resume is called.
func (f *FS) Spare() (resume func()) {
	f.mu.Lock()
	f.spared++
	f.mu.Unlock()
	return func() {
		f.mu.Lock()
		f.spared--
		f.mu.Unlock()
	}
}

// OnRead sets what may change the bytes that a read gives, as a disk does that
// serves another block; nil is nothing. The disk keeps what it has.
func (f *FS) OnRead(change func(name string, off int64, p []byte)) {
	f.mu.Lock()
	f.onRead = change
	f.mu.Unlock()
}

// OnWrite sets what may change the bytes on their way to the disk, as memory
// does that does not hold them; nil is nothing. The writer's are not touched.
func (f *FS) OnWrite(change func(name string, off int64, p []byte)) {
	f.mu.Lock()
	f.onSend = change
	f.mu.Unlock()
}

// KillAt lets the process die before its n-th mutating operation from now on;
// 0 is never.
func (f *FS) KillAt(n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.killAt = 0; n > 0 {
		f.killAt = f.n + n
	}
}

// Kill is kill -9: nothing the process still does reaches the disk, its locks
// are free, and what it wrote without a sync is in the page cache.
func (f *FS) Kill() {
	f.mu.Lock()
	f.dead = true
	f.mu.Unlock()
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	for name, by := range f.disk.locks {
		if by == f {
			delete(f.disk.locks, name)
		}
	}
}

// Dead tells whether the process was killed.
func (f *FS) Dead() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dead
}

// begin counts an operation, calls the hook and decides whether it fails.
func (f *FS) begin(kind OpKind, name string, size int) (torn bool, err error) {
	f.mu.Lock()
	op := FileOp{Kind: kind, Path: name, Size: size}
	if kind&Mutating != 0 && !f.dead {
		f.n++
		op.N = f.n
		if f.killAt != 0 && f.n >= f.killAt {
			f.mu.Unlock()
			f.Kill()
			return false, &os.PathError{Op: kind.String(), Path: name, Err: ErrKilled}
		}
	}
	if f.dead {
		f.mu.Unlock()
		return false, &os.PathError{Op: kind.String(), Path: name, Err: ErrKilled}
	}
	var fault *Fault
	for _, t := range f.faults {
		if f.spared > 0 && kind&Mutating == 0 {
			break
		}
		if t.hit(op) {
			fault = t
			break
		}
	}
	hook := f.hook
	f.mu.Unlock()
	if hook != nil && op.N != 0 {
		hook(op)
		if f.Dead() { // the hook killed it
			return false, &os.PathError{Op: kind.String(), Path: name, Err: ErrKilled}
		}
	}
	if fault != nil {
		if fault.Met != nil {
			fault.Met()
		}
		err := fault.Err
		if err == nil {
			err = ErrInjected
		}
		return fault.Torn, &os.PathError{Op: kind.String(), Path: name, Err: err}
	}
	return false, nil
}

// Create implements vfs.FS: an existing file of the name is replaced.
func (f *FS) Create(name string, _ vfs.DiskWriteCategory) (vfs.File, error) {
	if _, err := f.begin(OpCreate, name, 0); err != nil {
		return nil, err
	}
	d := f.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	dir, base, err := d.parent("create", name)
	if err != nil {
		return nil, err
	}
	if old := dir.names[base]; old != nil {
		if old.dir {
			return nil, &os.PathError{Op: "create", Path: name, Err: syscall.EISDIR}
		}
		d.unlink(old)
	}
	n := &inode{token: new(byte), mod: time.Now(), links: 1}
	dir.names[base] = n
	delete(dir.from, base)
	return f.handle(name, n, true), nil
}

func (f *FS) handle(name string, n *inode, write bool) *file {
	n.links++
	return &file{fs: f, name: name, n: n, writable: write}
}

// Open implements vfs.FS.
func (f *FS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	h, err := f.open(name, false)
	if err != nil {
		return nil, err
	}
	for _, o := range opts {
		o.Apply(h)
	}
	return h, nil
}

func (f *FS) open(name string, write bool) (*file, error) {
	if _, err := f.begin(OpOpen, name, 0); err != nil {
		return nil, err
	}
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	n := f.disk.find(name)
	if n == nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return f.handle(name, n, write), nil
}

// OpenReadWrite implements vfs.FS: a missing file is made.
func (f *FS) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	f.disk.mu.Lock()
	missing := f.disk.find(name) == nil
	f.disk.mu.Unlock()
	if missing {
		return f.Create(name, c)
	}
	h, err := f.open(name, true)
	if err != nil {
		return nil, err
	}
	for _, o := range opts {
		o.Apply(h)
	}
	return h, nil
}

// OpenDirect opens a file that is there for writes past the page cache. They are
// durable as others are: with the next sync of a handle of the file.
func (f *FS) OpenDirect(name string) (*Direct, error) {
	h, err := f.open(name, true)
	if err != nil {
		return nil, err
	}
	return &Direct{h}, nil
}

// OpenDir implements vfs.FS.
func (f *FS) OpenDir(name string) (vfs.File, error) { return f.Open(name) }

// Link implements vfs.FS.
func (f *FS) Link(oldname, newname string) error {
	if _, err := f.begin(OpLink, newname, 0); err != nil {
		return err
	}
	d := f.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.find(oldname)
	dir, base, err := d.parent("link", newname)
	switch {
	case err != nil:
		return err
	case n == nil || n.dir:
		return &os.LinkError{Op: "link", Old: oldname, New: newname, Err: fs.ErrNotExist}
	case dir.names[base] != nil:
		return &os.LinkError{Op: "link", Old: oldname, New: newname, Err: fs.ErrExist}
	}
	n.links++
	dir.names[base] = n
	return nil
}

// Remove implements vfs.FS.
func (f *FS) Remove(name string) error {
	if _, err := f.begin(OpRemove, name, 0); err != nil {
		return err
	}
	return f.remove(name, false)
}

// RemoveAll implements vfs.FS; it is one operation.
func (f *FS) RemoveAll(name string) error {
	if _, err := f.begin(OpRemove, name, 0); err != nil {
		return err
	}
	if err := f.remove(name, true); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}

func (f *FS) remove(name string, all bool) error {
	d := f.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	dir, base, err := d.parent("remove", name)
	if err != nil {
		return err
	}
	n := dir.names[base]
	if n == nil {
		return &os.PathError{Op: "remove", Path: name, Err: fs.ErrNotExist}
	}
	if len(n.names) > 0 && !all {
		return &os.PathError{Op: "remove", Path: name, Err: syscall.ENOTEMPTY}
	}
	delete(dir.names, base)
	delete(dir.from, base)
	d.unlink(n)
	return nil
}

// Rename implements vfs.FS.
func (f *FS) Rename(oldname, newname string) error {
	if _, err := f.begin(OpRename, newname, 0); err != nil {
		return err
	}
	d := f.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	from, a, err := d.parent("rename", oldname)
	if err != nil {
		return err
	}
	to, b, err := d.parent("rename", newname)
	if err != nil {
		return err
	}
	n := from.names[a]
	if n == nil {
		return &os.LinkError{Op: "rename", Old: oldname, New: newname, Err: fs.ErrNotExist}
	}
	if old := to.names[b]; old != nil {
		switch {
		case old == n:
			return nil
		case old.dir && !n.dir:
			return &os.LinkError{Op: "rename", Old: oldname, New: newname, Err: syscall.EISDIR}
		case old.dir && len(old.names) > 0:
			return &os.LinkError{Op: "rename", Old: oldname, New: newname, Err: syscall.ENOTEMPTY}
		}
		d.unlink(old)
	}
	delete(from.names, a)
	to.names[b] = n
	if from == to {
		source := a
		if first, ok := from.from[a]; ok {
			source = first // renamed twice since the last sync
			delete(from.from, a)
		}
		from.from[b] = source
	}
	return nil
}

// ReuseForWrite implements vfs.FS.
func (f *FS) ReuseForWrite(oldname, newname string, _ vfs.DiskWriteCategory) (vfs.File, error) {
	if err := f.Rename(oldname, newname); err != nil {
		return nil, err
	}
	return f.open(newname, true)
}

// MkdirAll implements vfs.FS.
func (f *FS) MkdirAll(name string, _ os.FileMode) error {
	if _, err := f.begin(OpMkdir, name, 0); err != nil {
		return err
	}
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	n := f.disk.root
	for _, p := range split(name) {
		c := n.names[p]
		if c == nil {
			c = newDir()
			n.names[p] = c
		}
		if !c.dir {
			return &os.PathError{Op: "mkdir", Path: name, Err: syscall.ENOTDIR}
		}
		n = c
	}
	return nil
}

// Lock implements vfs.FS.
func (f *FS) Lock(name string) (io.Closer, error) {
	name = path.Clean("/" + name)
	f.disk.mu.Lock()
	if f.disk.locks[name] != nil {
		f.disk.mu.Unlock()
		return nil, &os.PathError{Op: "lock", Path: name, Err: syscall.EAGAIN}
	}
	f.disk.locks[name] = f
	f.disk.mu.Unlock()
	h, err := f.OpenReadWrite(name, "")
	if err != nil {
		f.unlock(name)
		return nil, err
	}
	return &lock{f, name, h}, nil
}

func (f *FS) unlock(name string) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if f.disk.locks[name] == f {
		delete(f.disk.locks, name)
	}
}

type lock struct {
	fs   *FS
	name string
	f    vfs.File
}

func (l *lock) Close() error {
	l.fs.unlock(l.name)
	return l.f.Close()
}

// List implements vfs.FS, in order of names.
func (f *FS) List(name string) ([]string, error) {
	if _, err := f.begin(OpList, name, 0); err != nil {
		return nil, err
	}
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	n := f.disk.find(name)
	if n == nil {
		return nil, &os.PathError{Op: "list", Path: name, Err: fs.ErrNotExist}
	}
	if !n.dir {
		return nil, &os.PathError{Op: "list", Path: name, Err: syscall.ENOTDIR}
	}
	out := make([]string, 0, len(n.names))
	for s := range n.names {
		out = append(out, s)
	}
	slices.Sort(out)
	return out, nil
}

// Stat implements vfs.FS.
func (f *FS) Stat(name string) (vfs.FileInfo, error) {
	if _, err := f.begin(OpOpen, name, 0); err != nil {
		return nil, err
	}
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	n := f.disk.find(name)
	if n == nil {
		return nil, &os.PathError{Op: "stat", Path: name, Err: fs.ErrNotExist}
	}
	return n.info(path.Base(name)), nil
}

// PathBase implements vfs.FS.
func (*FS) PathBase(p string) string { return path.Base(p) }

// PathJoin implements vfs.FS.
func (*FS) PathJoin(elem ...string) string { return path.Join(elem...) }

// PathDir implements vfs.FS.
func (*FS) PathDir(p string) string { return path.Dir(p) }

// GetDiskUsage implements vfs.FS.
func (f *FS) GetDiskUsage(string) (vfs.DiskUsage, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	total := f.disk.capacity
	if total == 0 {
		total = 1 << 50
	}
	used := f.disk.used
	return vfs.DiskUsage{AvailBytes: uint64(max(total-used, 0)), TotalBytes: uint64(total), UsedBytes: uint64(used)}, nil
}

// Unwrap implements vfs.FS.
func (*FS) Unwrap() vfs.FS { return nil }
