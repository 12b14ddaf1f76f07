package index

import (
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// gatedDisk is a file system on which no table can be written while it is shut.
func gatedDisk(mem vfs.FS) (fs vfs.FS, shut *atomic.Bool) {
	shut = new(atomic.Bool)
	return errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if shut.Load() && op.Kind == errorfs.OpCreate {
			return syscall.ENOSPC
		}
		return nil
	})), shut
}

func commit(t *testing.T, x *Index, do func(*Batch)) {
	t.Helper()
	b := x.NewBatch()
	do(b)
	if err := b.Commit(); err != nil {
		t.Fatal(err)
	}
}

// What is born and dies between two flushes leaves nothing; what was there before
// does not show again, wherever it lies: in tables, or frozen while they can not be
// written.
func TestBornAndDeadBetweenFlushes(t *testing.T) {
	mem := vfs.NewMem()
	fs, shut := gatedDisk(mem)
	o := testOptions(t, mem)
	mustClose(t, create(t, o))
	x := mustOpen(t, o.on(fs))
	old, id := testIDs(1, 2)[0], testIDs(1, 2)[1]
	e := Entry{Location: page(1, 0, 0), Count: 1}
	born := func(id ID) func(*Batch) {
		return func(b *Batch) { b.AddEntry(id, e); b.PutLimbo(id) }
	}
	dead := func(id ID) func(*Batch) {
		return func(b *Batch) { b.DeleteEntry(id); b.DeleteLimbo(id) }
	}
	absent := func(id ID, when string) {
		t.Helper()
		_, ok, err := x.GetUnfiltered(id)
		errSorted := x.GetSorted([]ID{id}, func(_ int, _ Entry, there bool) error { ok = ok || there; return nil })
		limbo, errLimbo := x.Limbo(ID{}, 10)
		if err := errors.Join(err, errSorted, errLimbo); err != nil || ok || slices.Contains(limbo, id) {
			t.Fatalf("%s: there %t, limbo %v, error %v", when, ok, limbo, err)
		}
	}
	empty := x.unflushed()
	commit(t, x, func(b *Batch) {})
	marks := x.unflushed() - empty
	commit(t, x, born(id))
	commit(t, x, dead(id))
	if got := x.unflushed(); got != marks {
		t.Errorf("%d bytes in memory, %d before anything was born", got, marks)
	}
	absent(id, "in memory")

	commit(t, x, born(old))
	if err := x.Flush(); err != nil {
		t.Fatal(err)
	}
	commit(t, x, dead(old))
	absent(old, "below tables")
	commit(t, x, born(old)) // again: below it are still tables that have it
	commit(t, x, dead(old))
	absent(old, "below tables, twice")

	shut.Store(true)
	commit(t, x, born(id))
	if err := x.Flush(); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if x.frozen() == nil {
		t.Fatal("nothing is frozen")
	}
	commit(t, x, dead(id))
	absent(id, "below what is frozen")
	absent(old, "below tables and what is frozen")
	commit(t, x, born(id))
	commit(t, x, dead(id))
	absent(id, "below what is frozen, twice")
	shut.Store(false)
	if err := x.Flush(); err != nil {
		t.Fatal(err)
	}
	absent(id, "flushed")
	absent(old, "flushed")
	mustClose(t, x)
	x = mustOpen(t, o)
	absent(id, "opened again")
	absent(old, "opened again")
	mustClose(t, x)
}

