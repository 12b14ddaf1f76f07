package engine_test

import (
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/seglog"
	"github.com/snapstore/snapstore/internal/testkit"
	"github.com/snapstore/snapstore/internal/testkit/drive"
)

// Ways to lose data, to leak or to stall that were once open.

var randomCalls atomic.Uint64

// randomBytes never gives the same bytes twice, and the same in every run.
func randomBytes(n int) []byte {
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], randomCalls.Add(1))
	b := make([]byte, n)
	_, _ = rand.NewChaCha8(seed).Read(b)
	return b
}

func flipByte(t *testing.T, fs *vfs.MemFS, path string, off int64) {
	b, err := fs.UnsafeGetFileDataBuffer(path)
	if err != nil {
		t.Fatal(err)
	}
	b[off] ^= 0xff
}

func framesOf(t *testing.T, e *engine.Engine, kind seglog.Kind) (locs []seglog.Loc, paths map[seglog.SegmentID]string) {
	paths = map[seglog.SegmentID]string{}
	for _, s := range e.Log().Segments() {
		paths[s.ID] = s.Path
	}
	for f, err := range e.Log().Scan(bg) {
		if err != nil {
			t.Fatal(err)
		}
		if f.Kind == kind {
			locs = append(locs, f.Loc)
		}
	}
	return
}

func readSnapshot(e *engine.Engine, id engine.SnapshotID, n int) error {
	snap, err := e.Snapshot(bg, id)
	if err != nil {
		return err
	}
	defer snap.Close()
	r, err := snap.Section(engine.WasmMemory)
	if err != nil {
		return err
	}
	_, err = r.ReadAt(make([]byte, n), 0)
	return err
}

func fillPages(t *testing.T, m *engine.Memory, from, to, salt int) {
	p := make([]byte, 4096)
	for i := from; i < to; i++ {
		binary.LittleEndian.PutUint64(p, uint64(i)<<8|uint64(salt))
		if _, err := m.WriteAt(p, int64(i)*4096); err != nil {
			t.Fatal(err)
		}
	}
}

func listed(e *engine.Engine, c engine.CanisterID) (ids []string) {
	for s, err := range e.Snapshots(c) {
		if err != nil {
			return append(ids, err.Error())
		}
		ids = append(ids, s.ID.String())
	}
	return ids
}

// the newest record rots before it is applied; the next Open serves the older one.
func TestDamagedRecordIsNeverServedFromAnOlderOne(t *testing.T) { rotNewest(t, false) }

// the newest record rots, the index has a copy, gc throws the copy away.
func TestIndexCopyHealsARecord(t *testing.T) { rotNewest(t, true) }

func rotNewest(t *testing.T, applied bool) {
	fs := vfs.NewMem()
	e, reopen := memStore(t, engine.Options{FS: fs, NoBackground: true})
	id := canisterID(t, 1)
	c := must(e.CreateCanister(bg, id))
	write(t, c, engine.WasmMemory, 1<<20, 0, randomBytes(1<<20))
	s0 := must(c.Take(bg, engine.TakeOptions{}))
	must(0, e.DumpIndex(io.Discard))
	must(0, e.FlushIndex())
	write(t, c, engine.WasmMemory, 1<<20, 0, randomBytes(1<<20))
	s1 := must(c.Take(bg, engine.TakeOptions{Replace: s0.ID}))
	recs, paths := framesOf(t, e, seglog.KindRecord)
	at := recs[len(recs)-1]
	if applied {
		must(0, e.DumpIndex(io.Discard))
		must(0, e.FlushIndex())
	}
	reopen()
	flipByte(t, fs, paths[at.Segment], int64(at.Offset)+int64(at.Length)-3)
	e = reopen()
	t.Log("after rot:", e.Stats().DamagedCanisters, listed(e, id))
	if applied {
		_, err := e.GC(bg, engine.GCOptions{})
		t.Log("gc:", err)
	} else {
		must(0, e.DumpIndex(io.Discard))
		must(0, e.FlushIndex())
	}
	e = reopen()
	t.Log("after reopen:", e.Stats().DamagedCanisters, listed(e, id), "want", s1.ID)
	_, err := e.Snapshot(bg, s1.ID)
	if applied && err != nil || !applied && !errors.Is(err, engine.ErrDamaged) {
		t.Error(err)
	}
}

