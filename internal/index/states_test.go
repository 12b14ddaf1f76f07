package index

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

func wantStale(t *testing.T, o Options, reason string) {
	t.Helper()
	x, err := Open(o)
	var s *StaleError
	if !errors.As(err, &s) || !strings.Contains(s.Error(), reason) {
		t.Errorf("open: %v, want stale: %s", err, reason)
	}
	if err == nil {
		mustClose(t, x)
	}
}

func TestOpenIsStale(t *testing.T) {
	fs := vfs.NewMem()
	o := testOptions(t, fs)
	wantStale(t, o, "absent")
	x := create(t, o)
	setAll(t, x, 5, testIDs(1, 3)...)
	if err := x.Flush(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(o); !errors.Is(err, ErrLocked) {
		t.Errorf("open twice: %v", err)
	}
	mustClose(t, x)

	other := o
	other.StoreID[0]++
	wantStale(t, other, "of another store")

	low := o
	low.Floor = 6
	wantStale(t, low, "below the log's floor")
	low.Floor = 5
	mustClose(t, mustOpen(t, low))

	refused := errors.New("no such batch")
	checked := o
	checked.Check = func(seq uint64, hash [32]byte) error {
		if seq != 5 || hash != hashOf(5) {
			t.Errorf("asked for %d %x", seq, hash)
		}
		return refused
	}
	wantStale(t, checked, "not of this log: no such batch")
	if _, err := Open(checked); !errors.Is(err, refused) {
		t.Error("the reason is not wrapped")
	}

	// Nothing of that changed the index.
	mustClose(t, mustOpen(t, o))

	if err := fs.Remove("store/index/TRUSTED"); err != nil {
		t.Fatal(err)
	}
	wantStale(t, o, "not marked as trusted")
	if err := Destroy(o); err != nil {
		t.Fatal(err)
	}
	wantStale(t, o, "absent")
}

// An index of a later version is not read, and not destroyed by the attempt.
func TestNewerVersionIsStale(t *testing.T) {
	o := testOptions(t, vfs.NewMem())
	x := create(t, o)
	m := appendMeta(nil, meta{store: o.StoreID, seq: 1})
	m[0] = formatVersion + 1
	if err := errors.Join(x.db.Set(metaKey(), append(m, "more"...), pebble.NoSync), x.db.Flush()); err != nil {
		t.Fatal(err)
	}
	mustClose(t, x)
	wantStale(t, o, "format version 2, want 1")
	wantStale(t, o, "format version 2, want 1")
}

func TestDistrustOutlivesTheProcess(t *testing.T) {
	for _, failing := range []string{"", untrustedFile, trustedFile} {
		mem := vfs.NewCrashableMem()
		o := testOptions(t, mem)
		mustClose(t, create(t, o))
		o.FS = errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if failing != "" && strings.HasSuffix(op.Path, "/"+failing) {
				return errors.New("disk")
			}
			return nil
		}))
		x := mustOpen(t, o)
		if err := x.Untrusted(); err != nil {
			t.Fatal(err)
		}
		x.MarkUntrusted(errors.New("a count went below zero"))
		x.MarkUntrusted(errors.New("something else"))
		if err := x.Untrusted(); !errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), "below zero") {
			t.Errorf("untrusted: %v", err)
		}
		// Without a Close, as in a crash.
		left := mem.CrashClone(vfs.CrashCloneCfg{})
		reason := "below zero"
		if failing == untrustedFile {
			reason = "not marked as trusted"
		}
		wantStale(t, o.on(left), reason)
		mustClose(t, x)
		wantStale(t, o.on(mem), reason)
		// A rebuild makes it good.
		mustClose(t, create(t, o.on(mem)))
		mustClose(t, mustOpen(t, o.on(mem)))
	}
}

