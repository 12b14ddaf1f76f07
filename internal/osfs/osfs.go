// Package osfs is the machine's file system as a store uses it: what is created
// is for its owner alone, no symbolic link inside the store is followed, and a
// store that others can write to is refused.
//
// A link is looked for before a file is opened and not by the opening itself.
// That is enough because nobody else can put one there meanwhile: the directory
// is its owner's alone.
package osfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

var (
	// ErrLink: a name inside the store is a symbolic link.
	ErrLink = errors.New("a symbolic link inside the store is not followed")
	// ErrOpenToOthers: somebody else may change the store.
	ErrOpenToOthers = errors.New("others may write to the store")
)

// What is created is for the owner alone: memory images hold secrets.
const (
	filePerm = 0o600
	dirPerm  = 0o700
)

// FS is vfs.Default with those rules. Safe for concurrent use.
type FS struct {
	vfs.FS
	root string
}

// New returns the file system of the machine.
func New() FS { return FS{FS: vfs.Default} }

// Within returns s for a store that is open: below its directory no directory is
// made whose parent is not there. Whoever removes a store while it is open is
// not left with a part of one.
func (s FS) Within(dir string) FS {
	s.root = filepath.Clean(dir)
	return s
}

// noLink refuses a name that is a link; a name that is not there is not one.
func noLink(name string) error {
	info, err := os.Lstat(name)
	if err == nil && info.Mode()&os.ModeSymlink != 0 {
		return &os.PathError{Op: "open", Path: name, Err: ErrLink}
	}
	return nil
}

// private makes a file its owner's alone. The caller has just created it.
func private(f vfs.File, name string, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(name, filePerm); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Create implements vfs.FS. A file or link of that name is removed first.
func (s FS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := s.FS.Create(name, c)
	return private(f, name, err)
}

// Open implements vfs.FS.
func (s FS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	if err := noLink(name); err != nil {
		return nil, err
	}
	return s.FS.Open(name, opts...)
}

// OpenReadWrite implements vfs.FS.
func (s FS) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	info, err := os.Lstat(name)
	switch {
	case err != nil:
		f, err := s.FS.OpenReadWrite(name, c, opts...)
		return private(f, name, err)
	case info.Mode()&os.ModeSymlink != 0:
		return nil, &os.PathError{Op: "open", Path: name, Err: ErrLink}
	}
	return s.FS.OpenReadWrite(name, c, opts...)
}

// ReuseForWrite implements vfs.FS.
func (s FS) ReuseForWrite(oldname, newname string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := noLink(oldname); err != nil {
		return nil, err
	}
	f, err := s.FS.ReuseForWrite(oldname, newname, c)
	return private(f, newname, err)
}

// MkdirAll implements vfs.FS.
func (s FS) MkdirAll(dir string, perm os.FileMode) error {
	perm &= dirPerm
	below, err := filepath.Rel(s.root, dir)
	if s.root == "" || err != nil || !filepath.IsLocal(below) {
		return s.FS.MkdirAll(dir, perm)
	}
	at := s.root
	for _, name := range strings.Split(filepath.ToSlash(below), "/") {
		at = filepath.Join(at, name)
		if err := os.Mkdir(at, perm); err != nil && !(errors.Is(err, fs.ErrExist) && isDir(at)) {
			return err
		}
	}
	return nil
}

func isDir(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.IsDir()
}

// Lock implements vfs.FS.
func (s FS) Lock(name string) (lock io.Closer, err error) {
	if err := noLink(name); err != nil {
		return nil, err
	}
	if lock, err = s.FS.Lock(name); err != nil {
		return nil, err
	}
	if err := os.Chmod(name, filePerm); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return lock, nil
}

// Check refuses a store that others may write to, or that has a link below its
// top: the directory, the directories in it, and, where others can get in, the
// files. So does one that belongs to another account. A directory that is not
// there is not refused; what is no part of a store is not looked at.
func Check(dir string) error {
	top, err := os.Stat(dir) // where the store is, its owner decides
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := ownersAlone(dir, top); err != nil || !top.IsDir() {
		return err
	}
	reachable := reachableByOthers(top)
	names, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, d := range names {
		name := filepath.Join(dir, d.Name())
		switch {
		case !d.IsDir() && isPart(d.Name()):
			err = checkEntry(name, d, reachable)
		case d.IsDir() && isPart(d.Name()):
			err = checkTree(name, reachable)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// isPart tells what a store makes in its directory.
func isPart(name string) bool {
	switch name {
	case "LOCK", "log", "index", "index.tmp", "index.old", "index.count", "quarantine":
		return true
	}
	return strings.HasPrefix(name, "ROOT-") || strings.HasPrefix(name, "BALLAST")
}

func checkTree(dir string, reachable bool) error {
	return filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		return checkEntry(name, d, reachable)
	})
}

// checkEntry looks at a directory, and at a file if others can reach it.
func checkEntry(name string, d fs.DirEntry, reachable bool) error {
	if d.Type()&os.ModeSymlink != 0 {
		return &os.PathError{Op: "open", Path: name, Err: ErrLink}
	}
	if !d.IsDir() && !reachable {
		return nil
	}
	info, err := d.Info()
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return ownersAlone(name, info)
}

// ownersAlone refuses what others may write to.
func ownersAlone(name string, info os.FileInfo) error {
	if openToOthers(info) {
		return fmt.Errorf("%s has mode %v: %w", name, info.Mode().Perm(), ErrOpenToOthers)
	}
	if uid, other := ofAnother(info); other {
		return fmt.Errorf("%s belongs to user %d: %w", name, uid, ErrOpenToOthers)
	}
	return nil
}