// a flipped bit in one record of the replayed part loses pages that a newer record names.
func TestRotUnderANewerRecord(t *testing.T) {
	fs := vfs.NewMem()
	e, reopen := memStore(t, engine.Options{FS: fs, NoBackground: true})
	c := must(e.CreateCanister(bg, canisterID(t, 1)))
	write(t, c, engine.WasmMemory, 32768, 0, randomBytes(32768))
	must(c.Checkpoint(bg))
	write(t, c, engine.WasmMemory, 32768, 0, randomBytes(100))
	s := must(c.Take(bg, engine.TakeOptions{}))
	recs, paths := framesOf(t, e, seglog.KindRecord)
	must(0, e.Close())
	flipByte(t, fs, paths[recs[1].Segment], int64(recs[1].Offset)+int64(recs[1].Length)-3)
	e = reopen()
	if err := readSnapshot(e, s.ID, 32768); err != nil {
		t.Error("before gc:", err)
	}
	_, err := e.GC(bg, engine.GCOptions{})
	if err2 := readSnapshot(e, s.ID, 32768); err2 != nil {
		t.Error("after gc:", err, err2)
	}
}

// one failed open (EMFILE) during a rebuild.
func TestRebuildRefusesAPassingReadError(t *testing.T) {
	for k := range 12 {
		fs := testkit.NewDisk().Mount()
		o := engine.Options{FS: fs, NoBackground: true, Ballast: -1}
		must(0, engine.Create("store", &o))
		e := must(engine.Open("store", &o))
		c := must(e.CreateCanister(bg, canisterID(t, 1)))
		write(t, c, engine.WasmMemory, 4096*20, 0, randomBytes(4096*20))
		s := must(c.Take(bg, engine.TakeOptions{}))
		must(0, e.Close())
		o.RebuildIndex = true
		fs.Inject(&testkit.Fault{Kind: testkit.OpOpen, Under: "store/log/0000000001.seg", Err: syscall.EMFILE, After: k, Times: 1})
		e, err := engine.Open("store", &o)
		fs.Inject()
		if err != nil {
			continue
		}
		first := readSnapshot(e, s.ID, 4096*20)
		_, err = e.GC(bg, engine.GCOptions{})
		if second := readSnapshot(e, s.ID, 4096*20); first != nil || second != nil {
			t.Error(k, "read:", first, "; after gc:", err, second)
		}
		e.Close()
	}
}

// rebuild over an unreadable node, healed by another canister, then the first is deleted.
func TestNodeThatComesBackIsCountedAnew(t *testing.T) {
	fs := vfs.NewMem()
	o := engine.Options{FS: fs, NoBackground: true, Ballast: -1}
	e, _ := memStore(t, o)
	a := must(e.CreateCanister(bg, canisterID(t, 1)))
	ma := must(a.Memory(engine.WasmMemory))
	must(0, ma.Resize(300*4096))
	fillPages(t, ma, 0, 300, 1)
	must(a.Take(bg, engine.TakeOptions{}))
	nodes, paths := framesOf(t, e, seglog.KindNodes)
	must(0, e.Close())
	flipByte(t, fs, paths[nodes[0].Segment], int64(nodes[0].Offset)+200)
	o.RebuildIndex = true
	e = must(engine.Open("store", &o))
	defer e.Close()
	b := must(e.CreateCanister(bg, canisterID(t, 2)))
	mb := must(b.Memory(engine.WasmMemory))
	must(0, mb.Resize(300*4096))
	fillPages(t, mb, 0, 300, 1)
	sb := must(b.Take(bg, engine.TakeOptions{}))
	must(0, e.DumpIndex(io.Discard))
	must(0, e.DeleteCanister(bg, canisterID(t, 1)))
	_, err := e.GC(bg, engine.GCOptions{})
	if err2 := readSnapshot(e, sb.ID, 300*4096); err2 != nil {
		t.Error("B:", err, err2)
	}
}

// a node that a take stored and does not count is met by another one.
func TestWhatATakeStoredAndDidNotCountCanBeMet(t *testing.T) {
	e, _ := memStore(t, engine.Options{NoBackground: true})
	a := must(e.CreateCanister(bg, canisterID(t, 1)))
	b := must(e.CreateCanister(bg, canisterID(t, 2)))
	m := must(a.Memory(engine.WasmMemory))
	must(0, m.Resize(300*4096))
	fillPages(t, m, 0, 300, 1)
	must(a.Take(bg, engine.TakeOptions{}))
	must(0, e.DumpIndex(io.Discard))
	release := e.HoldApplier()
	must(0, m.Resize(265*4096))
	must(0, m.Resize(300*4096))
	fillPages(t, m, 260, 261, 2)
	must(a.Take(bg, engine.TakeOptions{}))
	mb := must(b.Memory(engine.WasmMemory))
	must(0, mb.Resize(265*4096))
	fillPages(t, mb, 256, 265, 1)
	fillPages(t, mb, 0, 1, 7)
	must(b.Take(bg, engine.TakeOptions{}))
	release()
	must(0, e.DumpIndex(io.Discard))
	sound(t, e)
}

