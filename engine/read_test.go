package engine_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/snapstore/snapstore/chunk"
	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/seglog"
)

// A read of several windows is the image, wherever it begins, whatever was in the
// memory it is read to; and what it has read once, in whichever window, it does not
// read again.
func TestReadAtInWindows(t *testing.T) {
	t.Parallel()
	e, _ := memStore(t, engine.Options{})
	c := must(e.CreateCanister(bg, canisterID(t, 1)))
	mem := must(c.Memory(engine.WasmMemory))
	const pages, half, window = 20000, 10000, 8192
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
		before := e.FramesRead()
		if n, err := sec.ReadAtIn(window, got[off:], int64(off)); err != nil || n != len(img)-off {
			t.Fatalf("from %d on: %d, %v", off, n, err)
		}
		if !bytes.Equal(got, img) {
			t.Fatalf("from %d on: not what was taken", off)
		}
		return e.FramesRead() - before
	}
	all := read(0)
	clear(got)
	if n, err := sec.ReadAtIn(window, got[:half*engine.PageSize], 0); err != nil || n != half*engine.PageSize {
		t.Fatal(n, err)
	}
	before := e.FramesRead()
	if n, err := sec.ReadAtIn(window, got[:half*engine.PageSize], 0); err != nil || n != half*engine.PageSize {
		t.Fatal(n, err)
	}
	if once := e.FramesRead() - before; all > once+once/4 {
		t.Errorf("%d frames for the whole, %d for the half that the other repeats", all, once)
	}
	copy(got, img)
	for _, off := range []int{engine.PageSize, 12345, 9000 * engine.PageSize} {
		clear(got[off:])
		read(off)
	}
}

// What ends a read of several windows is told with the page that it is about, and with
// how much was read: damage in the second window and in the third, and a snapshot that
// is closed meanwhile.
func TestReadAtInWindowsEndsEarly(t *testing.T) {
	t.Parallel()
	fs := vfs.NewMem()
	e, _ := memStore(t, engine.Options{FS: fs, NoCompression: true, SegmentSize: 256 << 20})
	c := must(e.CreateCanister(bg, canisterID(t, 1)))
	mem := must(c.Memory(engine.WasmMemory))
	const pages, window = 20000, 8192
	const first = 4096 * engine.PageSize // what is read before the window is as large as it may be
	img := make([]byte, pages*engine.PageSize)
	for i := range pages {
		binary.LittleEndian.PutUint64(img[i*engine.PageSize+i%500*8:], uint64(i)+1)
	}
	if err := mem.Resize(uint64(len(img))); err != nil {
		t.Fatal(err)
	}
	must(mem.WriteAt(img, 0))
	id := must(c.Take(bg, engine.TakeOptions{})).ID
	got := bytes.Repeat([]byte{0xee}, len(img))
	open := func() (*engine.Snapshot, *engine.SectionReader) {
		snap := must(e.Snapshot(bg, id))
		return snap, must(snap.Section(engine.WasmMemory))
	}

	for _, wait := range []time.Duration{0, time.Millisecond, 10 * time.Millisecond} {
		snap, sec := open()
		go func() {
			time.Sleep(wait)
			snap.Close()
		}()
		n, err := sec.ReadAtIn(window, got, 0)
		if err == nil && n == len(got) {
			continue // it was faster
		}
		if !errors.Is(err, engine.ErrClosed) || n%first != 0 || !bytes.Equal(got[:n], img[:n]) {
			t.Errorf("closed after %v: %d, %v", wait, n, err)
		}
	}

	_, paths := framesOf(t, e, seglog.KindGroup)
	damage := func(page int) {
		t.Helper()
		at, ok, err := e.Entry(chunk.Sum(img[page*engine.PageSize:][:engine.PageSize]))
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		b, err := fs.UnsafeGetFileDataBuffer(paths[seglog.SegmentID(at.Segment)])
		if err != nil {
			t.Fatal(err)
		}
		frame := b[at.Offset:][:at.Length]
		frame[bytes.Index(frame, img[page*engine.PageSize:][:engine.PageSize])] ^= 1
	}
	snap, sec := open()
	defer snap.Close()
	var ce *engine.CorruptionError
	for _, c := range []struct{ page, n int }{{17000, first + window*engine.PageSize}, {9000, first}} {
		damage(c.page)
		n, err := sec.ReadAtIn(window, got, 0)
		if !errors.As(err, &ce) || ce.Page != uint64(c.page) || n != c.n || !bytes.Equal(got[:n], img[:n]) {
			t.Errorf("over damage of %d: %d, %v", c.page, n, err)
		}
	}
	const from = 10000
	n, err := sec.ReadAtIn(window, got[from*engine.PageSize:], from*engine.PageSize)
	if !errors.As(err, &ce) || ce.Page != 17000 || n != first {
		t.Errorf("from %d on: %d, %v", from, n, err)
	}
}
