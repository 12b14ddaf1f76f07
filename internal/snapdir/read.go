package snapdir

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"slices"

	"github.com/zeebo/blake3"
)

// Metadata is what metadata.json holds. The caller may change the copy but
// not what its slices point at.
func (r *Reader) Metadata() Metadata { return r.meta }

// Sums is what the sums file holds; nil when there is none, and then only the
// chunks can be checked. Do not modify.
func (r *Reader) Sums() *Sums { return r.sums }

// Parts lists the parts, in the order of Metadata.Parts.
func (r *Reader) Parts() []Part { return slices.Clone(r.parts) }

// Size of a part in bytes; zero for one that the directory does not have.
func (r *Reader) Size(p Part) int64 { return r.sizes[p] }

// Total is the size of all parts.
func (r *Reader) Total() int64 {
	var total int64
	for _, size := range r.sizes {
		total += size
	}
	return total
}

// Section gives random access to a part, unchecked.
func (r *Reader) Section(p Part) (*io.SectionReader, error) {
	if !slices.Contains(r.parts, p) {
		return nil, fileError(p.Path(), ErrMissing)
	}
	f := r.files[p]
	switch {
	case r.closed:
		return nil, fileError(p.Path(), ErrClosed)
	case f == nil: // empty and left out
		return io.NewSectionReader(bytes.NewReader(nil), 0, 0), nil
	}
	return io.NewSectionReader(f, 0, r.sizes[p]), nil
}

// Stream reads a part from its beginning and checks it on the way. What it
// yields is proved only when it ends with io.EOF: where the content is not
// what its name or the sums say, or the file became shorter or longer, the
// end is an *Error instead. It stops with ctx.
func (r *Reader) Stream(ctx context.Context, p Part) (io.Reader, error) {
	section, err := r.Section(p)
	if err != nil {
		return nil, err
	}
	s := &stream{ctx: ctx, part: p, size: r.sizes[p], source: section}
	if f := r.files[p]; f != nil {
		s.source = io.NewSectionReader(f, 0, s.size+1) // one more, to see it grow
	}
	if r.sums != nil {
		want := r.sums.Files[1+slices.Index(r.parts, p)].BLAKE3
		s.checks = append(s.checks, check{blake3.New(), want, ErrSumMismatch})
	}
	if p.Kind == WasmChunk {
		s.checks = append(s.checks, check{sha256.New(), p.Hash, ErrChunkHash})
	}
	return s, nil
}

// Verify reads everything and checks it: each chunk against its SHA-256, and
// all files against the sums where there are any. progress, if not nil, is
// called now and then. The first problem ends it.
func (r *Reader) Verify(ctx context.Context, progress func(done, total int64)) error {
	total := r.Total()
	var done int64
	buf := make([]byte, 1<<20)
	for _, p := range r.parts {
		s, err := r.Stream(ctx, p)
		if err != nil {
			return err
		}
		for {
			n, err := s.Read(buf)
			if done += int64(n); n > 0 && progress != nil {
				progress(done, total)
			}
			if err == io.EOF {
				break
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// fileSums lists metadata.json and the parts as the sums list them; of the
// parts only the sizes are known yet.
func (r *Reader) fileSums() []FileSum {
	files := []FileSum{{Path: metadataName, Size: int64(len(r.raw)), BLAKE3: blake3.Sum256(r.raw)}}
	for _, p := range r.parts {
		files = append(files, FileSum{Path: p.Path(), Size: r.sizes[p]})
	}
	return files
}

// check is a hash that the whole content must have.
type check struct {
	hash.Hash
	want [32]byte
	err  error
}

type stream struct {
	ctx    context.Context
	part   Part
	size   int64
	source io.Reader
	done   int64
	checks []check
	err    error // sticky
}

func (s *stream) Read(p []byte) (int, error) {
	if s.err == nil {
		s.err = s.ctx.Err()
	}
	if s.err != nil {
		return 0, s.err
	}
	n, err := s.source.Read(p)
	s.done += int64(n)
	for _, c := range s.checks {
		_, _ = c.Write(p[:n]) // a hash does not fail
	}
	if err == io.EOF || s.done > s.size {
		s.err = s.verdict()
	} else {
		s.err = fileError(s.part.Path(), err)
	}
	if s.done > s.size {
		n-- // the byte too many is not part of the content
	}
	return n, s.err
}

// verdict is io.EOF when the whole content is what it should be.
func (s *stream) verdict() error {
	if s.done != s.size {
		return fileError(s.part.Path(), fmt.Errorf("%w: it changed while it was read", ErrSize))
	}
	for _, c := range s.checks {
		if [32]byte(c.Sum(nil)) != c.want {
			return fileError(s.part.Path(), c.err)
		}
	}
	return io.EOF
}
