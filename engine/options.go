package engine

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/snapstore/snapstore/chunk"
	"github.com/snapstore/snapstore/internal/osfs"
)

// Defaults of Options.
const (
	// DefaultSnapshotLimit is what the Internet Computer allows since 2025;
	// the first version of the interface allowed 1.
	DefaultSnapshotLimit = 10
	// DefaultSegmentSize is one cleaning's worth of work, about 0.1 s.
	DefaultSegmentSize = 32 << 20
	// DefaultPageCache and DefaultNodeCache bound the two read caches in bytes.
	// The nodes of 1 GiB take 11 MiB there, and those of each snapshot that is
	// about to be dropped are wanted as well: with 16 MiB takes read most of
	// theirs from the log.
	DefaultPageCache = 32 << 20
	DefaultNodeCache = 64 << 20
	// DefaultIndexCache is Pebble's block cache in bytes.
	DefaultIndexCache = 16 << 20
	// DefaultMaxDebt is how many reclaimable bytes may wait before takes do.
	DefaultMaxDebt = 8 << 30
	// DefaultMaxDrops is how many deleted versions may wait before takes do.
	DefaultMaxDrops = 10_000
	// DefaultDebtWait is how long a take waits for gc before ErrDebt.
	DefaultDebtWait = 30 * time.Second
	// DefaultBallast is kept back so that a full disk can still delete.
	DefaultBallast = 4 << 20
	// DefaultScrubEvery is for hosts that run for long; the default of Options is
	// not to scrub. With 1 TiB it is 450 KiB a second.
	DefaultScrubEvery = 28 * 24 * time.Hour
	// DefaultScrubRate is in bytes a second: a tenth of a slow disk.
	DefaultScrubRate = 64 << 20
	// DefaultCleanBelow is the live share under which segments are rewritten.
	// Scattered death leaves old segments at about 0.72 live: at 0.6 almost
	// nothing came back, at 0.8 with zstd 1.5 bytes were written for each one
	// reclaimed.
	DefaultCleanBelow = 0.80
)

