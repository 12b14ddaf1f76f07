package snapdir

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
)

// Reader is a snapshot directory that passed every check that needs no
// reading of the parts. Safe for concurrent use, except Close.
type Reader struct {
	meta  Metadata
	raw   []byte // metadata.json as it was read
	sums  *Sums  // nil: no sums file
	parts []Part
	files map[Part]*os.File
	sizes map[Part]int64
	lock  *os.File // nil: no lock file

	closed bool
}

// Open opens the directory. The files stay open until Close, so what is
// checked and what is read are the same files; the tools' lock is held too.
func Open(dir string) (*Reader, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	r := &Reader{files: map[Part]*os.File{}, sizes: map[Part]int64{}}
	if err := r.open(root); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

func (r *Reader) open(root *os.Root) error {
	var err error
	if r.lock, err = lockShared(root); err != nil {
		return err
	}
	if err := checkFinished(root); err != nil {
		return err
	}
	if r.raw, err = readSmall(root, metadataName); err != nil {
		return err
	}
	m, lost, err := parseMetadata(r.raw)
	if err != nil {
		return err
	}
	// Lost globals have no kind yet; the rest is checked before any file is
	// opened by it.
	whole := *m
	whole.Globals = nil
	if err := whole.Validate(); err != nil {
		return fileError(metadataName, err)
	}
	r.parts = m.Parts()
	if err := r.openParts(root, m); err != nil {
		return err
	}
	text, err := readSmall(root, sumsName)
	switch {
	case errors.Is(err, ErrMissing):
		if len(lost) > 0 {
			return lostError(lost[0])
		}
	case err != nil:
		return err
	default:
		if r.sums, err = ParseSums(text); err != nil {
			return err
		}
		if err := r.sums.apply(m, lost, r.fileSums()); err != nil {
			return err
		}
	}
	if err := m.Validate(); err != nil {
		return fileError(metadataName, err)
	}
	r.meta = *m
	return nil
}

// checkFinished looks for what the tools leave while they download.
func checkFinished(root *os.Root) error {
	return eachName(root, func(name string) error {
		if name == ".download_progress.json" || strings.HasSuffix(name, ".tmp") {
			return fileError(name, ErrIncomplete)
		}
		return nil
	})
}

// eachName calls fn with the names in a directory, a few at a time: a hostile
// directory may have millions.
func eachName(root *os.Root, fn func(name string) error) error {
	d, err := root.Open(".")
	if err != nil {
		return err
	}
	defer d.Close()
	for {
		names, err := d.Readdirnames(256)
		for _, name := range names {
			if err := fn(name); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// openParts opens every part and checks its size.
func (r *Reader) openParts(root *os.Root, m *Metadata) error {
	for _, p := range r.parts[:3] {
		want, _ := m.size(p)
		if err := r.openPart(root, p, p.Path(), want == 0); err != nil {
			return err
		}
		if have := r.sizes[p]; uint64(have) != want {
			return fileError(p.Path(), fmt.Errorf("%w: %d bytes, the metadata says %d", ErrSize, have, want))
		}
	}
	chunks, err := openDir(root, chunkDirName)
	if errors.Is(err, ErrMissing) && len(m.WasmChunks) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	defer chunks.Close()
	listed := make(map[string]bool, len(m.WasmChunks))
	for _, p := range r.parts[3:] {
		name := strings.TrimPrefix(p.Path(), chunkDirName+"/")
		listed[name] = true
		if err := r.openPart(chunks, p, name, false); err != nil {
			return err
		}
		if err := validSize(WasmChunk, uint64(r.sizes[p])); err != nil {
			return fileError(p.Path(), err)
		}
	}
	return eachName(chunks, func(name string) error {
		if strings.HasSuffix(name, ".bin") && !listed[name] {
			return fileError(chunkDirName+"/"+name, ErrChunkList)
		}
		return nil
	})
}

// openPart opens a part under its name in root. The tools leave out some of
// the files that would be empty.
func (r *Reader) openPart(root *os.Root, p Part, name string, mayMiss bool) error {
	f, size, err := openRegular(root, name)
	switch {
	case errors.Is(err, ErrMissing) && mayMiss:
		return nil
	case err != nil:
		return rename(err, p.Path())
	}
	r.files[p], r.sizes[p] = f, size
	return nil
}

// rename gives an *Error the path seen from the directory.
func rename(err error, path string) error {
	var e *Error
	if errors.As(err, &e) {
		return &Error{Path: path, Err: e.Err, Hint: e.Hint}
	}
	return err
}

// openRegular opens a plain file for reading and nothing else. It looks
// before it opens, since opening alone can hang on a pipe or act on a device,
// and once more after, since the name may have changed hands in between.
func openRegular(root *os.Root, name string) (*os.File, int64, error) {
	before, err := root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, fileError(name, ErrMissing)
	}
	if err != nil {
		return nil, 0, fileError(name, err)
	}
	if !before.Mode().IsRegular() {
		return nil, 0, fileError(name, fmt.Errorf("%w (%v)", ErrNotRegular, before.Mode().Type()))
	}
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, fileError(name, err)
	}
	after, err := f.Stat()
	if err == nil && !os.SameFile(before, after) {
		err = fmt.Errorf("%w: it changed while it was opened", ErrNotRegular)
	}
	if err != nil {
		return nil, 0, errors.Join(fileError(name, err), f.Close())
	}
	return f, after.Size(), nil
}

// openDir opens a real directory, not a link to one.
func openDir(root *os.Root, name string) (*os.Root, error) {
	before, err := root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fileError(name, ErrMissing)
	}
	if err != nil {
		return nil, fileError(name, err)
	}
	if !before.IsDir() {
		return nil, fileError(name, fmt.Errorf("%w (%v)", ErrNotRegular, before.Mode().Type()))
	}
	dir, err := root.OpenRoot(name)
	if err != nil {
		return nil, fileError(name, err)
	}
	after, err := dir.Stat(".")
	if err == nil && !os.SameFile(before, after) {
		err = fmt.Errorf("%w: it changed while it was opened", ErrNotRegular)
	}
	if err != nil {
		return nil, errors.Join(fileError(name, err), dir.Close())
	}
	return dir, nil
}

// readSmall reads a JSON file whole, up to its bound.
func readSmall(root *os.Root, name string) ([]byte, error) {
	f, size, err := openRegular(root, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size > maxJSON {
		return nil, fileError(name, fmt.Errorf("%w: %d bytes, at most %d", ErrLimit, size, maxJSON))
	}
	data, err := io.ReadAll(io.LimitReader(f, maxJSON+1))
	return data, fileError(name, err)
}

// Close closes the files and gives up the lock.
func (r *Reader) Close() error {
	r.closed = true
	var errs []error
	for p, f := range r.files {
		errs = append(errs, f.Close())
		delete(r.files, p)
	}
	if r.lock != nil {
		errs = append(errs, r.lock.Close())
		r.lock = nil
	}
	return errors.Join(errs...)
}
