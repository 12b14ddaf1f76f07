package engine_test

import (
	"bytes"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/zeebo/blake3"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/demodata"
)

// images yields successive memory images: those that come with the module, and
// those of the directory that SNAPSTORE_IMAGES names.
func images(t *testing.T, dir string) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		if dir == "" {
			for i, err := range must(demodata.MotokoLedger()).Images() {
				if err != nil {
					t.Fatal(err)
				}
				if !yield(i.Bytes) {
					return
				}
			}
			return
		}
		names := must(filepath.Glob(filepath.Join(dir, "*.mem")))
		if len(names) == 0 {
			t.Fatalf("no *.mem in %s", dir)
		}
		slices.Sort(names)
		for _, name := range names {
			if !yield(must(os.ReadFile(name))) {
				return
			}
		}
	}
}

// Memories of real canisters go through takes, loads, deletes, cleaning and a
// rebuild of the index, bit for bit.
func TestRealMemories(t *testing.T) {
	dirs := []string{""}
	if d := os.Getenv("SNAPSTORE_IMAGES"); d != "" {
		dirs = append(dirs, d)
	}
	for _, dir := range dirs {
		t.Run(fmt.Sprintf("%q", filepath.Base(dir)), func(t *testing.T) {
			store := t.TempDir() + "/store"
			o := &engine.Options{SnapshotLimit: 1000, SegmentSize: 1 << 20, MemTable: 1 << 20, NoBackground: true}
			if err := engine.Create(store, o); err != nil {
				t.Fatal(err)
			}
			e := must(engine.Open(store, o))
			defer func() { e.Close() }()
			c := must(e.CreateCanister(bg, canisterID(t, 1)))
			m := must(c.Memory(engine.WasmMemory))
			type taken struct {
				id  engine.SnapshotID
				sum [32]byte
			}
			var all []taken
			raw, roots := 0, map[[32]byte]engine.Root{}
			for image := range images(t, dir) {
				st := must(m.Assign(bg, bytes.NewReader(image), uint64(len(image)), nil))
				res := must(c.Take(bg, engine.TakeOptions{}))
				if res.Pages.New > st.Changed {
					t.Errorf("%v: %d pages are new of %d that changed", res.ID, res.Pages.New, st.Changed)
				}
				all = append(all, taken{res.ID, blake3.Sum256(image)})
				raw += len(image)
			}
			same := func(when string) {
				t.Helper()
				for _, s := range all {
					if sum := blake3.Sum256(content(t, e, s.id, engine.WasmMemory)); sum != s.sum {
						t.Fatalf("%s: %v is not what was taken", when, s.id)
					}
					snap := must(e.Snapshot(bg, s.id))
					root := snap.Sections()[0].Root
					snap.Close()
					if known, ok := roots[s.sum]; ok && known != root {
						t.Errorf("%s: %v has another root for equal content", when, s.id)
					}
					roots[s.sum] = root
				}
			}
			same("taken")
			sound(t, e)
			t.Logf("%d images of %d bytes in %d bytes of log", len(all), raw, e.Stats().LogBytes)

			// Back and forth, so that differences are large and small.
			other := must(e.CreateCanister(bg, canisterID(t, 2)))
			for i := range all {
				s := all[(i*7)%len(all)]
				must(c.Load(bg, s.id, engine.LoadOptions{}))
				must(other.Load(bg, s.id, engine.LoadOptions{FromOtherCanister: true}))
				for _, m := range []*engine.Memory{m, must(other.Memory(engine.WasmMemory))} {
					p := make([]byte, m.Size())
					must(m.ReadAt(p, 0))
					if blake3.Sum256(p) != s.sum {
						t.Fatalf("%v was loaded and is not there", s.id)
					}
				}
			}
			// Two of three go, and what is left moves.
			left := all[:0:0]
			for i, s := range all {
				if i%3 == 0 {
					left = append(left, s)
				} else if err := e.Delete(bg, s.id); err != nil {
					t.Fatal(err)
				}
			}
			all = left
			must(e.GC(bg, engine.GCOptions{}))
			same("collected")
			sound(t, e)
			var dumps [2]bytes.Buffer
			for i := range dumps {
				if err := e.Close(); err != nil {
					t.Fatal(err)
				}
				again := *o
				again.RebuildIndex = true
				e = must(engine.Open(store, &again))
				if err := e.DumpIndex(&dumps[i]); err != nil {
					t.Fatal(err)
				}
				same("rebuilt")
			}
			sound(t, e)
			if la, lb := withoutMeta(dumps[0].Bytes()), withoutMeta(dumps[1].Bytes()); !bytes.Equal(la, lb) {
				t.Error("two rebuilds differ")
			}
		})
	}
}

// withoutMeta leaves the watermark out, which moves with every open.
func withoutMeta(dump []byte) (out []byte) {
	for line := range bytes.Lines(dump) {
		if !bytes.HasPrefix(line, []byte("meta ")) {
			out = append(out, line...)
		}
	}
	return out
}
