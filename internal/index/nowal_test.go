package index

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

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

// The index stands on one property of Pebble that Pebble itself does not test:
// without a write-ahead log, what a crash leaves is the state after some batch.
// This test asks Pebble alone, without the index.
//
// A history is batches of all sizes, from a few bytes to more than two
// memtables, that overwrite and delete each other's keys and each write their
// number under one key. Flushes and compactions go on. The crash comes before a
// random change of the file system and keeps none, all or some of what was not
// synced. After it, the number found must be one that was reached, not less than
// what a flush had promised, and every key must be as that batch left it. Then
// the history goes on from there, and crashes again.
func TestPebbleWithoutLogLeavesTheStateAfterSomeBatch(t *testing.T) {
	var deepest, crashes, flushed int
	seeds(t, rounds(60), func(t *testing.T, seed uint64) {
		rng := rand.New(rand.NewPCG(seed, 0))
		mem := vfs.NewCrashableMem()
		if err := mem.MkdirAll("db", 0o700); err != nil {
			t.Fatal(err)
		}
		if err := syncDir(mem, ""); err != nil {
			t.Fatal(err)
		}
		h := &history{seed: seed}
		for depth := range 3 {
			c := newCrashFS(mem, rng)
			found, err := h.run(c, rng, depth)
			if err != nil {
				t.Fatalf("seed %d, crash %d: %v", seed, depth, err)
			}
			deepest = max(deepest, depth)
			crashes++
			if found > 0 {
				flushed++
			}
			mem = c.clone
		}
	})
	t.Logf("%d crashes, %d of them with tables", crashes, flushed)
}

const nowalMemTable = 96 << 10

// history is a sequence of batches made from a seed, and the state after one of
// them.
type history struct {
	seed  uint64
	at    uint64
	state map[string]string
	// left is the batch that the last crash left.
	left uint64
}

// ops calls set or del for what batch n does.
func (h *history) ops(n uint64, set func(k, v []byte), del func(k []byte)) {
	rng := rand.New(rand.NewPCG(h.seed, n))
	var size int
	switch rng.IntN(10) {
	case 0, 1, 2:
		size = 1 + rng.IntN(300)
	case 3, 4, 5, 6, 7:
		size = rng.IntN(nowalMemTable / 6)
	case 8:
		size = nowalMemTable/2 + rng.IntN(nowalMemTable) // Pebble's path for large batches
	case 9:
		size = nowalMemTable + rng.IntN(2*nowalMemTable)
	}
	for size > 0 {
		k := fmt.Appendf(nil, "key%03d", rng.IntN(500))
		if rng.IntN(4) == 0 {
			del(k)
			size -= 20
			continue
		}
		v := make([]byte, rng.IntN(400))
		for i := range v {
			v[i] = byte(rng.Uint32())
		}
		set(k, v)
		size -= len(k) + len(v) + 20
	}
}

// moveTo makes state the state after batch n.
func (h *history) moveTo(n uint64) {
	if n < h.at || h.state == nil {
		h.at, h.state = 0, map[string]string{}
	}
	for h.at < n {
		h.at++
		h.ops(h.at,
			func(k, v []byte) { h.state[string(k)] = string(v) },
			func(k []byte) { delete(h.state, string(k)) })
	}
}

