package engine_test

import (
	"bytes"
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/testkit"
	"github.com/snapstore/snapstore/internal/testkit/drive"
)

// A store opens on a disk without a free byte as long as its reserve is there:
// otherwise nothing could be deleted.
func TestOpenOnAFullDisk(t *testing.T) {
	for _, killed := range []bool{false, true} {
		cfg := quietly(func(o *engine.Options) { o.SnapshotLimit, o.NoBackground, o.Ballast = 1000, true, 4<<20 })
		cfg.Limit, cfg.Faulty = 1000, true
		r, err := drive.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		do(t, r, create(0), resize(0, wasm, 200*4096), fill(0, wasm, 0, contents(7, 9)...), take(0), take(0))
		opts := drive.Options(1)
		opts.Ballast, opts.NoBackground = 4<<20, true
		disk := r.Disk
		if killed {
			r.FS.Kill()
			r.E.Close()
		} else if err := r.E.Close(); err != nil {
			t.Fatal(err)
		}
		disk.SetCapacity(disk.Used())
		opts.FS = disk.Mount()
		e, err := engine.Open("store", &opts)
		if err != nil {
			t.Errorf("killed %t: open with 4 MiB in the reserve: %v", killed, err)
			continue
		}
		e.Close()
	}
}

// An index that was disowned is built anew by the next Open, in the room of the
// reserve when there is no other.
func TestDisownedIndexOnAFullDisk(t *testing.T) {
	cfg := quietly(func(o *engine.Options) { o.SnapshotLimit, o.NoBackground, o.Ballast = 1000, true, 256<<10 })
	cfg.Limit, cfg.Faulty = 1000, true
	r, err := drive.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	do(t, r, create(0), resize(0, wasm, 60*4096), fill(0, wasm, 0, contents(7, 9)...), take(0))
	for i := range 30 {
		do(t, r, fill(0, wasm, 0, contents(testkit.Content(60*i)*3+2, 50)...), take(0))
	}
	have := r.M.Canisters[0].Snapshots
	for _, s := range have[1 : len(have)-1] {
		do(t, r, remove(0, s.Local))
	}
	r.FS.Inject(&testkit.Fault{Kind: testkit.OpWrite, Under: "store/index", Name: ".sst", Err: syscall.ENOSPC})
	rep, err := r.E.GC(bg, engine.GCOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("gc gave back %d, short %t", rep.BytesReclaimed, r.E.Log().Short())
	r.FS.Inject()
	disk := r.Disk.Crash(100, nil)
	r.FS.Kill()
	r.E.Close()
	for _, free := range []int64{8 << 10, 32 << 10, 64 << 10, 128 << 10} {
		d := disk.Crash(100, nil)
		d.SetCapacity(d.Used() + free)
		opts := drive.Options(1)
		opts.FS, opts.Ballast, opts.NoBackground = d.Mount(), 256<<10, true
		e, err := engine.Open("store", &opts)
		if err != nil {
			t.Errorf("%d bytes free and the reserve: open: %v", free, err)
			continue
		}
		t.Logf("%d free: opened, rebuilt %q", free, e.Stats().Rebuilt)
		e.Close()
	}
}

// Power is lost during a gc that has no room for the index and disowns it.
func TestPowerLossWhileDisowning(t *testing.T) {
	cfg := quietly(func(o *engine.Options) { o.SnapshotLimit, o.NoBackground, o.Ballast = 1000, true, 64<<10 })
	cfg.Limit, cfg.Faulty = 1000, true
	base, err := drive.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	do(t, base, create(0), create(1), resize(0, wasm, 60*4096), resize(1, wasm, 60*4096), fill(0, wasm, 0, contents(7, 9)...), take(0))
	for i := range 14 {
		do(t, base, fill(0, wasm, 0, contents(testkit.Content(60*i)*3+2, 50)...), take(0), fill(1, wasm, 3, contents(testkit.Content(60*i)*3+20, 30)...), take(1))
		if i == 7 {
			_ = base.E.FlushIndex()
		}
	}
	for c := range 2 {
		have := base.M.Canisters[c].Snapshots
		for _, s := range have[1 : len(have)-1] {
			do(t, base, remove(c, s.Local))
		}
	}
	disk := base.Disk.Crash(100, nil)
	model := base.M.Reopened()
	base.Close()
	step := int64(4) // fewer the later; all where more was asked for
	if number(t, "SNAPSTORE_CRASH_POINTS", 0) > 0 {
		step = 1 << 40
	}
	n := 0
	for at := int64(1); ; at += 1 + at/step {
		r := drive.Resume(cfg, disk.Crash(100, nil), model)
		if err := r.Open(); err != nil {
			t.Fatal(err)
		}
		r.E.SetStep(64)
		r.FS.Inject(&testkit.Fault{Kind: testkit.OpWrite, Under: "store/index", Name: ".sst", Err: syscall.ENOSPC})
		r.FS.KillAt(at)
		_, err := r.E.GC(bg, engine.GCOptions{})
		dead := r.FS.Dead()
		r.FS.Inject()
		if !dead {
			r.FS.KillAt(0)
		}
		if err := r.LosePower(50, rng(uint64(at))); err != nil {
			t.Fatalf("killed before %d: %v", at, err)
		}
		check(t, r, drive.Collect)
		if at%5 == 0 {
			check(t, r, drive.Rebuild)
		}
		r.Close()
		n++
		if !dead {
			t.Logf("%d points, %d operations, gc %v", n, at, err)
			return
		}
	}
}

// More is dropped than may wait for an index that can not be written: what is
// dead goes all the same, as far as memory reaches, and nothing is mistrusted.
func TestManyDropsWithoutRoomForTheIndex(t *testing.T) {
	cfg := quietly(func(o *engine.Options) {
		o.SnapshotLimit, o.NoBackground, o.MemTable, o.Ballast = 1000, true, 256<<10, -1
	})
	cfg.Limit, cfg.Faulty = 1000, true
	r, err := drive.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	do(t, r, create(0), resize(0, wasm, 200*4096), fill(0, wasm, 0, contents(7, 9)...), take(0))
	for i := range 60 {
		do(t, r, fill(0, wasm, 0, contents(testkit.Content(200*i)*3+2, 190)...), take(0))
	}
	have := r.M.Canisters[0].Snapshots
	for _, s := range have[1 : len(have)-1] {
		do(t, r, remove(0, s.Local))
	}
	_ = r.E.FlushIndex()
	before := r.Disk.Used()
	r.FS.Inject(&testkit.Fault{Kind: testkit.OpWrite, Under: "store/index", Name: ".sst", Err: syscall.ENOSPC})
	_, err = r.E.GC(bg, engine.GCOptions{})
	if after, untrusted := r.Disk.Used(), r.E.Stats().IndexUntrusted; untrusted != "" || after > before-3<<20 {
		t.Fatalf("%d bytes used, %d after gc: %v; untrusted %q", before, after, err, untrusted)
	}
	// What is left follows when there is room.
	r.FS.Inject()
	do(t, r, op(testkit.GC), take(0))
	check(t, r, drive.Collect)
}

// A page that was lost comes again in the very step that lowers its count.
func TestHealedAndCountedDown(t *testing.T) {
	disk := testkit.NewDisk()
	o := &engine.Options{FS: disk.Mount(), Ballast: -1, NoBackground: true, NoCompression: true}
	e := created(o)
	defer func() { e.Close() }()
	c := must(e.CreateCanister(bg, drive.Canister(0)))
	m := must(c.Memory(engine.WasmMemory))
	x := testkit.Content(7).Bytes(4096)
	img := make([]byte, 40*4096)
	copy(img, x)
	copy(img[20*4096:], x)
	must(m.Assign(bg, bytes.NewReader(img), uint64(len(img)), nil))
	must(c.Checkpoint(bg))
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	e = must(engine.Open("store", o))
	c = must(e.Canister(drive.Canister(0)))
	m = must(c.Memory(engine.WasmMemory))
	rotOn(t, disk, e, 7)
	if _, err := m.ReadAt(make([]byte, 4096), 0); err == nil {
		t.Fatal("rot does nothing")
	}
	waitLost(t, e, 7)
	must(m.WriteAt(x, 0))                                           // again: heals
	must(m.WriteAt(testkit.Content(8).Bytes(4096), int64(20*4096))) // and goes elsewhere
	must(c.Checkpoint(bg))
	for p, err := range e.Verify(bg, engine.VerifyOptions{}) {
		t.Errorf("%v %v %v", p.Kind, p.Detail, err)
	}
	// Gone for good it must be given back.
	must(m.WriteAt(testkit.Content(9).Bytes(4096), 0))
	must(c.Checkpoint(bg))
	must(e.GC(bg, engine.GCOptions{}))
	if en, ok, err := e.Entry(pageID(7)); ok || err != nil {
		t.Errorf("still there: %+v count %d %v", en, en.Count, err)
	}
}

// A caller may look closer while it reads the list of problems.
func TestVerifyWithinVerify(t *testing.T) {
	disk := testkit.NewDisk()
	o := &engine.Options{FS: disk.Mount(), Ballast: -1, NoBackground: true, NoCompression: true}
	e := created(o)
	defer func() { e.Close() }()
	c := must(e.CreateCanister(bg, drive.Canister(0)))
	m := must(c.Memory(engine.WasmMemory))
	must(m.Assign(bg, strings.NewReader(strings.Repeat("x", 40*4096)), 40*4096, nil))
	must(c.Take(bg, engine.TakeOptions{}))
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	e = must(engine.Open("store", o))
	en, _, _ := e.Entry(must(must(e.Canister(drive.Canister(0))).Info()).HeadRoot)
	_ = disk.Edit("store/log/000000000"+string(rune('0'+en.Segment))+".seg", func(p []byte) { p[en.Offset+80] ^= 1 })
	done := make(chan bool)
	go func() {
		defer close(done)
		for p := range e.Verify(bg, engine.VerifyOptions{NoData: true}) {
			t.Log("outer ", p.Kind)
			for p := range e.Verify(bg, engine.VerifyOptions{NoData: true}) {
				t.Log("inner ", p.Kind)
			}
			return
		}
	}()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Fatal("verify within verify hangs")
	}
}

