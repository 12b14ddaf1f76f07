package engine_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/snapstore/snapstore/engine"
)

// kernelTracks tells whether this machine has the kernel mode.
func kernelTracks(t *testing.T) bool {
	t.Helper()
	e, _ := memStore(t, engine.Options{})
	s := e.Stats()
	if s.Tracking != "kernel" {
		t.Logf("%s: %s", s.Tracking, s.TrackingReason)
	}
	return s.Tracking == "kernel"
}

// inModes runs a test in each mode that can see a guest.
func inModes(t *testing.T, f func(t *testing.T, o engine.Options)) {
	t.Helper()
	modes := []engine.TrackingMode{engine.TrackHash}
	if kernelTracks(t) {
		modes = append(modes, engine.TrackKernel)
	}
	for _, m := range modes {
		t.Run(m.String(), func(t *testing.T) { f(t, engine.Options{Tracking: m}) })
	}
}

func lend(t testing.TB, c *engine.Canister, s engine.Section, size, limit uint64) (*engine.Memory, *engine.Borrow) {
	t.Helper()
	m, err := c.Memory(s)
	if err != nil {
		t.Fatal(err)
	}
	if m.Size() < size {
		if err := m.Resize(size); err != nil {
			t.Fatal(err)
		}
	}
	b, err := m.Bytes(bg, limit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Release(); err != nil {
			t.Error(err)
		}
	})
	return m, b
}

// imageOf reads a section of a snapshot.
func imageOf(t testing.TB, e *engine.Engine, id engine.SnapshotID, s engine.Section) []byte {
	t.Helper()
	snap, err := e.Snapshot(bg, id)
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	r, err := snap.Section(s)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, r.Size())
	if _, err := io.ReadFull(io.NewSectionReader(r, 0, r.Size()), got); err != nil {
		t.Fatal(err)
	}
	return got
}

// A guest writes stamps without pause while takes run. Each snapshot is the
// state at its pause, of all sections together.
func TestTakesWhileAGuestRuns(t *testing.T) {
	takes := int(number(t, "SNAPSTORE_TAKES", 150))
	if testing.Short() {
		takes = 40
	}
	if !kernelTracks(t) {
		t.Skip("a guest can be taken while it runs only where the kernel tracks writes")
	}
	const pages = 96
	e, reopen := memStore(t, engine.Options{SnapshotLimit: 2})
	c := must(e.CreateCanister(bg, canisterID(t, 1)))
	_, b := lend(t, c, engine.WasmMemory, pages*engine.PageSize, 8<<20)
	stable := must(c.Memory(engine.StableMemory))
	if err := stable.Resize(engine.PageSize); err != nil {
		t.Fatal(err)
	}
	g := &stamper{mem: b.Bytes(), rng: rng(number(t, "SNAPSTORE_SEED", rand.Uint64()))}
	c.SetGuest(g)
	var done atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		for !done.Load() {
			g.step(64)
		}
	})
	wg.Go(func() { // the host's part of the guest's state, by WriteAt
		for !done.Load() {
			g.mu.Lock()
			_, err := stable.WriteAt(binary.LittleEndian.AppendUint64(nil, g.stamp), 0)
			g.mu.Unlock()
			if err != nil {
				t.Error(err)
			}
		}
	})
	var last engine.SnapshotID
	residue := 0
	for i := range takes {
		g.want = nil
		if i%10 == 0 { // compare all of it now and then
			g.want = make([]byte, len(g.mem))
		}
		res, err := c.Take(bg, engine.TakeOptions{Replace: last})
		if err != nil {
			t.Fatal(err)
		}
		last = res.ID
		residue += res.ResiduePages
		var at [8]byte
		r := must(e.Snapshot(bg, last))
		if _, err := must(r.Section(engine.StableMemory)).ReadAt(at[:], 0); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		if got := binary.LittleEndian.Uint64(at[:]); got > g.seen {
			t.Fatalf("take %d: stable memory is of stamp %d, the pause was at %d", i, got, g.seen)
		}
		wasm := must(r.Section(engine.WasmMemory))
		for _, s := range g.recent {
			if _, err := wasm.ReadAt(at[:], s.off); err != nil && !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
			if got := binary.LittleEndian.Uint64(at[:]); got != s.stamp {
				t.Fatalf("take %d: at %d is stamp %d, at the pause it was %d", i, s.off, got, s.stamp)
			}
		}
		r.Close()
		if g.want != nil && !bytes.Equal(imageOf(t, e, last, engine.WasmMemory), g.want) {
			t.Fatalf("take %d is not the state at its pause", i)
		}
	}
	done.Store(true)
	wg.Wait()
	t.Logf("%d takes, %d pages copied in pauses", takes, residue)
	c.SetGuest(nil)
	e = reopen()
	for p, err := range e.Verify(bg, engine.VerifyOptions{}) {
		t.Errorf("%v, %v", p, err)
	}
}

