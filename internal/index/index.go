package index

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
)

// Index is an open index. Its methods may be called by any number of
// goroutines; batches commit one at a time.
type Index struct {
	o     Options
	db    *pebble.DB
	trust *trust
	gate  *gate
	lock  io.Closer

	// session and opened name the states of this index; see stateID.
	session uint64
	opened  stateID

	// commit is held while a batch is applied. It guards building, and orders what
	// is added to a filter before what is applied.
	commit   sync.Mutex
	building *filter
	// mem is what was applied and is in no table. It is locked within commit.
	mem     memory
	applied atomic.Pointer[meta]
	tables  sstable.WriterOptions // of a flush
	// ops and founds are memory of batches and of GetSorted, to be used again.
	ops, founds sync.Pool

	liveMu sync.Mutex
	live   map[uint64]int64

	// filter is nil while it does not cover the applied state.
	filter atomic.Pointer[filter]
	forget atomic.Pointer[func(ID) bool]
	// filterBuilding: a build runs in the background. filterGaveUp is how many
	// layers the filter had when the last one failed.
	filterBuilding atomic.Bool
	filterGaveUp   atomic.Int64
	// savedFilter is the highest serial that the saved filter covers, 0 if none.
	savedFilter atomic.Uint64
	// comparing: a CountComparison is open.
	comparing atomic.Bool
	warmed    atomic.Bool // see Warm

	flushes flushes
	durable durableMeta
	retry   *retryDelay

	users    users
	closing  chan struct{}
	builder  sync.WaitGroup
	closed   sync.Once
	closeErr error

	counters counters
}

// Open opens the index of a store. It creates and repairs nothing: if there is
// no index to go on with, the error is a *StaleError, and a Rebuilder makes a
// new one. An index that another process has open is ErrLocked.
//
// The index it returns may be behind the log; Watermark says where to go on.
func Open(o Options) (*Index, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o = o.withDefaults()
	removeLeftovers(o)
	if err := checkTrusted(o.FS, o.Dir); err != nil {
		return nil, err
	}
	lock, err := o.FS.Lock(o.FS.PathJoin(o.Dir, lockFile))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrLocked, err)
	}
	x := newIndex(o, lock)
	if err := x.open(); err != nil {
		err = errors.Join(err, x.abandon())
		if isEnvironment(err) {
			// An index that could not be opened today may be whole.
			return nil, fmt.Errorf("index: open: %w", withoutStale(err))
		}
		return nil, err
	}
	return x, nil
}

// withoutStale keeps what an error says and takes its verdict away.
func withoutStale(err error) error {
	var s *StaleError
	if errors.As(err, &s) && s.Err != nil {
		return s.Err
	}
	return err
}

func newIndex(o Options, lock io.Closer) *Index {
	x := &Index{o: o, lock: lock, closing: make(chan struct{}), live: map[uint64]int64{}}
	x.trust = newTrust(o.Logger, func(reason string) error {
		return markUntrusted(o.FS, o.Dir, reason)
	})
	x.flushes.init()
	x.mem.active = newMemtable()
	x.retry = &retryDelay{closing: x.closing}
	x.gate = &gate{FS: o.FS, trust: x.trust, retry: x.retry, makeRoom: o.MakeRoom}
	x.tables = x.tableOptions()
	x.users.init()
	return x
}

// removeLeftovers removes what a crash left of a rebuild or a recount. What can
// not be removed is in nobody's way but the next rebuild's, which says so.
func removeLeftovers(o Options) {
	names, err := o.FS.List(o.FS.PathDir(o.Dir))
	if err != nil {
		return
	}
	for _, dir := range []string{o.tmpDir(), o.oldDir(), o.countDir()} {
		if !slices.Contains(names, o.FS.PathBase(dir)) {
			continue
		}
		if err := o.FS.RemoveAll(dir); err != nil {
			o.Logger.Warn("index: leftover not removed", "directory", dir, "error", err)
		}
	}
}

// open does what Open does once the directory is locked.
func (x *Index) open() error {
	if err := x.emptyFlushDir(); err != nil {
		return stale("without a place to flush to", err)
	}
	if err := x.openPebble(); err != nil {
		return stale("unreadable", err)
	}
	m, err := x.readMeta()
	switch {
	case errors.Is(err, pebble.ErrNotFound):
		return stale("without a watermark", nil)
	case err != nil:
		return stale("unreadable", err)
	case m.store != x.o.StoreID:
		return stale("of another store", nil)
	case m.seq < x.o.Floor:
		return stale(fmt.Sprintf("at %d, below the log's floor %d", m.seq, x.o.Floor), nil)
	}
	if err := x.o.Check(m.seq, m.hash); err != nil {
		return stale(fmt.Sprintf("at %d, which is not of this log", m.seq), err)
	}
	x.applied.Store(&m)
	x.durable.meta, x.durable.trusted = m, m
	x.opened = m.state
	if x.session, err = randomSession(m.state.session); err != nil {
		return err
	}
	if err := x.loadLive(); err != nil {
		return stale("unreadable", err)
	}
	if err := x.openFilter(m); err != nil {
		return stale("unreadable", err)
	}
	if err := x.trust.err(); err != nil {
		return stale("damaged", err)
	}
	return nil
}

// emptyFlushDir removes what a crash left of a flush. The directory stays: a disk that
// is full or fails is met by what writes tables, and says so.
func (x *Index) emptyFlushDir() error {
	names, err := x.o.FS.List(x.o.flushDir())
	if err != nil {
		return x.o.FS.MkdirAll(x.o.flushDir(), 0o700)
	}
	for _, name := range names {
		path := x.o.FS.PathJoin(x.o.flushDir(), name)
		if err := x.o.FS.Remove(path); err != nil { // in nobody's way: what writes it anew says so
			x.o.Logger.Warn("index: leftover not removed", "path", path, "error", err)
		}
	}
	return nil
}

