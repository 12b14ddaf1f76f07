package index

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// logContent is what a rebuild is fed, and the index that must come of it.
type logContent struct {
	locations []located
	counts    []struct {
		id ID
		n  int64
	}
	records map[string]Record
	states  map[string]string
	want    map[ID]Entry
}

func makeContent(seed uint64, n int) *logContent {
	rng := rand.New(rand.NewPCG(seed, 8))
	c := &logContent{records: map[string]Record{}, states: map[string]string{}, want: map[ID]Entry{}}
	for i, id := range testIDs(seed, n) {
		if i%10 == 0 {
			// IDs that start alike.
			copy(id[:8], "samestart")
		}
		var best Location
		node := rng.IntN(5) == 0
		for range rng.IntN(4) {
			l := page(1+rng.Uint64N(5), rng.Uint32N(4)*64, uint8(rng.IntN(3)))
			c.locations = append(c.locations, located{id, l, node, false})
			if best == (Location{}) || l.Before(best) {
				best = l
			}
		}
		var sum int64
		for range rng.IntN(5) {
			n := rng.Int64N(5)
			sum += n
			c.count(id, n)
		}
		if sum > 0 && rng.IntN(3) == 0 {
			back := 1 + rng.Int64N(sum)
			sum -= back
			c.count(id, -back)
		}
		if sum > 0 {
			c.want[id] = Entry{Location: best, Count: uint64(sum), Lost: best == (Location{}), Node: node && best != (Location{})}
		}
	}
	for i := range n / 10 {
		k := string(rune('a'+i%26)) + strings.Repeat("x", i%50)
		c.records[k] = Record{RecordSeq: uint64(i), Segment: 1, Offset: 64, Length: 100, Payload: make([]byte, rng.IntN(3000))}
		c.states[k] = strings.Repeat("s", rng.IntN(100))
	}
	return c
}

func (c *logContent) count(id ID, n int64) {
	c.counts = append(c.counts, struct {
		id ID
		n  int64
	}{id, n})
}

// feed gives the content to a rebuild, in the order that rng chooses.
func (c *logContent) feed(b *Rebuilder, rng *rand.Rand) error {
	rng.Shuffle(len(c.locations), func(i, j int) { c.locations[i], c.locations[j] = c.locations[j], c.locations[i] })
	rng.Shuffle(len(c.counts), func(i, j int) { c.counts[i], c.counts[j] = c.counts[j], c.counts[i] })
	for _, l := range c.locations {
		if err := b.AddLocation(l.id, l.loc, l.node); err != nil {
			return err
		}
	}
	if err := b.FinishLocations(); err != nil {
		return err
	}
	for _, n := range c.counts {
		if err := b.AddCount(n.id, n.n); err != nil {
			return err
		}
	}
	for k, r := range c.records {
		if err := b.PutRecord([]byte(k), r); err != nil {
			return err
		}
	}
	for k, v := range c.states {
		if err := b.PutState([]byte(k), []byte(v)); err != nil {
			return err
		}
	}
	return nil
}

// applied returns the dump of an index to which the content was applied in
// batches.
func (c *logContent) applied(t *testing.T) string {
	t.Helper()
	x := create(t, testOptions(t, vfs.NewMem()))
	defer mustClose(t, x)
	b := x.NewBatch()
	for id, e := range c.want {
		b.SetEntry(id, e)
		if e.Segment != 0 {
			b.AddLive(e.Segment, int64(e.Share()))
		}
	}
	for k, r := range c.records {
		b.PutRecord([]byte(k), r)
	}
	for k, v := range c.states {
		b.PutState([]byte(k), []byte(v))
	}
	b.SetWatermark(77, hashOf(77))
	if err := b.Commit(); err != nil {
		t.Fatal(err)
	}
	return dump(t, x)
}

func rebuild(t *testing.T, o Options, r RebuildOptions, c *logContent, seed uint64) *Index {
	t.Helper()
	b, err := NewRebuilder(o, r)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Abort()
	if err := c.feed(b, rand.New(rand.NewPCG(seed, 9))); err != nil {
		t.Fatal(err)
	}
	x, err := b.Finish(77, hashOf(77))
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// firstDifference is for messages.
func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return fmt.Sprintf("line %d of %d: %.150q, want of %d: %.150q", i, len(g), g[i], len(w), w[i])
		}
	}
	return fmt.Sprintf("%d lines, want %d", len(g), len(w))
}

