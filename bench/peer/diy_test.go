package peer

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/zeebo/blake3"
	"go.etcd.io/bbolt"
)

// stored lists the pages that a database has.
func stored(t *testing.T, db database) (ids []pageID) {
	t.Helper()
	switch db := db.(type) {
	case *pebbleDB:
		it, err := db.db.NewIter(&pebble.IterOptions{LowerBound: []byte{pageKey}, UpperBound: []byte{pageKey + 1}})
		if err != nil {
			t.Fatal(err)
		}
		for ok := it.First(); ok; ok = it.Next() {
			ids = append(ids, pageID(it.Key()[1:]))
		}
		if err := errors.Join(it.Error(), it.Close()); err != nil {
			t.Fatal(err)
		}
	case *boltDB:
		err := db.db.View(func(tx *bbolt.Tx) error {
			return tx.Bucket(pagesBucket()).ForEach(func(k, _ []byte) error {
				ids = append(ids, pageID(k))
				return nil
			})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return ids
}

// distinct lists the pages that images have, without the page of zeros.
func distinct(images ...[]byte) (ids []pageID) {
	for _, mem := range images {
		for i := range uint64(pageCount(len(mem))) {
			if p := page(mem, i); !isZero(p) {
				ids = append(ids, blake3.Sum256(p))
			}
		}
	}
	slices.SortFunc(ids, comparePages)
	return slices.Compact(ids)
}

// TestPagesStored: every distinct page is stored once, zeros never, and a
// delete leaves exactly what the others have.
func TestPagesStored(t *testing.T) {
	for _, d := range []diy{{pebbleDesign}, {bboltDesign}} {
		t.Run(d.Name(), func(t *testing.T) {
			t.Parallel()
			k := open(t, d)
			store := k.Store.(*pageStore)
			rng := rand.New(rand.NewPCG(5, 6))
			images := map[string][]byte{}
			check := func(what string) {
				t.Helper()
				var all [][]byte
				for _, mem := range images {
					all = append(all, mem)
				}
				got, want := stored(t, store.db), distinct(all...)
				if !slices.Equal(got, want) {
					t.Fatalf("after %s: %d pages are stored, want %d", what, len(got), len(want))
				}
			}
			put := func(name string, mem []byte, dirty []uint64) {
				t.Helper()
				if err := k.put(t.Context(), name, mem, dirty); err != nil {
					t.Fatal(err)
				}
				images[name] = mem
				check("put " + name)
			}
			drop := func(name string) {
				t.Helper()
				if err := k.Delete(t.Context(), name); err != nil {
					t.Fatal(err)
				}
				delete(images, name)
				check("delete " + name)
			}
			a := sample(rng, 1500)
			put("a", a, nil)
			put("a-again", slices.Clone(a), []uint64{})
			b := slices.Clone(a)
			put("b", b, change(rng, b, 400))
			back := slices.Clone(a)
			var all []uint64
			for i := range uint64(pageCount(len(back))) {
				if !slices.Equal(page(a, i), page(b, i)) {
					all = append(all, i)
				}
			}
			put("back", back, all) // nothing new
			c := slices.Clone(back)
			put("c", c, change(rng, c, 400))
			// What only c has goes; the next put may not lean on it.
			drop("c")
			e := slices.Clone(c)
			put("e", e, change(rng, e, 10))
			longer := append(slices.Clone(e), sample(rng, 100)[:100*pageSize-1]...)
			put("longer", longer, []uint64{0})
			drop("a")
			drop("b")
			for name, mem := range images {
				k.same(name, mem)
			}
			for name := range images {
				drop(name)
			}
			if n := len(stored(t, store.db)); n != 0 {
				t.Errorf("%d pages are left of nothing", n)
			}
		})
	}
}

// TestPagesReopen: what a put left is durable in the files, not in the process.
func TestPagesReopen(t *testing.T) {
	for _, d := range []diy{{pebbleDesign}, {bboltDesign}} {
		t.Run(d.Name(), func(t *testing.T) {
			t.Parallel()
			k := open(t, d)
			store := k.Store.(*pageStore)
			mem := sample(rand.New(rand.NewPCG(7, 8)), 700)
			if err := k.put(t.Context(), "v", mem, nil); err != nil {
				t.Fatal(err)
			}
			// A copy of the files while the store is open is what a crash leaves.
			crashed := filepath.Join(k.dir, "crashed")
			if err := os.CopyFS(crashed, os.DirFS(store.repo)); err != nil {
				t.Fatal(err)
			}
			db, err := d.open(crashed)
			if err != nil {
				t.Fatal(err)
			}
			again := &pageStore{db: db, versions: versions{"v": "v"}, repo: crashed}
			(&desk{Store: again, t: t, dir: k.dir}).same("v", mem)
			if err := again.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestListDamaged: a list that is cut or says another length is refused.
func TestListDamaged(t *testing.T) {
	list := encodeList(3*pageSize-5, make([]pageID, 3))
	if n, ids, err := decodeList(list); err != nil || n != 3*pageSize-5 || len(ids) != 3 {
		t.Fatal(n, ids, err)
	}
	for cut := range list {
		if _, _, err := decodeList(list[:cut]); !errors.Is(err, errList) {
			t.Errorf("%d bytes of %d: %v", cut, len(list), err)
		}
	}
	list[7] = 0x80
	if _, _, err := decodeList(list); !errors.Is(err, errList) {
		t.Errorf("a negative length: %v", err)
	}
}