func TestCommitRefuses(t *testing.T) {
	o := testOptions(t, vfs.NewMem())
	x := create(t, o)
	id := testIDs(1, 1)[0]
	setAll(t, x, 4, id)
	want := dump(t, x)
	for name, fill := range map[string]func(b *Batch){
		"an entry nowhere":           func(b *Batch) { b.SetEntry(id, Entry{Count: 1}) },
		"a slot out of range":        func(b *Batch) { b.SetEntry(id, Entry{Location: page(1, 0, 16), Count: 1}) },
		"an empty record key":        func(b *Batch) { b.PutRecord(nil, Record{}) },
		"an empty state key":         func(b *Batch) { b.PutState(nil, nil) },
		"a long state key":           func(b *Batch) { b.DeleteState(make([]byte, maxKey+1)) },
		"a watermark that goes back": func(b *Batch) { b.SetWatermark(3, hashOf(3)) },
	} {
		b := x.NewBatch()
		b.DeleteEntry(id)
		fill(b)
		if err := b.Commit(); err == nil {
			t.Errorf("%s is committed", name)
		}
	}
	b := x.NewBatch()
	if err := b.Commit(); err != nil {
		t.Error(err)
	}
	if err := b.Commit(); err == nil {
		t.Error("a batch is committed twice")
	}
	if err := x.Untrusted(); err != nil {
		t.Error(err)
	}
	b = x.NewBatch()
	b.DeleteEntry(id)
	b.AddLive(3, 10)
	b.AddLive(3, -11)
	if err := b.Commit(); err == nil || x.Untrusted() == nil {
		t.Errorf("live bytes below zero: %v, untrusted: %v", err, x.Untrusted())
	}
	if got := dump(t, x); got != want {
		t.Error("a refused batch changed the index")
	}
	mustClose(t, x)
}

func TestClosedIndexSaysSo(t *testing.T) {
	x := create(t, testOptions(t, vfs.NewMem()))
	id := testIDs(1, 1)[0]
	setAll(t, x, 1, id)
	b := x.NewBatch()
	mustClose(t, x)
	mustClose(t, x)
	_, _, errGet := x.GetUnfiltered(id)
	_, _, errRecord := x.Record([]byte("k"))
	_, errLimbo := x.Limbo(ID{}, 1)
	_, errCompare := x.CompareCounts(RebuildOptions{})
	for name, err := range map[string]error{
		"Get": errGet, "Record": errRecord, "Limbo": errLimbo, "CompareCounts": errCompare,
		"Commit": b.Commit(), "Flush": x.Flush(), "Dump": x.Dump(new(lines)),
		"GetSorted": x.GetSorted([]ID{id}, func(int, Entry, bool) error { return nil }),
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if m := x.Metrics(); m.Applied != 1 {
		t.Errorf("%+v", m)
	}
}

// Readers of all kinds, a writer, flushes and a recount, then Close under them:
// every answer is right or ErrClosed.
func TestConcurrentUseAndClose(t *testing.T) {
	o := testOptions(t, vfs.NewMem())
	o.MemTableSize = minMemTableSize
	x := create(t, o)
	ids := testIDs(1, 2000)
	sortIDs(ids)
	var applied atomic.Int64
	var wg sync.WaitGroup
	stop := make(chan struct{})
	run := func(name string, f func(rng *rand.Rand) error) {
		wg.Go(func() {
			for i := uint64(0); ; i++ {
				if err := f(rand.New(rand.NewPCG(i, 1))); err != nil {
					if !errors.Is(err, ErrClosed) {
						t.Errorf("%s: %v", name, err)
					}
					return
				}
			}
		})
	}
	run("write", func(rng *rand.Rand) error {
		n := applied.Load() + 1
		b := x.NewBatch()
		for _, id := range ids {
			b.SetEntry(id, Entry{Location: page(uint64(n), 0, 0), Count: 1})
		}
		b.SetWatermark(uint64(n), hashOf(uint64(n)))
		if err := b.Commit(); err != nil {
			return err
		}
		if applied.Add(1) == 240 {
			close(stop)
		}
		return nil
	})
	run("get", func(rng *rand.Rand) error {
		n := applied.Load()
		e, ok, err := x.Get(ids[rng.IntN(len(ids))])
		if err == nil && n > 0 && (!ok || e.Segment < uint64(n)) {
			return fmt.Errorf("found %t %+v after %d batches", ok, e, n)
		}
		return err
	})
	// A pass sees one state.
	run("get sorted", func(*rand.Rand) error {
		var first uint64
		return x.GetSorted(ids, func(i int, e Entry, ok bool) error {
			if i == 0 {
				first = e.Segment
			}
			if e.Segment != first {
				return fmt.Errorf("entry %d is of batch %d, the first of %d", i, e.Segment, first)
			}
			return nil
		})
	})
	run("entries", func(*rand.Rand) error {
		var first uint64
		for e, err := range x.Entries(context.Background()) {
			if err != nil {
				return err
			}
			if first == 0 {
				first = e.Segment
			}
			if e.Segment != first {
				return fmt.Errorf("%v is of batch %d, the first of %d", e.ID, e.Segment, first)
			}
		}
		return nil
	})
	run("flush", func(*rand.Rand) error {
		before, _ := x.Watermark()
		if err := x.Flush(); err != nil {
			return err
		}
		if d := x.DurableWatermark(); d < before {
			return fmt.Errorf("durable watermark %d after a flush of %d", d, before)
		}
		return nil
	})
	run("compare", func(*rand.Rand) error {
		c, err := x.CompareCounts(RebuildOptions{})
		if err != nil {
			return err
		}
		defer c.Close()
		for _, id := range ids {
			if err := c.AddCount(id, 1); err != nil {
				return err
			}
		}
		seq, _ := c.Watermark()
		for m, err := range c.Mismatches(context.Background()) {
			if err != nil {
				return err
			}
			if seq > 0 {
				return fmt.Errorf("at %d: %v", seq, m)
			}
		}
		return nil
	})
	<-stop
	mustClose(t, x)
	wg.Wait()
}

// A panic that comes out of Pebble is an error, the index is untrusted, and
// nothing hangs: Pebble, which may have died with its locks taken, is not called
// again.
func TestPanicInPebbleIsAnError(t *testing.T) {
	o := testOptions(t, vfs.NewMem())
	x := create(t, o)
	id := testIDs(1, 1)[0]
	setAll(t, x, 1, id)
	err := func() (err error) {
		defer x.trust.caught("get", &err)
		panic("damaged beyond belief")
	}()
	if !errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), "beyond belief") {
		t.Errorf("caught: %v", err)
	}
	b := x.NewBatch()
	b.SetWatermark(2, hashOf(2))
	_, _, errGet := x.GetUnfiltered(id)
	for name, err := range map[string]error{
		"get": errGet, "commit": b.Commit(), "flush": x.Flush(), "dump": x.Dump(new(lines)),
	} {
		if !errors.Is(err, ErrUntrusted) {
			t.Errorf("%s: %v", name, err)
		}
	}
	mustClose(t, x)
	wantStale(t, o, "beyond belief")
	// Close left Pebble alone; in truth it is well.
	_ = x.db.Close()
}