// run opens Pebble, checks what it finds, and applies batches until the crash.
func (h *history) run(c *crashFS, rng *rand.Rand, depth int) (found uint64, err error) {
	closing := make(chan struct{})
	o := Options{CacheSize: 1 << 20, MemTableSize: nowalMemTable}.withDefaults()
	tr := newTrust(o.Logger, func(string) error { return nil })
	events := &pebble.EventListener{}
	g := &gate{FS: c, trust: tr, retry: &retryDelay{closing: closing}}
	p := o.pebbleOptions(g, events)
	for i := range p.TargetFileSizes {
		p.TargetFileSizes[i] = 16 << 10
	}
	p.LBaseMaxBytes = 64 << 10

	// What was promised and reached when the crash came.
	var promised, applied atomic.Uint64
	var least, most uint64
	promised.Store(h.left)
	applied.Store(h.left)
	c.atCrash = func() { least, most = promised.Load(), applied.Load()+1 }
	early := depth > 0 && rng.IntN(3) == 0
	if early {
		// During Open.
		c.crashAfter(1 + rng.Int64N(40))
	}
	db, err := pebble.Open("db", p)
	if err != nil {
		return 0, fmt.Errorf("open: %w", err)
	}
	defer func() { err = errors.Join(err, db.Close(), tr.err()) }()
	found, err = h.compare(db, nil)
	if err != nil {
		return 0, err
	}
	if found != h.left {
		return 0, fmt.Errorf("found batch %d, without a crash between it was %d", found, h.left)
	}
	applied.Store(found)
	promised.Store(found)
	if !early {
		c.crashAfter(1 + rng.Int64N(400))
	}
	for n := found + 1; n < found+60 && !c.crashed(); n++ {
		b := db.NewBatch()
		h.ops(n, func(k, v []byte) { err = errors.Join(err, b.Set(k, v, nil)) },
			func(k []byte) { err = errors.Join(err, b.Delete(k, nil)) })
		err = errors.Join(err, b.Set([]byte("number"), binary.BigEndian.AppendUint64(nil, n), nil))
		if err := errors.Join(err, db.Apply(b, pebble.NoSync)); err != nil {
			return found, err
		}
		applied.Store(n)
		// Let tables be written now and then, or the batches are all applied
		// before the first is.
		if rng.IntN(2) == 0 {
			for db.Metrics().Flush.NumInProgress > 0 {
				runtime.Gosched()
			}
		}
		switch rng.IntN(40) {
		case 0:
			if err := db.Flush(); err != nil {
				return found, err
			}
			promised.Store(n)
		case 1:
			if _, err := db.AsyncFlush(); err != nil {
				return found, err
			}
		case 2, 3, 4, 5, 6, 7, 8, 9:
			// What is in tables is already what a crash would leave.
			d, err := h.compare(db, &pebble.IterOptions{OnlyReadGuaranteedDurable: true})
			if err != nil {
				return found, err
			}
			if d > n || d < promised.Load() {
				return found, fmt.Errorf("tables are at %d, applied %d, promised %d", d, n, promised.Load())
			}
			promised.Store(d)
		}
	}
	c.crash()

	// A look at the clone alone: the next run goes on with it.
	after, err := pebble.Open("db", h.readOptions(c))
	if err != nil {
		return found, fmt.Errorf("open after the crash: %w", err)
	}
	defer func() { err = errors.Join(err, after.Close()) }()
	n, err := h.compare(after, nil)
	if err != nil {
		return found, err
	}
	if n < least || n > most {
		return found, fmt.Errorf("found batch %d after the crash, promised %d, reached %d", n, least, most)
	}
	h.left = n
	return found, nil
}

// readOptions opens the clone without changing it.
func (h *history) readOptions(c *crashFS) *pebble.Options {
	o := Options{CacheSize: 1 << 20, MemTableSize: nowalMemTable}.withDefaults()
	tr := newTrust(o.Logger, func(string) error { return nil })
	p := o.pebbleOptions(&gate{FS: c.clone, trust: tr, retry: &retryDelay{}}, &pebble.EventListener{})
	p.ReadOnly = true
	return p
}

// compare returns the number of the batch that db is at, and an error if db
// differs from the state after that batch.
func (h *history) compare(db *pebble.DB, o *pebble.IterOptions) (n uint64, err error) {
	it, err := db.NewIter(o)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	if it.SeekGE([]byte("number")) {
		n = binary.BigEndian.Uint64(it.Value())
	}
	h.moveTo(n)
	left := maps.Clone(h.state)
	for it.First(); it.Valid(); it.Next() {
		k := string(it.Key())
		if k == "number" {
			continue
		}
		if want, ok := left[k]; !ok || want != string(it.Value()) {
			return n, fmt.Errorf("after batch %d, key %q is not as it was", n, k)
		}
		delete(left, k)
	}
	if len(left) > 0 {
		return n, fmt.Errorf("after batch %d, %d keys are missing", n, len(left))
	}
	return n, nil
}
