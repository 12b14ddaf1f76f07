package seglog

import (
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/zeebo/blake3"

	"github.com/snapstore/snapstore/internal/bufpool"
)

// A Log is an open log. Its phases are Open, then Replay and Scan as often as
// wanted, then Start, then everything else, then Close. All methods are safe
// for concurrent use once Start has returned.
//
// Locks are taken in this order and none is held while a caller is waited for:
// sealMu, segment.ioMu, rootMu, mu. Only mu is never held over I/O.
type Log struct {
	o      Options
	fs     vfs.FS
	log    *slog.Logger
	gate   gate
	cache  *fileCache
	chunks sync.Pool // of *[]byte, for scans
	// spillBufs are what spills gather in. The frame that fills one may reach beyond.
	spillBufs bufpool.Pool
	seal      *sealer
	store     StoreID
	key       [32]byte
	// features are what the store was made with.
	features Features

	// sealMu is held while segments are sealed, so that they are in the order
	// in which they ended: to recovery, an open commit segment is never older
	// than a closed one.
	sealMu sync.Mutex
	// rootMu is held by whoever changes the table on disk.
	rootMu sync.Mutex
	// over, under rootMu, says that Close is done: no more segments.
	over bool
	// rootDue, under rootMu, says that a sequence was burnt of which no frame
	// can bear witness: ROOT must know it before the next segment is taken.
	rootDue bool

	mu          sync.RWMutex
	phase       phase
	segs        map[SegmentID]*segment
	generation  uint64 // the highest that may be on disk
	epoch       Epoch
	nextSegment SegmentID
	nextSeq     Sequence
	floor       Sequence
	last        Sequence // last accepted batch; synced once started
	lastHash    Hash
	lastData    Sequence // last batch that holds anything, of this epoch
	proved      Sequence // what something synced later proves to be synced
	segmentSize int64
	spare       *segment              // created ahead, without a stream
	pool        map[Stream][]*segment // spill segments between two takers
	toSeal      []*segment            // nobody appends to these any more
	readOnly    error
	damage      []Damage
	damageSeen  map[damageKey]bool
	damageCount uint64
	lostThrough Sequence

	found *recovered // by Open, for Start

	queue     queue
	cur       *segment       // the commit segment; the committer's own
	buf       []byte         // the committer's own
	headHash  *blake3.Hasher // so is this; nil before the first batch
	chores    chan struct{}
	stop      chan struct{}
	done      sync.WaitGroup
	once      sync.Once // Close
	closed    error     // its result
	finishing bool      // Close's own: the goroutines have ended

	reserve reserve
	// rootFiles writes ROOT; guarded by rootMu.
	rootFiles rootFiles
	noEarly   atomic.Bool // early write-out waits here: leave it
	noDirect  atomic.Bool // this file system has no direct writes
	stats     counters
}

type phase uint8

const (
	phaseOpen phase = iota
	phaseStarted
	phaseClosed
)

type counters struct {
	streamBytes                      [4]atomic.Uint64 // by Stream
	directBytes                      atomic.Uint64    // of them, past the page cache
	batches, requests, syncs, roots  atomic.Uint64
	failed, quarantinedB, discardedB atomic.Uint64
	syncTimes                        syncTimes
}

const defaultIdleDelay = 200 * time.Millisecond

// Features returns what the store was made with.
func (l *Log) Features() Features { return l.features }

// StoreID returns the store's identity.
func (l *Log) StoreID() StoreID { return l.store }

// Floor returns the sequence below which an index can not be trusted, because
// segments that it may point into are gone.
func (l *Log) Floor() Sequence {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.floor
}

// Last returns the last accepted batch. Its hash is zero if only that is lost.
func (l *Log) Last() (Sequence, Hash) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.last, l.lastHash
}

// ReadOnly returns why nothing can be written any more, or nil.
func (l *Log) ReadOnly() error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.readOnly
}

// Has tells whether a segment is in the table.
func (l *Log) Has(id SegmentID) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.segs[id] != nil
}

