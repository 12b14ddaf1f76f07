package osfs

import (
	"bytes"
	"path/filepath"
	"testing"
	"time"
	"unsafe"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"
)

// What a real file says of one piece must not end the asking for the next: its first
// answer was once taken for an error, and of everything asked for came one piece.
func TestPrefetchReallyReads(t *testing.T) {
	const n = 10*prefetchPiece + 4096
	name := filepath.Join(t.TempDir(), "f")
	f, err := vfs.Default.Create(name, "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(bytes.Repeat([]byte("snap"), n/4)); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, n, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mem)
	resident := func() int {
		pages := make([]byte, n/4096)
		if _, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&mem[0])), n, uintptr(unsafe.Pointer(&pages[0]))); errno != 0 {
			t.Skipf("this system does not tell what it has in memory: %v", errno)
		}
		in := 0
		for _, p := range pages {
			in += int(p & 1)
		}
		return in
	}
	if err := Prefetch(f, 0, n); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fadvise(int(f.Fd()), 0, n, unix.FADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
	if in := resident(); in > 0 {
		t.Skipf("%d of %d pages stay in memory: this file system does not forget", in, n/4096)
	}
	g, err := vfs.Default.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	for began := time.Now(); resident() < n/4096; time.Sleep(10 * time.Millisecond) {
		if err := Prefetch(g, 0, n); err != nil { // again, as the system may have had no room
			t.Fatal(err)
		}
		if time.Since(began) > 30*time.Second {
			t.Fatalf("%d of %d pages came", resident(), n/4096)
		}
	}
}
