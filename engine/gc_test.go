package engine_test

import (
	"context"
	"encoding/binary"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/snapstore/snapstore/engine"
)

// A pass that was asked for comes to its end though garbage comes as fast as it
// goes: it drops what was deleted, and cleans what was written, before it began.
func TestGCComesToItsEnd(t *testing.T) {
	t.Parallel()
	e, _ := memStore(t, engine.Options{NoBackground: true, NoCompression: true, SegmentSize: 1 << 20})
	c := must(e.CreateCanister(bg, canisterID(t, 1)))
	mem := must(c.Memory(engine.StableMemory))
	const pages = 600
	if err := mem.Resize(pages * engine.PageSize); err != nil {
		t.Fatal(err)
	}
	salt := 0
	take := func(step int) engine.SnapshotID {
		page := make([]byte, engine.PageSize)
		for i := salt % step; i < pages; i += step {
			page[0], page[1], page[2], page[3] = byte(i), byte(i>>8), byte(salt), byte(salt>>8)|0x80
			must(mem.WriteAt(page, int64(i)*engine.PageSize))
		}
		salt++
		return must(c.Take(bg, engine.TakeOptions{})).ID
	}
	last := take(1)
	const deleted = 5
	for range deleted {
		was := last
		last = take(7)
		if err := e.Delete(bg, was); err != nil {
			t.Fatal(err)
		}
	}
	calls, rounds := 0, 1
	more := func(engine.GCReport) {
		if calls++; calls > 200 {
			t.Fatal("gc goes on and on")
		}
		for range rounds {
			was := last
			last = take(7)
			if err := e.Delete(bg, was); err != nil {
				t.Fatal(err)
			}
		}
	}
	r := must(e.GC(bg, engine.GCOptions{Progress: more}))
	if r.VersionsDropped != deleted || r.SegmentsDropped == 0 || r.SegmentsCleaned == 0 {
		t.Fatalf("%d versions were deleted before, and gc did %+v", deleted, r)
	}
	before := int64(calls)
	rounds = 4 // more than a segment for each that goes
	r = must(e.GC(bg, engine.GCOptions{Recompress: true, Progress: more}))
	if r.VersionsDropped != before {
		t.Fatalf("%d versions were deleted meanwhile, and the next gc dropped %d", before, r.VersionsDropped)
	}
}

// Takes that are held back until versions are dropped go on beside a pass that
// somebody asked for, which holds the background up: they do not wait for its end.
func TestTakesGoOnBesideGC(t *testing.T) {
	t.Parallel()
	const maxDrops = 3
	e, _ := memStore(t, engine.Options{NoCompression: true, SegmentSize: 1 << 20, MaxDrops: maxDrops, DebtWait: time.Minute, CleanBelow: 0.01})
	big := must(e.CreateCanister(bg, canisterID(t, 1)))
	mem := must(big.Memory(engine.StableMemory))
	img := make([]byte, 48<<20)
	(&mix{seed: 3}).image(img)
	if err := mem.Resize(uint64(len(img))); err != nil {
		t.Fatal(err)
	}
	must(mem.WriteAt(img, 0))
	must(big.Take(bg, engine.TakeOptions{}))
	small := must(e.CreateCanister(bg, canisterID(t, 2)))
	page := must(small.Memory(engine.StableMemory))
	if err := page.Resize(engine.PageSize); err != nil {
		t.Fatal(err)
	}
	var during atomic.Int64
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		var last engine.SnapshotID
		for n := int64(1); ; n++ {
			select {
			case <-done:
				return
			default:
			}
			var b [8]byte
			binary.LittleEndian.PutUint64(b[:], uint64(n))
			must(page.WriteAt(b[:], 0))
			last = must(small.Take(bg, engine.TakeOptions{Replace: last})).ID
			during.Add(1)
		}
	}()
	before := during.Load()
	r := must(e.GC(bg, engine.GCOptions{Recompress: true}))
	n := during.Load() - before
	close(done)
	<-ended
	if r.SegmentsCleaned < 20 || n < 5*maxDrops {
		t.Fatalf("%d takes beside a gc that cleaned %d segments", n, r.SegmentsCleaned)
	}
}