func TestRebuildEqualsTheAppliedIndexInAnyOrder(t *testing.T) {
	seeds(t, rounds(8), func(t *testing.T, seed uint64) {
		ids := 3000
		if seed == 1 {
			ids = 2 * smallRebuild // tables of its own for each part
		}
		c := makeContent(seed, ids)
		want := c.applied(t)
		o := testOptions(t, vfs.NewMem())
		for _, memory := range []int64{1, 0} {
			x := rebuild(t, o, RebuildOptions{Memory: memory}, c, seed)
			if got := dump(t, x); got != want {
				t.Fatalf("seed %d: the rebuilt index differs", seed)
			}
			if got := x.DurableWatermark(); got != 77 {
				t.Errorf("durable watermark %d", got)
			}
			if !x.Metrics().FilterReady {
				t.Error("no filter after a rebuild")
			}
			for id, e := range c.want {
				if got, ok, err := x.Get(id); !ok || err != nil || got != e {
					t.Fatalf("seed %d: %v is %+v %t %v, want %+v", seed, id, got, ok, err, e)
				}
			}
			mustClose(t, x)
			x = mustOpen(t, o)
			if got := dump(t, x); got != want {
				t.Fatalf("seed %d: the rebuilt index differs when opened again", seed)
			}
			mustClose(t, x)
			if names, err := o.FS.List("store"); err != nil || len(names) != 1 {
				t.Fatalf("beside the index: %v %v", names, err)
			}
		}
	})
}

func TestRebuildLookup(t *testing.T) {
	c := makeContent(1, 20_000)
	o := testOptions(t, vfs.NewMem())
	b, err := NewRebuilder(o, RebuildOptions{Memory: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Abort()
	if _, _, err := b.Lookup(ID{}); err == nil {
		t.Error("look-up before the locations are there")
	}
	if err := c.feed(b, rand.New(rand.NewPCG(1, 1))); err != nil {
		t.Fatal(err)
	}
	want := map[ID]Location{}
	for _, l := range c.locations {
		if old, ok := want[l.id]; !ok || l.loc.Before(old) {
			want[l.id] = l.loc
		}
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for id, loc := range want {
				if got, ok, err := b.Lookup(id); !ok || err != nil || got != loc {
					t.Errorf("%v: %v %t %v, want %v", id, got, ok, err, loc)
					return
				}
			}
		})
	}
	wg.Wait()
	var near ID
	copy(near[:8], "samestart")
	for _, id := range append(testIDs(99, 1000), ID{}, near, ID{0: 255, 31: 255}) {
		if _, ok, err := b.Lookup(id); ok || err != nil {
			t.Fatalf("%v: %t %v", id, ok, err)
		}
	}
}

