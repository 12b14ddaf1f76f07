package workload

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// ErrImages: the directory holds no series of memory images.
var ErrImages = errors.New("no memory images")

// Series is a row of successive memory images: a directory of *.mem files, or
// an archive of one, *.tar.zst.
type Series struct {
	Name string
	path string
	dir  bool
}

// FindSeries lists the series in dir, by name: archives, directories with
// images, and dir itself where the images lie in it.
func FindSeries(dir string) ([]Series, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []Series
	own := false
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch {
		case e.IsDir():
			if found, _ := filepath.Glob(filepath.Join(path, "*.mem")); len(found) > 0 {
				out = append(out, Series{e.Name(), path, true})
			}
		case strings.HasSuffix(e.Name(), ".tar.zst"):
			out = append(out, Series{strings.TrimSuffix(e.Name(), ".tar.zst"), path, false})
		case strings.HasSuffix(e.Name(), ".mem") && !own:
			own = true
			out = append(out, Series{filepath.Base(dir), dir, true})
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w in %s: it needs *.tar.zst archives or directories of *.mem files", ErrImages, dir)
	}
	slices.SortFunc(out, func(a, b Series) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// maxImage bounds one image, so that a damaged archive can not take all memory.
const maxImage = 4 << 30

// Images yields the images in order of their names, each padded with zeros to
// whole pages. What is yielded is the caller's until the next one.
func (s Series) Images() iter.Seq2[[]byte, error] {
	if s.dir {
		return s.files
	}
	return s.archived
}

func (s Series) files(yield func([]byte, error) bool) {
	names, err := filepath.Glob(filepath.Join(s.path, "*.mem"))
	if err != nil {
		yield(nil, err)
		return
	}
	slices.Sort(names)
	for _, name := range names {
		b, err := os.ReadFile(name)
		if !yield(padded(b), err) || err != nil {
			return
		}
	}
}

func (s Series) archived(yield func([]byte, error) bool) {
	fail := func(err error) { yield(nil, fmt.Errorf("%s: %w", s.path, err)) }
	f, err := os.Open(s.path)
	if err != nil {
		fail(err)
		return
	}
	defer f.Close()
	z, err := zstd.NewReader(f, zstd.WithDecoderMaxWindow(128<<20))
	if err != nil {
		fail(err)
		return
	}
	defer z.Close()
	n := 0
	last := ""
	for t := tar.NewReader(z); ; {
		h, err := t.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			fail(err)
			return
		}
		if !strings.HasSuffix(h.Name, ".mem") {
			continue
		}
		if h.Size > maxImage || h.Name < last {
			fail(fmt.Errorf("%s: %d bytes after %q: images must be ordered and below %d bytes", h.Name, h.Size, last, int64(maxImage)))
			return
		}
		last = h.Name
		var b bytes.Buffer
		b.Grow(int(h.Size))
		if _, err := io.Copy(&b, t); err != nil {
			fail(fmt.Errorf("%s: %w", h.Name, err))
			return
		}
		n++
		if !yield(padded(b.Bytes()), nil) {
			return
		}
	}
	if n == 0 {
		fail(ErrImages)
	}
}

func padded(b []byte) []byte {
	if rest := len(b) % PageSize; rest > 0 {
		b = append(b, make([]byte, PageSize-rest)...)
	}
	return b
}
