package seglog

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// An fsOp is one call to a faultFS.
type fsOp struct {
	name string // create, open, openrw, remove, rename, link, mkdir, list, stat, read, write, sync, syncdata, syncto, truncate
	path string
	off  int64
	n    int64
	grow bool // the file becomes longer
}

// changes reports an operation after which a crash may leave something else.
func (o fsOp) changes() bool {
	switch o.name {
	case "open", "list", "stat", "read", "syncto":
		return false
	}
	return true
}

func (o fsOp) segment() bool { return strings.HasSuffix(o.path, segmentSuffix) }

// errGone is what a process gets that does not run any more: nothing is done.
var errGone = errors.New("the process is gone")

// A faultFS asks before every operation whether it shall fail.
type faultFS struct {
	vfs.FS
	before func(fsOp) error
}

func (f *faultFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := f.before(fsOp{name: "create", path: name}); err != nil {
		return nil, err
	}
	return f.wrap(name)(f.FS.Create(name, c))
}

func (f *faultFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	if err := f.before(fsOp{name: "open", path: name}); err != nil {
		return nil, err
	}
	return f.wrap(name)(f.FS.Open(name, opts...))
}

func (f *faultFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	if err := f.before(fsOp{name: "openrw", path: name}); err != nil {
		return nil, err
	}
	return f.wrap(name)(f.FS.OpenReadWrite(name, c, opts...))
}

func (f *faultFS) OpenDir(name string) (vfs.File, error) { return f.wrap(name)(f.FS.OpenDir(name)) }

func (f *faultFS) Remove(name string) error {
	if err := f.before(fsOp{name: "remove", path: name}); err != nil {
		return err
	}
	return f.FS.Remove(name)
}

func (f *faultFS) Rename(from, to string) error {
	if err := f.before(fsOp{name: "rename", path: to}); err != nil {
		return err
	}
	return f.FS.Rename(from, to)
}

func (f *faultFS) Link(from, to string) error {
	if err := f.before(fsOp{name: "link", path: to}); err != nil {
		return err
	}
	return f.FS.Link(from, to)
}

func (f *faultFS) MkdirAll(dir string, perm os.FileMode) error {
	if err := f.before(fsOp{name: "mkdir", path: dir}); err != nil {
		return err
	}
	return f.FS.MkdirAll(dir, perm)
}

func (f *faultFS) List(dir string) ([]string, error) {
	if err := f.before(fsOp{name: "list", path: dir}); err != nil {
		return nil, err
	}
	return f.FS.List(dir)
}

func (f *faultFS) Stat(name string) (vfs.FileInfo, error) {
	if err := f.before(fsOp{name: "stat", path: name}); err != nil {
		return nil, err
	}
	return f.FS.Stat(name)
}

func (f *faultFS) wrap(name string) func(vfs.File, error) (vfs.File, error) {
	return func(file vfs.File, err error) (vfs.File, error) {
		if err != nil {
			return nil, err
		}
		return &faultFile{File: file, fs: f, path: name}, nil
	}
}

type faultFile struct {
	vfs.File
	fs   *faultFS
	path string
}

func (f *faultFile) ReadAt(p []byte, off int64) (int, error) {
	if err := f.fs.before(fsOp{name: "read", path: f.path, off: off, n: int64(len(p))}); err != nil {
		return 0, err
	}
	return f.File.ReadAt(p, off)
}

func (f *faultFile) Write(p []byte) (int, error) {
	if err := f.fs.before(fsOp{name: "write", path: f.path, n: int64(len(p)), grow: true}); err != nil {
		return 0, err
	}
	return f.File.Write(p)
}

// WriteAt leaves half of the bytes behind when it fails.
func (f *faultFile) WriteAt(p []byte, off int64) (int, error) {
	st, err := f.File.Stat()
	if err != nil {
		return 0, err
	}
	op := fsOp{name: "write", path: f.path, off: off, n: int64(len(p)), grow: off+int64(len(p)) > st.Size()}
	if err := f.fs.before(op); err != nil {
		if errors.Is(err, errGone) {
			return 0, err
		}
		n, _ := f.File.WriteAt(p[:len(p)/2], off)
		return n, err
	}
	return f.File.WriteAt(p, off)
}

func (f *faultFile) Sync() error {
	if err := f.fs.before(fsOp{name: "sync", path: f.path}); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *faultFile) SyncData() error {
	if err := f.fs.before(fsOp{name: "syncdata", path: f.path}); err != nil {
		return err
	}
	return f.File.SyncData()
}

func (f *faultFile) SyncTo(n int64) (bool, error) {
	if err := f.fs.before(fsOp{name: "syncto", path: f.path, n: n}); err != nil {
		return false, err
	}
	return f.File.SyncTo(n)
}

// copyFS returns a copy of the store in from, as a new file system.
func copyFS(from vfs.FS) (*vfs.MemFS, error) {
	to := vfs.NewCrashableMem()
	return to, copyTree(from, to, testDir)
}

// holdFiles keeps a log that is running from changing its files until release is
// called: nothing but batches may change them meanwhile, and the caller commits none.
func holdFiles(l *Log) (release func()) {
	l.sealMu.Lock()
	l.rootMu.Lock()
	return func() {
		l.rootMu.Unlock()
		l.sealMu.Unlock()
	}
}

// copyLive is copyFS for a log that is running.
func copyLive(t testing.TB, l *Log, from vfs.FS) *vfs.MemFS {
	t.Helper()
	defer holdFiles(l)()
	to, err := copyFS(from)
	if err != nil {
		t.Fatal(err)
	}
	return to
}

func copyTree(from, to vfs.FS, dir string) error {
	if err := to.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	names, err := from.List(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		path := from.PathJoin(dir, name)
		st, err := from.Stat(path)
		if err != nil {
			return err
		}
		if st.IsDir() {
			if err := copyTree(from, to, path); err != nil {
				return err
			}
			continue
		}
		in, err := from.Open(path)
		if err != nil {
			return err
		}
		data, err := io.ReadAll(in)
		in.Close()
		if err != nil {
			return err
		}
		out, err := to.Create(path, writeCategory)
		if err != nil {
			return err
		}
		if _, err := out.Write(data); err != nil {
			return err
		}
		if err := out.Sync(); err != nil {
			return err
		}
		out.Close()
	}
	return syncDir(to, dir)
}