// a read error that passes makes gc destroy what can be read.
func TestPassingReadErrorDestroysNothing(t *testing.T) {
	fs := testkit.NewDisk().Mount()
	o := engine.Options{FS: fs, NoBackground: true, Ballast: -1}
	must(0, engine.Create("store", &o))
	e := must(engine.Open("store", &o))
	c := must(e.CreateCanister(bg, canisterID(t, 1)))
	write(t, c, engine.WasmMemory, 4096*8, 0, randomBytes(4096*8))
	s := must(c.Take(bg, engine.TakeOptions{}))
	must(0, e.DumpIndex(io.Discard))
	fs.Inject(&testkit.Fault{Kind: testkit.OpRead, Under: "store/log", Err: syscall.EIO})
	_ = readSnapshot(e, s.ID, 4096*8)
	fs.Inject()
	time.Sleep(100 * time.Millisecond)
	r, err := e.GC(bg, engine.GCOptions{})
	t.Logf("%+v %v", r, err)
	e.Close()
	e = must(engine.Open("store", &o))
	if err := readSnapshot(e, s.ID, 4096*8); err != nil {
		t.Error("after gc:", err)
	}
	e.Close()
}

// Operations that overlap without a pause must not keep limbo from emptying.
func TestLimboEmptiesWhileOperationsOverlap(t *testing.T) {
	e, _ := memStore(t, engine.Options{})
	var wg sync.WaitGroup
	var done atomic.Bool
	for i := range 6 {
		wg.Go(func() {
			c := must(e.CreateCanister(bg, canisterID(t, byte(i+1))))
			var last engine.SnapshotID
			for n := 0; n < 5000 && !done.Load(); n++ {
				write(t, c, engine.WasmMemory, 1<<18, 0, randomBytes(1<<16))
				last = must(c.Take(bg, engine.TakeOptions{Replace: last})).ID
				if e.Stats().GC.ChunksDestroyed > 0 {
					done.Store(true)
				}
			}
		})
	}
	wg.Wait()
	if !done.Load() {
		t.Errorf("nothing was destroyed in 30,000 takes: %+v", e.Stats().GC)
	}
}

// debt that only waits for a flush holds takes back for ever.
func TestDebtThatWaitsForAFlushIsPaid(t *testing.T) {
	e, _ := memStore(t, engine.Options{SegmentSize: 1 << 20, MaxDebt: 4 << 20, DebtWait: 3 * time.Second, SnapshotLimit: 100})
	keep := must(e.CreateCanister(bg, canisterID(t, 2)))
	dead := must(e.CreateCanister(bg, canisterID(t, 1)))
	for range 10 {
		write(t, dead, engine.WasmMemory, 1<<20, 0, randomBytes(1<<20))
		must(dead.Take(bg, engine.TakeOptions{}))
	}
	must(0, e.DeleteCanister(bg, canisterID(t, 1)))
	must(0, e.DumpIndex(io.Discard))
	time.Sleep(time.Second)
	write(t, keep, engine.WasmMemory, 4096, 0, randomBytes(10))
	if _, err := keep.Take(bg, engine.TakeOptions{}); err != nil {
		t.Error(err)
	}
}

// nodes of a cut tree are read back from the node cache only.
func TestCutNeedsNoNodeCache(t *testing.T) {
	e, _ := memStore(t, engine.Options{NoBackground: true, NodeCache: 64 << 10})
	c := must(e.CreateCanister(bg, canisterID(t, 1)))
	m := must(c.Memory(engine.WasmMemory))
	must(0, m.Resize(8000*4096))
	fillPages(t, m, 0, 8000, 1)
	must(c.Take(bg, engine.TakeOptions{}))
	must(0, m.Resize(6005*4096))
	fillPages(t, m, 0, 6003, 2)
	for range 2 {
		if _, err := c.Take(bg, engine.TakeOptions{}); err != nil {
			t.Error(err)
		}
	}
}

// the caller's host blob is kept, not copied.
func TestHostBlobIsCopied(t *testing.T) {
	e, reopen := memStore(t, engine.Options{NoBackground: true})
	id := canisterID(t, 1)
	c := must(e.CreateCanister(bg, id))
	h := []byte("hello")
	must(c.CheckpointHost(bg, h))
	copy(h, "XXXXX")
	must(c.Take(bg, engine.TakeOptions{}))
	e = reopen()
	c = must(e.Canister(id))
	if got := string(must(c.Host())); got != "hello" {
		t.Error(got)
	}
}

