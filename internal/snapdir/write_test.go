package snapdir

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func memoryOnly(pages uint64) Metadata {
	return Metadata{WasmMemorySize: pages * wasmPage}
}

func TestCreateRefusesTarget(t *testing.T) {
	for name, prepare := range map[string]func(dir string) error{
		"file":          func(dir string) error { return os.WriteFile(dir, nil, 0o600) },
		"full":          func(dir string) error { return errors.Join(os.Mkdir(dir, 0o700), os.Mkdir(dir+"/x", 0o700)) },
		"link to empty": func(dir string) error { return errors.Join(os.Mkdir(dir+"2", 0o700), os.Symlink(dir+"2", dir)) },
		"dangling link": func(dir string) error { return os.Symlink("nowhere", dir) },
	} {
		t.Run(name, func(t *testing.T) {
			parent := t.TempDir()
			dir := filepath.Join(parent, "snap")
			if err := prepare(dir); err != nil {
				t.Fatal(err)
			}
			before := names(t, parent)
			if _, err := Create(dir, Metadata{}, [32]byte{}); !errors.Is(err, ErrExists) {
				t.Errorf("got %v", err)
			}
			if after := names(t, parent); !slices.Equal(before, after) {
				t.Errorf("left behind: %v", after)
			}
		})
	}
}

func TestCreateOverEmptyDirectory(t *testing.T) {
	s := newSample()
	dir := t.TempDir()
	s.write(t, dir)
	s.check(t, dir, true)
}

func TestCreateWithoutParent(t *testing.T) {
	_, err := Create(filepath.Join(t.TempDir(), "no", "snap"), Metadata{}, [32]byte{})
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

// TestTargetAppears: someone makes the target while the export runs. Theirs
// stays, ours goes.
func TestTargetAppears(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "snap")
	w, err := Create(dir, Metadata{}, [32]byte{})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, "theirs"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(); !errors.Is(err, ErrExists) {
		t.Errorf("got %v", err)
	}
	if got := names(t, parent); len(got) != 2 {
		t.Errorf("there is %v", got)
	}
}

// TestNothingLeftBehind: whatever stops an export, its directory does not
// appear, and nothing else stays.
func TestNothingLeftBehind(t *testing.T) {
	s := newSample()
	memory := Part{Kind: WasmMemory}
	chunk := Part{Kind: WasmChunk, Hash: s.meta.WasmChunks[2]}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	write := func(ctx context.Context, w *Writer, p Part, b []byte) error {
		part, err := w.Part(ctx, p, uint64(len(b)))
		if err != nil {
			return err
		}
		if _, err := part.Write(b); err != nil {
			return err
		}
		return part.Close()
	}
	for _, c := range []struct {
		name string
		stop func(w *Writer) error
		want error // nil: any
	}{
		{"abort at once", func(*Writer) error { return errors.New("stop") }, nil},
		{"parts not written", func(w *Writer) error { return w.Commit() }, nil},
		{"part left open", func(w *Writer) error {
			_, err := w.Part(t.Context(), memory, s.meta.WasmMemorySize)
			return errors.Join(err, w.Commit())
		}, nil},
		{"cancelled", func(w *Writer) error { return write(ctx, w, memory, s.data[memory]) }, context.Canceled},
		{"part of another size", func(w *Writer) error { return write(t.Context(), w, memory, s.data[memory][wasmPage:]) }, ErrSize},
		{"part too long", func(w *Writer) error {
			part, err := w.Part(t.Context(), memory, s.meta.WasmMemorySize)
			if err != nil {
				return err
			}
			_, err = part.Write(make([]byte, s.meta.WasmMemorySize+1))
			return err
		}, ErrSize},
		{"part too short", func(w *Writer) error {
			part, err := w.Part(t.Context(), memory, s.meta.WasmMemorySize)
			if err != nil {
				return err
			}
			return part.Close()
		}, ErrSize},
		{"wrong chunk", func(w *Writer) error { return write(t.Context(), w, chunk, make([]byte, 17)) }, ErrChunkHash},
		{"wrong chunk, then commit", func(w *Writer) error {
			return errors.Join(write(t.Context(), w, chunk, make([]byte, 17)), w.Commit())
		}, ErrChunkHash},
		{"unknown chunk", func(w *Writer) error { return write(t.Context(), w, Part{Kind: WasmChunk}, nil) }, ErrChunkList},
		{"unknown kind", func(w *Writer) error { return write(t.Context(), w, Part{Kind: 9}, nil) }, ErrMetadata},
		{"chunk too large", func(w *Writer) error { return write(t.Context(), w, chunk, make([]byte, MaxChunk+1)) }, ErrLimit},
		{"part twice", func(w *Writer) error {
			if err := write(t.Context(), w, memory, s.data[memory]); err != nil {
				return nil
			}
			return write(t.Context(), w, memory, s.data[memory])
		}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			parent := t.TempDir()
			w, err := Create(filepath.Join(parent, "snap"), s.meta, s.root)
			if err != nil {
				t.Fatal(err)
			}
			err = c.stop(w)
			if err == nil || (c.want != nil && !errors.Is(err, c.want)) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			for range 2 {
				if err := w.Abort(); err != nil {
					t.Errorf("abort: %v", err)
				}
			}
			if left := names(t, parent); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
			if _, err := w.Part(t.Context(), memory, 0); !errors.Is(err, ErrClosed) {
				t.Errorf("Part after Abort: %v", err)
			}
			if err := w.Commit(); !errors.Is(err, ErrClosed) {
				t.Errorf("Commit after Abort: %v", err)
			}
		})
	}
}

func TestAbortAfterCommit(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "snap")
	w, err := Create(dir, Metadata{}, [32]byte{})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Commit(), w.Abort()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); err != nil {
		t.Errorf("the committed directory is gone: %v", err)
	}
}

// TestExportBesideExport: two exports to one place; one wins, whole.
func TestExportBesideExport(t *testing.T) {
	s := newSample()
	parent := t.TempDir()
	dir := filepath.Join(parent, "snap")
	late, err := Create(dir, Metadata{}, [32]byte{})
	if err != nil {
		t.Fatal(err)
	}
	s.write(t, dir)
	if err := late.Commit(); !errors.Is(err, ErrExists) {
		t.Errorf("got %v", err)
	}
	s.check(t, dir, true)
	for _, name := range names(t, parent) {
		if strings.Contains(name, ".export-") {
			t.Errorf("left behind: %s", name)
		}
	}
}

func TestCreateRefusesMetadata(t *testing.T) {
	parent := t.TempDir()
	for _, m := range []Metadata{
		{WasmMemorySize: 1},
		{StableMemorySize: MaxStableMemory + wasmPage},
		{Globals: make([]Global, 1)},
		{Globals: make([]Global, MaxGlobals+1)},
		{Globals: []Global{{Kind: GlobalI32, Lo: 1 << 32}}},
		{Globals: []Global{{Kind: GlobalI64, Hi: 1}}},
		{CertifiedData: make([]byte, 33)},
		{GlobalTimer: Timer{Active: true}},
		{GlobalTimer: Timer{Present: true, Deadline: 1}},
		{Source: 3},
		{HookStatus: 4},
		{WasmChunks: make([][32]byte, 2)},
		{WasmChunks: make([][32]byte, MaxChunks+1)},
	} {
		if w, err := Create(filepath.Join(parent, "snap"), m, [32]byte{}); err == nil {
			t.Errorf("%+v: accepted", m)
			_ = w.Abort()
		}
	}
	if left := names(t, parent); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}