// Scans see memory over what is frozen over tables, within any bounds.
func TestScanOfThreeLayers(t *testing.T) {
	seeds(t, rounds(20), func(t *testing.T, seed uint64) {
		rng := rand.New(rand.NewPCG(seed, 9))
		mem := vfs.NewMem()
		fs, shut := gatedDisk(mem)
		o := testOptions(t, mem)
		mustClose(t, create(t, o))
		x := mustOpen(t, o.on(fs))
		m := newModel(seed, o.StoreID)
		for layer := range 3 {
			for range 1 + rng.IntN(4) {
				commit(t, x, m.step)
			}
			if layer == 2 {
				break // stays in memory
			}
			shut.Store(layer == 1)
			if err := x.Flush(); (err != nil) != shut.Load() {
				t.Fatal(err)
			}
		}
		if x.frozen() == nil {
			t.Fatal("nothing is frozen")
		}
		if err := m.compare(x); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		keys := slices.Sorted(maps.Keys(m.keys))
		for range 50 {
			from, to := rng.IntN(len(keys)), rng.IntN(len(keys))
			in := span{[]byte(keys[min(from, to)]), []byte(keys[max(from, to)])}
			want := slices.DeleteFunc(slices.Clone(keys[min(from, to):max(from, to)]), func(k string) bool { return k == string(metaKey()) })
			var got []string
			if err := x.scanInto(in, func(kv keyValue) bool {
				if k := string(kv.key); kv.key[0] != kindLive && k != string(metaKey()) {
					if m.keys[k] != string(kv.value) {
						t.Fatalf("seed %d: %x has another value", seed, kv.key)
					}
					got = append(got, k)
				}
				return true
			}); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, want) {
				t.Fatalf("seed %d: from %x to %x %d keys, want %d", seed, in.lower, in.upper, len(got), len(want))
			}
		}
		var limbo []ID
		for _, k := range keys {
			if k[0] == kindLimbo {
				id, err := decodeIDKey(kindLimbo, []byte(k))
				if err != nil {
					t.Fatal(err)
				}
				limbo = append(limbo, id)
			}
		}
		for _, limit := range []int{1, 7, len(limbo), len(limbo) + 1} {
			var got []ID
			for after := (ID{}); ; after = got[len(got)-1] {
				some, err := x.Limbo(after, limit)
				if err != nil {
					t.Fatal(err)
				}
				if got = append(got, some...); len(some) < limit {
					break
				}
			}
			if !slices.Equal(got, limbo) {
				t.Fatalf("seed %d: %d in limbo by %d, want %d", seed, len(got), limit, len(limbo))
			}
		}
		shut.Store(false)
		mustClose(t, x)
	})
}

// A flush that a crash has ended leaves tables that nobody knows; they go at the next
// open, also where an older version has made the index without a place for them.
func TestOpenEmptiesTheFlushDirectory(t *testing.T) {
	mem := vfs.NewMem()
	o := testOptions(t, mem)
	mustClose(t, create(t, o))
	if err := writeFile(mem, mem.PathJoin(o.flushDir(), "table-000000.sst"), make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	mustClose(t, mustOpen(t, o))
	if names, err := mem.List(o.flushDir()); err != nil || len(names) > 0 {
		t.Errorf("left over: %v %v", names, err)
	}
	if err := errors.Join(mem.RemoveAll(o.flushDir()), writeFile(mem, o.flushDir(), nil)); err != nil {
		t.Fatal(err)
	}
	wantStale(t, o, "without a place to flush to")
	if err := mem.RemoveAll(o.flushDir()); err != nil {
		t.Fatal(err)
	}
	x := mustOpen(t, o)
	commit(t, x, func(b *Batch) { b.SetWatermark(1, hashOf(1)) })
	if err := x.Flush(); err != nil {
		t.Error(err)
	}
	mustClose(t, x)
}

// The memory of a memtable is used again, but not of one that has grown while nothing
// could be written.
func TestSpareMemtableIsOfUsualSize(t *testing.T) {
	m := memory{active: newMemtable()}
	ids := testIDs(1, 1000)
	for _, n := range []int{200, 201, 0} {
		for _, id := range ids[:n] {
			m.active.setEntry(id, cell{})
		}
		m.active.batches = 1
		m.freeze()
		m.thaw(100 * entryBytes)
		if kept := m.spare != nil; kept != (n <= 200) {
			t.Errorf("memtable of %d entries, 100 are usual: kept %t", n, kept)
		}
	}
}
