//go:build unix

package engine_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/snapstore/snapstore/engine"
)

// TestPrivateFiles: whatever the umask, nobody but its owner reads a store, and
// one that somebody else could have changed is refused.
func TestPrivateFiles(t *testing.T) {
	t.Setenv("UMASK", "0") // never in parallel: the umask is the process's
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	dir := filepath.Join(t.TempDir(), "store")
	o := &engine.Options{MemTable: 1 << 20}
	if err := engine.Create(dir, o); err != nil {
		t.Fatal(err)
	}
	e := must(engine.Open(dir, o))
	c := must(e.CreateCanister(bg, testCanister(t)))
	m := must(c.Memory(engine.WasmMemory))
	if err := m.Resize(1 << 20); err != nil {
		t.Fatal(err)
	}
	must(m.WriteAt([]byte("a secret"), 4096))
	id := must(c.Take(bg, engine.TakeOptions{})).ID
	if err := e.Delete(bg, id); err != nil {
		t.Fatal(err)
	}
	must(e.GC(bg, engine.GCOptions{}))
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	files := 0
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		want := fs.FileMode(0o600)
		if d.IsDir() {
			want = 0o700
		} else {
			files++
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v", name, info.Mode().Perm(), want)
		}
		return nil
	})
	if err != nil || files < 8 {
		t.Fatalf("%d files: %v", files, err)
	}

	refused := func(what string) {
		t.Helper()
		e, err := engine.Open(dir, o)
		if err == nil {
			e.Close()
		}
		if !errors.Is(err, engine.ErrUnsafe) {
			t.Errorf("%s: open says %v", what, err)
		}
	}
	for _, d := range []string{dir, filepath.Join(dir, "log"), filepath.Join(dir, "index")} {
		for _, mode := range []os.FileMode{0o720, 0o702} {
			if err := os.Chmod(d, mode); err != nil {
				t.Fatal(err)
			}
			refused(d + " with " + mode.String())
		}
		if err := os.Chmod(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	// Where others can get in, the files count too.
	reachable := []string{"ROOT-B", must(filepath.Glob(filepath.Join(dir, "log", "*.seg")))[0], must(filepath.Glob(filepath.Join(dir, "index", "pebble", "*")))[0]}
	for _, name := range reachable {
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
		if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(name, 0o666)); err != nil {
			t.Fatal(err)
		}
		refused(name + " that others may write to")
		if err := errors.Join(os.Chmod(dir, 0o700), os.Chmod(name, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if os.Geteuid() == 0 {
		for _, name := range []string{dir, filepath.Join(dir, "log")} {
			if err := os.Chown(name, 4711, -1); err != nil {
				t.Fatal(err)
			}
			refused(name + " of another account")
			if err := os.Chown(name, 0, -1); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, name := range []string{"ROOT-A", "LOCK", "index", "log", "index/pebble", "index/TRUSTED"} {
		name = filepath.Join(dir, name)
		away := filepath.Join(t.TempDir(), "away")
		if err := errors.Join(os.Rename(name, away), os.Symlink(away, name)); err != nil {
			t.Fatal(err)
		}
		refused("a link at " + name)
		if err := errors.Join(os.Remove(name), os.Rename(away, name)); err != nil {
			t.Fatal(err)
		}
	}
	e = must(engine.Open(dir, o))
	if why := e.Stats().Rebuilt; why != "" {
		t.Errorf("a refused open touched the index: %s", why)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(dir), 0o777); err != nil {
		t.Fatal(err)
	}
	open := filepath.Join(filepath.Dir(dir), "open")
	if err := os.Mkdir(open, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := engine.Create(open, o); !errors.Is(err, engine.ErrUnsafe) {
		t.Errorf("create in a directory that others may write to says %v", err)
	}
}
