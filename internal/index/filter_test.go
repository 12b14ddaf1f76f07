package index

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func setAll(t testing.TB, x *Index, seq uint64, ids ...ID) {
	t.Helper()
	b := x.NewBatch()
	for _, id := range ids {
		b.SetEntry(id, Entry{Location: page(1, 0, 0), Count: 1})
	}
	b.SetWatermark(seq, hashOf(seq))
	if err := b.Commit(); err != nil {
		t.Fatal(err)
	}
}

func TestFilterGrowsByLayersAndForgetsNothing(t *testing.T) {
	f := newFilter(0, 1, 0)
	ids := testIDs(1, 4*minLayer)
	for i := range ids {
		f.add(&ids[i])
	}
	for i := range ids {
		if !f.mayContain(&ids[i]) {
			t.Fatalf("ID %d of %d is forgotten", i, len(ids))
		}
	}
	if n := len(*f.layers.Load()); n < 3 || !f.crowded() {
		t.Errorf("%d layers", n)
	}
	if got := f.added(); got < uint64(len(ids))*999/1000 || got > uint64(len(ids)) {
		t.Errorf("counted %d of %d", got, len(ids))
	}
	before := f.added()
	for i := range ids {
		f.add(&ids[i])
	}
	if got := f.added(); got != before {
		t.Errorf("counted %d anew", got-before)
	}
	wrong := 0
	for _, id := range testIDs(2, 200_000) {
		if f.mayContain(&id) {
			wrong++
		}
	}
	if wrong > 200_000/10_000 {
		t.Errorf("%d of 200000 wrong", wrong)
	}
}

func TestSavedFilterIsReadBack(t *testing.T) {
	f := newFilter(3, 0x1234, 0)
	ids := testIDs(1, 2*minLayer)
	for i := range ids {
		f.add(&ids[i])
	}
	h := filterHeader{store: [16]byte{1}, opened: stateID{5, 3}, session: 6, covers: 9}
	var b bytes.Buffer
	if err := writeFilter(&b, h, f); err != nil {
		t.Fatal(err)
	}
	h.base, h.seed, h.layers = 3, 0x1234, 2
	got, g, err := readFilter(bytes.NewReader(b.Bytes()), int64(b.Len()))
	if err != nil || got != h {
		t.Fatalf("%+v %v, want %+v", got, err, h)
	}
	for i := range ids {
		if !g.mayContain(&ids[i]) {
			t.Fatal("forgotten")
		}
	}
	if g.added() != f.added() || g.capacity() != f.capacity() {
		t.Error("counts differ")
	}
	var again bytes.Buffer
	if err := writeFilter(&again, got, g); err != nil || !bytes.Equal(again.Bytes(), b.Bytes()) {
		t.Error("written again, it differs", err)
	}

	// Any flipped bit is an error.
	rng := rand.New(rand.NewPCG(1, 1))
	data := b.Bytes()
	for i := range 300 {
		bit := rng.IntN(len(data) * 8)
		if i < filterHeaderSize+layerHeaderSize {
			bit = i*8 + rng.IntN(8)
		}
		data[bit/8] ^= 1 << (bit % 8)
		if _, _, err := readFilter(bytes.NewReader(data), int64(len(data))); !errors.Is(err, errFilter) {
			t.Fatalf("bit %d: %v", bit, err)
		}
		data[bit/8] ^= 1 << (bit % 8)
	}
}

func FuzzReadFilter(f *testing.F) {
	var b bytes.Buffer
	small := &filter{base: 1, seed: 2}
	small.layers.Store(&[]*bloomLayer{newLayer(1), newLayer(100)})
	if err := writeFilter(&b, filterHeader{covers: 4}, small); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add(b.Bytes()[:50])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		h, g, err := readFilter(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return
		}
		var again bytes.Buffer
		if err := writeFilter(&again, h, g); err != nil || !bytes.Equal(again.Bytes(), data) {
			t.Errorf("read, but written again it differs: %v", err)
		}
	})
}

func TestFilterHeaderKnowsItsStates(t *testing.T) {
	h := filterHeader{opened: stateID{1, 10}, session: 2, base: 10, covers: 20}
	for _, c := range []struct {
		s    stateID
		want bool
	}{
		{stateID{1, 10}, true},  // as it was opened
		{stateID{1, 11}, false}, // lost in a crash, or of another course of things
		{stateID{1, 9}, false},
		{stateID{2, 10}, true},
		{stateID{2, 15}, true},
		{stateID{2, 20}, true},
		{stateID{2, 21}, false}, // came after
		{stateID{3, 15}, false},
	} {
		if got := h.has(c.s); got != c.want {
			t.Errorf("%+v: %t", c.s, got)
		}
	}
	h.base = 12 // built anew in the session
	for s, want := range map[stateID]bool{{1, 10}: false, {2, 11}: false, {2, 12}: true} {
		if got := h.has(s); got != want {
			t.Errorf("built at 12, %+v: %t", s, got)
		}
	}
}

