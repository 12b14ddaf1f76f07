package seglog

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const maxRootFile = rootFixed + maxSegments*entSize + rootHashSize

// Create makes an empty store in o.Dir, durably. The directory may exist.
func Create(o CreateOptions) error {
	if o.SegmentSize == 0 {
		o.SegmentSize = defaultSegmentSize
	}
	if !validSegmentSize(o.SegmentSize) {
		return fmt.Errorf("seglog: segment size %d: want a multiple of %d from %d to %d",
			o.SegmentSize, frameAlign, minSegmentSize, maxSegmentSize)
	}
	if ok, err := Exists(o.FS, o.Dir); err != nil {
		return err
	} else if ok {
		return fmt.Errorf("seglog: %s: %w", o.Dir, ErrExists)
	}
	if o.Features&^rootFeaturesKnown != 0 {
		return fmt.Errorf("seglog: features %#x are not known", uint64(o.Features))
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	r := &root{features: o.Features, generation: 1, nextSegment: 1, nextSeq: 1, segmentSize: o.SegmentSize}
	for _, b := range [][]byte{r.store[:], r.key[:]} {
		if _, err := io.ReadFull(o.Rand, b); err != nil {
			return fmt.Errorf("seglog: random store id and key: %w", err)
		}
	}
	if err := o.FS.MkdirAll(o.FS.PathJoin(o.Dir, logDirName), 0o700); err != nil {
		return fmt.Errorf("seglog: create store: %w", spaceError(err))
	}
	// The directory itself becomes durable with its parent.
	if err := syncDir(o.FS, o.FS.PathDir(o.Dir)); err != nil {
		return fmt.Errorf("seglog: create store: %w", spaceError(err))
	}
	if err := (&rootFiles{fs: o.FS, dir: o.Dir}).write(r); err != nil {
		return fmt.Errorf("seglog: create store: %w", spaceError(err))
	}
	return nil
}

// Exists reports whether dir holds a store, whole or damaged.
func Exists(fs vfs.FS, dir string) (bool, error) {
	for _, name := range []string{rootNameA, rootNameB} {
		_, err := fs.Stat(fs.PathJoin(dir, name))
		if err == nil {
			return true, nil
		}
		if !isNotExist(err) {
			return false, fmt.Errorf("seglog: %w", err)
		}
	}
	segs, err := listSegments(fs, fs.PathJoin(dir, logDirName))
	return len(segs) > 0, err
}

// listSegments returns the numbers of the segment files in dir, in no order;
// none if there is no such directory.
func listSegments(fs vfs.FS, dir string) ([]SegmentID, error) {
	names, err := fs.List(dir)
	if isNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("seglog: %w", err)
	}
	var ids []SegmentID
	for _, name := range names {
		if id, ok := parseSegmentName(name); ok {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// rootFiles writes both copies of ROOT.
type rootFiles struct {
	fs  vfs.FS
	dir string
	// torn is the copy that a write in place may have left neither old nor new.
	// It may even read as whole, from memory. Empty if there is none.
	torn string
}

// write puts r in both copies. One is durable before the other is touched, so
// one whole copy is on disk at every moment.
func (w *rootFiles) write(r *root) error {
	data := r.append(nil)
	first, second := rootNameA, rootNameB
	if w.torn == rootNameB || w.torn == "" && !w.whole(rootNameB) {
		// Not the one that is left.
		first, second = second, first
	}
	for _, c := range []struct{ name, other string }{{first, second}, {second, first}} {
		// Write may scribble over what it is given.
		err := writeFile(w.fs, w.dir, c.name, bytes.Clone(data))
		var un *unnamed
		if isNoSpace(err) && errors.As(err, &un) {
			if again := w.overwrite(c.name, c.other, bytes.Clone(data)); again == nil {
				err = nil
			}
		}
		if err != nil {
			return fmt.Errorf("write %s: %w", c.name, err)
		}
		if w.torn == c.name {
			w.torn = ""
		}
	}
	return nil
}

// sync makes durable what can be read: a process that was killed may have left
// content, or the new name of a copy, in memory alone.
func (w *rootFiles) sync() error {
	for _, name := range []string{rootNameA, rootNameB} {
		f, err := w.fs.Open(w.fs.PathJoin(w.dir, name))
		if isNotExist(err) {
			continue
		}
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	return syncDir(w.fs, w.dir)
}

// whole tells whether a copy can be read.
func (w *rootFiles) whole(name string) bool {
	data, err := readFile(w.fs, w.fs.PathJoin(w.dir, name), maxRootFile)
	if err != nil {
		return false
	}
	_, err = decodeRoot(data)
	return err == nil
}

// overwrite writes a copy where it stands, which needs no space: on a full disk
// it is what lets segments go. The other copy must be whole, for a crash may
// leave neither the old content nor the new one; it leaves tornMagic then, which
// is durable before anything else is touched and stays until all else is.
func (w *rootFiles) overwrite(name, other string, data []byte) (err error) {
	if w.torn == other || !w.whole(other) {
		return errBadRoot
	}
	f, err := w.fs.OpenReadWrite(w.fs.PathJoin(w.dir, name), writeCategory)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	size := int64(len(data))
	if _, ok := f.(truncater); st.Size() < size || !ok {
		return errors.ErrUnsupported
	}
	w.torn = name
	put := func(p []byte, off int64) error {
		_, err := f.WriteAt(p, off)
		return err
	}
	const magic = len(rootMagic)
	for _, step := range []func() error{
		func() error { return put([]byte(tornMagic), 0) },
		func() error {
			if err := put(data[magic:], int64(magic)); err != nil {
				return err
			}
			return truncate(f, size)
		},
		func() error { return put(data[:magic], 0) },
	} {
		if err := step(); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
	}
	w.torn = ""
	return nil
}

// readRootFiles returns the copy with the highest generation, and what is
// wrong with the other.
func readRootFiles(fs vfs.FS, dir string) (*root, []Damage, error) {
	var (
		best   *root
		damage []Damage
		torn   []Damage // left so by a crash, which is none while the other is whole
		absent int
	)
	for _, name := range []string{rootNameA, rootNameB} {
		path := fs.PathJoin(dir, name)
		data, err := readFile(fs, path, maxRootFile)
		if isNotExist(err) {
			absent++
			damage = append(damage, Damage{File: path, Reason: "missing"})
			continue
		}
		if err != nil && !errors.Is(err, errBadRoot) {
			// Unreadable today is not damaged for ever: nothing is decided
			// on the other copy alone, which may be the older one.
			return nil, nil, fmt.Errorf("seglog: read %s: %w", name, err)
		}
		var r *root
		if err == nil {
			r, err = decodeRoot(data)
		}
		switch {
		case bytes.HasPrefix(data, []byte(tornMagic)):
			torn = append(torn, Damage{File: path, Length: uint32(len(data)), Reason: "writing it was interrupted"})
		case errors.Is(err, ErrNewerFormat):
			return nil, nil, fmt.Errorf("seglog: %s: %w", path, err)
		case err != nil:
			damage = append(damage, Damage{File: path, Length: uint32(len(data)), Reason: err.Error()})
		case best != nil && (best.store != r.store || best.features != r.features):
			return nil, nil, fmt.Errorf("seglog: %s: %w: the copies of ROOT are of different stores", dir, ErrDamaged)
		case best == nil || r.generation > best.generation:
			best = r
		}
	}
	switch {
	case best != nil && best.generation == 1 && absent == 1:
		// Create was interrupted between the two.
		return best, nil, nil
	case best != nil:
		return best, damage, nil
	case absent < 2:
		damage = append(damage, torn...)
		return nil, nil, fmt.Errorf("seglog: %s: %w: neither copy of ROOT is whole: %s; %s",
			dir, ErrDamaged, damage[0], damage[1])
	}
	segs, err := listSegments(fs, fs.PathJoin(dir, logDirName))
	if err != nil {
		return nil, nil, err
	}
	if len(segs) > 0 {
		return nil, nil, fmt.Errorf("seglog: %s: %w: both copies of ROOT are missing", dir, ErrDamaged)
	}
	return nil, nil, fmt.Errorf("seglog: %s: %w", dir, ErrNoStore)
}