// stamper is a guest that writes a sequence of stamps at random places.
type stamper struct {
	mu     sync.Mutex // held while it runs
	mem    []byte
	rng    *rand.Rand
	stamp  uint64
	recent []stamped // as of the last pause
	ring   []stamped
	seen   uint64
	want   []byte
}

type stamped struct {
	off   int64
	stamp uint64
}

func (g *stamper) step(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for range n {
		g.stamp++
		off := g.rng.IntN(len(g.mem)/8) * 8
		binary.LittleEndian.PutUint64(g.mem[off:], g.stamp)
		if len(g.ring) < 64 {
			g.ring = append(g.ring, stamped{})
		}
		g.ring[g.stamp%uint64(len(g.ring))] = stamped{int64(off), g.stamp}
	}
}

// Quiesce implements engine.Guest.
func (g *stamper) Quiesce(_ context.Context, pause func() error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := pause(); err != nil {
		return err
	}
	g.seen = g.stamp
	if g.want != nil {
		copy(g.want, g.mem)
	}
	g.recent = g.recent[:0]
	for _, s := range g.ring {
		if s.stamp != 0 && binary.LittleEndian.Uint64(g.mem[s.off:]) == s.stamp {
			g.recent = append(g.recent, s)
		}
	}
	return nil
}

// Bytes keeps its address through growth, takes and loads; a load changes what
// differs and gives back what lies behind.
func TestLoadIntoLentMemory(t *testing.T) {
	inModes(t, func(t *testing.T, o engine.Options) {
		e, _ := memStore(t, o)
		c := must(e.CreateCanister(bg, canisterID(t, 1)))
		r := rng(number(t, "SNAPSTORE_SEED", rand.Uint64()))
		if r.IntN(2) == 0 {
			e.KeepOfLoads(r.IntN(8))
		}
		const limit = 4 << 20
		m, b := lend(t, c, engine.WasmMemory, 40*engine.PageSize, limit)
		at := &b.Bytes()[0]
		type state struct {
			id    engine.SnapshotID
			bytes []byte
		}
		var states []state
		for round := range 120 {
			mem := b.Bytes()
			for range r.IntN(8) {
				off := r.IntN(len(mem))
				mem[off] = byte(r.Uint32())
			}
			if r.IntN(3) == 0 {
				if err := m.Resize(1 + r.Uint64N(limit)); err != nil {
					t.Fatal(err)
				}
			}
			mem = b.Bytes()
			for range r.IntN(5) {
				off := r.IntN(len(mem))
				copy(mem[off:], bytes.Repeat([]byte{byte(r.Uint32())}, r.IntN(20_000)))
			}
			switch {
			case len(states) < 8 && r.IntN(2) == 0:
				res, err := c.Take(bg, engine.TakeOptions{})
				if err != nil {
					t.Fatal(err)
				}
				states = append(states, state{res.ID, slices.Clone(b.Bytes())})
			case r.IntN(3) == 0:
				if _, err := c.Checkpoint(bg); err != nil {
					t.Fatal(err)
				}
			case len(states) > 0:
				s := states[r.IntN(len(states))]
				if _, err := c.Load(bg, s.id, engine.LoadOptions{}); err != nil {
					t.Fatal(err)
				}
				got := b.Bytes()
				if &got[0] != at {
					t.Fatal("the bytes moved")
				}
				if !bytes.Equal(got, s.bytes) {
					t.Fatalf("round %d: loaded memory is not what was taken", round)
				}
				if m.Size() != uint64(len(s.bytes)) {
					t.Fatalf("size %d, want %d", m.Size(), len(s.bytes))
				}
			}
		}
		for _, s := range states {
			if !bytes.Equal(imageOf(t, e, s.id, engine.WasmMemory), s.bytes) {
				t.Errorf("%s changed", s.id)
			}
		}
	})
}

