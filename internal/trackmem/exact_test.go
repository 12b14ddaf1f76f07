package trackmem

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"
)

// tracker makes a Tracker of a mode, or skips where the machine lacks it.
func tracker(t testing.TB, o Options) *Tracker {
	t.Helper()
	tr, err := New(o)
	if err != nil {
		t.Skipf("this machine: %v", err)
	}
	t.Cleanup(func() {
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
	})
	return tr
}

func memory(t testing.TB, tr *Tracker, limit, size int64) *Memory {
	t.Helper()
	m, err := tr.Reserve(limit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := m.Grow(size); err != nil {
		t.Fatal(err)
	}
	return m
}

func borrow(t testing.TB, m *Memory) *Borrow {
	t.Helper()
	b, err := m.Borrow()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Release(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func seed(t testing.TB) uint64 {
	t.Helper()
	s := rand.Uint64()
	if v := os.Getenv("SNAPSTORE_SEED"); v != "" {
		n, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		s = n
	}
	t.Logf("SNAPSTORE_SEED=%d", s)
	return s
}

// shadowed is a Memory beside a plain copy of what it was at the last collect.
type shadowed struct {
	m       *Memory
	b       *Borrow
	rng     *rand.Rand
	shadow  []byte   // as of the last collect, limit bytes
	touched DirtySet // written by anybody since then
	kernel  func(b []byte) error
	pre     DirtySet // of running collects
	rearmed DirtySet // by Rearm after the last look
	left    bool     // what the last look saw was not armed, and is seen again
	peak    int64    // longest since
	buf     PageBuf
}

const shadowLimit = 6<<20 + 12_345

func newShadowed(t *testing.T, tr *Tracker, rng *rand.Rand) *shadowed {
	m := memory(t, tr, shadowLimit, 3*PageSize+100)
	return &shadowed{m: m, b: borrow(t, m), rng: rng, shadow: make([]byte, shadowLimit), peak: m.Size(), kernel: kernelWriter(t)}
}

// kernelWriter writes into memory by read(2).
func kernelWriter(t *testing.T) func(b []byte) error {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return func(b []byte) error {
		junk := bytes.Repeat([]byte{byte(len(b)) | 1}, len(b))
		if _, err := w.Write(junk); err != nil {
			return err
		}
		_, err := r.Read(b)
		return err
	}
}

func (s *shadowed) note(off, n int64) {
	if n > 0 {
		s.touched.AddRange(uint64(off)/PageSize, pages(off+n))
	}
}

// write changes some bytes, in a way that the mode is able to see.
func (s *shadowed) write() error {
	mem := s.b.Bytes()
	off := s.rng.Int64N(int64(len(mem)))
	n := min(1+s.rng.Int64N([]int64{8, 300, 20_000}[s.rng.IntN(3)]), int64(len(mem))-off)
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(s.rng.Uint32())
	}
	how := s.rng.IntN(3)
	if s.m.Mode() == ModeBitmap {
		how = 0
	}
	switch how {
	case 0:
		if _, err := s.m.WriteAt(p, off); err != nil {
			return err
		}
	case 1:
		copy(mem[off:], p)
	case 2:
		n = min(n, 4096)
		if err := s.kernel(mem[off : off+n]); err != nil {
			return err
		}
	}
	s.note(off, n)
	return nil
}

// scatter writes one byte in every second page of a stretch: more separate
// runs than the kernel collects at once.
func (s *shadowed) scatter() error {
	end := pages(s.m.Size())
	first := s.rng.Uint64N(end)
	for p := first; p < min(end, first+1200); p += 2 {
		off := int64(p * PageSize)
		if off >= s.m.Size() {
			break
		}
		if _, err := s.m.WriteAt([]byte{byte(s.rng.Uint32())}, off); err != nil {
			return err
		}
		s.note(off, 1)
	}
	return nil
}

func (s *shadowed) resize() error {
	have := s.m.Size()
	if s.rng.IntN(2) == 0 {
		size := min(have+s.rng.Int64N(1<<20), shadowLimit)
		if s.rng.IntN(8) == 0 {
			size = have + s.rng.Int64N(shadowLimit-have+1)
		}
		s.peak = max(s.peak, size)
		return s.m.Grow(size)
	}
	size := max(have-s.rng.Int64N(1<<20), 1)
	if s.rng.IntN(8) == 0 {
		size = 1 + s.rng.Int64N(have)
	}
	s.note(size, have-size)
	return s.m.Truncate(size)
}

// check collects and compares: nothing that changed is missing, and what is
// too much was at least touched.
func (s *shadowed) check(exact bool) error {
	d, looked := s.rearmed, s.rng.IntN(2) == 0
	s.rearmed = DirtySet{}
	collect := s.m.Collect
	if looked {
		collect = s.m.Look
	}
	if err := collect(&d); err != nil {
		return err
	}
	for p := range d.Pages() {
		if p >= pages(s.m.Size()) { // was rearmed and cut off since
			d.Remove(p)
		}
	}
	extra := d.Len()
	mem, size := s.b.Bytes(), s.m.Size()
	for p := range pages(size) {
		from, to := p*PageSize, min((p+1)*PageSize, uint64(size))
		same := bytes.Equal(mem[from:to], s.shadow[from:to])
		if !same && !d.Has(p) {
			return fmt.Errorf("page %d of %d changed and was not reported", p, pages(size))
		}
		if !same {
			copy(s.shadow[from:to], mem[from:to])
		}
		if d.Has(p) && s.touched.Has(p) {
			extra--
		}
	}
	for p := range d.Pages() {
		if p >= pages(size) {
			return fmt.Errorf("page %d is behind the end, %d", p, pages(size))
		}
	}
	if exact && s.pre.Len() == 0 && !s.left && s.m.Mode() != ModeHash && extra > 0 {
		return fmt.Errorf("%d pages were reported that nobody touched", extra)
	}
	// Copies are what the memory is now.
	s.buf.Reset()
	s.m.CopyDirty(&d, &s.buf)
	if s.buf.Len() != d.Len() {
		return fmt.Errorf("%d copies of %d pages", s.buf.Len(), d.Len())
	}
	for i := range s.buf.Len() {
		if p, b := s.buf.Page(i); !d.Has(p) || !bytes.Equal(b, s.m.Page(p)) {
			return fmt.Errorf("copy %d, of page %d, is not the page", i, p)
		}
	}
	if size < s.peak {
		clear(s.shadow[size:s.peak])
	}
	s.peak = size
	left := s.touched
	s.touched, s.pre = DirtySet{}, DirtySet{}
	for first, end := range left.Ranges() {
		if end > pages(size) { // is reported when the memory has grown again
			s.touched.AddRange(max(first, pages(size)), end)
		}
	}
	if s.left = looked && s.rng.IntN(8) == 0; looked && !s.left {
		return s.rearm(exact)
	}
	return nil
}

// rearm arms what was looked at, after some more was written.
func (s *shadowed) rearm(exact bool) error {
	if !s.m.Mode().Running() {
		return s.m.Rearm(&s.rearmed, s.buf.All())
	}
	before := s.touched
	s.touched = DirtySet{}
	for range s.rng.IntN(3) {
		if err := s.write(); err != nil {
			return err
		}
	}
	if err := s.m.Rearm(&s.rearmed, s.buf.All()); err != nil {
		return err
	}
	for p := range s.rearmed.Pages() {
		if exact && !s.touched.Has(p) {
			return fmt.Errorf("page %d is dirty after it was looked at, and nobody wrote it", p)
		}
	}
	s.touched.Union(&before)
	return nil
}

// Rounds of everything that may happen to a memory, against a byte compare.
func TestNothingIsMissed(t *testing.T) {
	rounds := 10_000
	if testing.Short() {
		rounds = 600
	}
	base := seed(t)
	type variant struct {
		o     Options
		share int // of ten
	}
	for i, v := range []variant{
		{Options{Mode: ModeKernel}, 5},
		{Options{Mode: ModeKernel, HugePages: true}, 3},
		{Options{Mode: ModeBitmap}, 1},
		{Options{Mode: ModeHash}, 1},
	} {
		name := v.o.Mode.String()
		if v.o.HugePages {
			name += " huge"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tr := tracker(t, v.o)
			stop := collectGarbage()
			defer stop()
			// Huge pages populate what nobody wrote, and so do systems without a
			// page of zeros that reads share.
			exact := !v.o.HugePages && os.Getpagesize() == PageSize && readsAreHoles(t, tr)
			var s *shadowed
			for round := range rounds * v.share / 10 {
				if round%200 == 0 {
					s = newShadowed(t, tr, rand.New(rand.NewPCG(base, uint64(i*rounds+round))))
				}
				if err := s.round(exact); err != nil {
					t.Fatalf("round %d: %v", round, err)
				}
			}
		})
	}
}

// readsAreHoles tells whether a page that was only read has no content of its
// own.
func readsAreHoles(t *testing.T, tr *Tracker) bool {
	t.Helper()
	if tr.Mode() != ModeKernel {
		return true
	}
	m := memory(t, tr, PageSize, PageSize)
	if _, err := m.ReadAt(make([]byte, 1), 0); err != nil {
		t.Fatal(err)
	}
	var d DirtySet
	if err := m.populated(&d, 0, 1); err != nil {
		t.Fatal(err)
	}
	if d.Len() > 0 {
		t.Log("reads populate pages on this system: what is reported needlessly is not held against the kernel")
	}
	return d.Len() == 0
}

func (s *shadowed) round(exact bool) error {
	for range s.rng.IntN(6) {
		act := s.write
		switch s.rng.IntN(12) {
		case 0:
			act = s.resize
		case 1:
			act = s.scatter
		case 2:
			act = s.dontNeed
		case 3:
			act = s.collectRunning
		case 4:
			act = s.read
		}
		if err := act(); err != nil {
			return err
		}
	}
	return s.check(exact)
}

// collectRunning is a pre-copy: what it reports needs not be reported again.
func (s *shadowed) collectRunning() error {
	if !s.m.Mode().Running() {
		return nil
	}
	var d DirtySet
	if err := s.m.CollectRunning(&d); err != nil {
		return err
	}
	s.pre.Union(&d)
	for p := range d.Pages() {
		from, to := p*PageSize, min((p+1)*PageSize, uint64(s.m.Size()))
		copy(s.shadow[from:to], s.b.Bytes()[from:to])
	}
	return nil
}

// read looks at pages that may never have been touched.
func (s *shadowed) read() error {
	buf := make([]byte, 1+s.rng.IntN(100_000))
	_, _ = s.m.ReadAt(buf, s.rng.Int64N(s.m.Size()))
	return nil
}

// collectGarbage runs the collector until it is told to stop.
func collectGarbage() (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				return
			default:
				runtime.GC()
				time.Sleep(time.Millisecond)
			}
		}
	}()
	return func() { close(done); <-ended }
}
