package engine_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/snapstore/snapstore/chunk"
	"github.com/snapstore/snapstore/engine"
)

// What the background moves is compressed as takes do it, and recompressed when
// somebody asks for that.
func TestRecompressWhatTheBackgroundMoved(t *testing.T) {
	t.Parallel()
	e, _ := memStore(t, engine.Options{SegmentSize: 1 << 20, SnapshotLimit: 2, CleanBelow: 0.95})
	c := must(e.CreateCanister(bg, canisterID(t, 1)))
	mem := must(c.Memory(engine.WasmMemory))
	const size = 8 << 20
	if err := mem.Resize(size); err != nil {
		t.Fatal(err)
	}
	m := &mix{seed: 78}
	img := make([]byte, size)
	m.image(img)
	must(mem.WriteAt(img, 0))
	last := must(c.Take(bg, engine.TakeOptions{})).ID
	moved := func() map[chunk.Codec]int { return must(e.Groups(bg, true)) }
	// Not with a segment of so little that recompressing leaves it: the background may
	// have moved a last small group to one of its own.
	for until := time.Now().Add(time.Minute); moved()[chunk.CodecDelta] < 8 || e.MovedLittle(32<<10); {
		if time.Now().After(until) {
			t.Fatalf("the background moved %v", moved())
		}
		for at := 0; at < size; at += 3 * engine.PageSize { // a third of every segment dies
			page := img[at:][:engine.PageSize]
			m.fresh(page)
			must(mem.WriteAt(page, int64(at)))
		}
		last = must(c.Take(bg, engine.TakeOptions{Replace: last})).ID
		quiet(t, e)
	}
	if n := moved(); n[chunk.CodecZstd] > 0 {
		t.Errorf("the background moved %v", n)
	}
	must(e.GC(bg, engine.GCOptions{Recompress: true}))
	if n := moved(); n[chunk.CodecDelta] > 0 || n[chunk.CodecZstd] == 0 {
		t.Errorf("after recompressing there are %v", n)
	}
	if again := must(e.GC(bg, engine.GCOptions{Recompress: true})); again.BytesWritten > 64<<10 {
		t.Errorf("wrote %d bytes once more", again.BytesWritten)
	}
	got := make([]byte, size)
	s := must(e.Snapshot(bg, last))
	defer s.Close()
	must(must(s.Section(engine.WasmMemory)).ReadAt(got, 0))
	if !bytes.Equal(got, img) {
		t.Error("the snapshot reads otherwise than before")
	}
	sound(t, e)
}

// A store that is opened without compression does not unpack what was recompressed.
func TestRecompressWithoutCompression(t *testing.T) {
	t.Parallel()
	fs := vfs.NewMem()
	o := engine.Options{FS: fs, Ballast: -1, NoBackground: true, SegmentSize: 1 << 20}
	e, _ := memStore(t, o)
	c := must(e.CreateCanister(bg, canisterID(t, 1)))
	const size = 4 << 20
	img := make([]byte, size)
	(&mix{seed: 79}).image(img)
	write(t, c, engine.WasmMemory, size, 0, img)
	must(c.Take(bg, engine.TakeOptions{}))
	must(e.GC(bg, engine.GCOptions{Recompress: true}))
	packed := must(e.Groups(bg, true))[chunk.CodecZstd]
	if err := e.Close(); err != nil || packed == 0 {
		t.Fatal(packed, err)
	}
	o.NoCompression = true
	e = must(engine.Open("store", &o))
	defer e.Close()
	must(e.GC(bg, engine.GCOptions{Recompress: true}))
	if n := must(e.Groups(bg, true)); n[chunk.CodecZstd] != packed {
		t.Errorf("%d groups were compressed, and now %v", packed, n)
	}
}

// Recompressing makes a store smaller of which everything is alive, changes
// nothing that can be read, and finds nothing to do the second time.
func TestRecompress(t *testing.T) {
	t.Parallel()
	e, _ := memStore(t, engine.Options{NoBackground: true, SegmentSize: 1 << 20})
	c := must(e.CreateCanister(bg, canisterID(t, 1)))
	mem := must(c.Memory(engine.WasmMemory))
	const size = 16 << 20
	if err := mem.Resize(size); err != nil {
		t.Fatal(err)
	}
	m := &mix{seed: 77}
	img := make([]byte, size)
	m.image(img)
	must(mem.WriteAt(img, 0))
	first := must(c.Take(bg, engine.TakeOptions{}))
	m.touch(size/engine.PageSize, func(page int, p []byte) { must(mem.WriteAt(p, int64(page)*engine.PageSize)) })
	must(c.Take(bg, engine.TakeOptions{}))

	before := e.Stats().LogBytes
	if r := must(e.GC(bg, engine.GCOptions{})); r.SegmentsCleaned != 0 {
		t.Fatalf("cleaned %d segments in which all is alive", r.SegmentsCleaned)
	}
	r := must(e.GC(bg, engine.GCOptions{Recompress: true}))
	after := e.Stats().LogBytes
	if r.SegmentsCleaned == 0 || after > before*95/100 {
		t.Fatalf("%d segments cleaned; the log had %d bytes and has %d", r.SegmentsCleaned, before, after)
	}
	if again := must(e.GC(bg, engine.GCOptions{Recompress: true})); again.BytesWritten > 64<<10 {
		t.Fatalf("wrote %d bytes once more", again.BytesWritten)
	}
	got := make([]byte, size)
	s := must(e.Snapshot(bg, first.ID))
	defer s.Close()
	sec := must(s.Section(engine.WasmMemory))
	must(sec.ReadAt(got, 0))
	if !bytes.Equal(got, img) {
		t.Fatal("the snapshot reads otherwise than before")
	}
	for p, err := range e.Verify(bg, engine.VerifyOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		t.Fatalf("%v", p)
	}
}
