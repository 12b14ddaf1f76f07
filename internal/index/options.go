package index

import (
	"errors"
	"fmt"
	"log/slog"
	"path"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	// DefaultMemTableSize is how much gathers in memory before it is written as
	// tables. Big, because every flush is merged into the whole index sooner or
	// later, and what is born and dies between two is never written: 64 MiB hold
	// what about a hundred large takes change.
	DefaultMemTableSize = 64 << 20

	// DefaultCacheSize is the block cache.
	DefaultCacheSize = 64 << 20

	minMemTableSize = 256 << 10

	// maxUnflushed is how many memtables of changes may wait to be flushed
	// before Commit waits too.
	maxUnflushed = 4
)

// Options says where an index is and what belongs in it. FS, Dir and StoreID
// are needed.
type Options struct {
	FS vfs.FS
	// Dir is the directory of the index alone. Dir+".tmp", Dir+".old" and
	// Dir+".count" are used beside it and may vanish at any Open.
	Dir string
	// StoreID must be the one the index was built for.
	StoreID [16]byte
	// CacheSize bounds Pebble's block cache, MemTableSize each memtable; 0 is the
	// default. Both together take about CacheSize and two memtables, one and a half
	// more during a flush, and up to four memtables, on a full disk twelve, while
	// flushes can not keep up.
	CacheSize    int64
	MemTableSize uint64
	// Logger may be nil.
	Logger *slog.Logger
	// Check says whether a watermark belongs to the log: nil if it does. A nil
	// Check accepts all.
	Check func(seq uint64, hash [32]byte) error
	// MakeRoom frees some space on a full disk, and tells whether it did. It may
	// be nil. Without it a full disk can end the index's trust: Pebble does not
	// survive a MANIFEST that it can not write.
	MakeRoom func() bool
	// Breather makes what a goroutine that flushes, or builds a filter, calls between
	// its steps, most of which take some tenths of a millisecond. That may sleep, to
	// leave the processor to others, for as long as may is true: nobody waits for the
	// flush. Breather may be nil.
	Breather func(may func() bool) (breathe func())
	// Floor is the lowest watermark from which the log can still be replayed.
	Floor uint64
}

// Validate reports what is missing or out of range.
func (o Options) Validate() error {
	switch {
	case o.FS == nil:
		return errors.New("index: no file system")
	case o.Dir == "" || path.Clean(o.Dir) == "." || path.Clean(o.Dir) == "/":
		return fmt.Errorf("index: %q can not be an index directory", o.Dir)
	case o.CacheSize < 0:
		return fmt.Errorf("index: cache size %d is negative", o.CacheSize)
	case o.MemTableSize != 0 && (o.MemTableSize < minMemTableSize || o.MemTableSize > 1<<30):
		return fmt.Errorf("index: memtable size %d is not within 256 KiB and 1 GiB", o.MemTableSize)
	}
	return nil
}

// withDefaults returns the options with nothing left at zero that has a
// default.
func (o Options) withDefaults() Options {
	if o.CacheSize == 0 {
		o.CacheSize = DefaultCacheSize
	}
	if o.MemTableSize == 0 {
		o.MemTableSize = DefaultMemTableSize
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Breather == nil {
		o.Breather = func(func() bool) func() { return func() {} }
	}
	if o.Check == nil {
		o.Check = func(uint64, [32]byte) error { return nil }
	}
	return o
}

func (o Options) tmpDir() string   { return o.Dir + ".tmp" }
func (o Options) oldDir() string   { return o.Dir + ".old" }
func (o Options) countDir() string { return o.Dir + ".count" }
func (o Options) flushDir() string { return o.FS.PathJoin(o.Dir, flushDir) }

// pebbleOptions returns how Pebble is run, by the index and by a rebuild alike.
func (o Options) pebbleOptions(g *gate, events *pebble.EventListener) *pebble.Options {
	p := &pebble.Options{
		FS:                 g,
		Logger:             g.trust,
		EventListener:      events,
		DisableWAL:         true,
		FormatMajorVersion: pebble.FormatNewest,
		CacheSize:          o.CacheSize,
		MaxOpenFiles:       512,
		// Its own memtable stays empty: see memtable.
		MemTableSize:          minMemTableSize,
		L0StopWritesThreshold: 1 << 20,
		// A flush is a few megabytes of keys from everywhere, and to merge it rewrites
		// all of the index below it: half as many wait for each other, since Pebble
		// counts each twice, and there are two levels up to 4 GiB. An index of ten million
		// entries wrote 0.65 of what a take does with 8 here and a level between, 0.38
		// with 12 and none, in one benchmark; in a longer one 0.45 with 12, 0.27 with
		// 16. What waits costs a look-up a filter each, 0.15 us.
		L0CompactionThreshold: 16,
		LBaseMaxBytes:         4 << 30,
		BytesPerSync:          1 << 20,
	}
	for i := range p.Levels {
		l := &p.Levels[i]
		// A look-up reads one block for 40 bytes, so blocks are small. IDs do not
		// compress.
		l.BlockSize = 4 << 10
		l.IndexBlockSize = 32 << 10
		l.Compression = func() *sstable.CompressionProfile { return sstable.NoCompression }
		// Asked by GetSorted, which meets mostly new IDs and must not ask the
		// filter in memory.
		l.FilterPolicy = bloom.FilterPolicy(10)
	}
	for i := range p.TargetFileSizes {
		p.TargetFileSizes[i] = 32 << 20
	}
	p.Experimental.CompactionScheduler = newScheduler(g.trust)
	return p
}

// scheduler is Pebble's own scheduler of compactions, and starts none once the
// files must not change any more: what Pebble does after a fatal error is not
// something it was made for.
type scheduler struct {
	// The constructor is named for tests because it leaves out a goroutine that
	// polls, which only matters with many databases in one process.
	*pebble.ConcurrencyLimitScheduler
	trust *trust
}

func newScheduler(t *trust) *scheduler {
	return &scheduler{pebble.NewConcurrencyLimitSchedulerWithNoPeriodicGrantingForTest(), t}
}

func (s *scheduler) Register(n int, db pebble.DBForCompaction) {
	s.ConcurrencyLimitScheduler.Register(n, haltable{db, s.trust})
}

type haltable struct {
	pebble.DBForCompaction
	trust *trust
}

func (h haltable) GetAllowedWithoutPermission() int {
	if h.trust.halted.Load() {
		return 0
	}
	return h.DBForCompaction.GetAllowedWithoutPermission()
}
