package engine_test

import (
	"testing"

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
