package trackmem

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

// More separate runs than a scan returns at once, far more than the kernel
// gathers before it writes them out.
func TestManyRuns(t *testing.T) {
	t.Parallel()
	const size = 128 << 20
	m := memory(t, tracker(t, Options{Mode: ModeKernel}), size, size)
	b := borrow(t, m)
	for round, step := range []uint64{2, 3, 2, 2, 64} {
		var want, got DirtySet
		for p := uint64(round); p < size/PageSize; p += step {
			b.Bytes()[p*PageSize+uint64(round)]++
			want.Add(p)
		}
		if err := m.Collect(&got); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(slices.Collect(got.Pages()), slices.Collect(want.Pages())) {
			t.Fatalf("round %d: %d pages written, %d reported", round, want.Len(), got.Len())
		}
	}
}

// A guest writes stamps without pause while pages are collected and copied;
// at every stop the copies are the memory.
func TestCollectRunningBesideAWriter(t *testing.T) {
	t.Parallel()
	const size = 16 << 20
	m := memory(t, tracker(t, Options{Mode: ModeKernel}), size, size)
	b := borrow(t, m)
	image := make([]byte, size)
	var buf PageBuf
	var d DirtySet
	take := func(collect func(*DirtySet) error) {
		t.Helper()
		d.Clear()
		if err := collect(&d); err != nil {
			t.Fatal(err)
		}
		buf.Reset()
		m.CopyDirty(&d, &buf)
		for i := range buf.Len() {
			p, c := buf.Page(i)
			copy(image[p*PageSize:], c)
		}
	}
	stamp := uint64(0)
	n := seed(t)
	rng, guest := rand.New(rand.NewPCG(n, 1)), rand.New(rand.NewPCG(n, 3))
	rounds := 200
	if testing.Short() {
		rounds = 40
	}
	for round := range rounds {
		var stop atomic.Bool
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			mem := b.Bytes()
			for !stop.Load() {
				stamp++
				binary.LittleEndian.PutUint64(mem[guest.IntN(size/8)*8:], stamp)
			}
		}()
		for range rng.IntN(3) + 1 {
			take(m.CollectRunning)
		}
		stop.Store(true)
		<-ended
		take(m.Collect)
		if !bytes.Equal(image, b.Bytes()) {
			t.Fatalf("round %d: the copies are not the memory", round)
		}
	}
}

// After an error every page is reported, and so it is at the next collect.
func TestCollectThatFails(t *testing.T) {
	t.Parallel()
	tr, err := New(Options{Mode: ModeKernel})
	if err != nil {
		t.Skipf("this machine: %v", err)
	}
	m := memory(t, tr, 1<<20, 100*PageSize)
	if err := tr.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := m.WriteAt([]byte{1}, 5); err != nil {
		t.Fatal(err)
	}
	for _, collect := range []func(*DirtySet) error{m.Collect, m.CollectRunning, m.Collect} {
		var d DirtySet
		if err := collect(&d); err == nil || d.Len() != 100 {
			t.Errorf("without the kernel: %d pages, %v", d.Len(), err)
		}
	}
}

// A memory that nobody could have written is not looked at.
func TestQuietMemory(t *testing.T) {
	t.Parallel()
	tr, err := New(Options{Mode: ModeKernel})
	if err != nil {
		t.Skipf("this machine: %v", err)
	}
	m := memory(t, tr, 1<<20, 1<<20)
	if err := tr.Close(); err != nil {
		t.Fatal(err)
	}
	var d DirtySet
	if err := m.Collect(&d); err != nil || d.Len() != 0 {
		t.Errorf("a quiet memory was looked at: %d pages, %v", d.Len(), err)
	}
	b := borrow(t, m)
	if err := m.Collect(&d); err == nil {
		t.Error("a borrowed memory was not looked at")
	}
	if err := b.Release(); err != nil {
		t.Fatal(err)
	}
	if err := m.Collect(&d); err == nil {
		t.Error("what was borrowed since the last collect was not looked at")
	}
}

