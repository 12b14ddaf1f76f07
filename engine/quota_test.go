package engine_test

import (
	"context"
	"errors"
	"math"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/snapstore/snapstore/engine"
)

// refused checks a refusal, and that nothing came of it: nothing written,
// nothing charged, nothing held.
func refused(t *testing.T, e *engine.Engine, scope engine.QuotaScope, used, wanted uint64, f func() error) {
	t.Helper()
	before := e.Stats()
	err := f()
	var q *engine.QuotaError
	if !errors.Is(err, engine.ErrQuota) || !errors.As(err, &q) {
		t.Fatalf("not refused: %v", err)
	}
	if q.Scope != scope || q.Used != used || q.Wanted != wanted {
		t.Errorf("refused with %+v, want %s, %d used and %d wanted", q, scope, used, wanted)
	}
	after := e.Stats()
	if after.BytesWritten != before.BytesWritten || after.Sequence != before.Sequence || after.ChargedBytes != before.ChargedBytes || after.ReservedBytes != 0 || after.Snapshots != before.Snapshots {
		t.Errorf("a refusal changed something: %+v\nbefore %+v", after, before)
	}
}

func TestCanisterQuota(t *testing.T) {
	const page = engine.PageSize
	fs := vfs.NewMem()
	e, reopen := memStore(t, engine.Options{FS: fs, CanisterQuota: 10 * page})
	c := must(e.CreateCanister(bg, canisterID(t, 1)))
	fill := func(pages int) {
		t.Helper()
		m := must(c.Memory(engine.WasmMemory))
		must0(m.Resize(uint64(pages) * page))
		if pages > 0 {
			must(m.WriteAt(randomPages(uint64(pages), pages), 0))
		}
	}
	charged := func(pages uint64) {
		t.Helper()
		s := e.Stats()
		if s.ChargedBytes != pages*page || s.ReservedBytes != 0 || s.ChargedBytes != s.LogicalBytes+s.HeadLogicalBytes {
			t.Errorf("charged %d and %d held, want %d pages: %d and %d", s.ChargedBytes, s.ReservedBytes, pages, s.LogicalBytes, s.HeadLogicalBytes)
		}
	}
	fill(6)
	refused(t, e, engine.ScopeCanister, 0, 12*page, func() error { _, err := c.Take(bg, engine.TakeOptions{}); return err })
	if n := must(c.Memory(engine.WasmMemory)).DirtyPages(); n != 6 {
		t.Errorf("%d pages are dirty after a refusal, want 6", n)
	}
	fill(4)
	first := must(c.Take(bg, engine.TakeOptions{}))
	charged(8)
	refused(t, e, engine.ScopeCanister, 8*page, 4*page, func() error { _, err := c.Take(bg, engine.TakeOptions{}); return err })
	// What leaves in the same step is taken off.
	second := must(c.Take(bg, engine.TakeOptions{Replace: first.ID}))
	charged(8)
	fill(7)
	refused(t, e, engine.ScopeCanister, 8*page, 3*page, func() error { _, err := c.Checkpoint(bg); return err })
	fill(6)
	must(c.Checkpoint(bg))
	charged(10)
	// To load what is smaller is to give back.
	must(c.Load(bg, second.ID, engine.LoadOptions{}))
	charged(8)

	up := func(pages uint64, replace engine.SnapshotID) (*engine.Upload, error) {
		return c.Upload(bg, engine.Metadata{}, []engine.UploadSection{{Section: engine.StableMemory, Size: pages * page}}, engine.UploadOptions{Replace: replace})
	}
	refused(t, e, engine.ScopeCanister, 8*page, 3*page, func() error { _, err := up(3, engine.SnapshotID{}); return err })
	refused(t, e, engine.ScopeCanister, 8*page, 1<<40-4*page, func() error { _, err := up(1<<28, second.ID); return err })
	u := must(up(2, engine.SnapshotID{}))
	charged(10)
	must(u.WriteAt(engine.StableMemory, randomPages(9, 2), 0))
	must(u.Flush(bg))
	charged(10)
	refused(t, e, engine.ScopeCanister, 10*page, 1<<20, func() error { _, err := u.AddChunk(bg, []byte("a chunk is a MiB"), nil); return err })
	if got := u.Sections(); len(got) != 1 {
		t.Errorf("a chunk that was refused stayed: %v", got)
	}
	must0(e.Delete(bg, second.ID))
	charged(6)

	// From another canister, by its size.
	other := must(e.CreateCanister(bg, canisterID(t, 2)))
	m := must(other.Memory(engine.WasmMemory))
	must0(m.Resize(5 * page))
	from := must(other.Take(bg, engine.TakeOptions{}))
	charged(16)
	fill(4)
	must(c.Take(bg, engine.TakeOptions{})) // 4 + 4 + 2
	charged(20)
	refused(t, e, engine.ScopeCanister, 10*page, page, func() error {
		_, err := c.Load(bg, from.ID, engine.LoadOptions{FromOtherCanister: true})
		return err
	})

	// A lower limit refuses what adds and nothing else.
	e.Close()
	o := engine.Options{FS: fs, Ballast: -1, CanisterQuota: page}
	e = must(engine.Open("store", &o))
	defer func() { e.Close() }()
	c = must(e.Canister(c.ID()))
	charged(20)
	must(c.Checkpoint(bg))
	refused(t, e, engine.ScopeCanister, 10*page, 4*page, func() error { _, err := c.Take(bg, engine.TakeOptions{}); return err })
	ids := list(t, e, c.ID())
	must(c.Take(bg, engine.TakeOptions{Replace: ids[1]}))
	must0(e.DeleteCanister(bg, c.ID()))
	charged(10)
	_ = reopen
}

