package snapdir

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/zeebo/blake3"
)

// Writer makes a snapshot directory. Every part is written once, from its
// beginning to its end; then Commit makes the directory appear, whole. Abort
// leaves nothing behind, and is harmless after Commit. Not safe for
// concurrent use.
type Writer struct {
	meta   Metadata
	root   [32]byte
	parent *os.Root
	target string // name in parent
	temp   string // name in parent
	dir    *os.Root
	sums   map[Part]FileSum // written and closed
	open   *PartWriter
	done   bool
}

// Create begins a directory for the snapshot of m; root is its root in the
// store, zero when unknown. dir must not exist, or be an empty directory; its
// parent must exist. The caller must not change what m points at.
func Create(dir string, m Metadata, root [32]byte) (*Writer, error) {
	if err := m.Validate(); err != nil {
		return nil, writeError(metadataName, err)
	}
	// "." and the like have a name only as absolute paths.
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	parent, err := os.OpenRoot(filepath.Dir(abs))
	if err != nil {
		return nil, err
	}
	w := &Writer{meta: m, root: root, parent: parent, target: filepath.Base(abs), sums: map[Part]FileSum{}}
	if err := w.create(); err != nil {
		return nil, errors.Join(err, w.Abort())
	}
	return w, nil
}

func (w *Writer) create() error {
	if err := w.checkTarget(); err != nil {
		return err
	}
	// The name is made unique by trying, as os.MkdirTemp does.
	for n := 0; ; n++ {
		temp := fmt.Sprintf(".%s.export-%d-%d", w.target, os.Getpid(), n)
		err := w.parent.Mkdir(temp, 0o700)
		if errors.Is(err, fs.ErrExist) && n < 10_000 {
			continue
		}
		if err != nil {
			return err
		}
		w.temp = temp
		break
	}
	var err error
	if w.dir, err = w.parent.OpenRoot(w.temp); err != nil {
		return err
	}
	return w.dir.Mkdir(chunkDirName, 0o700)
}

func (w *Writer) checkTarget() error {
	info, err := w.parent.Lstat(w.target)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return writeError("", ErrExists)
	}
	d, err := w.parent.OpenRoot(w.target)
	if err != nil {
		return err
	}
	defer d.Close()
	return eachName(d, func(string) error { return writeError("", ErrExists) })
}

// writeError is fileError without the advice for those who read a directory.
func writeError(path string, err error) error {
	var have *Error
	if err == nil || errors.As(err, &have) {
		return err
	}
	e := &Error{Path: path, Err: err}
	if errors.Is(err, ErrExists) {
		e.Hint = hint(err)
	}
	return e
}

// Part begins a part of the given size, which must be the declared one. It
// ends with Close, before the next part begins. Its writes stop with ctx.
func (w *Writer) Part(ctx context.Context, p Part, size uint64) (*PartWriter, error) {
	if w.done {
		return nil, writeError(p.Path(), ErrClosed)
	}
	if err := p.validate(); err != nil {
		return nil, writeError(p.Path(), err)
	}
	if w.open != nil {
		return nil, writeError(p.Path(), fmt.Errorf("%s is still being written", w.open.part))
	}
	if _, twice := w.sums[p]; twice {
		return nil, writeError(p.Path(), fmt.Errorf("written twice"))
	}
	if p.Kind == WasmChunk && !slices.Contains(w.meta.WasmChunks, p.Hash) {
		return nil, writeError(p.Path(), ErrChunkList)
	}
	if err := validSize(p.Kind, size); err != nil {
		return nil, writeError(p.Path(), err)
	}
	if want, declared := w.meta.size(p); declared && size != want {
		return nil, writeError(p.Path(), fmt.Errorf("%w: %d bytes, the metadata says %d", ErrSize, size, want))
	}
	f, err := w.dir.OpenFile(p.Path(), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, writeError(p.Path(), err)
	}
	w.open = &PartWriter{ctx: ctx, w: w, part: p, size: int64(size), file: f, sum: blake3.New()}
	if p.Kind == WasmChunk {
		w.open.sha = sha256.New()
	}
	return w.open, nil
}

// Commit writes metadata.json and the sums, syncs everything and gives the
// directory its name. A part of size zero need not have been written. On
// return the snapshot is on disk; on an error nothing of it is there.
func (w *Writer) Commit() error {
	if w.done {
		return writeError("", ErrClosed)
	}
	if err := w.commit(); err != nil {
		return errors.Join(err, w.Abort())
	}
	return w.release()
}

func (w *Writer) commit() error {
	if w.open != nil {
		return writeError(w.open.part.Path(), errors.New("is still being written"))
	}
	for _, p := range w.meta.Parts() {
		if _, written := w.sums[p]; written {
			continue
		}
		if size, declared := w.meta.size(p); !declared || size != 0 {
			return writeError(p.Path(), errors.New("was not written"))
		}
		part, err := w.Part(context.Background(), p, 0)
		if err != nil {
			return err
		}
		if err := part.Close(); err != nil {
			return err
		}
	}
	text, err := w.meta.Encode()
	if err != nil {
		return err
	}
	sums := Sums{Root: w.root}
	for i, g := range w.meta.Globals {
		if !g.finite() {
			sums.Floats = append(sums.Floats, FloatBits{i, g})
		}
	}
	sums.Files = append(sums.Files, FileSum{metadataName, int64(len(text)), blake3.Sum256(text)})
	for _, p := range w.meta.Parts() {
		sums.Files = append(sums.Files, w.sums[p])
	}
	sumsText, err := sums.Encode()
	if err != nil {
		return writeError(sumsName, err)
	}
	if err := w.writeSmall(metadataName, text); err != nil {
		return err
	}
	if err := w.writeSmall(sumsName, sumsText); err != nil {
		return err
	}
	if err := syncDir(w.dir, chunkDirName); err != nil {
		return err
	}
	if err := syncDir(w.dir, "."); err != nil {
		return err
	}
	if err := w.place(); err != nil {
		return err
	}
	w.temp = w.target // what Abort removes if the last sync fails
	return syncDir(w.parent, ".")
}