// The filter that an Open finds is used if it fits, and never if not.
func TestFilterIsLoadedOnlyForItsState(t *testing.T) {
	o := testOptions(t, vfs.NewMem())
	ids := testIDs(1, 30)
	x := create(t, o)
	setAll(t, x, 1, ids[:10]...)
	if err := x.Flush(); err != nil {
		t.Fatal(err)
	}
	setAll(t, x, 2, ids[10:20]...)
	mustClose(t, x)

	// The second batch is not in the tables; the filter may have it.
	x = mustOpen(t, o)
	if x.Metrics().FilterBuilds != 0 {
		t.Error("the saved filter was not used")
	}
	for i, id := range ids {
		if e, ok, err := x.Get(id); ok != (i < 10) || err != nil {
			t.Errorf("entry %d: %+v %t %v", i, e, ok, err)
		}
	}
	setAll(t, x, 2, ids[20:30]...) // another course of things
	if err := x.Flush(); err != nil {
		t.Fatal(err)
	}
	// The filter of before is put back.
	old, err := loadFilterFile(o)
	if err != nil {
		t.Fatal(err)
	}
	setAll(t, x, 3, testIDs(7, 5)...)
	if err := x.Flush(); err != nil {
		t.Fatal(err)
	}
	mustClose(t, x)
	if err := writeFile(o.FS, o.FS.PathJoin(o.Dir, filterFile), old); err != nil {
		t.Fatal(err)
	}
	x = mustOpen(t, o)
	defer mustClose(t, x)
	if x.Metrics().FilterBuilds != 1 {
		t.Error("a filter of an earlier state was used")
	}
	for _, id := range testIDs(7, 5) {
		if _, ok, err := x.Get(id); !ok || err != nil {
			t.Error(ok, err)
		}
	}
}

func loadFilterFile(o Options) ([]byte, error) {
	f, err := o.FS.Open(o.FS.PathJoin(o.Dir, filterFile))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	stat, err := f.Stat()
	if err != nil {
		return nil, err
	}
	b := make([]byte, stat.Size())
	_, err = f.ReadAt(b, 0)
	return b, err
}

// While the filter is built in the background, and while it grows and is built
// anew, batches go on and no entry is ever denied.
func TestFilterNeverDeniesWhileItIsBuilt(t *testing.T) {
	o := testOptions(t, vfs.NewMem())
	x := create(t, o)
	old := testIDs(1, 2*smallFilter)
	setAll(t, x, 1, old...)
	if err := x.Flush(); err != nil {
		t.Fatal(err)
	}
	mustClose(t, x)
	if err := o.FS.Remove(o.FS.PathJoin(o.Dir, filterFile)); err != nil {
		t.Fatal(err)
	}
	x = mustOpen(t, o)
	defer mustClose(t, x)
	fresh := testIDs(2, 3*minLayer)
	var done atomic.Int64
	var wg sync.WaitGroup
	wg.Go(func() {
		for from := 0; from < len(fresh); from += 1000 {
			to := min(from+1000, len(fresh))
			setAll(t, x, 2, fresh[from:to]...)
			done.Store(int64(to))
		}
	})
	for k := range 2 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(k), 1))
			for done.Load() < int64(len(fresh)) {
				if id := old[rng.IntN(len(old))]; !x.MayContain(id) {
					t.Errorf("%v is denied", id)
					return
				}
				n := int(done.Load())
				if next := fresh[min(n+rng.IntN(1000), len(fresh)-1)]; k == 1 {
					// As soon as it is in the index, it is in the filter.
					if _, ok, err := x.GetUnfiltered(next); err != nil || ok && !x.MayContain(next) {
						t.Errorf("%v is there and denied (%v)", next, err)
						return
					}
				}
				if n > 0 {
					if id := fresh[rng.IntN(n)]; !x.MayContain(id) {
						t.Errorf("%v is denied", id)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	x.builder.Wait()
	m := x.Metrics()
	if !m.FilterReady || m.FilterBuilds < 2 || m.FilterLayers > maxLayers {
		t.Errorf("filter ready %t, built %d times, %d layers", m.FilterReady, m.FilterBuilds, m.FilterLayers)
	}
	for _, id := range append(old, fresh...) {
		if !x.MayContain(id) {
			t.Fatalf("%v is denied", id)
		}
	}
}

func TestForgetInFilter(t *testing.T) {
	x := create(t, testOptions(t, vfs.NewMem()))
	defer mustClose(t, x)
	ids := testIDs(1, 2)
	setAll(t, x, 1, ids...)
	x.ForgetInFilter(func(id ID) bool { return id == ids[0] })
	if _, ok, _ := x.Get(ids[0]); ok {
		t.Error("a forgotten ID is found")
	}
	if _, ok, _ := x.GetUnfiltered(ids[0]); !ok {
		t.Error("GetUnfiltered asks the filter")
	}
	if _, ok, _ := x.Get(ids[1]); !ok {
		t.Error("another ID is forgotten")
	}
	err := x.GetSorted(ids[:1], func(_ int, _ Entry, ok bool) error {
		if !ok {
			t.Error("GetSorted asks the filter")
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	x.ForgetInFilter(nil)
	if _, ok, _ := x.Get(ids[0]); !ok {
		t.Error("still forgotten")
	}
}