func TestStoreQuota(t *testing.T) {
	const page = engine.PageSize
	e, reopen := memStore(t, engine.Options{StoreQuota: 100 * page})
	var cs []*engine.Canister
	for i := range 4 {
		c := must(e.CreateCanister(bg, canisterID(t, byte(i+1))))
		m := must(c.Memory(engine.WasmMemory))
		must0(m.Resize(20 * page))
		must(m.WriteAt(randomPages(uint64(i), 20), 0))
		cs = append(cs, c)
	}
	// Four at once, of which two have room.
	var mu sync.Mutex
	var wg sync.WaitGroup
	ok := 0
	for _, c := range cs {
		wg.Go(func() {
			_, err := c.Take(bg, engine.TakeOptions{})
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				ok++
			case !errors.Is(err, engine.ErrQuota):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if s := e.Stats(); ok != 2 || s.ChargedBytes != 80*page || s.ReservedBytes != 0 {
		t.Errorf("%d of two went through: %d charged, %d held", ok, s.ChargedBytes, s.ReservedBytes)
	}
	e = reopen()
	if s := e.Stats(); s.ChargedBytes != 80*page || s.StoreQuota != 100*page {
		t.Errorf("opened again: %d charged", s.ChargedBytes)
	}
	small := must(e.CreateCanister(bg, canisterID(t, 9)))
	must0(must(small.Memory(engine.StableMemory)).Resize(11 * page))
	refused(t, e, engine.ScopeStore, 80*page, 22*page, func() error { _, err := small.Take(bg, engine.TakeOptions{}); return err })
	must(small.Checkpoint(bg))

	// What was asked for is given back however the operation ends.
	ctx, cancel := context.WithCancel(bg)
	cancel()
	if _, err := small.Take(ctx, engine.TakeOptions{}); err == nil {
		t.Error("a take that was called off")
	}
	if s := e.Stats(); s.ChargedBytes != 91*page || s.ReservedBytes != 0 {
		t.Errorf("after one that was called off %d are charged, %d held", s.ChargedBytes, s.ReservedBytes)
	}
}

// Whatever tenants declare, sums do not wrap.
func TestQuotaSumsDoNotWrap(t *testing.T) {
	e, reopen := memStore(t, engine.Options{SnapshotLimit: 1024})
	declare := func(c *engine.Canister) error {
		_, err := c.Upload(bg, engine.Metadata{}, []engine.UploadSection{
			{Section: engine.WasmModule, Size: 1 << 40}, {Section: engine.WasmMemory, Size: 1 << 40}, {Section: engine.StableMemory, Size: 1 << 40},
		}, engine.UploadOptions{})
		return err
	}
	c := must(e.CreateCanister(bg, canisterID(t, 1)))
	must0(declare(c))
	e.ChargeForTest(math.MaxUint64)
	e.ChargeForTest(math.MaxUint64)
	if s := e.Stats(); s.ChargedBytes != math.MaxUint64 {
		t.Errorf("charged %d", s.ChargedBytes)
	}
	must0(declare(c)) // without a quota nothing is refused
	e = reopen()
	if s := e.Stats(); s.ChargedBytes != 6<<40 {
		t.Errorf("charged %d", s.ChargedBytes)
	}
}