// place gives the directory its name. Rename replaces nothing, so an empty
// directory that had the name goes first.
func (w *Writer) place() error {
	err := w.parent.Rename(w.temp, w.target)
	if err == nil {
		return nil
	}
	if err := w.checkTarget(); err != nil {
		return err
	}
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := w.parent.Remove(w.target); err != nil {
		return err
	}
	return w.parent.Rename(w.temp, w.target)
}

func (w *Writer) writeSmall(name string, data []byte) error {
	f, err := w.dir.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return writeError(name, err)
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return writeError(name, errors.Join(err, f.Close()))
}

func syncDir(root *os.Root, name string) error {
	d, err := root.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Abort removes what was written, unless it was committed. It may be called
// again.
func (w *Writer) Abort() error {
	if w.done {
		return nil
	}
	var errs []error
	if w.open != nil {
		_ = w.open.file.Close() // what it holds is removed
		w.open = nil
	}
	if w.temp != "" {
		errs = append(errs, w.parent.RemoveAll(w.temp))
	}
	return errors.Join(append(errs, w.release())...)
}

func (w *Writer) release() error {
	w.done = true
	var err error
	if w.dir != nil {
		err = w.dir.Close()
	}
	return errors.Join(err, w.parent.Close())
}

// PartWriter takes the bytes of one part, in order. Blocks of zeros become
// holes in the file.
type PartWriter struct {
	ctx  context.Context
	w    *Writer
	part Part
	size int64
	file *os.File
	off  int64
	sum  *blake3.Hasher
	sha  hash.Hash // nil but for a chunk
	err  error     // sticky
}

// holeBlock is the grain of holes; file systems allocate no finer.
const holeBlock = 4096

// Write appends p. More bytes than were declared are refused.
func (pw *PartWriter) Write(p []byte) (int, error) {
	if pw.err == nil {
		pw.err = pw.ctx.Err()
	}
	if pw.err == nil && int64(len(p)) > pw.size-pw.off {
		pw.err = writeError(pw.part.Path(), fmt.Errorf("%w: more than the declared %d bytes", ErrSize, pw.size))
	}
	if pw.err != nil {
		return 0, pw.err
	}
	if err := pw.writeRuns(p); err != nil {
		pw.err = writeError(pw.part.Path(), err)
		return 0, pw.err
	}
	_, _ = pw.sum.Write(p) // a hash does not fail
	if pw.sha != nil {
		_, _ = pw.sha.Write(p)
	}
	pw.off += int64(len(p))
	return len(p), nil
}

// writeRuns writes p but for the parts of blocks that are zero.
func (pw *PartWriter) writeRuns(p []byte) error {
	start := 0 // of the run that is not written yet
	for i := 0; i < len(p); {
		next := min(len(p), i+holeBlock-int((pw.off+int64(i))%holeBlock))
		if allZero(p[i:next]) {
			if start < i {
				if _, err := pw.file.WriteAt(p[start:i], pw.off+int64(start)); err != nil {
					return err
				}
			}
			start = next
		}
		i = next
	}
	if start == len(p) {
		return nil
	}
	_, err := pw.file.WriteAt(p[start:], pw.off+int64(start))
	return err
}

func allZero(p []byte) bool {
	for len(p) >= 8 {
		if binary.NativeEndian.Uint64(p) != 0 {
			return false
		}
		p = p[8:]
	}
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}

// Close checks that the part is complete, and a chunk that it is the one its
// name says, and syncs it. After an error the Writer can only be aborted.
func (pw *PartWriter) Close() error {
	if pw.w.open != pw {
		return writeError(pw.part.Path(), ErrClosed)
	}
	err := pw.finish()
	if err != nil {
		pw.err = err
		return err // stays open, so that Commit refuses
	}
	pw.w.open = nil
	sum := FileSum{Path: pw.part.Path(), Size: pw.size}
	copy(sum.BLAKE3[:], pw.sum.Sum(nil))
	pw.w.sums[pw.part] = sum
	return nil
}

func (pw *PartWriter) finish() error {
	if pw.err != nil {
		return pw.err
	}
	if pw.off != pw.size {
		return writeError(pw.part.Path(), fmt.Errorf("%w: %d bytes, %d were declared", ErrSize, pw.off, pw.size))
	}
	if pw.sha != nil && [32]byte(pw.sha.Sum(nil)) != pw.part.Hash {
		return writeError(pw.part.Path(), ErrChunkHash)
	}
	// The file ends with its last byte even where that is in a hole.
	err := pw.file.Truncate(pw.size)
	if err == nil {
		err = pw.file.Sync()
	}
	if err == nil {
		err = pw.file.Close()
	}
	return writeError(pw.part.Path(), err)
}
