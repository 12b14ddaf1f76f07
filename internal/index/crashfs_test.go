package index

import (
	"flag"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// crashFS is a file system in memory that is cloned, as a crash would leave it,
// before its n-th change.
type crashFS struct {
	vfs.FS
	mem *vfs.MemFS
	rng *rand.Rand
	// survival: none, all or some of what was not synced outlives the crash.
	survival int

	ops atomic.Int64
	mu  sync.Mutex
	at  int64
	// atCrash is called when the clone is taken.
	atCrash func()
	clone   *vfs.MemFS
	// least and most bound what may be found after the crash; left is what was
	// found after the one before.
	least, most, left uint64
}

func newCrashFS(mem *vfs.MemFS, rng *rand.Rand) *crashFS {
	// Its own generator: the crash comes on a goroutine of Pebble's.
	own := rand.New(rand.NewPCG(rng.Uint64(), 1))
	c := &crashFS{mem: mem, rng: own, survival: rng.IntN(3), at: -1}
	c.FS = errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && c.ops.Add(1) == atomic.LoadInt64(&c.at) {
			c.crash()
		}
		return nil
	}))
	return c
}

// crashAfter takes the clone before the n-th change from now.
func (c *crashFS) crashAfter(n int64) { atomic.StoreInt64(&c.at, c.ops.Load()+n) }

func (c *crashFS) crash() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.clone != nil {
		return
	}
	if c.atCrash != nil {
		c.atCrash()
	}
	kept := [...]int{0, 100, 1 + c.rng.IntN(99)}[c.survival%3]
	c.clone = c.mem.CrashClone(vfs.CrashCloneCfg{
		UnsyncedDataPercent: kept,
		RNG:                 rand.New(rand.NewPCG(c.rng.Uint64(), 0)),
	})
}

func (c *crashFS) crashed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.clone != nil
}

var seedFlag = flag.Uint64("seed", 0, "run random tests with this seed alone")

// seeds calls f with n seeds, or with the one of the flag.
func seeds(t *testing.T, n int, f func(t *testing.T, seed uint64)) {
	if *seedFlag != 0 {
		f(t, *seedFlag)
		return
	}
	for seed := uint64(1); seed <= uint64(n) && !t.Failed(); seed++ {
		f(t, seed)
	}
}

var timesFlag = flag.Int("times", 1, "run random tests this many times as often")

// rounds is how often a random test runs: fewer under -short.
func rounds(n int) int {
	if testing.Short() {
		return max(n/10, 5)
	}
	return n * *timesFlag
}
