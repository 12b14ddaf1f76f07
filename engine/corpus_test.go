package engine_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/snapstore/snapstore/chunk"
	"github.com/snapstore/snapstore/engine"
)

// A store of every format version that was released stays in testdata, and
// this version opens them all. A corpus is written once, with -corpus, and
// never again.
var writeCorpus = flag.String("corpus", "", "write a new corpus into testdata under this name")

// corpusPage is page i of state n of the corpus.
func corpusPage(n, i int) []byte {
	p := bytes.Repeat([]byte{byte(n), byte(i), 0xc0}, engine.PageSize)[:engine.PageSize]
	if i%3 == 0 { // some pages are in every state
		p[0] = 1
		copy(p[1:], "the same in every state")
		clear(p[64:])
	}
	return p
}

func corpusState(n int) (b []byte) {
	for i := range 20 + n {
		b = append(b, corpusPage(n, i)...)
	}
	return b[:len(b)-n*100]
}

// asTaken tells whether a corpus has what takes write, and not what gc made of it.
func asTaken(dir string) bool { return strings.HasSuffix(dir, "-taken") }

func TestCorpus(t *testing.T) {
	if *writeCorpus != "" {
		makeCorpus(t, filepath.Join("testdata", *writeCorpus))
	}
	stores, err := filepath.Glob("testdata/store-*")
	if err != nil || len(stores) == 0 {
		t.Fatal("no corpus", err)
	}
	for _, dir := range stores {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			fs := vfs.NewMem()
			if ok, err := vfs.Clone(vfs.Default, fs, dir, "store"); err != nil || !ok {
				t.Fatal(ok, err)
			}
			e, err := engine.Open("store", &engine.Options{FS: fs, Ballast: -1})
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			if asTaken(dir) && must(e.Groups(bg, false))[chunk.CodecDelta] == 0 {
				t.Error("no group is as takes write them")
			}
			ids := list(t, e, canisterID(t, 1))
			if len(ids) != 3 {
				t.Fatalf("snapshots %v", ids)
			}
			for i, n := range []int{0, 2, 3} { // 1 was replaced
				if ids[i].Local != uint64(n) {
					t.Errorf("id %v", ids[i])
				}
				if got := content(t, e, ids[i], engine.WasmMemory); !bytes.Equal(got, corpusState(n)) {
					t.Errorf("state %d differs", n)
				}
			}
			c := must(e.Canister(canisterID(t, 1)))
			if m := c.Metadata(); m.CanisterVersion != 3 || string(m.CertifiedData) != "corpus" {
				t.Errorf("%+v", m)
			}
			if h := must(c.Host()); string(h) != "host" {
				t.Errorf("host blob %q", h)
			}
			must(c.Load(bg, ids[1], engine.LoadOptions{}))
			must(c.Take(bg, engine.TakeOptions{}))
			must(e.GC(bg, engine.GCOptions{}))
			sound(t, e)
		})
	}
}

func makeCorpus(t *testing.T, dir string) {
	t.Helper()
	o := &engine.Options{Ballast: -1, NoBackground: true}
	if err := engine.Create(dir, o); err != nil {
		t.Fatal(err)
	}
	e := must(engine.Open(dir, o))
	c := must(e.CreateCanister(bg, canisterID(t, 1)))
	var ids []engine.SnapshotID
	for n := range 4 {
		s := corpusState(n)
		write(t, c, engine.WasmMemory, uint64(len(s)), 0, s)
		if err := c.SetMetadata(engine.Metadata{CanisterVersion: uint64(n), CertifiedData: []byte("corpus")}); err != nil {
			t.Fatal(err)
		}
		o := engine.TakeOptions{Host: []byte("host")}
		if n == 3 {
			o.Replace = ids[1]
		}
		ids = append(ids, must(c.Take(bg, o)).ID)
	}
	if !asTaken(dir) {
		must(e.GC(bg, engine.GCOptions{}))
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	for _, derived := range []string{"index", "LOCK", "BALLAST", "BALLAST-LAST", "index.tmp"} {
		if err := os.RemoveAll(filepath.Join(dir, derived)); err != nil {
			t.Fatal(err)
		}
	}
}
