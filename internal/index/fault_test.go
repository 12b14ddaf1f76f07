package index

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// faultFS fails its n-th operation, or all from the n-th on.
type faultFS struct {
	vfs.FS
	err     error
	n       int64
	forever bool
	// writes: only operations that change something count.
	writes bool
	ops    atomic.Int64
	failed atomic.Int64
}

func newFaultFS(mem vfs.FS, f *faultFS) *faultFS {
	f.FS = errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileClose || f.writes && op.Kind.ReadOrWrite() == errorfs.OpIsRead {
			return nil
		}
		if k := f.ops.Add(1); k == f.n || f.forever && k > f.n {
			f.failed.Add(1)
			return f.err
		}
		return nil
	}))
	return f
}

// Whatever operation of the file system fails, once or for good, a call returns
// an error or did what it says. What Flush promised is there after a crash, and
// an index that took its trust away does not open again.
func TestErrorAtEveryOperation(t *testing.T) {
	o, mem := crashableOptions(t)
	x := create(t, o)
	m := newModel(1, o.StoreID)
	for range 10 {
		b := x.NewBatch()
		m.step(b)
		if err := b.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	if err := x.Flush(); err != nil {
		t.Fatal(err)
	}
	mustClose(t, x)

	for _, f := range []*faultFS{
		{err: syscall.EIO},
		{err: syscall.EIO, forever: true},
		{err: syscall.ENOSPC, writes: true},
		{err: syscall.ENOSPC, writes: true, forever: true},
	} {
		name := fmt.Sprintf("%v forever=%t", f.err, f.forever)
		t.Run(name, func(t *testing.T) {
			outcomes := map[string]int{}
			step := int64(1)
			if f.forever || f.writes {
				step = 3
			}
			if testing.Short() {
				step *= 4
			}
			if *timesFlag > 1 {
				step = 1
			}
			for n := int64(1); ; n += step {
				disk := mem.CrashClone(vfs.CrashCloneCfg{})
				fault := newFaultFS(disk, &faultFS{err: f.err, forever: f.forever, writes: f.writes, n: n})
				how, err := faultRun(o.on(fault), disk, o, m)
				if err != nil {
					t.Fatalf("operation %d: %v", n, err)
				}
				if fault.failed.Load() == 0 {
					break
				}
				outcomes[how]++
			}
			for _, k := range sortedKeys(outcomes) {
				t.Logf("%4d %s", outcomes[k], k)
			}
		})
	}
}

func faultRun(o Options, disk *vfs.MemFS, clean Options, m *model) (how string, err error) {
	x, err := Open(o)
	if err != nil {
		return "not opened", nil
	}
	m.dumpAt(x.serial())
	promised := x.serial()
	how = "fine"
	for k := range 14 {
		b := x.NewBatch()
		m.step(b)
		if err := b.Commit(); err != nil {
			how = "commit failed"
			break
		}
		if _, _, err := x.GetUnfiltered(m.ids[k]); err != nil {
			how = "read failed"
		}
		if k%4 == 3 {
			if err := x.Flush(); err == nil && x.Untrusted() == nil {
				promised = x.serial()
			} else {
				how = "flush failed"
			}
		}
	}
	x.DurableWatermark()
	untrusted := x.Untrusted()
	_ = x.Close()
	if untrusted == nil {
		untrusted = x.Untrusted()
	}

	after := clean.on(disk.CrashClone(vfs.CrashCloneCfg{}))
	y, err := Open(after)
	if untrusted != nil {
		// The mark of distrust may itself have failed to be made.
		if err == nil {
			defer y.Close()
			if f := o.FS.(*faultFS); !f.forever {
				return "", fmt.Errorf("untrusted (%w), and opens again", untrusted)
			}
			how = "untrusted, unmarked"
		} else {
			return "untrusted", nil
		}
	}
	if err != nil {
		return "", fmt.Errorf("%s, trusted, and does not open: %w", how, err)
	}
	if untrusted == nil {
		defer y.Close()
	}
	if y.serial() < promised {
		return "", fmt.Errorf("%s: batch %d was promised, found %d", how, promised, y.serial())
	}
	return how, m.compare(y)
}

// A flush that can not succeed fails, a commit does not wait for it for ever,
// and when the disk has room again both go on.
func TestFullDiskHoldsCommitsBackWithoutHanging(t *testing.T) {
	o, mem := crashableOptions(t)
	mustClose(t, create(t, o))
	var full atomic.Bool
	fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if full.Load() && (op.Kind == errorfs.OpCreate || op.Kind == errorfs.OpFileWrite) {
			return syscall.ENOSPC
		}
		return nil
	}))
	x := mustOpen(t, o.on(fs))
	full.Store(true)
	value := make([]byte, 10_000)
	var refused error
	committed := uint64(0)
	for n := uint64(1); n < 2000 && refused == nil; n++ {
		b := x.NewBatch()
		b.PutState(fmt.Append(nil, n), value)
		b.SetWatermark(n, hashOf(n))
		if refused = b.Commit(); refused == nil {
			committed = n
		}
	}
	if !errors.Is(refused, syscall.ENOSPC) {
		t.Fatalf("after %d batches: %v", committed, refused)
	}
	if got := x.Metrics().Unflushed; got > 8*o.MemTableSize {
		t.Errorf("%d bytes wait to be flushed", got)
	}
	if err := x.Flush(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("flush on a full disk: %v", err)
	}
	if seq, _ := x.Watermark(); seq != committed {
		t.Errorf("watermark %d, committed %d", seq, committed)
	}
	if err := x.Untrusted(); err != nil {
		t.Fatal(err)
	}

	full.Store(false)
	b := x.NewBatch()
	b.SetWatermark(committed+1, hashOf(1))
	if err := errors.Join(b.Commit(), x.Flush()); err != nil {
		t.Fatal(err)
	}
	if got := x.DurableWatermark(); got != committed+1 {
		t.Errorf("durable watermark %d, want %d", got, committed+1)
	}
	for n := uint64(1); n <= committed; n++ {
		if v, ok, err := x.StateValue(fmt.Append(nil, n)); !ok || err != nil || len(v) != len(value) {
			t.Fatal(n, ok, err)
		}
	}
	mustClose(t, x)
}

