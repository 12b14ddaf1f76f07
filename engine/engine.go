// Package engine is the public interface of snapstore: a content-addressed
// snapshot store for canisters, embedded in a replica.
//
// The nouns. An Engine is an open store. A Canister is live state: sections of
// Memory over a durable head, and metadata. A Take makes a Snapshot of it,
// which is immutable; a Load makes a snapshot the live state; an Upload is a
// snapshot filled from outside. GC gives back what nothing names.
//
// What is durable when: Take, Load, Delete, Checkpoint, CreateCanister,
// DeleteCanister, Upload and Flush are durable, in one atomic step each, when
// they return, and visible to other calls from that moment. Writes to a Memory
// are durable at the canister's next Take or Checkpoint. After a crash an
// operation that had not returned is wholly there or wholly absent.
//
// Concurrency: every method may be called from any goroutine. Operations of
// one canister go one after another, those of different canisters in parallel.
// Readers block nobody.
//
// The package never ends the process, never writes to standard error, and
// panics on no input and no disk error. It knows nothing of Candid, cycles,
// controllers or HTTP.
package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/snapstore/snapstore/chunk"
	"github.com/snapstore/snapstore/gc"
	"github.com/snapstore/snapstore/internal/index"
	"github.com/snapstore/snapstore/internal/osfs"
	"github.com/snapstore/snapstore/internal/seglog"
	"github.com/snapstore/snapstore/internal/trackmem"
)

// Engine is an open store.
type Engine struct {
	dir string
	o   Options

	lock    io.Closer
	log     *seglog.Log
	idx     *index.Index
	store   *chunk.Store // in the domain of the whole store; see in
	dedup   chunk.DedupDomain
	counter *gc.Counter
	applier *gc.Applier
	gc      *gc.Collector
	tickets gc.Tickets
	pace    *gc.Pace

	mu       sync.RWMutex // guards table and the entries' fields
	table    map[CanisterID]*entry
	accounts accounts   // guarded by mu
	live     sync.Mutex // guards the making of Canisters

	ahead    seglog.Sequence         // of an index that the log does not reach; 0 is none
	copies   map[string]index.Record // from an index that was given up
	recovery recovery
	coder    chunk.Coder // of groups that are damaged, before there is a store
	tracker  *trackmem.Tracker
	bufs     chan *trackmem.PageBuf // for copies of live pages
	blocks   sync.Pool              // *keptPages
	// patchKept is maxPatchKept, or fewer in tests.
	patchKept int
	early     earlyBatches
	lost      lostPages
	scrub     *scrubbing // nil when nothing is scrubbed
	// comparing holds the one comparison of counts that may go on.
	comparing chan struct{}
	// writing holds the one operation that may write where content is compared.
	writing  chan struct{}
	counters *counters
	closing  atomic.Bool
	closed   sync.Once
	closeErr error
}

// earlyBatches keeps batches that the log writes of itself before the applier
// runs.
type earlyBatches struct {
	mu      sync.Mutex
	running bool
	queue   []*gc.Batch
}

// Create makes an empty store in dir, which is made where it is missing.
func Create(dir string, o *Options) error {
	return opError("create "+dir, CanisterID{}, SnapshotID{}, create(dir, o))
}

func create(dir string, opts *Options) error {
	if err := opts.Validate(); err != nil {
		return err
	}
	o := opts.withDefaults()
	if err := o.checkPrivate(dir); err != nil {
		return err
	}
	if ok, err := seglog.Exists(o.FS, dir); err != nil {
		return err
	} else if ok {
		return fmt.Errorf("%s holds a store: %w", dir, ErrExists)
	}
	if err := o.FS.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	var features seglog.Features
	if o.DedupDomain == DedupCanister {
		features |= seglog.FeatureCanisterDomains
	}
	err := seglog.Create(seglog.CreateOptions{FS: o.FS, Dir: dir, SegmentSize: o.SegmentSize, Features: features})
	if errors.Is(err, seglog.ErrExists) {
		err = fmt.Errorf("%w: %w", ErrExists, err)
	}
	return translate(err)
}

// Open opens a store: it recovers what was synced, replays what the index
// lacks, or builds the index anew when it is missing, damaged or too old. Only
// one Engine at a time can have a store open.
func Open(dir string, o *Options) (*Engine, error) {
	e, err := open(dir, o)
	if err != nil {
		return nil, opError("open "+dir, CanisterID{}, SnapshotID{}, err)
	}
	return e, nil
}

