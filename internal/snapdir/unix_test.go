//go:build linux

package snapdir

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestPipe: opening a pipe for reading would wait for a writer for ever.
func TestPipe(t *testing.T) {
	s := newSample()
	for _, name := range []string{metadataName, sumsName, lockName, "wasm_memory.bin", s.meta.Parts()[3].Path()} {
		dir := filepath.Join(t.TempDir(), "snap")
		s.write(t, dir)
		spoiler{dir}.remove(t, name)
		if err := unix.Mkfifo(filepath.Join(dir, name), 0o600); err != nil {
			t.Skipf("no pipes here: %v", err)
		}
		if _, err := Open(dir); !errors.Is(err, ErrNotRegular) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// TestLock: a directory that the tools write to is refused, one that they
// merely used is not, and they are kept out while it is read.
func TestLock(t *testing.T) {
	s := newSample()
	dir := filepath.Join(t.TempDir(), "snap")
	s.write(t, dir)
	f, err := os.Create(filepath.Join(dir, lockName))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	exclusive := func() error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) }
	if err := exclusive(); err != nil {
		t.Skipf("no locks here: %v", err)
	}
	if _, err := Open(dir); !errors.Is(err, ErrBusy) {
		t.Errorf("locked: got %v", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	s.check(t, dir, true)
	r, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := exclusive(); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Errorf("while it is read: got %v", err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := exclusive(); err != nil {
		t.Errorf("after Close: got %v", err)
	}
}

// TestSparse: zeros take no room.
func TestSparse(t *testing.T) {
	const pages = 1024 // 64 MiB
	parent := t.TempDir()
	dir := filepath.Join(parent, "snap")
	w, err := Create(dir, memoryOnly(pages), [32]byte{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	part, err := w.Part(t.Context(), Part{Kind: WasmMemory}, pages*wasmPage)
	if err != nil {
		t.Fatal(err)
	}
	piece := make([]byte, 1<<20)
	for i := range pages * wasmPage / len(piece) {
		piece[12345] = byte(i % 2)
		if _, err := part.Write(piece); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(part.Close(), w.Commit()); err != nil {
		t.Fatal(err)
	}
	var stat unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, "wasm_memory.bin"), &stat); err != nil {
		t.Fatal(err)
	}
	if stat.Size != pages*wasmPage {
		t.Errorf("%d bytes", stat.Size)
	}
	if used := stat.Blocks * 512; used > 4<<20 {
		t.Errorf("%d bytes on disk for 32 blocks that are not zero", used)
	}
	r, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.Verify(t.Context(), nil); err != nil {
		t.Error(err)
	}
}

// TestPrivate: a snapshot holds everything a canister knows.
func TestPrivate(t *testing.T) {
	s := newSample()
	dir := filepath.Join(t.TempDir(), "snap")
	s.write(t, dir)
	for _, name := range append(names(t, dir), dir) {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s is %v", strings.TrimPrefix(name, dir), info.Mode())
		}
	}
}