// Segments returns all segments in order.
func (l *Log) Segments() []SegmentInfo {
	l.mu.RLock()
	defer l.mu.RUnlock()
	infos := make([]SegmentInfo, 0, len(l.segs))
	for _, s := range l.sortedLocked() {
		if s.unused() || s.stream == 0 {
			continue // about to go, or not in use yet
		}
		infos = append(infos, SegmentInfo{
			ID: s.id, Stream: s.stream, Sealed: s.state != stateOpen, Size: s.size,
			FirstSeq: s.first, LastSeq: s.last, Empty: s.empty, Busy: s.busy > 0, Path: s.path,
		})
	}
	return infos
}

// Stats returns counters and state.
func (l *Log) Stats() Stats {
	l.mu.RLock()
	defer l.mu.RUnlock()
	s := Stats{
		Segments: len(l.segs), Epoch: l.epoch, Generation: l.generation,
		LastSequence: l.last, Floor: l.floor, DamageCount: l.damageCount,
		CommitBytes:      l.stats.streamBytes[StreamCommit].Load(),
		BulkBytes:        l.stats.streamBytes[StreamBulk].Load(),
		MovedBytes:       l.stats.streamBytes[StreamMoved].Load(),
		DirectBytes:      l.stats.directBytes.Load(),
		Batches:          l.stats.batches.Load(),
		Requests:         l.stats.requests.Load(),
		Syncs:            l.stats.syncs.Load(),
		RootWrites:       l.stats.roots.Load(),
		FailedBatches:    l.stats.failed.Load(),
		QuarantinedBytes: l.stats.quarantinedB.Load(),
		DiscardedBytes:   l.stats.discardedB.Load(),
		BallastHeld:      l.reserve.isHeld(),
	}
	for _, seg := range l.segs {
		s.Bytes += seg.size
	}
	s.Syncing, s.SlowestSync = l.stats.syncTimes.look()
	return s
}

func (l *Log) sortedLocked() []*segment {
	all := make([]*segment, 0, len(l.segs))
	for _, s := range l.segs {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b *segment) int {
		if a.id < b.id {
			return -1
		}
		return 1
	})
	return all
}

func (l *Log) segmentPath(id SegmentID) string {
	return l.fs.PathJoin(l.o.Dir, logDirName, segmentName(id))
}

// check returns why nothing may be written now, or nil.
func (l *Log) check() error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	switch {
	case l.phase == phaseClosed:
		return ErrClosed
	case l.phase == phaseOpen:
		return ErrNotStarted
	}
	return l.readOnly
}

// setReadOnly ends all writing for good.
func (l *Log) setReadOnly(cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.readOnly == nil {
		l.readOnly = fmt.Errorf("%w: %w", ErrReadOnly, cause)
		l.log.Error("log is read-only", "cause", cause)
	}
}

// maxDamage bounds the list that Damage returns; the count goes on.
const maxDamage = 10_000

type damageKey struct {
	file   string
	offset uint32
	batch  Sequence
}

func (l *Log) addDamage(all ...Damage) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, d := range all {
		k := damageKey{d.File, d.Offset, d.Batch}
		if l.damageSeen[k] || len(l.damageSeen) >= maxDamage {
			if !l.damageSeen[k] {
				l.damageCount++
			}
			continue
		}
		l.damageSeen[k] = true
		l.damageCount++
		l.damage = append(l.damage, d)
		l.log.Error("damage", "what", d.String())
	}
}

// NextSegment returns a number above that of every segment there is.
func (l *Log) NextSegment() SegmentID {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.nextSegment
}

// LostThrough returns the last batch that was synced and of which nothing is
// left that tells what it changed, as far as was met by Open and by everything
// read since; 0 is none. Batches that are not whole and still name their records
// are not meant: those are in Damage only.
func (l *Log) LostThrough() Sequence {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.lostThrough
}

func (l *Log) noteLost(seq Sequence) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lostThrough = max(l.lostThrough, seq)
}

// Damage returns what was found, by Open and by everything read since, to be
// not whole though it was synced. The list is bounded; Stats has the count.
func (l *Log) Damage() []Damage {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return slices.Clone(l.damage)
}