// What is deleted beside gc counts as new even where it is equal to what was deleted
// before: a canister that is created and deleted over and over has the same state each
// time.
func TestGCComesToItsEndBesideEqualVersions(t *testing.T) {
	t.Parallel()
	e, _ := memStore(t, engine.Options{NoBackground: true})
	round := func() {
		must(e.CreateCanister(bg, canisterID(t, 2)))
		if err := e.DeleteCanister(bg, canisterID(t, 2)); err != nil {
			t.Fatal(err)
		}
		for n, _ := e.Behind(); n > 0; n, _ = e.Behind() {
			time.Sleep(time.Millisecond)
		}
	}
	round()
	calls := 0
	must(e.GC(bg, engine.GCOptions{Progress: func(engine.GCReport) {
		if calls++; calls > 200 {
			t.Fatal("gc goes on and on")
		}
		round()
	}}))
}

// Who asks for a gc does not wait for all that the background has before it, and hears
// its context while it waits for another's.
func TestGCHasItsTurn(t *testing.T) {
	t.Parallel()
	e, _ := memStore(t, engine.Options{NoCompression: true, SegmentSize: 1 << 20, SnapshotLimit: 40})
	e.SetStep(8)
	c := must(e.CreateCanister(bg, canisterID(t, 1)))
	mem := must(c.Memory(engine.StableMemory))
	const pages, versions = 500, 30
	if err := mem.Resize(pages * engine.PageSize); err != nil {
		t.Fatal(err)
	}
	var ids []engine.SnapshotID
	for v := range versions + 1 {
		page := make([]byte, engine.PageSize)
		for i := range pages {
			binary.LittleEndian.PutUint64(page, uint64(v*pages+i)+1)
			must(mem.WriteAt(page, int64(i)*engine.PageSize))
		}
		ids = append(ids, must(c.Take(bg, engine.TakeOptions{})).ID)
	}
	for _, id := range ids[:len(ids)-1] {
		if err := e.Delete(bg, id); err != nil {
			t.Fatal(err)
		}
	}
	held, calls := make(chan struct{}), 0
	waits, cancel := context.WithCancel(bg)
	r := must(e.GC(bg, engine.GCOptions{Progress: func(engine.GCReport) {
		if calls++; calls > 1 {
			return
		}
		// This one is in nobody's way while it is here.
		go func() {
			defer close(held)
			if _, err := e.GC(waits, engine.GCOptions{}); !errors.Is(err, context.Canceled) {
				t.Errorf("cancelled while it waits: %v", err)
			}
		}()
		cancel()
		select {
		case <-held:
		case <-time.After(time.Minute):
			t.Error("it does not hear its context")
		}
	}}))
	if r.VersionsDropped < int64(len(ids))*2/3 {
		t.Errorf("%d versions were deleted, and gc waited until %d were left", len(ids)-1, r.VersionsDropped)
	}
}