func TestRebuildRefusesWhatCanNotBe(t *testing.T) {
	id := testIDs(1, 1)[0]
	start := func() *Rebuilder {
		b, err := NewRebuilder(testOptions(t, vfs.NewMem()), RebuildOptions{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(b.Abort)
		return b
	}
	b := start()
	if err := errors.Join(b.FinishLocations(), b.AddCount(id, 1), b.AddCount(id, -2)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Finish(1, [32]byte{}); !errors.Is(err, ErrUnderflow) {
		t.Errorf("count below zero: %v", err)
	}
	if b = start(); b.AddCount(id, 1) == nil {
		t.Error("count before the locations are finished")
	} else if _, err := b.Finish(1, [32]byte{}); err == nil {
		t.Error("finished after an error")
	}
	if b = start(); b.AddLocation(id, Location{}, false) == nil {
		t.Error("location nowhere")
	}
	if b = start(); b.PutState(nil, nil) == nil {
		t.Error("empty key")
	}
	b = start()
	if err := b.FinishLocations(); err != nil {
		t.Fatal(err)
	}
	if b.AddLocation(id, page(1, 0, 0), false) == nil {
		t.Error("location after the locations are finished")
	}
}

// A crash before any change that Finish makes leaves the old index, none, or the
// new one, and the next Open removes what is left over.
func TestCrashDuringRebuild(t *testing.T) {
	o, mem := crashableOptions(t)
	old := makeContent(1, 50)
	x := rebuild(t, o, RebuildOptions{}, old, 1)
	wantOld := dump(t, x)
	mustClose(t, x)
	c := makeContent(2, 400)
	wantNew := c.applied(t)
	rng := rand.New(rand.NewPCG(1, 4))
	seen := map[string]int{}
	step := int64(1)
	if testing.Short() {
		step = 5
	}
	for n, crashed := int64(1), true; crashed; n += step {
		for survival := range rounds(5) {
			crash := newCrashFS(mem.CrashClone(vfs.CrashCloneCfg{}), rng)
			crash.survival = min(survival, 2)
			crash.crashAfter(n)
			x := rebuild(t, o.on(crash), RebuildOptions{Memory: 1}, c, 1)
			mustClose(t, x)
			if crashed = crash.crashed(); !crashed {
				// A crash after all is done.
				after := crash.mem.CrashClone(vfs.CrashCloneCfg{})
				x := mustOpen(t, o.on(after))
				if got := dump(t, x); got != wantNew {
					t.Errorf("after the rebuild: %s", firstDifference(got, wantNew))
				}
				mustClose(t, x)
				break
			}
			found := "none"
			x, err := Open(o.on(crash.clone))
			if err == nil {
				switch dump(t, x) {
				case wantOld:
					found = "old"
				case wantNew:
					found = "new"
				default:
					t.Fatalf("crash before change %d: neither the old nor the new index", n)
				}
				mustClose(t, x)
			} else if s := (*StaleError)(nil); !errors.As(err, &s) {
				t.Fatalf("crash before change %d: %v", n, err)
			}
			seen[found]++
			if names, err := crash.clone.List("store"); err != nil || len(names) > 1 {
				t.Fatalf("crash before change %d: left over: %v %v", n, names, err)
			}
		}
	}
	t.Log(seen)
	// Between the two names is one change: steps can pass it.
	if seen["old"] == 0 || seen["none"] == 0 && step == 1 || seen["new"] == 0 {
		t.Error("the crashes did not cover what they are for")
	}
}

// An error of any operation is returned, and leaves the old index or none.
func TestErrorDuringRebuild(t *testing.T) {
	o, mem := crashableOptions(t)
	x := rebuild(t, o, RebuildOptions{}, makeContent(1, 50), 1)
	wantOld := dump(t, x)
	mustClose(t, x)
	c := makeContent(2, 3000) // so many that all parts write runs
	wantNew := c.applied(t)
	step := int64(5)
	if testing.Short() {
		step = 40
	}
	for n := int64(1); ; n += step {
		disk := mem.CrashClone(vfs.CrashCloneCfg{})
		fault := newFaultFS(disk, &faultFS{err: syscall.EIO, n: n})
		err := func() error {
			b, err := NewRebuilder(o.on(fault), RebuildOptions{Memory: 1})
			if err != nil {
				return err
			}
			defer b.Abort()
			if err := c.feed(b, rand.New(rand.NewPCG(1, 1))); err != nil {
				return err
			}
			x, err := b.Finish(77, hashOf(77))
			if err != nil {
				return err
			}
			var got lines
			if err := x.Dump(&got); err == nil && string(got) != wantNew {
				t.Errorf("operation %d: the new index is wrong: %s", n, firstDifference(string(got), wantNew))
			}
			return x.Close()
		}()
		if fault.failed.Load() == 0 {
			break
		}
		y, errOpen := Open(o.on(disk.CrashClone(vfs.CrashCloneCfg{})))
		var s *StaleError
		switch {
		case errOpen == nil:
			if got := dump(t, y); got != wantOld && got != wantNew {
				t.Errorf("operation %d (%v): neither the old index (%s) nor the new one (%s)", n, err,
					firstDifference(got, wantOld), firstDifference(got, wantNew))
			} else if err == nil && got != wantNew {
				t.Errorf("operation %d: finished, and the old index is there", n)
			}
			mustClose(t, y)
		case !errors.As(errOpen, &s):
			t.Errorf("operation %d: %v", n, errOpen)
		case err == nil:
			t.Errorf("operation %d: finished, and there is no index: %v", n, errOpen)
		}
	}
}
