package index

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// severalTables flushes entries often enough that merging is worth it.
func severalTables(t *testing.T, x *Index) {
	t.Helper()
	ids := testIDs(3, 30_000)
	for n := range 4 {
		commit(t, x, func(b *Batch) {
			for i, id := range ids {
				b.SetEntry(id, Entry{Location: page(uint64(n+1), uint32(i)*64, 0), Count: 1})
			}
		})
		if err := x.Flush(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCompactMergesAllTables(t *testing.T) {
	o := testOptions(t, vfs.NewMem())
	x := create(t, o)
	severalTables(t, x)
	want, before := dump(t, x), x.Metrics().DiskBytes
	if err := x.Compact(context.Background()); err != nil {
		t.Fatal(err)
	}
	if after := x.Metrics().DiskBytes; after > before/3 {
		t.Errorf("%d bytes, %d after merging four tables of the same keys", before, after)
	}
	written := x.Metrics().Compacted
	if err := x.Compact(context.Background()); err != nil || x.Metrics().Compacted != written {
		t.Errorf("merged again: %v", err)
	}
	if dump(t, x) != want {
		t.Error("merging changed what is there")
	}
	mustClose(t, x)
	x = mustOpen(t, o)
	if dump(t, x) != want {
		t.Error("merging changed what is found")
	}
	mustClose(t, x)
}

// Merging on a full disk fails, on a disk that fails it ends, and neither hangs.
func TestCompactFails(t *testing.T) {
	for _, c := range []struct {
		kind errorfs.OpKind
		path string
		err  error
	}{
		{errorfs.OpFileWrite, ".sst", syscall.ENOSPC},
		{errorfs.OpFileWrite, "MANIFEST", syscall.EIO},
	} {
		var bad atomic.Bool
		o := testOptions(t, vfs.NewMem())
		mustClose(t, create(t, o))
		x := mustOpen(t, o.on(errorfs.Wrap(o.FS, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if bad.Load() && op.Kind == c.kind && strings.Contains(op.Path, c.path) {
				return c.err
			}
			return nil
		}))))
		severalTables(t, x)
		want := dump(t, x)
		bad.Store(true)
		done := make(chan error, 1)
		go func() { done <- x.Compact(context.Background()) }()
		select {
		case err := <-done:
			if err == nil && x.Untrusted() == nil {
				t.Errorf("%s: merged", c.path)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("%s: hangs", c.path)
		}
		bad.Store(false)
		if dump(t, x) != want {
			t.Errorf("%s: what is there has changed", c.path)
		}
		mustClose(t, x)
	}
}

func TestCompactEndsWithItsContext(t *testing.T) {
	x := create(t, testOptions(t, vfs.NewMem()))
	severalTables(t, x)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := x.Compact(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	mustClose(t, x)
	if err := x.Compact(context.Background()); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}