// The background cleans by what is alive in the whole log: one segment that is half
// dead among others that are not is left, and when all are like that it goes on until
// enough of the log is alive, and no longer.
func TestBackgroundCleansByTheWholeLog(t *testing.T) {
	t.Parallel()
	e, _ := memStore(t, engine.Options{NoCompression: true, SegmentSize: 1 << 20, CleanBelow: 0.8})
	const canisters, pages = 10, 300
	mems, cans, ids := make([]*engine.Memory, canisters), make([]*engine.Canister, canisters), make([]engine.SnapshotID, canisters)
	write := func(n, round, from int) {
		page := make([]byte, engine.PageSize)
		for i := from; i < pages; i++ {
			binary.LittleEndian.PutUint64(page, uint64(round)<<40|uint64(n)<<20|uint64(i)+1)
			must(mems[n].WriteAt(page, int64(i)*engine.PageSize))
		}
		id := must(cans[n].Take(bg, engine.TakeOptions{})).ID
		if round > 0 {
			if err := e.Delete(bg, ids[n]); err != nil {
				t.Fatal(err)
			}
		}
		ids[n] = id
	}
	// settled flushes the index, since only what is durable is cleaned.
	settled := func() {
		for !e.Applied() {
			time.Sleep(time.Millisecond)
		}
		if err := e.FlushIndex(); err != nil {
			t.Fatal(err)
		}
	}
	for n := range canisters {
		cans[n] = must(e.CreateCanister(bg, canisterID(t, byte(n+1))))
		mems[n] = must(cans[n].Memory(engine.StableMemory))
		if err := mems[n].Resize(pages * engine.PageSize); err != nil {
			t.Fatal(err)
		}
		write(n, 0, 0)
	}
	write(0, 1, pages*6/10)
	for settled(); e.Stats().GC.ChunksDestroyed < pages*4/10; settled() {
		time.Sleep(time.Millisecond)
	}
	for range 6 { // it looks five times a second
		time.Sleep(100 * time.Millisecond)
		if n := e.Stats().GC.BytesWritten; n > 0 {
			t.Fatalf("one segment in ten is half alive, and %d bytes were moved", n)
		}
	}
	for n := range canisters - 1 {
		write(n+1, 1, pages*6/10)
	}
	settled()
	share := func() float64 {
		s := e.Stats()
		return float64(s.LiveBytes) / float64(s.LogBytes)
	}
	const dead = canisters * pages * 4 / 10
	// Open segments are not counted.
	for began := time.Now(); e.Stats().GC.ChunksDestroyed < dead || share() < 0.78; settled() {
		if time.Since(began) > time.Minute {
			t.Fatalf("%.2f of the log are alive, and it is not cleaned: %+v", share(), e.Stats().GC)
		}
		time.Sleep(10 * time.Millisecond)
		must(cans[0].Checkpoint(bg)) // and so it has a reason to look
	}
	// All of what is alive in the segments under the threshold would be three fifths of
	// what the canisters have; four of the ten are enough.
	time.Sleep(600 * time.Millisecond)
	if moved := e.Stats().GC.BytesWritten; moved > canisters*pages*engine.PageSize*4/10 {
		t.Fatalf("%d bytes were moved, with %.2f alive", moved, share())
	}
}

// A segment whose pages are looked up in several steps loses none that is alive.
func TestCleaningLooksAtAllOfASegment(t *testing.T) {
	t.Parallel()
	e, _ := memStore(t, engine.Options{NoBackground: true})
	c := must(e.CreateCanister(bg, canisterID(t, 1)))
	mem := must(c.Memory(engine.StableMemory))
	const pages = 3000
	if err := mem.Resize(pages * engine.PageSize); err != nil {
		t.Fatal(err)
	}
	page := make([]byte, engine.PageSize)
	write := func(i, round int) {
		binary.LittleEndian.PutUint64(page, uint64(round*pages+i)+1)
		must(mem.WriteAt(page, int64(i)*engine.PageSize))
	}
	for i := range pages {
		write(i, 0)
	}
	first := must(c.Take(bg, engine.TakeOptions{})).ID
	for i := range pages {
		if i%3 > 0 {
			write(i, 1)
		}
	}
	last := must(c.Take(bg, engine.TakeOptions{})).ID
	if err := e.Delete(bg, first); err != nil {
		t.Fatal(err)
	}
	if r := must(e.GC(bg, engine.GCOptions{})); r.SegmentsCleaned == 0 || r.LogBytes > r.LiveBytes*11/10 {
		t.Fatalf("not cleaned: %+v", r)
	}
	sec := must(must(e.Snapshot(bg, last)).Section(engine.StableMemory))
	for i := range pages {
		must(sec.ReadAt(page, int64(i)*engine.PageSize))
		want := i + 1
		if i%3 > 0 {
			want += pages
		}
		if got := binary.LittleEndian.Uint64(page); got != uint64(want) {
			t.Fatalf("page %d is %d, not %d", i, got, want)
		}
	}
}