// A directory that does not sync panics Pebble on its own goroutine; here it
// takes the trust away, and nothing more is written.
func TestFailedDirectorySyncHalts(t *testing.T) {
	o, mem := crashableOptions(t)
	mustClose(t, create(t, o))
	var broken atomic.Bool
	fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if broken.Load() && op.Kind == errorfs.OpFileSync && op.Path == "store/index/pebble" {
			return syscall.EIO
		}
		return nil
	}))
	x := mustOpen(t, o.on(fs))
	id := testIDs(1, 1)[0]
	b := x.NewBatch()
	b.SetEntry(id, Entry{Location: page(1, 0, 0), Count: 1})
	b.SetWatermark(1, hashOf(1))
	if err := b.Commit(); err != nil {
		t.Fatal(err)
	}
	broken.Store(true)
	if err := x.Flush(); !errors.Is(err, ErrUntrusted) || !errors.Is(err, syscall.EIO) {
		t.Errorf("flush: %v", err)
	}
	if got := x.DurableWatermark(); got != 0 {
		t.Errorf("durable watermark %d", got)
	}
	broken.Store(false)
	if err := x.Flush(); !errors.Is(err, ErrUntrusted) {
		t.Errorf("flush: %v", err)
	}
	// Reads and commits go on in memory.
	b = x.NewBatch()
	b.SetWatermark(2, hashOf(2))
	if err := b.Commit(); err != nil {
		t.Error(err)
	}
	if _, ok, err := x.Get(id); !ok || err != nil {
		t.Error(ok, err)
	}
	mustClose(t, x)
	var s *StaleError
	if _, err := Open(o); !errors.As(err, &s) {
		t.Errorf("open: %v", err)
	}
}

// A MANIFEST that can not be written would leave Pebble with half of an update
// in memory. Here it goes on whole: reads are right, commits go on, nothing more
// is durable, and the next Open is stale. Run with -tags invariants, Pebble
// checks itself on the way.
func TestFailedManifestLeavesPebbleWhole(t *testing.T) {
	for _, kind := range []errorfs.OpKind{errorfs.OpCreate, errorfs.OpFileWrite, errorfs.OpFileSync} {
		for nth := range int64(6) {
			o, mem := crashableOptions(t)
			mustClose(t, create(t, o))
			var n atomic.Int64
			x := mustOpen(t, o.on(errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
				if op.Kind == kind && strings.Contains(op.Path, "MANIFEST") && n.Add(1) > nth {
					return syscall.EIO
				}
				return nil
			}))))
			m := newModel(uint64(nth), o.StoreID)
			durable := uint64(0)
			for range 60 {
				b := x.NewBatch()
				m.step(b)
				if err := b.Commit(); err != nil {
					if !errors.Is(err, ErrUntrusted) {
						t.Fatal(err)
					}
					break
				}
				if err := x.Flush(); err == nil {
					durable, _ = x.Watermark()
				}
			}
			if got := x.DurableWatermark(); got < durable {
				t.Errorf("durable watermark %d, the last flush was of %d", got, durable)
			} else {
				durable = got
			}
			if err := m.compare(x); err != nil {
				t.Error(err)
			}
			untrusted := x.Untrusted()
			mustClose(t, x)
			if untrusted == nil {
				if kind != errorfs.OpCreate {
					t.Errorf("kind %d, %d: nothing failed", kind, nth)
				}
				continue
			}
			wantStale(t, o, "marked untrusted")
			// The files are what a crash at that moment would have left.
			mem2 := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
			if err := errors.Join(mem2.Remove("store/index/UNTRUSTED"), writeFile(mem2, "store/index/TRUSTED", nil)); err != nil {
				t.Fatal(err)
			}
			y := mustOpen(t, o.on(mem2))
			if seq, _ := y.Watermark(); seq < durable {
				t.Errorf("%d was durable, found %d", durable, seq)
			}
			if err := m.compare(y); err != nil {
				t.Error(err)
			}
			mustClose(t, y)
		}
	}
}

func TestRetryDelayGrowsAndEnds(t *testing.T) {
	closing := make(chan struct{})
	r := &retryDelay{closing: closing}
	r.wait() // no delay at first
	for range 20 {
		r.failed()
	}
	if r.delay != maxRetryDelay {
		t.Errorf("delay %v", r.delay)
	}
	close(closing)
	r.wait() // would last for maxRetryDelay
	r.succeeded()
	if r.delay != 0 || !r.until.Equal(time.Time{}) {
		t.Error("delay after success")
	}
}