// sections that were removed count against the limit.
func TestRemovedSectionsDoNotCount(t *testing.T) {
	e, _ := memStore(t, engine.Options{NoBackground: true})
	c := must(e.CreateCanister(bg, canisterID(t, 1)))
	for i := range 200 {
		s := engine.WasmChunk([32]byte{byte(i), 1})
		m, err := c.Memory(s)
		if err != nil {
			t.Fatal(i, err)
		}
		must(0, m.Resize(10))
		must(c.Checkpoint(bg))
		must(0, c.RemoveSection(s))
		must(c.Checkpoint(bg))
	}
}

// metadata that no take can store is accepted.
func TestMetadataIsCheckedWhenSet(t *testing.T) {
	e, _ := memStore(t, engine.Options{NoBackground: true})
	c := must(e.CreateCanister(bg, canisterID(t, 1)))
	if c.SetMetadata(engine.Metadata{CertifiedData: make([]byte, 1000)}) == nil {
		_, err := c.Take(bg, engine.TakeOptions{})
		t.Error(err)
	}
}

// as 1, but gc puts the damaged segment aside, and then the index is rebuilt.
func TestDamagedRecordSurvivesGCAndRebuild(t *testing.T) {
	fs := vfs.NewMem()
	o := engine.Options{FS: fs, NoBackground: true, Ballast: -1}
	e, reopen := memStore(t, o)
	id := canisterID(t, 1)
	c := must(e.CreateCanister(bg, id))
	write(t, c, engine.WasmMemory, 1<<20, 0, randomBytes(1<<20))
	s0 := must(c.Take(bg, engine.TakeOptions{}))
	must(0, e.DumpIndex(io.Discard))
	must(0, e.FlushIndex())
	e = reopen() // so that the next record lies in another segment
	c = must(e.Canister(id))
	write(t, c, engine.WasmMemory, 1<<20, 0, randomBytes(1<<20))
	must(c.Take(bg, engine.TakeOptions{Replace: s0.ID}))
	recs, paths := framesOf(t, e, seglog.KindRecord)
	at := recs[len(recs)-1]
	reopen()
	flipByte(t, fs, paths[at.Segment], int64(at.Offset)+int64(at.Length)-3)
	e = reopen()
	t.Log("after rot:", e.Stats().DamagedCanisters, listed(e, id))
	r, err := e.GC(bg, engine.GCOptions{})
	t.Logf("gc: %+v %v", r, err)
	must(0, e.Close())
	o.RebuildIndex = true
	e = must(engine.Open("store", &o))
	defer e.Close()
	t.Log("after rebuild:", e.Stats().DamagedCanisters, listed(e, id))
	if _, err := e.Snapshot(bg, s0.ID); !errors.Is(err, engine.ErrDamaged) {
		t.Error("a deleted snapshot is back, or the damage forgotten:", err)
	}
}

// Two checks of a store at one time were one check and one error.
func TestConcurrentVerifies(t *testing.T) {
	r := newRun(t, nil)
	do(t, r, create(0), resize(0, wasm, 60*4096), fill(0, wasm, 0, contents(2, 50)...), take(0))
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for p, err := range r.E.Verify(bg, engine.VerifyOptions{}) {
				t.Errorf("%+v, %v", p, err)
			}
		})
	}
	all.Wait()
}

// Every failure to lock read as "in use by another process".
func TestLockThatIsNotAllowed(t *testing.T) {
	disk := testkit.NewDisk()
	fs := disk.Mount()
	if err := engine.Create("store", &engine.Options{FS: fs}); err != nil {
		t.Fatal(err)
	}
	fs.Inject(&testkit.Fault{Kind: testkit.AnyOp, Under: "store/LOCK", Err: syscall.EACCES})
	_, err := engine.Open("store", &engine.Options{FS: fs})
	if errors.Is(err, engine.ErrLocked) || !errors.Is(err, syscall.EACCES) {
		t.Fatal(err)
	}
	fs.Inject()
	e := must(engine.Open("store", &engine.Options{FS: fs}))
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

// Sessions that change nothing left a segment each, without bound, to those who
// never called gc.
func TestManySessionsLeaveFewSegments(t *testing.T) {
	disk := testkit.NewDisk()
	o := &engine.Options{FS: disk.Mount(), Ballast: -1, NoBackground: true}
	if err := engine.Create("store", o); err != nil {
		t.Fatal(err)
	}
	most := 0
	for i := range 200 {
		e := must(engine.Open("store", o))
		if i == 0 {
			c := must(e.CreateCanister(bg, drive.Canister(0)))
			must(c.Take(bg, engine.TakeOptions{}))
		}
		most = max(most, e.Stats().Segments)
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if most > 80 {
		t.Errorf("up to %d segments", most)
	}
	e := must(engine.Open("store", o))
	defer e.Close()
	sound(t, e)
}
