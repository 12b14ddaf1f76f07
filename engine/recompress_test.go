package engine_test

import (
	"bytes"
	"testing"

	"github.com/snapstore/snapstore/engine"
)

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
