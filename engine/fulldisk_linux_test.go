package engine_test

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/snapstore/snapstore/engine"
)

// TestFullFileSystem fills a real file system of 48 MiB, tmpfs, and gets out of
// it again: takes are refused, deletes and gc work with nothing free but the
// reserve, and everything that was acknowledged is there afterwards.
func TestFullFileSystem(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV, "size=48m"); err != nil {
		t.Skipf("SKIPPED: a file system can not be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	store := filepath.Join(dir, "store")
	o := &engine.Options{SnapshotLimit: 1000, SegmentSize: 2 << 20, MemTable: 1 << 20}
	if err := engine.Create(store, o); err != nil {
		t.Fatal(err)
	}
	e := must(engine.Open(store, o))
	defer func() { e.Close() }()
	c := must(e.CreateCanister(bg, testCanister(t)))
	mem := must(c.Memory(engine.WasmMemory))
	const size = 2 << 20
	if err := mem.Resize(size); err != nil {
		t.Fatal(err)
	}
	images := map[engine.SnapshotID]uint64{}
	image := func(seed uint64) []byte {
		p := make([]byte, size)
		rng := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), 1})
		_, _ = rng.Read(p)
		return p
	}
	seed := uint64(0)
	fill := func() (ids []engine.SnapshotID) {
		for {
			seed++
			must(mem.WriteAt(image(seed), 0))
			r, err := c.Take(bg, engine.TakeOptions{})
			if errors.Is(err, engine.ErrNoSpace) {
				return ids
			} else if err != nil {
				t.Fatal(err)
			}
			images[r.ID] = seed
			ids = append(ids, r.ID)
			if len(ids) > 100 {
				t.Fatal("the file system does not get full")
			}
		}
	}
	pad := func() { // to the last byte
		f := must(os.Create(filepath.Join(dir, "pad")))
		defer f.Close()
		for _, n := range []int{1 << 20, 1 << 12, 1} {
			for {
				if _, err := f.Write(make([]byte, n)); err != nil {
					break
				}
			}
		}
	}
	for round := range 3 {
		ids := fill()
		if len(ids) < 3 {
			t.Fatalf("round %d: %d takes", round, len(ids))
		}
		pad()
		for _, id := range ids[1:] {
			if err := e.Delete(bg, id); err != nil {
				t.Fatalf("round %d: delete on a full file system: %v", round, err)
			}
			delete(images, id)
		}
		if r, err := e.GC(bg, engine.GCOptions{}); err != nil {
			t.Fatalf("round %d: gc on a full file system: %v, %+v", round, err, r)
		}
		if err := os.Remove(filepath.Join(dir, "pad")); err != nil {
			t.Fatal(err)
		}
		if round == 1 {
			if err := e.Close(); err != nil {
				t.Fatal(err)
			}
			e = must(engine.Open(store, o))
			c = must(e.Canister(testCanister(t)))
			mem = must(c.Memory(engine.WasmMemory))
		}
	}
	for id, seed := range images {
		s := must(e.Snapshot(bg, id))
		p := make([]byte, size)
		must(must(s.Section(engine.WasmMemory)).ReadAt(p, 0))
		if string(p) != string(image(seed)) {
			t.Errorf("snapshot %v is not what was taken", id)
		}
		s.Close()
	}
	for p, err := range e.Verify(bg, engine.VerifyOptions{}) {
		t.Errorf("verify: %+v, %v", p, err)
	}
}

func testCanister(t *testing.T) engine.CanisterID {
	t.Helper()
	return must(engine.CanisterIDFromBytes([]byte{0, 0, 0, 0, 0, 0, 0, 9, 1, 1}))
}