// What a guest makes zeros right after a load, before its memory is armed again, is
// in the next take: also where the load kept no copy of the pages it wrote.
func TestZerosRightAfterALoad(t *testing.T) {
	zerosAfterALoad(t, func(b []byte) error {
		clear(b[20*engine.PageSize:][:engine.PageSize])
		return nil
	})
}

func zerosAfterALoad(t *testing.T, clearing func(b []byte) error) {
	const pages = 64
	inModes(t, func(t *testing.T, o engine.Options) {
		for _, keep := range []int{pages, 4, 0} {
			e, _ := memStore(t, o)
			e.KeepOfLoads(keep)
			a := must(e.CreateCanister(bg, canisterID(t, 1)))
			ma := must(a.Memory(engine.WasmMemory))
			if err := ma.Resize(pages * engine.PageSize); err != nil {
				t.Fatal(err)
			}
			r := rng(1)
			want := make([]byte, pages*engine.PageSize)
			for i := range want {
				want[i] = byte(r.Uint32())
			}
			must(ma.WriteAt(want, 0))
			from := must(a.Take(bg, engine.TakeOptions{}))

			c := must(e.CreateCanister(bg, canisterID(t, 2)))
			_, b := lend(t, c, engine.WasmMemory, 0, 8<<20)
			loaded := false
			c.SetGuest(guestFunc(func(_ context.Context, pause func() error) error {
				err := pause()
				if !loaded && err == nil { // the guest runs again
					err = clearing(b.Bytes())
				}
				loaded = true
				return err
			}))
			if _, err := c.Load(bg, from.ID, engine.LoadOptions{FromOtherCanister: true}); err != nil {
				t.Fatal(err)
			}
			if bytes.Equal(b.Bytes(), want) {
				t.Fatal("nothing was cleared")
			}
			want = bytes.Clone(b.Bytes())
			taken := must(c.Take(bg, engine.TakeOptions{}))
			if !bytes.Equal(imageOf(t, e, taken.ID, engine.WasmMemory), want) {
				t.Errorf("%d pages kept: the take after the load lost zeros", keep)
			}
		}
	})
}

// Lending, taking back and lending again change nothing.
func TestUnlend(t *testing.T) {
	inModes(t, func(t *testing.T, o engine.Options) {
		e, reopen := memStore(t, o)
		c := must(e.CreateCanister(bg, canisterID(t, 1)))
		want := make([]byte, 300*engine.PageSize+17)
		r := rng(7)
		m := must(c.Memory(engine.WasmMemory))
		if err := m.Resize(uint64(len(want))); err != nil {
			t.Fatal(err)
		}
		change := func(write func(off int, b []byte)) {
			for range 20 {
				b := make([]byte, 1+r.IntN(3*engine.PageSize))
				for i := range b {
					b[i] = byte(r.Uint32())
				}
				off := r.IntN(len(want) - len(b))
				copy(want[off:], b)
				write(off, b)
			}
		}
		for range 4 {
			change(func(off int, b []byte) { must(m.WriteAt(b, int64(off))) })
			if r.IntN(2) == 0 {
				must(c.Checkpoint(bg))
			}
			b, err := m.Bytes(bg, 2<<20)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(b.Bytes(), want) {
				t.Fatal("lent memory is not the section")
			}
			change(func(off int, p []byte) { copy(b.Bytes()[off:], p) })
			if err := m.Unlend(bg); !errors.Is(err, engine.ErrInvalid) {
				t.Fatalf("taken back under a borrower: %v", err)
			}
			if err := b.Release(); err != nil {
				t.Fatal(err)
			}
			if e.Stats().LentBytes != uint64(len(want)) {
				t.Errorf("%d bytes are lent", e.Stats().LentBytes)
			}
			if err := m.Unlend(bg); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len(want))
			must(m.ReadAt(got, 0))
			if !bytes.Equal(got, want) {
				t.Fatal("the section is not what was lent")
			}
		}
		must(c.Checkpoint(bg))
		e = reopen()
		m = must(must(e.Canister(canisterID(t, 1))).Memory(engine.WasmMemory))
		got := make([]byte, len(want))
		must(m.ReadAt(got, 0))
		if !bytes.Equal(got, want) {
			t.Fatal("what became durable is not what was lent")
		}
	})
}

