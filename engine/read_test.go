package engine_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/snapstore/snapstore/engine"
)

// A read of several windows is the image, wherever it begins, whatever was in the
// memory it is read to; and what it has read once, in whichever window, it does not
// look up again.
func TestReadAtInWindows(t *testing.T) {
	t.Parallel()
	e, _ := memStore(t, engine.Options{})
	c := must(e.CreateCanister(bg, canisterID(t, 1)))
	mem := must(c.Memory(engine.WasmMemory))
	const pages, half = 20000, 10000 // a window has 8192
	img := make([]byte, pages*engine.PageSize)
	(&mix{seed: 6}).image(img[:half*engine.PageSize])
	r := rand.New(rand.NewPCG(6, 6))
	for i, from := range r.Perm(half) {
		copy(img[(half+i)*engine.PageSize:][:engine.PageSize], img[from*engine.PageSize:])
	}
	if err := mem.Resize(uint64(len(img))); err != nil {
		t.Fatal(err)
	}
	must(mem.WriteAt(img, 0))
	snap := must(e.Snapshot(bg, must(c.Take(bg, engine.TakeOptions{})).ID))
	defer snap.Close()
	sec := must(snap.Section(engine.WasmMemory))

	got := bytes.Repeat([]byte{0xee}, len(img))
	read := func(off int) uint64 {
		before := e.Lookups()
		if n, err := sec.ReadAt(got[off:], int64(off)); err != nil || n != len(img)-off {
			t.Fatalf("from %d on: %d, %v", off, n, err)
		}
		if !bytes.Equal(got, img) {
			t.Fatalf("from %d on: not what was taken", off)
		}
		return e.Lookups() - before
	}
	all := read(0)
	clear(got)
	if n, err := sec.ReadAt(got[:half*engine.PageSize], 0); err != nil || n != half*engine.PageSize {
		t.Fatal(n, err)
	}
	before := e.Lookups()
	if n, err := sec.ReadAt(got[:half*engine.PageSize], 0); err != nil || n != half*engine.PageSize {
		t.Fatal(n, err)
	}
	// Of the second half some are in the window of the first one's end, before those
	// are read.
	if once := e.Lookups() - before; all > once+once/4 {
		t.Errorf("%d look-ups for the whole, %d for the half that the other repeats", all, once)
	}
	copy(got, img)
	for _, off := range []int{engine.PageSize, 12345, 9000 * engine.PageSize} {
		clear(got[off:])
		read(off)
	}
}
