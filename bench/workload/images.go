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

// archived yields the images of an archive.
func (s Series) archived(yield func([]byte, error) bool) {
	if err := s.inOrder(yield); err != nil && !errors.Is(err, errEnough) {
		yield(nil, fmt.Errorf("%s: %w", s.path, err))
	}
}

// inOrder yields the images of an archive in order. One in which they do not lie so
// is unpacked to a temporary directory, as a series is larger than memory may be.
func (s Series) inOrder(yield func([]byte, error) bool) error {
	names, err := s.archive(nil)
	if err == nil && len(names) == 0 {
		err = ErrImages
	}
	if err != nil {
		return err
	}
	if slices.IsSorted(names) {
		_, err = s.archive(func(_ string, b []byte) error {
			if !yield(padded(b), nil) {
				return errEnough
			}
			return nil
		})
		return err
	}
	dir, err := os.MkdirTemp("", "snapstore-images-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }() // a temporary directory, at worst left behind
	slices.Sort(names)
	_, err = s.archive(func(name string, b []byte) error {
		i, _ := slices.BinarySearch(names, name)
		return os.WriteFile(filepath.Join(dir, fmt.Sprintf("%09d.mem", i)), b, 0o600)
	})
	if err == nil {
		Series{s.Name, dir, true}.files(yield)
	}
	return err
}

var errEnough = errors.New("enough")

// archive goes through the images of an archive, as they lie in it, and returns
// their names. Without each it reads none of them.
func (s Series) archive(each func(name string, b []byte) error) (names []string, err error) {
	f, err := os.Open(s.path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := zstd.NewReader(f, zstd.WithDecoderMaxWindow(128<<20))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	for t := tar.NewReader(z); ; {
		h, err := t.Next()
		if err == io.EOF {
			return names, nil
		}
		if err != nil {
			return names, err
		}
		if !strings.HasSuffix(h.Name, ".mem") {
			continue
		}
		if h.Size > maxImage {
			return names, fmt.Errorf("%s: %d bytes: images must be below %d bytes", h.Name, h.Size, int64(maxImage))
		}
		if slices.Contains(names, h.Name) {
			return names, fmt.Errorf("%s is there twice", h.Name)
		}
		names = append(names, h.Name)
		if each == nil {
			continue
		}
		var b bytes.Buffer
		b.Grow(int(h.Size))
		if _, err := io.Copy(&b, t); err != nil {
			return names, fmt.Errorf("%s: %w", h.Name, err)
		}
		if err := each(h.Name, b.Bytes()); err != nil {
			return names, err
		}
	}
}

func padded(b []byte) []byte {
	if rest := len(b) % PageSize; rest > 0 {
		b = append(b, make([]byte, PageSize-rest)...)
	}
	return b
}