// A panic of a callback is the caller's own.
func TestPanicOfACallbackGoesThrough(t *testing.T) {
	x := create(t, testOptions(t, vfs.NewMem()))
	defer mustClose(t, x)
	ids := testIDs(1, 2)
	setAll(t, x, 1, ids...)
	const mine = "my own"
	for name, call := range map[string]func(){
		"GetSorted": func() { _ = x.GetSorted(ids[:1], func(int, Entry, bool) error { panic(mine) }) },
		"Entries": func() {
			for range x.Entries(context.Background()) {
				panic(mine)
			}
		},
	} {
		func() {
			defer func() {
				if r := recover(); r != mine {
					t.Errorf("%s: recovered %v", name, r)
				}
			}()
			call()
		}()
	}
	if err := x.Untrusted(); err != nil {
		t.Error(err)
	}
}

// Once halted, nothing under the gate changes.
func TestHaltedGateChangesNothing(t *testing.T) {
	mem := vfs.NewMem()
	tr := newTrust(Options{}.withDefaults().Logger, func(string) error { return nil })
	g := &gate{FS: mem, trust: tr, retry: &retryDelay{}}
	f, err := g.Create("file", vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	w, err := g.OpenReadWrite("both", vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.MkdirAll("dir", os.ModePerm); err != nil {
		t.Fatal(err)
	}
	before := mem.String()
	tr.Fatalf("no way: %w", errors.New("disk"))
	if err := tr.err(); !errors.Is(err, ErrUntrusted) {
		t.Error(err)
	}
	_, errCreate := g.Create("other", vfs.WriteCategoryUnspecified)
	_, errOpen := g.OpenReadWrite("third", vfs.WriteCategoryUnspecified)
	_, errReuse := g.ReuseForWrite("file", "fourth", vfs.WriteCategoryUnspecified)
	_, errWrite := f.Write([]byte("x"))
	_, errWriteAt := w.WriteAt([]byte("x"), 0)
	_, errSyncTo := f.SyncTo(1)
	for name, err := range map[string]error{
		"create": errCreate, "open": errOpen, "reuse": errReuse, "write": errWrite, "write at": errWriteAt,
		"sync": f.Sync(), "sync data": f.SyncData(), "sync to": errSyncTo,
		"link": g.Link("file", "fifth"), "rename": g.Rename("file", "sixth"), "remove": g.Remove("file"),
		"remove all": g.RemoveAll("dir"), "mkdir": g.MkdirAll("dir2", os.ModePerm),
	} {
		if err == nil {
			t.Errorf("%s went through", name)
		}
	}
	if got := mem.String(); got != before {
		t.Errorf("changed from\n%sto\n%s", before, got)
	}
	if err := errors.Join(f.Close(), w.Close()); err != nil {
		t.Error(err)
	}
}