// Options of Open and Create. The zero value of every field is its default,
// and a nil *Options is all defaults.
type Options struct {
	// FS holds log and index alike; nil is the operating system's, with files
	// for their owner alone, and no store that others can write to. One with a
	// method OpenDirect(path string) (DirectFile, error) is asked for writes past
	// the page cache; an error that wraps errors.ErrUnsupported says it has none.
	FS vfs.FS
	// Logger gets what an operator should know; nil is silence.
	Logger *slog.Logger
	// SnapshotLimit is the most snapshots a canister may have.
	SnapshotLimit int
	// CanisterQuota and StoreQuota are the most logical bytes that one canister
	// and all together may be charged for: durable live states and snapshots,
	// shared or not; 0 is no limit. What would go beyond is refused with a
	// QuotaError before anything is written.
	CanisterQuota, StoreQuota uint64
	// SegmentSize in bytes; takes effect at Create.
	SegmentSize int64
	// DedupDomain says among whom equal content is stored once; the zero value is
	// all canisters. It takes effect at Create and stays. Open with
	// DedupCanister refuses a store that was made otherwise.
	DedupDomain DedupDomain
	// CompareOnHit reads every page that seems to be stored already and compares
	// it byte by byte, instead of trusting 256 bits of BLAKE3. A collision is
	// refused with ErrCollision and changes nothing. Operations that write then go
	// one after the other, and each page that did not change costs a read.
	CompareOnHit bool
	// Codec compresses new groups; the zero value is delta. Use chunk.CodecRaw
	// through NoCompression.
	Codec chunk.Codec
	// NoCompression stores pages as they are.
	NoCompression bool
	// NoDirectIO writes large takes and what gc moves through the page cache, also
	// where the file system can do without. It is quicker where a snapshot is read
	// again at once and memory is free.
	NoDirectIO bool
	// DirectLeast is the least in bytes that is written past the page cache at
	// once; 0 is 256 KiB.
	DirectLeast int
	// PageCache, NodeCache and IndexCache are bounds in bytes.
	PageCache, NodeCache, IndexCache int64
	// MemTable is the index's memory in bytes before it writes a table, from
	// 256 KiB to 1 GiB; 0 is 64 MiB.
	MemTable int64
	// MaxDebt and MaxDrops bound what waits for gc, in bytes and in deleted
	// versions; DebtWait is how long a take waits for it before ErrDebt.
	MaxDebt  int64
	MaxDrops int
	DebtWait time.Duration
	// CleanBelow is the live share of the log under which segments are rewritten in
	// the background, the emptiest first, until there is as much, or while half of
	// MaxDebt waits in segments with less; a GC that is asked for rewrites each of
	// those. Over 0 and below 1.
	CleanBelow float64
	// Ballast in bytes is the reserve for deleting and cleaning on a full disk; the
	// last quarter of it is given up for deletes alone. Negative is none.
	Ballast int64
	// ScrubEvery is in what time the whole log is read once from the disk, over
	// and over, to find rot while what it hit can still be had from elsewhere;
	// 0 is never. A host that runs for long should set it: DefaultScrubEvery. See
	// Stats.Scrub. ScrubRate is the most bytes a second that may take; 0 is 64 MiB.
	ScrubEvery time.Duration
	ScrubRate  int64
	// BulkAfter is how many bytes of new data a take may have before they go to a
	// segment of their own, beside the commits of others; 0 is 2 MiB.
	BulkAfter int64
	// CountStep is how many counts change in one atomic step of the index; 0 is
	// 65,536, and at most one for each KiB of MemTable. Smaller steps need less memory
	// and more of them.
	CountStep int
	// NoBackground leaves all gc work to calls of GC.
	NoBackground bool
	// MinSequence makes Open refuse a store that is older: ErrRolledBack.
	MinSequence uint64
	// AcceptLoss opens a store in which batches are lost that were synced, without
	// a trace of which canisters they changed: what is served then may be older
	// than what was acknowledged. Otherwise Open refuses with ErrLost. Repair
	// accepts it.
	AcceptLoss bool
	// RebuildIndex makes Open throw the index away and build it anew.
	RebuildIndex bool
	// RebuildMemory bounds a rebuild's sort, in bytes; 0 is 64 MiB.
	RebuildMemory int64
	// IdleSync is after what time without commits the last batch is sealed
	// off against being mistaken for a torn one; 0 is 200 ms.
	IdleSync time.Duration
	// Tracking is how writes to lent memory are noticed; the zero value asks
	// the machine. A mode that it does not have makes Open fail.
	Tracking TrackingMode
	// HugePages asks the system for huge pages under lent memory: filling it
	// and takes that find little are quicker, and it is given out in pieces of
	// 2 MiB.
	HugePages bool
}