// A canister that is deleted, or whose engine is closed, leaves its borrower
// memory that can be used until it is released.
func TestBorrowersOutliveTheirCanister(t *testing.T) {
	e, _ := memStore(t, engine.Options{})
	gone := must(e.CreateCanister(bg, canisterID(t, 1)))
	closed := must(e.CreateCanister(bg, canisterID(t, 2)))
	_, b1 := lend(t, gone, engine.WasmMemory, 10*engine.PageSize, 1<<20)
	m2, b2 := lend(t, closed, engine.WasmMemory, 10*engine.PageSize, 1<<20)
	mem1, mem2 := b1.Bytes(), b2.Bytes()
	if err := e.DeleteCanister(bg, gone.ID()); err != nil {
		t.Fatal(err)
	}
	mem1[5], mem2[5] = 1, 1
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	mem1[5*engine.PageSize], mem2[5*engine.PageSize] = 1, 1
	if _, err := m2.ReadAt(make([]byte, 1), 0); !errors.Is(err, engine.ErrClosed) {
		t.Errorf("read after close: %v", err)
	}
	if _, err := m2.WriteAt(make([]byte, 1), 0); !errors.Is(err, engine.ErrClosed) {
		t.Errorf("write after close: %v", err)
	}
	if _, err := m2.Bytes(bg, 1<<20); !errors.Is(err, engine.ErrClosed) {
		t.Errorf("lend after close: %v", err)
	}
}

type guestFunc func(context.Context, func() error) error

func (f guestFunc) Quiesce(ctx context.Context, pause func() error) error { return f(ctx, pause) }

// What a guest does wrong fails the operation, and loses nothing.
func TestGuestsThatFail(t *testing.T) {
	inModes(t, func(t *testing.T, o engine.Options) {
		e, _ := memStore(t, o)
		c := must(e.CreateCanister(bg, canisterID(t, 1)))
		_, b := lend(t, c, engine.WasmMemory, 600*engine.PageSize, 4<<20)
		first := must(c.Take(bg, engine.TakeOptions{}))
		for i := 0; i < 600; i += 2 {
			b.Bytes()[i*engine.PageSize] = 7
		}
		want := slices.Clone(b.Bytes())
		trap := errors.New("trap")
		for name, g := range map[string]guestFunc{
			"does not stop": func(context.Context, func() error) error { return trap },
			"never calls":   func(context.Context, func() error) error { return nil },
		} {
			c.SetGuest(g)
			if _, err := c.Take(bg, engine.TakeOptions{}); err == nil {
				t.Errorf("%s: taken", name)
			}
			if _, err := c.Load(bg, first.ID, engine.LoadOptions{}); err == nil {
				t.Errorf("%s: loaded", name)
			}
			if err := c.Revert(bg); err == nil {
				t.Errorf("%s: reverted", name)
			}
		}
		ctx, cancel := context.WithCancel(bg)
		c.SetGuest(guestFunc(func(_ context.Context, pause func() error) error {
			cancel()
			return pause()
		}))
		if _, err := c.Take(ctx, engine.TakeOptions{}); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled in the pause: %v", err)
		}
		c.SetGuest(guestFunc(func(_ context.Context, pause func() error) error {
			err := pause()
			if again := pause(); !errors.Is(again, engine.ErrInvalid) {
				t.Errorf("paused twice: %v", again)
			}
			return errors.Join(err, trap) // too late to count
		}))
		res, err := c.Take(bg, engine.TakeOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(imageOf(t, e, res.ID, engine.WasmMemory), want) {
			t.Error("pages were lost")
		}
		if !bytes.Equal(b.Bytes(), want) {
			t.Error("the memory was changed")
		}
		if n := testutil.CollectAndCount(e.Collector(), "snapstore_take_pause_seconds"); n != 1 {
			t.Error("the pause is not exported")
		}
		for i := range b.Bytes() {
			b.Bytes()[i] = 9
		}
		if err := c.Revert(bg); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b.Bytes(), want) {
			t.Error("reverted memory is not what was durable")
		}
	})
}

