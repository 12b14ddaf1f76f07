package engine_test

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/snapstore/snapstore/engine"
)

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// Copy gives every range as it was taken, in order, though it reads ahead; what ends
// it early, who writes or who cancels, is told, with how much was written.
func TestCopy(t *testing.T) {
	t.Parallel()
	e, _ := memStore(t, engine.Options{})
	c := must(e.CreateCanister(bg, canisterID(t, 1)))
	mem := must(c.Memory(engine.WasmMemory))
	const size = 41<<20 + engine.PageSize
	if err := mem.Resize(size); err != nil {
		t.Fatal(err)
	}
	img := make([]byte, size)
	(&mix{seed: 5}).image(img[:40<<20])
	copy(img[size-9:], "the end")
	must(mem.WriteAt(img, 0))
	snap := must(e.Snapshot(bg, must(c.Take(bg, engine.TakeOptions{})).ID))
	defer snap.Close()
	sec := must(snap.Section(engine.WasmMemory))

	for _, r := range []struct{ off, n uint64 }{
		{0, size},
		{0, size + 1},
		{1, size},
		{4095, 4<<20 + 1},
		{4096, 4 << 20},
		{16<<20 - 1, 16<<20 + 2},
		{16 << 20, 16 << 20},
		{3 << 20, 32<<20 + 1},
		{100, 1 << 63},
		{size - 1, 1},
		{size, 1},
		{size + 7, 1},
		{5, 0},
	} {
		want := img[min(r.off, size):min(r.off+r.n, size)]
		var got bytes.Buffer
		n, err := sec.Copy(bg, &got, r.off, r.n)
		if err != nil || n != int64(len(want)) || !bytes.Equal(got.Bytes(), want) {
			t.Errorf("%d bytes from %d on: %d, %v, as they were: %t", r.n, r.off, n, err, bytes.Equal(got.Bytes(), want))
		}
	}

	full := errors.New("full")
	for _, after := range []int{0, 1, 2} {
		calls, wrote := 0, int64(0)
		n, err := sec.Copy(bg, writerFunc(func(p []byte) (int, error) {
			if calls++; calls > after {
				return 7, full
			}
			wrote += int64(len(p))
			return len(p), nil
		}), 0, size)
		if !errors.Is(err, full) || n != wrote+7 {
			t.Errorf("a writer that fails after %d: %d, %v; it was given %d", after, n, err, wrote)
		}
		ctx, cancel := context.WithCancel(bg)
		calls, wrote = 0, 0
		n, err = sec.Copy(ctx, writerFunc(func(p []byte) (int, error) {
			if wrote += int64(len(p)); calls == after {
				cancel()
			}
			calls++
			return len(p), nil
		}), 0, size)
		if done := n == size && err == nil && after == 2; n != wrote || !done && !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled in call %d: %d of %d, %v", after, n, wrote, err)
		}
		cancel()
	}
	closed := must(e.Snapshot(bg, snap.Info().ID))
	n, err := must(closed.Section(engine.WasmMemory)).Copy(bg, writerFunc(func(p []byte) (int, error) {
		return len(p), closed.Close()
	}), 0, size)
	if n == size || !errors.Is(err, engine.ErrClosed) {
		t.Errorf("closed in the first call: %d, %v", n, err)
	}
}