func open(dir string, opts *Options) (_ *Engine, err error) {
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	e := &Engine{dir: dir, o: opts.withDefaults(), table: map[CanisterID]*entry{}, counters: newCounters(), comparing: make(chan struct{}, 1), writing: make(chan struct{}, 1)}
	if ok, err := seglog.Exists(e.o.FS, dir); errors.Is(err, syscall.ENOTDIR) {
		return nil, fmt.Errorf("%s is not a directory: %w", dir, ErrNoStore)
	} else if err != nil {
		return nil, err
	} else if !ok {
		return nil, fmt.Errorf("%s: %w", dir, ErrNoStore)
	}
	if err := e.o.checkPrivate(dir); err != nil {
		return nil, err
	}
	if s, ok := e.o.FS.(osfs.FS); ok {
		e.o.FS = s.Within(dir)
	}
	if e.lock, err = e.o.FS.Lock(path.Join(dir, "LOCK")); err != nil {
		if errors.Is(err, os.ErrPermission) || errors.Is(err, syscall.EROFS) || errors.Is(err, syscall.ENOSPC) {
			return nil, fmt.Errorf("the lock can not be taken: %w", err)
		}
		return nil, fmt.Errorf("%w: %w", ErrLocked, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.release())
		}
	}()
	if err := e.startTracking(); err != nil {
		return nil, err
	}
	if err := e.openLog(0); err != nil {
		return nil, translate(err)
	}
	if e.log.Features()&seglog.FeatureCanisterDomains != 0 {
		e.dedup = DedupCanister
	}
	if e.o.DedupDomain > e.dedup {
		return nil, fmt.Errorf("the store shares content among all canisters, since it was made so, and dedup domain %s is asked for: make another store with it: %w", e.o.DedupDomain, ErrInvalid)
	}
	if err := e.recover(context.Background()); err != nil {
		return nil, translate(err)
	}
	return e, nil
}

// openLog opens the log and changes nothing on disk. proved is a batch that is
// known to have been synced.
func (e *Engine) openLog(proved seglog.Sequence) (err error) {
	e.log, err = seglog.Open(seglog.Options{
		FS: e.o.FS, Dir: e.dir, Logger: e.o.Logger, Ballast: max(e.o.Ballast, 0), IdleDelay: e.o.IdleSync,
		MinSequence: seglog.Sequence(e.o.MinSequence), ProvedSequence: proved, OnCommit: e.onCommit,
		OpenDirect: e.openDirect(), DirectLeast: e.o.DirectLeast,
	})
	e.pace = gc.NewPace(e.log, &e.tickets)
	return err
}

// DirectFile is a file that is written past the page cache: see Options.FS.
type DirectFile = seglog.DirectFile

// openDirect opens files for writes past the page cache, nil where there are none.
func (e *Engine) openDirect() func(string) (DirectFile, error) {
	if e.o.NoDirectIO {
		return nil
	}
	switch fs := e.o.FS.(type) {
	case osfs.FS:
		return func(path string) (DirectFile, error) { return fs.OpenDirect(path) }
	case interface {
		OpenDirect(path string) (DirectFile, error)
	}:
		return fs.OpenDirect
	}
	return nil
}

// Close waits for what is under way, and releases the store. Calls after it
// fail with ErrClosed. What was committed is durable already; Close makes the
// next Open quicker.
func (e *Engine) Close() error {
	e.closed.Do(func() {
		e.closing.Store(true)
		// Operations under way hold their canister; new ones see closing.
		e.mu.RLock()
		entries := make([]*entry, 0, len(e.table))
		for _, ent := range e.table {
			entries = append(entries, ent)
		}
		e.mu.RUnlock()
		for _, ent := range entries {
			_ = ent.lock(context.Background())
			if c := e.opened(ent); c != nil {
				c.gate.RLock()
				c.closeLent()
				c.gate.RUnlock()
			}
			ent.unlock()
		}
		e.closeErr = opError("close", CanisterID{}, SnapshotID{}, translate(e.release()))
	})
	return e.closeErr
}

// flushAfter is how many bytes of log may be left for the next Open to replay
// before Close writes the index out: a quarter of a second's worth.
const flushAfter = 32 << 20

// flushSegments is how many segments may be left to replay: each costs a file
// to be opened.
const flushSegments = 64

func (e *Engine) release() error {
	var errs []error
	e.scrub.end()
	e.lost.stop()
	if e.tracker != nil {
		errs = append(errs, e.tracker.Close())
	}
	if e.gc != nil {
		e.gc.Close()
	}
	if e.applier != nil {
		e.applier.Drain()
	}
	if e.idx != nil && e.idx.Untrusted() == nil && (e.replayLeft() || e.counter != nil && e.counter.Marked()) {
		err := e.idx.Flush()
		if err == nil && e.gc != nil {
			// Many short sessions leave many small segments.
			err = e.gc.Tidy()
		}
		errs = append(errs, err)
	}
	if e.applier != nil {
		e.applier.Close() // after Tidy, which may have had something to move
	}
	if e.log != nil {
		errs = append(errs, e.log.Close())
	}
	if e.idx != nil {
		errs = append(errs, e.idx.Close())
	}
	if e.lock != nil {
		errs = append(errs, e.lock.Close())
	}
	return errors.Join(errs...)
}