// waitLost waits for damage that a reader met to be marked.
func waitLost(t *testing.T, e *engine.Engine, c testkit.Content) {
	t.Helper()
	for {
		en, ok, err := e.Entry(pageID(c))
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		if en.Lost {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// What gc can not move as a whole it gives back: the reserve is not filled with half of
// a segment that stands there all the same, so deleting still works.
func TestGCThatDoesNotFitLeavesTheReserve(t *testing.T) {
	disk := testkit.NewDisk()
	o := &engine.Options{
		FS: disk.Mount(), NoBackground: true, NoCompression: true, SegmentSize: 8 << 20, Ballast: 1 << 20, CountStep: 16, CleanBelow: 0.95,
	}
	e := created(o)
	defer func() { e.Close() }()
	c := must(e.CreateCanister(bg, drive.Canister(0)))
	m := must(c.Memory(engine.StableMemory))
	const pages = 1500
	if err := m.Resize(pages * engine.PageSize); err != nil {
		t.Fatal(err)
	}
	for i := range pages {
		must(m.WriteAt(testkit.Content(3*i+2).Bytes(engine.PageSize), int64(i*engine.PageSize)))
	}
	first := must(c.Take(bg, engine.TakeOptions{})).ID
	for i := 0; i < pages; i += 4 {
		must(m.WriteAt(testkit.Content(1e6+3*i+2).Bytes(engine.PageSize), int64(i*engine.PageSize)))
	}
	second := must(c.Take(bg, engine.TakeOptions{})).ID
	if err := e.Delete(bg, first); err != nil {
		t.Fatal(err)
	}
	for e.Stats().WaitingBatches > 0 {
		time.Sleep(time.Millisecond)
	}
	if err := e.FlushIndex(); err != nil {
		t.Fatal(err)
	}
	disk.SetCapacity(disk.Used() + 512<<10)
	for range 3 {
		if _, err := e.GC(bg, engine.GCOptions{}); !errors.Is(err, engine.ErrNoSpace) {
			t.Fatalf("gc where what is alive does not fit: %v", err)
		}
		free := disk.Capacity() - disk.Used()
		for _, name := range []string{"store/BALLAST", "store/BALLAST-LAST"} {
			if st, err := o.FS.Stat(name); err == nil {
				free += st.Size()
			}
		}
		if free < o.Ballast*3/4 {
			t.Fatalf("%d bytes are left of a reserve of %d", free, o.Ballast)
		}
	}
	if err := e.Delete(bg, second); err != nil {
		t.Fatalf("delete after gc did not fit: %v", err)
	}
	disk.SetCapacity(0)
	if _, err := e.GC(bg, engine.GCOptions{}); err != nil {
		t.Fatal(err)
	}
}

// Others on the file system eat what was given up for cleaning. A delete has the last
// of the reserve, and gc comes out of there with what is dead.
func TestOthersEatTheReserve(t *testing.T) {
	for _, background := range []bool{false, true} {
		disk := testkit.NewDisk()
		o := &engine.Options{
			FS: disk.Mount(), NoBackground: !background, NoCompression: true, SegmentSize: 256 << 10, Ballast: 256 << 10, MemTable: 256 << 10, SnapshotLimit: 100,
		}
		e := created(o)
		c := must(e.CreateCanister(bg, drive.Canister(0)))
		m := must(c.Memory(engine.StableMemory))
		const pages = 40
		if err := m.Resize(pages * engine.PageSize); err != nil {
			t.Fatal(err)
		}
		var ids []engine.SnapshotID
		for n := range 20 {
			for i := range pages {
				must(m.WriteAt(testkit.Content(3*(n*pages+i)+2).Bytes(engine.PageSize), int64(i*engine.PageSize)))
			}
			ids = append(ids, must(c.Take(bg, engine.TakeOptions{})).ID)
		}
		if !e.Log().MakeRoom() {
			t.Fatal("no reserve")
		}
		disk.SetCapacity(disk.Used())
		for _, id := range ids[:len(ids)-1] {
			if err := e.Delete(bg, id); err != nil {
				t.Fatalf("background %t: %v", background, err)
			}
		}
		if _, err := e.GC(bg, engine.GCOptions{}); err != nil {
			t.Fatalf("background %t: %v", background, err)
		}
		if free, want := disk.Capacity()-disk.Used(), int64(len(ids)/2*pages*engine.PageSize); free < want {
			t.Fatalf("background %t: %d bytes came free, want %d at least", background, free, want)
		}
		if !e.Log().Stats().BallastHeld {
			t.Fatal("the reserve is not back")
		}
		must(c.Take(bg, engine.TakeOptions{}))
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
