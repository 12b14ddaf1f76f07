package index

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// serial is the number of the batch that the index is at.
func (x *Index) serial() uint64 { return x.applied.Load().state.serial }

// compare says whether the index is as the model after the batch it names.
func (m *model) compare(x *Index) error {
	var out lines
	if err := x.Dump(&out); err != nil {
		return err
	}
	if want := m.dumpAt(x.serial()); string(out) != want {
		return fmt.Errorf("index is not as batch %d left it", x.serial())
	}
	return nil
}

type lines []byte

func (l *lines) Write(p []byte) (int, error) { *l = append(*l, p...); return len(p), nil }

// crashed returns options for the file system that a crash left.
func (o Options) on(fs vfs.FS) Options { o.FS = fs; return o }

func crashableOptions(t testing.TB) (Options, *vfs.MemFS) {
	mem := vfs.NewCrashableMem()
	o := testOptions(t, mem)
	if err := syncDir(mem, ""); err != nil {
		t.Fatal(err)
	}
	o.MemTableSize = minMemTableSize
	return o, mem
}

// A crash leaves an index that opens, at a batch that had been applied and not
// below the durable watermark, and exactly as that batch left it; also when it
// comes while the last crash is recovered from.
func TestCrashLeavesTheStateAfterSomeBatch(t *testing.T) {
	var crashes, ahead int
	seeds(t, rounds(60), func(t *testing.T, seed uint64) {
		rng := rand.New(rand.NewPCG(seed, 1))
		o, mem := crashableOptions(t)
		mustClose(t, create(t, o))
		m, checked := newModel(seed, o.StoreID), newModel(seed, o.StoreID)
		var left uint64
		for depth := range 3 {
			c := newCrashFS(mem, rng)
			c.left = left
			if err := crashRun(o.on(c), c, rng, m, checked, depth); err != nil {
				t.Fatalf("seed %d, crash %d: %v", seed, depth, err)
			}
			crashes++
			mem = c.clone
			x, err := Open(o.on(mem.CrashClone(vfs.CrashCloneCfg{})))
			if err != nil {
				t.Fatalf("seed %d, crash %d: open: %v", seed, depth, err)
			}
			if n := x.serial(); n < c.least || n > c.most {
				t.Fatalf("seed %d, crash %d: found batch %d, promised %d, reached %d", seed, depth, n, c.least, c.most)
			} else if n > c.least {
				ahead++
			}
			if err := checked.compare(x); err != nil {
				t.Fatalf("seed %d, crash %d: %v", seed, depth, err)
			}
			left = x.serial()
			mustClose(t, x)
		}
	})
	t.Logf("%d crashes, %d of them further than promised", crashes, ahead)
}

// crashRun opens, applies batches and flushes until the crash.
func crashRun(o Options, c *crashFS, rng *rand.Rand, m, checked *model, depth int) (err error) {
	var promised, applied atomic.Uint64
	promised.Store(c.left)
	applied.Store(c.left)
	c.atCrash = func() { c.least, c.most = promised.Load(), applied.Load() }
	early := depth > 0 && rng.IntN(3) == 0
	if early {
		c.crashAfter(1 + rng.Int64N(60))
	}
	x, err := Open(o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, x.Close()) }()
	start := x.serial()
	if err := checked.compare(x); err != nil {
		return err
	}
	if start != c.left {
		return fmt.Errorf("found batch %d, before it was %d", start, c.left)
	}
	if !early {
		c.crashAfter(1 + rng.Int64N(300))
	}
	m.dumpAt(start)
	for n := start + 1; n < start+80 && !c.crashed(); n++ {
		b := x.NewBatch()
		m.step(b)
		applied.Store(n)
		if err := b.Commit(); err != nil {
			return err
		}
		if rng.IntN(2) == 0 {
			for x.frozen() != nil {
				runtime.Gosched()
			}
		}
		if rng.IntN(30) == 0 {
			if err := x.Flush(); err != nil {
				return err
			}
			if got := x.DurableWatermark(); got != seqOf(n) {
				return fmt.Errorf("durable watermark %d after the flush of %d", got, seqOf(n))
			}
			promised.Store(n)
		}
		// The durable state may have moved by itself.
		if d := x.durableMeta().state.serial; d > n {
			return fmt.Errorf("batch %d is durable, the last is %d", d, n)
		} else if d > promised.Load() {
			promised.Store(d)
		}
	}
	c.crash()
	return nil
}

// Pebble creates files, renames them and moves markers when it opens and when it
// first flushes. A crash before any of these steps, whatever of them survives,
// leaves an index that opens.
func TestCrashAtEveryStepOfOpenAndFlush(t *testing.T) {
	o, mem := crashableOptions(t)
	mustClose(t, create(t, o))
	rng := rand.New(rand.NewPCG(1, 2))
	points := 0
	for n := int64(1); ; n++ {
		crashed := false
		for survival := range rounds(16) {
			c := newCrashFS(mem.CrashClone(vfs.CrashCloneCfg{}), rng)
			c.survival = min(survival, 2)
			c.crashAfter(n)
			x := mustOpen(t, o.on(c))
			b := x.NewBatch()
			b.SetWatermark(1, hashOf(1))
			if err := errors.Join(b.Commit(), x.Flush(), x.Close()); err != nil {
				t.Fatal(err)
			}
			if crashed = c.crashed(); !crashed {
				break
			}
			points++
			x, err := Open(o.on(c.clone))
			if err != nil {
				t.Fatalf("crash before change %d: %v", n, err)
			}
			mustClose(t, x)
		}
		if !crashed {
			t.Logf("%d crashes before %d changes", points, n-1)
			return
		}
	}
}