// replayLeft tells whether the next Open would have much to replay.
func (e *Engine) replayLeft() bool {
	if e.idx.Settled() {
		return false
	}
	durable := e.idx.DurableWatermark()
	var bytes int64
	var segments int
	for _, s := range e.log.Segments() {
		if uint64(s.LastSeq) > durable {
			bytes += s.Size
			segments++
		}
	}
	// Which batch bulk data belongs to is not known here, but that of this
	// session may have to be read again.
	w := e.log.Stats()
	return bytes+int64(w.BulkBytes+w.MovedBytes) > flushAfter || segments > flushSegments
}

// Sequence is that of the newest durable batch: hand it to Options.MinSequence
// to refuse an older copy of the store.
func (e *Engine) Sequence() uint64 {
	seq, _ := e.log.Last()
	return uint64(seq)
}

// Behind returns how many batches of the log are not applied to the index yet, and how
// many versions wait to be dropped, those that readers hold included. Unlike Stats it
// may be asked all the time; a batch that was just applied may not show its drops yet.
func (e *Engine) Behind() (batches int, drops int64) {
	return e.applier.Waiting(), e.counter.Waiting()
}

// FlushIndex makes the index durable as it is now, so that the next Open has
// nothing to replay. Nobody needs it: what is durable does not depend on it.
func (e *Engine) FlushIndex() error {
	if e.closing.Load() {
		return ErrClosed
	}
	return translate(e.idx.Flush())
}

// Dir is where the store is.
func (e *Engine) Dir() string { return e.dir }

// Log gives the log, for inspection.
func (e *Engine) Log() *seglog.Log { return e.log }

// DedupDomain says among whom equal content is stored once.
func (e *Engine) DedupDomain() DedupDomain { return e.dedup }

// in gives the store as a canister sees it.
func (e *Engine) in(id CanisterID) *chunk.Store { return e.store.In(e.dedup.Of(id.Bytes())) }

// Entry looks a chunk or node up in the index, for inspection. Where each
// canister has its own, that of the first canister that has one is found.
func (e *Engine) Entry(id Root) (index.Entry, bool, error) {
	s, err := e.holder(id)
	if err != nil {
		return index.Entry{}, false, err
	}
	return e.idx.GetUnfiltered(s.Domain().Key(id))
}

// EntryOf is Entry of what a canister finds, whoever else has the same content.
func (e *Engine) EntryOf(id CanisterID, content Root) (index.Entry, bool, error) {
	return e.idx.GetUnfiltered(e.in(id).Domain().Key(content))
}

// Node reads an encoded node or manifest, verified, for inspection.
func (e *Engine) Node(ctx context.Context, id Root) ([]byte, error) {
	s, err := e.holder(id)
	if err != nil {
		return nil, err
	}
	return s.Node(ctx, id)
}

// Page reads a page into dst, verified, for inspection.
func (e *Engine) Page(id Root, dst []byte) error {
	s, err := e.holder(id)
	if err != nil {
		return err
	}
	return s.Page(id, dst)
}

// holder gives the store as the first canister sees it that has an ID.
func (e *Engine) holder(id Root) (*chunk.Store, error) {
	if e.dedup == DedupStore {
		return e.store, nil
	}
	e.mu.RLock()
	canisters := slices.SortedFunc(maps.Keys(e.table), CanisterID.Compare)
	e.mu.RUnlock()
	for _, c := range canisters {
		s := e.in(c)
		if _, ok, err := e.idx.GetUnfiltered(s.Domain().Key(id)); ok || err != nil {
			return s, err
		}
	}
	return e.store, nil
}

// DumpIndex writes every key of the index as text, in order: two rebuilds of
// one log write the same.
func (e *Engine) DumpIndex(w io.Writer) error {
	if err := e.applier.Wait(context.Background(), seglog.Sequence(e.Sequence())); err != nil {
		return err
	}
	return e.idx.Dump(w)
}

// lostPages hands damage met by readers to the counter, off their path.
type lostPages struct {
	mu      sync.Mutex
	pending map[chunk.Key]gc.Lost // the last of each
	busy    bool
	stopped bool
	wg      sync.WaitGroup
}

// lostAtOnce bounds what waits to be marked; more is found again when read.
const lostAtOnce = 1 << 16

func (l *lostPages) add(one gc.Lost, mark func([]gc.Lost)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped || len(l.pending) >= lostAtOnce {
		return
	}
	if l.pending == nil {
		l.pending = map[chunk.Key]gc.Lost{}
	}
	l.pending[one.Key] = one
	if l.busy {
		return
	}
	l.busy = true
	l.wg.Add(1)
	go func() {
		defer l.wg.Done()
		for {
			l.mu.Lock()
			lost := slices.Collect(maps.Values(l.pending))
			clear(l.pending)
			if len(lost) == 0 {
				l.busy = false
				l.mu.Unlock()
				return
			}
			l.mu.Unlock()
			mark(lost)
		}
	}()
}

func (l *lostPages) stop() {
	l.mu.Lock()
	l.stopped = true
	l.mu.Unlock()
	l.wg.Wait()
}