func TestLendRefusals(t *testing.T) {
	e, _ := memStore(t, engine.Options{})
	c := must(e.CreateCanister(bg, canisterID(t, 1)))
	m := must(c.Memory(engine.WasmMemory))
	if err := m.Resize(1 << 20); err != nil {
		t.Fatal(err)
	}
	big := must(c.Take(bg, engine.TakeOptions{}))
	for _, limit := range []uint64{1<<20 - 1, engine.MaxSectionSize + 1} {
		if _, err := m.Bytes(bg, limit); !errors.Is(err, engine.ErrInvalid) {
			t.Errorf("limit %d: %v", limit, err)
		}
	}
	if err := m.Resize(100); err != nil {
		t.Fatal(err)
	}
	_, b := lend(t, c, engine.WasmMemory, 100, 8*engine.PageSize)
	if err := m.Resize(8*engine.PageSize + 1); !errors.Is(err, engine.ErrInvalid) {
		t.Errorf("grown over its limit: %v", err)
	}
	b.Bytes()[3] = 1
	if _, err := c.Load(bg, big.ID, engine.LoadOptions{}); !errors.Is(err, engine.ErrInvalid) {
		t.Errorf("loaded more than the limit: %v", err)
	}
	if b.Bytes()[3] != 1 || m.Size() != 100 {
		t.Error("a refused load changed memory")
	}
	res := must(c.Take(bg, engine.TakeOptions{}))
	if got := imageOf(t, e, res.ID, engine.WasmMemory); len(got) != 100 || got[3] != 1 {
		t.Error("a refused load lost a page")
	}
	if _, err := engine.ParseTrackingMode("signals"); !errors.Is(err, engine.ErrInvalid) {
		t.Errorf("a mode that is none: %v", err)
	}
}

// Many canisters, each with memory that is lent and a large one that is not.
func TestManyCanisters(t *testing.T) {
	n := 1000
	if testing.Short() {
		n = 100
	}
	e, _ := memStore(t, engine.Options{})
	var borrows []*engine.Borrow
	for i := range n {
		c := must(e.CreateCanister(bg, must(engine.CanisterIDFromBytes([]byte{byte(i >> 8), byte(i), 1, 1}))))
		m, err := c.Memory(engine.WasmMemory)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Resize(64 << 20); err != nil {
			t.Fatal(err)
		}
		b, err := m.Bytes(bg, 6<<30)
		if err != nil {
			t.Fatal(err)
		}
		borrows = append(borrows, b)
		b.Bytes()[i*engine.PageSize+1] = 1
		stable := must(c.Memory(engine.StableMemory))
		if err := stable.Resize(500 << 30); err != nil {
			t.Fatal(err)
		}
		must(stable.WriteAt([]byte{1, 2, 3}, 300<<30))
	}
	for i := 0; i < n; i += n / 10 {
		c := must(e.Canister(must(engine.CanisterIDFromBytes([]byte{byte(i >> 8), byte(i), 1, 1}))))
		res, err := c.Take(bg, engine.TakeOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if res.Pages.Pages != 2 || res.Pages.New+res.Pages.Shared != 2 {
			t.Errorf("canister %d: %+v", i, res.Pages)
		}
	}
	for _, b := range borrows {
		if err := b.Release(); err != nil {
			t.Fatal(err)
		}
	}
}
