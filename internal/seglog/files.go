package seglog

import (
	"errors"
	"io"
	"os"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Names in the directory of a store. The index and the lock are others' business.
const (
	rootNameA     = "ROOT-A"
	rootNameB     = "ROOT-B"
	logDirName    = "log"
	quarantineDir = "quarantine"
	ballastName   = "BALLAST"
	// ballastLastName is the last step of the reserve; see reserve.
	ballastLastName = "BALLAST-LAST"
	segmentSuffix   = ".seg"
	tempSuffix      = ".tmp"

	// writeCategory labels our writes in Pebble's disk statistics.
	writeCategory = vfs.DiskWriteCategory("snapstore-log")
)

func segmentName(id SegmentID) string { return id.String() + segmentSuffix }

// parseSegmentName accepts exactly what segmentName makes.
func parseSegmentName(name string) (SegmentID, bool) {
	digits, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok {
		return 0, false
	}
	id, err := ParseSegmentID(digits)
	return id, err == nil && id != 0
}

func isNotExist(err error) bool { return errors.Is(err, os.ErrNotExist) }

// syncDir makes the names in dir durable.
func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

type truncater interface{ Truncate(size int64) error }

// truncate cuts f at size. vfs knows no truncation: files of the operating
// system have it, and where a file has not, zeros mean the same to every
// reader of a segment.
func truncate(f vfs.File, size int64) error {
	if t, ok := f.(truncater); ok {
		return t.Truncate(size)
	}
	st, err := f.Stat()
	if err != nil {
		return err
	}
	buf := make([]byte, min(max(st.Size()-size, 0), 1<<20))
	for off := size; off < st.Size(); {
		n := min(int64(len(buf)), st.Size()-off)
		// WriteAt may scribble over what it is given.
		clear(buf[:n])
		if _, err := f.WriteAt(buf[:n], off); err != nil {
			return err
		}
		off += n
	}
	return nil
}

// readFile reads a whole file that may not be longer than most.
func readFile(fs vfs.FS, path string, most int64) ([]byte, error) {
	f, err := fs.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.Size() > most {
		return nil, errBadRoot
	}
	buf := make([]byte, st.Size())
	n, err := f.ReadAt(buf, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return buf[:n], nil
}

// writeFile makes path hold data, durably and as a whole or not at all: a
// crash leaves the old content or the new one. Before it returns an *unnamed
// error, nothing has happened.
func writeFile(fs vfs.FS, dir, name string, data []byte) error {
	path := fs.PathJoin(dir, name)
	tmp := path + tempSuffix
	if err := writeTemp(fs, tmp, data); err != nil {
		return &unnamed{err}
	}
	if err := fs.Rename(tmp, path); err != nil {
		return &unnamed{errors.Join(err, fs.Remove(tmp))}
	}
	return syncDir(fs, dir)
}

// unnamed is why a file never got its name.
type unnamed struct{ err error }

func (e *unnamed) Error() string { return e.err.Error() }
func (e *unnamed) Unwrap() error { return e.err }

func writeTemp(fs vfs.FS, tmp string, data []byte) error {
	f, err := fs.Create(tmp, writeCategory)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, fs.Remove(tmp))
	}
	return nil
}

// copyTail copies f from off to end into a new synced file.
func copyTail(fs vfs.FS, dst string, f vfs.File, off, end int64) error {
	out, err := fs.Create(dst, writeCategory)
	if err != nil {
		return err
	}
	buf := make([]byte, min(end-off, 1<<20))
	for err == nil && off < end {
		n := int(min(int64(len(buf)), end-off))
		var m int
		m, err = f.ReadAt(buf[:n], off)
		if m == n || (m > 0 && errors.Is(err, io.EOF)) {
			_, err = out.Write(buf[:m])
		}
		off += int64(m)
	}
	if errors.Is(err, io.EOF) {
		err = nil // the file ended early: that much there was
	}
	if err == nil {
		err = out.Sync()
	}
	return errors.Join(err, out.Close())
}