func (x *Index) openPebble() (err error) {
	defer x.trust.caught("open", &err)
	p := x.o.pebbleOptions(x.gate, x.listener())
	p.ErrorIfNotExists = true
	x.db, err = pebble.Open(x.o.FS.PathJoin(x.o.Dir, pebbleDir), p)
	return err
}

// listener returns what Pebble tells the index. Pebble calls it with its locks
// held.
func (x *Index) listener() *pebble.EventListener {
	return &pebble.EventListener{
		DataCorruption: func(i pebble.DataCorruptionInfo) {
			x.trust.lose(fmt.Errorf("data corruption in %s: %w", i.Path, i.Details))
		},
		BackgroundError: func(err error) {
			x.counters.backgroundErrors.Add(1)
			x.trust.log.Warn("index: background work failed", "error", err)
			_ = x.trust.judge(err)
			x.retry.failed()
		},
		CompactionEnd: func(i pebble.CompactionInfo) {
			if i.Err == nil {
				x.retry.succeeded()
			}
		},
	}
}

func (x *Index) readMeta() (m meta, err error) {
	defer x.trust.caught("read watermark", &err)
	v, closer, err := x.db.Get(metaKey())
	if err != nil {
		return meta{}, x.trust.judge(err)
	}
	m, err = decodeMeta(v)
	return m, errors.Join(err, closer.Close())
}

// randomSession draws a session that is neither 0 nor the last one.
func randomSession(last uint64) (uint64, error) {
	for {
		var b [8]byte
		if _, err := rand.Read(b[:]); err != nil {
			return 0, err
		}
		if s := binary.LittleEndian.Uint64(b[:]); s != 0 && s != last {
			return s, nil
		}
	}
}

// abandon releases an index that did not open.
func (x *Index) abandon() error {
	close(x.closing)
	x.builder.Wait()
	err := x.closePebble()
	x.gate.unlock()
	if x.trust.err() != nil {
		err = nil // said already
	}
	return errors.Join(err, x.lock.Close())
}

func (x *Index) closePebble() (err error) {
	if x.db == nil || x.trust.broken.Load() {
		return nil
	}
	defer x.trust.caught("close", &err)
	return x.db.Close()
}

// Close closes the index. It does not flush: what was applied since
// DurableWatermark must be replayed from the log. Call Flush before to save
// that. Iterations that go on meanwhile end with ErrClosed; Close waits for
// them, so it must not be called from within one.
func (x *Index) Close() error {
	x.closed.Do(func() {
		close(x.closing)
		x.users.drain()
		x.builder.Wait()
		if x.trust.err() == nil {
			if err := x.saveFilter(); err != nil {
				x.trust.log.Warn("index: filter not saved", "error", err)
			}
		}
		err := x.closePebble()
		x.gate.unlock()
		if x.trust.err() != nil {
			err = nil // a halted Pebble closes with errors that say nothing new
		}
		x.closeErr = errors.Join(err, x.lock.Close())
	})
	return x.closeErr
}

// enter is called before Pebble is, and leave after if it returned nil.
func (x *Index) enter() error {
	if !x.users.enter() {
		return ErrClosed
	}
	if err := x.trust.usable(); err != nil {
		x.users.leave()
		return err
	}
	return nil
}

func (x *Index) leave() { x.users.leave() }

// StoreID returns the store that the index belongs to.
func (x *Index) StoreID() [16]byte { return x.o.StoreID }

// Watermark returns the log batch up to which the index is applied.
func (x *Index) Watermark() (seq uint64, hash [32]byte) {
	m := x.applied.Load()
	return m.seq, m.hash
}

// Untrusted returns why the index may be wrong, or nil. Once it is not nil it
// stays so, and the next Open is stale.
func (x *Index) Untrusted() error { return x.trust.err() }

// MarkUntrusted makes the index untrusted, now and for the next Open. The first
// reason stays.
func (x *Index) MarkUntrusted(reason error) {
	if reason == nil {
		reason = errors.New("no reason given")
	}
	x.trust.lose(reason)
}

// Destroy removes the index and all that belongs to it.
func Destroy(o Options) error {
	if err := o.Validate(); err != nil {
		return err
	}
	for _, dir := range []string{o.Dir, o.tmpDir(), o.oldDir(), o.countDir()} {
		if err := o.FS.RemoveAll(dir); err != nil {
			return fmt.Errorf("index: destroy: %w", err)
		}
	}
	return syncDir(o.FS, o.FS.PathDir(o.Dir))
}

// users counts the calls in flight and lets Close wait for them. A call that
// comes within another one is never held up: it gets ErrClosed.
type users struct {
	n       atomic.Int64
	once    sync.Once
	drained chan struct{}
}

// closedBias makes the count negative for ever.
const closedBias = -1 << 62

func (u *users) init() { u.drained = make(chan struct{}) }

func (u *users) enter() bool {
	if u.n.Add(1) > 0 {
		return true
	}
	u.leave()
	return false
}

func (u *users) leave() {
	if u.n.Add(-1) == closedBias {
		u.once.Do(func() { close(u.drained) })
	}
}

func (u *users) drain() {
	if u.n.Add(closedBias) == closedBias {
		u.once.Do(func() { close(u.drained) })
	}
	<-u.drained
}
