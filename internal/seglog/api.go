package seglog

import (
	"io"
	"log/slog"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// CreateOptions say how a new store is made.
type CreateOptions struct {
	FS          vfs.FS
	Dir         string
	SegmentSize int64     // a multiple of 64 from 4 KiB to 1 GiB; 0 = 32 MiB
	Features    Features  // never change afterwards
	Rand        io.Reader // for store id and frame key; nil = crypto/rand
}

// Options say how a log is opened.
type Options struct {
	FS     vfs.FS
	Dir    string
	Logger *slog.Logger // nil = silent

	// SegmentSize of new segments from now on; 0 = as before.
	SegmentSize int64
	// SpillBuffer is what a Spill gathers before it writes; 0 = 1 MiB.
	SpillBuffer int
	// OpenDirect opens a file of the log for writes past the page cache, which a
	// Spill then uses for what it gathered; nil = everything goes through the cache.
	OpenDirect func(path string) (DirectFile, error)
	// DirectLeast is the least that is written so at once; 0 = 256 KiB.
	DirectLeast int
	// Ballast is the size of the reserve that is given up when a request that may
	// use it finds the disk full; 0 = none.
	Ballast int64
	// IdleDelay is how long the last batch may stay unproved; 0 = 200 ms,
	// negative = until the next batch or Close.
	IdleDelay time.Duration

	// MinSequence refuses (ErrRolledBack) a store whose last accepted batch is lower.
	MinSequence Sequence
	// ProvedSequence is a batch the caller knows to be synced, such as the
	// durable watermark of an index: what is not whole up to it is damage, not
	// a torn tail.
	ProvedSequence Sequence

	// OnCommit is called by the one committer goroutine, in sequence order,
	// after the batch is synced and before the callers of Commit are answered.
	// It is also called, without requests, for the batches that Start and
	// idleness write; not for the one of Close, which the next Replay yields.
	OnCommit func(Committed)
}

// A Request is what one caller wants in one batch. The log keeps no reference
// to it, or to the payloads, once Commit has returned.
type Request struct {
	Frames  []NewFrame  // data, placed in the commit stream in order, before the records
	Records []NewRecord // placed after the data
	Ranges  []Range     // spilled data this batch depends on; synced first
	Reserve Reserve     // what it may use of the space kept back
	Tag     any         // for OnCommit

	Locs       []Loc // out: of Frames
	RecordLocs []Loc // out: of Records

	sums []uint64 // payload checksums, computed by the caller's goroutine
	size int64    // bytes in the batch, without the trailer
}

// A NewFrame is data to be written: KindGroup, KindNodes or KindMove.
type NewFrame struct {
	Kind    Kind
	Payload []byte
}

// A NewRecord is a record to be written. Of all records with one key the
// highest RecordSeq is the truth, wherever it stands.
type NewRecord struct {
	Key       []byte // 1 to 64 bytes
	RecordSeq uint64
	Payload   []byte
	Moved     bool // a copy made by cleaning: it keeps its sequence and commits nothing
}

// Committed is a synced batch.
type Committed struct {
	Seq      Sequence
	Hash     Hash
	Requests []*Request
}

// A Batch is an accepted batch, as Replay found it.
type Batch struct {
	Seq     Sequence
	Hash    Hash        // zero if the trailer is lost and nothing else tells
	Frames  []FrameInfo // groups, nodes and moves, including those in ranges it depends on
	Records []RecordInfo
	// Damaged is set when the trailer itself is lost. Frames and Records are
	// then what stands in the commit stream under this sequence; which ranges
	// of other segments the batch depended on is not known.
	Damaged error
}

// A FrameInfo describes a frame.
type FrameInfo struct {
	Kind   Kind // 0 if the header is lost and no directory tells
	Stream Stream
	Loc    Loc
	Epoch  Epoch
	Batch  Sequence // the batch in whose commit the frame was written; 0 in bulk and moved segments
	// Payload is set by Scan and ScanSegment only, valid until the next step,
	// and not to be modified.
	Payload []byte
	Damaged error // header or payload not whole
}

// A RecordInfo describes a record of a batch. A damaged one has the key and
// record sequence that its trailer gives, and no payload.
type RecordInfo struct {
	Key       []byte
	RecordSeq uint64
	Moved     bool
	Loc       Loc
	Payload   []byte
	Damaged   error
}

// A SegmentInfo describes a segment.
type SegmentInfo struct {
	ID       SegmentID
	Stream   Stream
	Sealed   bool
	Size     int64    // bytes used
	FirstSeq Sequence // first and last batch whose trailer is in it; 0 if none
	LastSeq  Sequence
	Empty    bool // holds nothing but trailers
	Busy     bool // a spill that is not closed wrote to it: not to be dropped
	Path     string
}

// Stats are counters since Open, and the state of the log.
type Stats struct {
	Segments     int
	Bytes        int64 // used in all segments
	Epoch        Epoch
	Generation   uint64 // of ROOT
	LastSequence Sequence
	Floor        Sequence

	CommitBytes, BulkBytes, MovedBytes uint64 // written, with headers and padding
	DirectBytes                        uint64 // of them, past the page cache
	Batches, Requests                  uint64
	Syncs                              uint64 // of segments
	// Syncing is how long the oldest sync under way has taken, 0 if there is
	// none; SlowestSync the longest that any took, with that.
	Syncing, SlowestSync time.Duration
	RootWrites           uint64
	FailedBatches        uint64
	QuarantinedBytes     uint64 // of unproved tails, at Start
	DiscardedBytes       uint64 // of spilled data no batch came to depend on, at Start
	DamageCount          uint64
	BallastHeld          bool
}
