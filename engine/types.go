package engine

import (
	"fmt"
	"time"

	"github.com/snapstore/snapstore/chunk"
	"github.com/snapstore/snapstore/gc"
	"github.com/snapstore/snapstore/internal/record"
	"github.com/snapstore/snapstore/manifest"
)

// PageSize is the grain of sharing, in bytes.
const PageSize = chunk.PageSize

// The nouns of the format that callers meet.
type (
	// Section is one address space of a canister.
	Section = manifest.Section
	// Metadata is what a snapshot holds beside its sections.
	Metadata = manifest.Metadata
	// SectionRoot is a section's size in bytes and the root of its page tree.
	SectionRoot = manifest.SectionRoot
	// Root is the hash that stands for a whole snapshot, or a section.
	Root = chunk.ID
	// Source says whether a snapshot was taken or uploaded.
	Source = record.Source
	// DedupDomain says among whom equal content is stored once.
	DedupDomain = chunk.DedupDomain
	// PageDiff is a page that differs between two snapshots.
	PageDiff = manifest.PageDiff
)

// The dedup domains.
const (
	// DedupStore stores equal content of all canisters once.
	DedupStore = chunk.DedupStore
	// DedupCanister stores equal content of one canister once, and nothing that
	// one canister can measure depends on what others have stored.
	DedupCanister = chunk.DedupCanister
)

// ParseDedupDomain parses "store" or "canister".
func ParseDedupDomain(s string) (DedupDomain, error) {
	d, err := chunk.ParseDedupDomain(s)
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return d, err
}

// The sections of a canister; wasm chunks are named by their SHA-256.
var (
	WasmModule   = Section{Kind: manifest.WasmModule}
	WasmMemory   = Section{Kind: manifest.WasmMemory}
	StableMemory = Section{Kind: manifest.StableMemory}
)

// WasmChunk is the section of one entry of the wasm chunk store.
func WasmChunk(sha256 [32]byte) Section {
	return Section{Kind: manifest.WasmChunk, Hash: sha256}
}

// Status is what only the host knows about a canister; it lives in memory.
type Status struct {
	Running          bool
	OpenCallContexts int
}

// CanisterInfo describes a canister as last made durable.
type CanisterInfo struct {
	ID        CanisterID
	Snapshots int
	// HeadRoot stands for the durable live state; zero before the first checkpoint.
	HeadRoot Root
	// HeadLogical and SnapshotsLogical are bytes as a tenant is charged.
	HeadLogical, SnapshotsLogical uint64
	Sections                      []SectionRoot
	Sequence                      uint64
	Incarnation                   uint64
	HostBytes                     int
	// Damaged: the newest record can not be read; only DeleteCanister works.
	Damaged bool
}

// SnapshotInfo describes a snapshot.
type SnapshotInfo struct {
	ID      SnapshotID
	Root    Root
	TakenAt time.Time
	// Size is total_size of the interface: logical bytes, shared or not.
	Size    uint64
	Source  Source
	Mutable bool
}

// SnapshotDetail is SnapshotInfo with what the manifest holds.
type SnapshotDetail struct {
	SnapshotInfo
	Sections []SectionRoot
	Metadata Metadata
}

// TakeOptions of Take. The zero value takes one more snapshot.
type TakeOptions struct {
	// Replace is a snapshot that leaves in the same atomic step.
	Replace SnapshotID
	// RefuseRunning and RefuseOpenCalls turn a running canister, or one with
	// open call contexts, away. Off by default: upstream only advises it.
	RefuseRunning, RefuseOpenCalls bool
	// TakenAt is the time to record; zero is now.
	TakenAt time.Time
	// Host replaces the host blob in the same step when not nil.
	Host []byte
}

// PageStats counts what happened to the dirty pages of one operation.
type PageStats = chunk.IngestStats

// TakeResult of Take.
type TakeResult struct {
	SnapshotInfo
	Pages PageStats
	// Pause is how long writers were held off.
	Pause time.Duration
	// EarlyPages of lent memory were copied before the pause, ResiduePages in it.
	EarlyPages, ResiduePages int
	// Duration is from the call to durable.
	Duration time.Duration
	// Sequence of the batch that made it durable.
	Sequence uint64
}

// CheckpointResult of Checkpoint.
type CheckpointResult struct {
	Root     Root
	Pages    PageStats
	Pause    time.Duration
	Duration time.Duration
	Sequence uint64
}

// LoadOptions of Load.
type LoadOptions struct {
	// FromOtherCanister allows a snapshot of another canister.
	FromOtherCanister bool
	// Host replaces the host blob in the same step when not nil.
	Host []byte
}

// LoadResult of Load.
type LoadResult struct {
	// Pages that differed from the durable state, or were dirty.
	Pages    uint64
	Duration time.Duration
	Sequence uint64
}

// UploadOptions of Upload.
type UploadOptions struct {
	Replace SnapshotID
	TakenAt time.Time
	Host    []byte
}

// GCOptions and GCReport are of GC.
type (
	GCOptions = gc.Options
	GCReport  = gc.Report
)

// VerifyOptions of Verify. The zero value checks everything at full speed.
type VerifyOptions struct {
	// NoData skips reading pages; counts and trees are checked.
	NoData bool
	// Rate bounds reading, in bytes a second; 0 is unbounded.
	Rate int64
	// Progress is called now and then with bytes read and bytes in all.
	Progress func(done, total int64)
}

// ProblemKind says what Verify found.
type ProblemKind string

// The kinds of problems.
const (
	ProblemRecord  ProblemKind = "record"  // a canister record can not be read
	ProblemNode    ProblemKind = "node"    // a tree node or manifest is missing or damaged
	ProblemPage    ProblemKind = "page"    // a page is missing or damaged
	ProblemCount   ProblemKind = "count"   // a stored count is not the recomputed one
	ProblemLeak    ProblemKind = "leak"    // stored, but nothing names it
	ProblemMissing ProblemKind = "missing" // named, but not stored
	ProblemLog     ProblemKind = "log"     // a frame of the log is damaged
	ProblemIndex   ProblemKind = "index"   // the index is not to be trusted
	ProblemLogical ProblemKind = "logical" // a recorded logical size is wrong
)

// Problem is one thing that is wrong, with all that is known of where.
type Problem struct {
	Kind     ProblemKind
	Canister CanisterID
	Snapshot SnapshotID // zero: the live state
	Section  string
	Page     uint64
	Chunk    Root
	File     string
	Offset   int64
	Segment  uint64 // of the log; 0 if none is concerned
	Detail   string
}
