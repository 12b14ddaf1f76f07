package limit

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"time"
)

const block = 1 << 20

// Disk measures the file system that a directory is on. Its files are gone
// after Close. It is used by one goroutine.
type Disk struct {
	dir  string
	over *os.File // written once already, for overwriting
	grow *os.File
	junk []byte
	// Written counts the bytes of all files, so that who watches what the
	// process writes can take them off.
	Written int64
}

// NewDisk makes the files in dir: overwrite bytes are written and synced, so
// that overwriting them allocates nothing.
func NewDisk(dir string, overwrite int64) (*Disk, error) {
	d := &Disk{dir: dir, junk: make([]byte, block)}
	x := uint64(88172645463325252)
	for i := range d.junk { // nothing that a file system could leave out
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		d.junk[i] = byte(x)
	}
	var err error
	if d.over, err = os.OpenFile(filepath.Join(dir, "limit-over"), os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600); err == nil {
		if d.grow, err = os.OpenFile(filepath.Join(dir, "limit-append"), os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600); err == nil {
			if err = d.write(d.over, overwrite); err == nil {
				err = d.over.Sync()
			}
		}
	}
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// Close removes the files.
func (d *Disk) Close() error {
	var errs []error
	for _, f := range []*os.File{d.over, d.grow} {
		if f != nil {
			errs = append(errs, f.Close(), os.Remove(f.Name()))
		}
	}
	return errors.Join(errs...)
}

func (d *Disk) write(f *os.File, n int64) error {
	for off := int64(0); off < n; off += block {
		m, err := f.WriteAt(d.junk[:min(block, n-off)], off)
		d.Written += int64(m)
		if err != nil {
			return err
		}
	}
	return nil
}

// Overwrite writes n bytes over blocks that are there already, and syncs.
func (d *Disk) Overwrite(n int64) (time.Duration, error) {
	began := time.Now()
	if err := d.write(d.over, n); err != nil {
		return 0, err
	}
	err := datasync(d.over)
	return time.Since(began), err
}

// Append writes n bytes at the end of a file that grows by them, and syncs.
func (d *Disk) Append(n int) (time.Duration, error) {
	began := time.Now()
	m, err := d.grow.Write(d.junk[:min(n, len(d.junk))])
	d.Written += int64(m)
	if err != nil {
		return 0, err
	}
	err = datasync(d.grow)
	return time.Since(began), err
}

// Sequential writes a new file of n bytes and syncs it, then reads it back from
// the disk. cold is false where the system kept it in memory all the same; the
// time of reading means nothing then.
func (d *Disk) Sequential(n int64) (write, read time.Duration, cold bool, err error) {
	name := filepath.Join(d.dir, "limit-sequential")
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600)
	if err != nil {
		return 0, 0, false, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(name)) }()
	began := time.Now()
	if err = d.write(f, n); err == nil {
		err = f.Sync()
	}
	if err != nil {
		return 0, 0, false, err
	}
	write = time.Since(began)
	if cold, err = Forget(f); err != nil {
		return 0, 0, false, err
	}
	buf := make([]byte, block)
	began = time.Now()
	for off := int64(0); off < n; off += block {
		if _, err := f.ReadAt(buf[:min(block, n-off)], off); err != nil && !errors.Is(err, io.EOF) {
			return 0, 0, false, err
		}
	}
	return write, time.Since(began), cold, nil
}

// ForgetTree lets the system forget what it has of all files below dir. It is
// false where it can not be asked.
func ForgetTree(dir string) (bool, error) {
	all := true
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		ok, err := Forget(f)
		all = all && ok
		return err
	})
	return all, err
}
