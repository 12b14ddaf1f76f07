package osfs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// TestNoLinkIsFollowed: neither read through nor written through, and Create
// puts a file where the link was.
func TestNoLinkIsFollowed(t *testing.T) {
	dir := t.TempDir()
	target, link := filepath.Join(dir, "target"), filepath.Join(dir, "link")
	if err := os.WriteFile(target, []byte("others'"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, link); err != nil {
		t.Skipf("SKIPPED: no symbolic links here: %v", err)
	}
	s := New()
	if _, err := s.Open(link); !errors.Is(err, ErrLink) {
		t.Errorf("open: %v", err)
	}
	if _, err := s.OpenReadWrite(link, ""); !errors.Is(err, ErrLink) {
		t.Errorf("open for writing: %v", err)
	}
	if _, err := s.Lock(link); !errors.Is(err, ErrLink) {
		t.Errorf("lock: %v", err)
	}
	if _, err := s.ReuseForWrite(link, filepath.Join(dir, "new"), ""); !errors.Is(err, ErrLink) {
		t.Errorf("reuse: %v", err)
	}
	f, err := s.Create(link, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("ours")); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if p, err := os.ReadFile(target); err != nil || string(p) != "others'" {
		t.Errorf("the target reads %q, %v", p, err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode() != 0o600 {
		t.Errorf("created: %v, %v", info, err)
	}
}

// A store that is removed while it is open does not come back in parts.
func TestNoDirectoryWithoutItsParent(t *testing.T) {
	root := filepath.Join(t.TempDir(), "store")
	s := New().Within(root)
	deep := filepath.Join(root, "index", "pebble")
	if err := s.MkdirAll(deep, 0o777); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory of a store that is not there: %v", err)
	}
	if _, err := os.Stat(root); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("the store is back: %v", err)
	}
	if err := os.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.MkdirAll(deep, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(deep); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info, err)
	}
	if err := os.WriteFile(filepath.Join(root, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.MkdirAll(filepath.Join(root, "file"), 0o700); err == nil {
		t.Error("a file is taken for a directory")
	}
	other := filepath.Join(t.TempDir(), "a", "b")
	if err := s.MkdirAll(other, 0o700); err != nil {
		t.Errorf("outside: %v", err)
	}
}