// withDefaults returns a copy with every zero value replaced.
func (o *Options) withDefaults() Options {
	var c Options
	if o != nil {
		c = *o
	}
	if c.FS == nil {
		c.FS = osfs.New()
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	def(&c.SnapshotLimit, DefaultSnapshotLimit)
	def(&c.SegmentSize, DefaultSegmentSize)
	if c.Codec == chunk.CodecRaw && !c.NoCompression {
		c.Codec = chunk.CodecDelta
	}
	def(&c.PageCache, DefaultPageCache)
	def(&c.NodeCache, DefaultNodeCache)
	def(&c.IndexCache, DefaultIndexCache)
	def(&c.MemTable, 64<<20)
	def(&c.MaxDebt, DefaultMaxDebt)
	def(&c.MaxDrops, DefaultMaxDrops)
	def(&c.DebtWait, DefaultDebtWait)
	def(&c.CleanBelow, DefaultCleanBelow)
	def(&c.Ballast, DefaultBallast)
	def(&c.RebuildMemory, 64<<20)
	def(&c.ScrubRate, DefaultScrubRate)
	return c
}

// stepBytes is how much memtable there is for each count that changes in one step. An
// entry takes some 100 bytes in it, and a step is applied whole: so a memtable is a
// tenth larger than it should be at most.
const stepBytes = 1024

// countStep is CountStep, or its default for the memtable.
func (o *Options) countStep() int {
	most := int(min(o.MemTable/stepBytes, 64<<10))
	if o.CountStep == 0 {
		return most
	}
	return min(o.CountStep, most)
}

// checkPrivate refuses a directory of the operating system that others may
// change.
func (o *Options) checkPrivate(dir string) error {
	if _, ok := o.FS.(osfs.FS); !ok {
		return nil
	}
	err := osfs.Check(dir)
	if errors.Is(err, osfs.ErrOpenToOthers) || errors.Is(err, osfs.ErrLink) {
		return fmt.Errorf("%w: %w", ErrUnsafe, err)
	}
	return err
}

func def[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// Validate says what is out of range, before anything is opened.
func (o *Options) Validate() error {
	c := o.withDefaults()
	switch {
	case c.SnapshotLimit < 1 || c.SnapshotLimit > 1024:
		return fmt.Errorf("snapshot limit %d, want 1 to 1024: %w", c.SnapshotLimit, ErrInvalid)
	case c.SegmentSize < 64<<10 || c.SegmentSize > 1<<30:
		return fmt.Errorf("segment size %d, want 64 KiB to 1 GiB: %w", c.SegmentSize, ErrInvalid)
	case !(c.CleanBelow > 0 && c.CleanBelow < 1):
		return fmt.Errorf("clean below %v, want a share between 0 and 1: %w", c.CleanBelow, ErrInvalid)
	case c.PageCache < 0 || c.NodeCache < 0 || c.IndexCache < 0 || c.MemTable < 256<<10 || c.MemTable > 1<<30 || c.RebuildMemory < 1<<20:
		return fmt.Errorf("a cache is negative or too small: %w", ErrInvalid)
	case !c.DedupDomain.Valid():
		return fmt.Errorf("dedup domain %s: %w", c.DedupDomain, ErrInvalid)
	case c.Tracking > TrackHash:
		return fmt.Errorf("tracking %s: %w", c.Tracking, ErrInvalid)
	case c.ScrubEvery < 0 || c.ScrubRate < 0:
		return fmt.Errorf("scrub every %s at %d bytes a second: %w", c.ScrubEvery, c.ScrubRate, ErrInvalid)
	case c.BulkAfter < 0 || c.CountStep < 0 || c.DirectLeast < 0:
		return fmt.Errorf("bulk after %d bytes, count step %d, direct writes from %d bytes: %w", c.BulkAfter, c.CountStep, c.DirectLeast, ErrInvalid)
	case c.MaxDebt < 0 || c.MaxDrops < 0 || c.DebtWait < 0:
		return fmt.Errorf("a debt limit is negative: %w", ErrInvalid)
	}
	return nil
}

// String lists what is set, for logs and bug reports.
func (o *Options) String() string {
	c := o.withDefaults()
	return fmt.Sprintf("snapshot-limit=%d canister-quota=%d store-quota=%d segment-size=%d dedup=%s compare-on-hit=%t codec=%s direct-io=%t page-cache=%d node-cache=%d index-cache=%d memtable=%d max-debt=%d max-drops=%d debt-wait=%s clean-below=%.2f ballast=%d background=%t tracking=%s huge-pages=%t scrub-every=%s scrub-rate=%d",
		c.SnapshotLimit, c.CanisterQuota, c.StoreQuota, c.SegmentSize, c.DedupDomain, c.CompareOnHit, c.Codec, !c.NoDirectIO, c.PageCache, c.NodeCache, c.IndexCache, c.MemTable,
		c.MaxDebt, c.MaxDrops, c.DebtWait, c.CleanBelow, c.Ballast, !c.NoBackground, c.Tracking, c.HugePages, c.ScrubEvery, c.ScrubRate)
}
