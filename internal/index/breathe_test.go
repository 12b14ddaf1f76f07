package index

import (
	"bytes"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Flushes and builds of filters breathe all the way, and what they write is complete.
func TestBackgroundBreathes(t *testing.T) {
	const n = 40 * breatheEvery
	o := testOptions(t, vfs.NewMem())
	mustClose(t, create(t, o))
	var breaths atomic.Int64
	breathe := func() { breaths.Add(1) }
	o.Breather = func(func() bool) func() { return breathe }
	o.MemTableSize = 64 << 20
	x := mustOpen(t, o)
	ids := testIDs(9, n)
	slices.SortFunc(ids, func(a, b ID) int { return bytes.Compare(a[:], b[:]) })
	commit(t, x, func(b *Batch) {
		for _, id := range ids {
			b.AddEntry(id, Entry{Location: page(1, 0, 0), Count: 1})
			b.PutLimbo(id)
		}
	})
	// Copying, two rounds of sorting and writing, of entries and of limbo, and each sort
	// of those with the same first byte.
	breaths.Store(0)
	if err := x.Flush(); err != nil {
		t.Fatal(err)
	}
	if got := breaths.Load(); got < 2*(4*n/breatheEvery+256) {
		t.Errorf("%d breaths in a flush of %d changes", got, 2*n)
	}
	breaths.Store(0)
	if err := x.buildFilter(n, breathe); err != nil {
		t.Fatal(err)
	}
	if got := breaths.Load(); got < n/breatheEvery {
		t.Errorf("%d breaths in a filter of %d entries", got, n)
	}
	mustClose(t, x)
	x = mustOpen(t, o)
	defer mustClose(t, x)
	if limbo, err := x.Limbo(ID{}, 2*n); err != nil || len(limbo) != n {
		t.Errorf("%d of %d in limbo: %v", len(limbo), n, err)
	}
	found := 0
	err := x.GetSorted(ids, func(_ int, _ Entry, ok bool) error {
		if ok {
			found++
		}
		return nil
	})
	if err != nil || found != n {
		t.Errorf("%d of %d entries: %v", found, n, err)
	}
}

// A flush that rests for as long as it may goes on for who waits: a commit that wants
// room, Flush, and Close.
func TestFlushDoesNotRestForWhoWaits(t *testing.T) {
	o := testOptions(t, vfs.NewMem())
	mustClose(t, create(t, o))
	var rests atomic.Int64
	gaveUp := time.Now().Add(time.Minute)
	o.MemTableSize = minMemTableSize
	o.Breather = func(may func() bool) func() {
		return func() {
			for may() {
				rests.Add(1)
				if time.Now().After(gaveUp) {
					t.Error("it rests on and on")
					return
				}
				time.Sleep(time.Millisecond)
			}
		}
	}
	x := mustOpen(t, o)
	fill := func(seed uint64) {
		commit(t, x, func(b *Batch) {
			for _, id := range testIDs(seed, minMemTableSize/entryBytes) {
				b.AddEntry(id, Entry{Location: page(1, 0, 0), Count: 1})
			}
		})
	}
	// Commits in a row, so that one waits, and then a pause in which none does: on one
	// processor the flush comes to its turn no sooner.
	for i := uint64(0); x.counters.stalls.Load() == 0 || rests.Load() == 0; i++ {
		if time.Now().After(gaveUp) {
			t.Fatalf("%d commits had to wait, %d rests", x.counters.stalls.Load(), rests.Load())
		}
		fill(i)
		if i%(3*maxUnflushed) == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	if err := x.Flush(); err != nil {
		t.Fatal(err)
	}
	before := rests.Load()
	fill(1 << 40)
	fill(1<<40 + 1) // one of them is flushed
	for rests.Load() == before {
		if time.Now().After(gaveUp) {
			t.Fatal("nothing is flushed")
		}
		time.Sleep(time.Millisecond)
	}
	mustClose(t, x)
}