// Regions that nobody touched are not armed, whatever is beside them.
func TestFreshRegions(t *testing.T) {
	t.Parallel()
	const size = 64 * regionBytes
	m := memory(t, tracker(t, Options{Mode: ModeKernel}), size, size)
	b := borrow(t, m)
	for _, r := range []int{3, 4, 60} {
		b.Bytes()[r*regionBytes+7*PageSize] = 1
	}
	var d DirtySet
	if err := m.CollectRunning(&d); err != nil {
		t.Fatal(err)
	}
	if got := slices.Collect(m.touched.Pages()); !slices.Equal(got, []uint64{3, 4, 60}) {
		t.Errorf("armed regions %v", got)
	}
	if d.Len() < 3 || d.Len() > 3*regionPages {
		t.Errorf("%d pages", d.Len())
	}
	d.Clear()
	if err := m.CollectRunning(&d); err != nil || d.Len() != 0 {
		t.Errorf("nothing was written: %d pages, %v", d.Len(), err)
	}
}

func TestBorrowOutlivesClose(t *testing.T) {
	t.Parallel()
	for _, mode := range []Mode{ModeKernel, ModeBitmap, ModeHash} {
		t.Run(mode.String(), func(t *testing.T) {
			m := memory(t, tracker(t, Options{Mode: mode}), 1<<20, 1<<20)
			b, err := m.Borrow()
			if err != nil {
				t.Fatal(err)
			}
			mem := b.Bytes()
			at := &mem[0]
			if err := m.Truncate(PageSize); err != nil {
				t.Fatal(err)
			}
			if err := m.Grow(1 << 20); err != nil {
				t.Fatal(err)
			}
			if got := b.Bytes(); &got[0] != at || len(got) != 1<<20 || cap(got) != 1<<20 {
				t.Error("the bytes moved")
			}
			if err := m.Close(); err != nil {
				t.Fatal(err)
			}
			mem[99], mem[1<<19] = 1, 2 // still mapped
			if _, err := m.Borrow(); !errors.Is(err, ErrClosed) {
				t.Errorf("borrow after close: %v", err)
			}
			var d DirtySet
			for _, err := range []error{m.Collect(&d), m.Grow(1 << 20), m.Truncate(0)} {
				if !errors.Is(err, ErrClosed) {
					t.Errorf("after close: %v", err)
				}
			}
			if err := errors.Join(b.Release(), b.Release()); err != nil {
				t.Fatal(err)
			}
			if m.res.bytes != nil || m.marked.words != nil {
				t.Error("still mapped after the last release")
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	tr := tracker(t, Options{Mode: ModeBitmap})
	m := memory(t, tr, 3*PageSize, 2*PageSize)
	for name, err := range map[string]error{
		"behind the end":    second(m.WriteAt(make([]byte, 2), 2*PageSize-1)),
		"negative offset":   second(m.WriteAt([]byte{1}, -1)),
		"overflow":          second(m.WriteAt([]byte{1}, 1<<62)),
		"read at -1":        second(m.ReadAt([]byte{1}, -1)),
		"grow smaller":      m.Grow(1),
		"grow over limit":   m.Grow(3*PageSize + 1),
		"truncate larger":   m.Truncate(3 * PageSize),
		"truncate below 0":  m.Truncate(-1),
		"collect running":   m.CollectRunning(new(DirtySet)),
		"reserve below 0":   second(tr.Reserve(-1)),
		"reserve too much":  second(tr.Reserve(1 << 50)),
		"no such mode":      second(New(Options{Mode: 9})),
		"no such mode name": second(ParseMode("signal")),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if n, err := m.ReadAt(make([]byte, 9), 2*PageSize-4); n != 4 || !errors.Is(err, io.EOF) {
		t.Errorf("read over the end: %d, %v", n, err)
	}
	if n, err := m.ReadAt(make([]byte, 9), 2*PageSize); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("read at the end: %d, %v", n, err)
	}
	if n, err := m.WriteAt(nil, 2*PageSize); n != 0 || err != nil {
		t.Errorf("write nothing at the end: %d, %v", n, err)
	}
	if m.Page(2) != nil || m.Page(1) == nil {
		t.Error("pages end where the memory does")
	}
}

func second[T any](_ T, err error) error { return err }

func TestModes(t *testing.T) {
	t.Parallel()
	for m := ModeAuto; m <= ModeHash; m++ {
		if got, err := ParseMode(m.String()); err != nil || got != m {
			t.Errorf("%s: %s, %v", m, got, err)
		}
	}
	if m, err := ParseMode(""); err != nil || m != ModeAuto {
		t.Errorf("the empty name: %s, %v", m, err)
	}
	if got := Mode(77).String(); !strings.Contains(got, "77") {
		t.Error(got)
	}
	tr := tracker(t, Options{})
	t.Logf("%s, %s", tr.Mode(), tr.Reason())
	if tr.Mode() != ModeKernel && tr.Mode() != ModeHash || tr.Reason() == "" {
		t.Errorf("decided on %s, %q", tr.Mode(), tr.Reason())
	}
}

// DirtySet and marks against a map.
func TestSets(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(seed(t), 2))
	const limit = 3000
	for range 300 {
		var d DirtySet
		m, err := newMarks(limit)
		if err != nil {
			t.Fatal(err)
		}
		want := map[uint64]bool{}
		for range rng.IntN(12) {
			first := rng.Uint64N(limit)
			end := min(limit, first+1+rng.Uint64N(200))
			d.AddRange(first, end)
			m.set(first, end)
			for p := first; p < end; p++ {
				want[p] = true
			}
		}
		d.AddRange(9, 9)
		cut := 1 + rng.Uint64N(limit)
		var low, high DirtySet
		m.take(&low, cut)
		if all := slices.Collect(low.Pages()); len(all) > 0 && all[len(all)-1] >= cut {
			t.Fatal("took from behind the end")
		}
		m.take(&high, limit)
		high.Union(&low)
		var none DirtySet
		m.take(&none, limit)
		m.release()
		pages := slices.Sorted(maps.Keys(want))
		for name, s := range map[string]*DirtySet{"set": &d, "marks": &high} {
			if got := slices.Collect(s.Pages()); !slices.Equal(got, pages) || s.Len() != len(pages) {
				t.Fatalf("%s: %d pages of %d, want %d", name, len(got), s.Len(), len(pages))
			}
		}
		if none.Len() != 0 {
			t.Fatal("marks were taken twice")
		}
		var runs []uint64
		for first, end := range d.Ranges() {
			if first >= end || d.Has(end) || first > 0 && d.Has(first-1) {
				t.Fatalf("range %d to %d", first, end)
			}
			for ; first < end; first++ {
				runs = append(runs, first)
			}
		}
		if !slices.Equal(runs, pages) {
			t.Fatal("ranges are not the pages")
		}
		d.RemoveFrom(cut)
		left := slices.DeleteFunc(pages, func(p uint64) bool { return p >= cut })
		if got := slices.Collect(d.Pages()); !slices.Equal(got, left) || d.Len() != len(left) {
			t.Fatalf("removed from %d: %v", cut, got)
		}
		d.Clear()
		if d.Len() != 0 || d.Has(0) {
			t.Fatal("not empty")
		}
	}
}

func TestPageBufIsKept(t *testing.T) {
	t.Parallel()
	m := memory(t, tracker(t, Options{Mode: ModeBitmap}), 3<<20, 3<<20)
	var d DirtySet
	d.AddRange(0, 600)
	d.Add(1 << 20) // behind the end
	var b PageBuf
	b.Reserve(700)
	room := b.Room()
	for range 3 {
		b.Reset()
		m.CopyDirty(&d, &b)
		if b.Len() != 600 || b.Room() != room {
			t.Fatalf("%d copies, room for %d", b.Len(), b.Room())
		}
	}
	b.Reset()
	b.Shrink(10)
	if b.Room() != slabPages {
		t.Errorf("room for %d is left", b.Room())
	}
}

// WriteAt remembers the page that was last written. Where that is cut off, or
// the memory closed, it is outside as any other.
func TestWriteWhereThePageWasCutOff(t *testing.T) {
	for _, mode := range []Mode{ModeBitmap, ModeHash} {
		m := memory(t, tracker(t, Options{Mode: mode}), 8*PageSize, 8*PageSize)
		write := func(off int64) error {
			_, err := m.WriteAt([]byte{1}, off)
			return err
		}
		if err := write(5 * PageSize); err != nil {
			t.Fatal(err)
		}
		if err := m.Truncate(5*PageSize + 9); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(write(5*PageSize), write(5*PageSize+8)); err != nil {
			t.Fatal(err)
		}
		for _, off := range []int64{5*PageSize + 9, 7 * PageSize, -1, math.MinInt64, math.MinInt64 + 7, math.MaxInt64} {
			if err := write(off); err == nil {
				t.Errorf("%s: a write at %d of %d bytes", mode, off, m.Size())
			}
		}
		if err := m.Truncate(PageSize); err != nil {
			t.Fatal(err)
		}
		if err := write(5 * PageSize); err == nil {
			t.Errorf("%s: a write to a page that was cut off", mode)
		}
	}
}
