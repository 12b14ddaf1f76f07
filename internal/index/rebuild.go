package index

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sync/errgroup"
)

// DefaultRebuildMemory is how much a rebuild or a recount sorts in memory.
const DefaultRebuildMemory = 64 << 20

// RebuildOptions bounds a rebuild or a recount.
type RebuildOptions struct {
	// Memory is about how much is held for sorting; 0 is the default. What does
	// not fit goes to files.
	Memory int64
	// TmpDir is for these files; "" is beside the index. It is created and
	// removed.
	TmpDir string
}

func (r RebuildOptions) withDefaults(tmp string) RebuildOptions {
	if r.Memory <= 0 {
		r.Memory = DefaultRebuildMemory
	}
	if r.TmpDir == "" {
		r.TmpDir = tmp
	}
	return r
}

var (
	// ErrUnderflow: some ID was given up more often than it was introduced.
	ErrUnderflow = errors.New("index: a count is below zero")

	errPhase = errors.New("index: rebuild steps are out of order")
)

// RebuildStats says what a rebuild found.
type RebuildStats struct {
	// Locations is the number of distinct IDs in the log, Entries of those that
	// something introduces.
	Locations, Entries uint64
	// Lost is how many of the entries are: the log misses them, or has them in
	// damaged frames only.
	Lost uint64
	// LiveBytes is the sum over all segments.
	LiveBytes int64
}

// Rebuilder makes a new index from the log in bounded memory: first the
// locations of all IDs, then, while the trees are walked with Lookup, counts,
// records and state. Finish puts the new index in the place of the old one in
// one step. The same input in any order gives the same index.
//
// Lookup may be called by any number of goroutines; so may AddLocation, AddCount,
// PutRecord and PutState. Two calls of PutRecord or PutState with one key are a mistake
// of the caller; one of them wins.
type Rebuilder struct {
	o Options
	r RebuildOptions

	// parts are of the IDs, by their start, each for itself until the tables are
	// put together: so all cores have something to do.
	parts [rebuildParts]rebuildPart
	phase atomic.Int32

	mu     sync.Mutex
	err    error
	values *sorter          // records and state, as index keys
	live   map[uint64]int64 // of what is no entry
	stats  RebuildStats
}

// rebuildParts is a power of two. With more, each has its own tables and a sync of
// each, for cores that few machines have.
const rebuildParts = 8

type rebuildPart struct {
	mu    sync.Mutex
	pairs *sorter // locations, then counts that the locations do not keep
	at    locations
}

// partFanIn is how many runs a part merges at once, so that all that merge at once
// together have as many as one sorter.
func partFanIn() int { return maxFanIn / min(rebuildParts, runtime.GOMAXPROCS(0)) }

func (b *Rebuilder) part(id *ID) *rebuildPart { return &b.parts[int(id[0])*rebuildParts/256] }

const (
	phaseLocations = iota
	phaseCounts
	phaseDone
	phaseFailed
)

// NewRebuilder starts a rebuild. The index itself must not be open; it stays as
// it is until Finish.
func NewRebuilder(o Options, r RebuildOptions) (*Rebuilder, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o = o.withDefaults()
	r = r.withDefaults(o.FS.PathJoin(o.tmpDir(), "spill"))
	for _, dir := range []string{o.tmpDir(), o.oldDir(), r.TmpDir} {
		if err := o.FS.RemoveAll(dir); err != nil {
			return nil, fmt.Errorf("index: rebuild: %w", err)
		}
	}
	for _, dir := range []string{o.tmpDir(), r.TmpDir} {
		if err := o.FS.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("index: rebuild: %w", err)
		}
	}
	b := &Rebuilder{o: o, r: r}
	for i := range b.parts {
		b.parts[i].pairs = newSorter(o.FS, r.TmpDir, fmt.Sprintf("location-%d", i), r.Memory/rebuildParts)
		b.parts[i].pairs.fanIn = partFanIn()
	}
	b.values = newSorter(o.FS, r.TmpDir, "value", r.Memory/8)
	return b, nil
}

// fail keeps the first error: a rebuild that missed something must not finish.
func (b *Rebuilder) fail(err error) error {
	if err == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failLocked(err)
}

func (b *Rebuilder) failLocked(err error) error {
	if err != nil && b.err == nil {
		b.err = fmt.Errorf("index: rebuild: %w", err)
		b.phase.CompareAndSwap(phaseLocations, phaseFailed)
		b.phase.CompareAndSwap(phaseCounts, phaseFailed)
	}
	return b.err
}

// in fails unless the rebuild is in a phase.
func (b *Rebuilder) in(phase int32) error {
	if b.phase.Load() != phase {
		return b.fail(errPhase)
	}
	return nil
}

// AddLocation says where an ID is. Of several locations of one ID the lowest by
// segment, offset and slot is taken.
func (b *Rebuilder) AddLocation(id ID, loc Location, node bool) error {
	return b.addLocation(located{id: id, loc: loc, node: node})
}

// AddSalvaged is AddLocation of a page that lies in a damaged frame: it is taken where
// there is no other location, and lost there.
func (b *Rebuilder) AddSalvaged(id ID, loc Location) error {
	return b.addLocation(located{id: id, loc: loc, salvaged: true})
}

func (b *Rebuilder) addLocation(l located) error {
	if err := b.in(phaseLocations); err != nil {
		return err
	}
	if err := l.loc.check(); err != nil {
		return b.fail(err)
	}
	var key [locationSize]byte
	var value [6]byte
	p := b.part(&l.id)
	p.mu.Lock()
	err := p.pairs.add(appendLocationKey(key[:0], l), appendLocationValue(value[:0], l))
	p.mu.Unlock()
	return b.fail(err)
}

// FinishLocations ends the adding of locations and makes Lookup possible. No other
// call goes on meanwhile.
func (b *Rebuilder) FinishLocations() error {
	if err := b.in(phaseLocations); err != nil {
		return err
	}
	err := b.eachPart(func(i int, p *rebuildPart) error {
		o := b.r
		o.Memory /= rebuildParts
		if len(p.pairs.runs) == 0 {
			o.Memory /= 3 // the locations have the rest
			p.at = newLocationTable(p.pairs)
		} else {
			at, err := b.locationFile(i, p)
			if err != nil {
				return err
			}
			p.at = at
		}
		p.pairs = newCountSorter(b.o.FS, o, i)
		p.pairs.fanIn = partFanIn()
		return nil
	})
	if err != nil {
		return b.fail(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.parts {
		b.stats.Locations += b.parts[i].at.len()
	}
	b.phase.Store(phaseCounts)
	return nil
}

func (b *Rebuilder) locationFile(i int, p *rebuildPart) (*locationFile, error) {
	m, err := p.pairs.merge()
	if err != nil {
		return nil, err
	}
	path := b.o.FS.PathJoin(b.r.TmpDir, fmt.Sprintf("locations-%d", i))
	l, err := writeLocations(b.o.FS, path, m)
	if err = errors.Join(err, m.close(), p.pairs.discard()); err != nil && l != nil {
		return nil, errors.Join(err, l.close())
	}
	return l, err
}

// eachPart calls f for all parts, on all cores.
func (b *Rebuilder) eachPart(f func(i int, p *rebuildPart) error) error {
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i := range b.parts {
		g.Go(func() error { return f(i, &b.parts[i]) })
	}
	return g.Wait()
}

// newCountSorter returns a sorter that sums the counts of one ID.
func newCountSorter(fs vfs.FS, r RebuildOptions, part int) *sorter {
	s := newSorter(fs, r.TmpDir, fmt.Sprintf("count-%d", part), r.Memory)
	s.combine = func(a, b []byte) []byte {
		return appendCount(nil, decodeCount(a)+decodeCount(b))
	}
	return s
}

func appendCount(dst []byte, n int64) []byte { return binary.BigEndian.AppendUint64(dst, uint64(n)) }
func decodeCount(b []byte) int64             { return int64(binary.BigEndian.Uint64(b)) }

// Lookup returns the location that was taken for an ID.
func (b *Rebuilder) Lookup(id ID) (Location, bool, error) {
	if b.phase.Load() != phaseCounts {
		return Location{}, false, errPhase
	}
	found, ok, err := b.part(&id).at.lookup(id)
	return found.loc, ok, err
}

// AddCount adds n to the count of an ID. The sum of all must not be below zero.
func (b *Rebuilder) AddCount(id ID, n int64) error {
	if err := b.in(phaseCounts); err != nil {
		return err
	}
	p := b.part(&id)
	if p.at.count(id, n) {
		return nil
	}
	var value [8]byte
	p.mu.Lock()
	err := p.pairs.add(id[:], appendCount(value[:0], n))
	p.mu.Unlock()
	return b.fail(err)
}

// PutRecord stores the newest record of a canister.
func (b *Rebuilder) PutRecord(key []byte, r Record) error {
	return b.put(key, appendRecordKey(nil, key), appendRecord(nil, r))
}

// PutState stores a value of the counting layer.
func (b *Rebuilder) PutState(key, value []byte) error {
	return b.put(key, appendStateKey(nil, key), value)
}

func (b *Rebuilder) put(given, key, value []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.phase.Load() >= phaseDone {
		return b.failLocked(errPhase)
	}
	if err := checkKey(given); err != nil {
		return b.failLocked(err)
	}
	return b.failLocked(b.values.add(key, value))
}

// AddLive adds to the live bytes of a segment, beside those of the entries:
// what else keeps it alive, such as the frames of records.
func (b *Rebuilder) AddLive(segment uint64, bytes int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.phase.Load() >= phaseDone {
		return b.failLocked(errPhase)
	}
	if b.live == nil {
		b.live = map[uint64]int64{}
	}
	b.live[segment] += bytes
	return nil
}

// Stats returns what was found; it is whole after Finish.
func (b *Rebuilder) Stats() RebuildStats {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.stats
}

// Abort gives the rebuild up and removes its files. After Finish it does
// nothing, so it can be deferred.
func (b *Rebuilder) Abort() {
	if b.phase.Swap(phaseDone) == phaseDone {
		return
	}
	b.closeFiles()
	_ = b.o.FS.RemoveAll(b.r.TmpDir)
	_ = b.o.FS.RemoveAll(b.o.tmpDir())
}

func (b *Rebuilder) closeFiles() {
	for i := range b.parts {
		p := &b.parts[i]
		if p.at != nil {
			_ = p.at.close()
		}
		p.at, p.pairs = nil, nil
	}
	b.values = nil
}

// Finish writes the index, with the watermark given, puts it in the place of the
// old one and opens it. IDs whose count is zero are left out. A crash leaves
// the old index, none, or the new one. An error leaves the old one, or none. No other
// call goes on meanwhile.
func (b *Rebuilder) Finish(seq uint64, hash [32]byte) (*Index, error) {
	if err := b.in(phaseCounts); err != nil {
		return nil, err
	}
	if err := b.build(meta{store: b.o.StoreID, seq: seq, hash: hash}); err != nil {
		return nil, b.fail(err)
	}
	b.closeFiles()
	if err := b.o.FS.RemoveAll(b.r.TmpDir); err != nil {
		return nil, b.fail(err)
	}
	if err := b.replace(); err != nil {
		return nil, b.fail(err)
	}
	b.phase.Store(phaseDone)
	return Open(b.o)
}

// build makes a whole index directory in tmpDir: Pebble, filter, mark of trust.
func (b *Rebuilder) build(m meta) error {
	dir := b.o.tmpDir()
	trust := newTrust(b.o.Logger, func(string) error { return nil })
	closing := make(chan struct{})
	g := &gate{FS: b.o.FS, trust: trust, retry: &retryDelay{closing: closing}, makeRoom: b.o.MakeRoom}
	defer g.unlock()
	events := &pebble.EventListener{
		DataCorruption:  func(i pebble.DataCorruptionInfo) { trust.lose(i.Details) },
		BackgroundError: func(err error) { trust.lose(err) },
	}
	p := b.o.pebbleOptions(g, events)
	p.ErrorIfExists = true
	p.DisableAutomaticCompactions = true
	p.EnsureDefaults()

	writer := func(name string) *tableWriter {
		return &tableWriter{fs: b.o.FS, dir: b.r.TmpDir, name: name, options: p.MakeWriterOptions(6, pebble.FormatNewest.MaxTableFormat())}
	}
	f := newFilter(m.state.serial, 0, roomFor(b.stats.Locations))
	tables, err := b.writeTables(writer, f, m)
	if err != nil {
		return err
	}
	if err := ingest(trust, b.o.FS.PathJoin(dir, pebbleDir), p, tables); err != nil {
		return err
	}
	h := filterHeader{store: m.store, opened: m.state, session: m.state.session, covers: m.state.serial}
	if err := saveFilter(b.o.FS, dir, h, f); err != nil {
		return err
	}
	if err := writeFile(b.o.FS, b.o.FS.PathJoin(dir, trustedFile), nil); err != nil {
		return err
	}
	return errors.Join(trust.err(), syncDir(b.o.FS, dir))
}

// ingest makes a database of the tables, synced.
func ingest(t *trust, dir string, p *pebble.Options, tables []string) (err error) {
	defer t.caught("ingest", &err)
	db, err := pebble.Open(dir, p)
	if err != nil {
		return err
	}
	return errors.Join(db.Ingest(context.Background(), tables), db.Close(), t.err())
}

// smallRebuild is up to how many locations one goroutine writes all tables: each more
// is a file and a sync.
const smallRebuild = 64 << 10

// writeTables writes all keys in order and returns the tables.
func (b *Rebuilder) writeTables(writer func(name string) *tableWriter, f *filter, m meta) (paths []string, err error) {
	last := writer("table")
	var sums [rebuildParts]*entrySums
	if b.stats.Locations <= smallRebuild {
		for i := range b.parts {
			if sums[i], err = b.parts[i].writeEntries(last, f); err != nil {
				return nil, errors.Join(err, last.finish())
			}
		}
	} else {
		var writers [rebuildParts]*tableWriter
		err := b.eachPart(func(i int, p *rebuildPart) (err error) {
			writers[i] = writer(fmt.Sprintf("table-%d", i))
			sums[i], err = p.writeEntries(writers[i], f)
			return errors.Join(err, writers[i].finish())
		})
		if err != nil {
			return nil, err
		}
		for _, w := range writers {
			paths = append(paths, w.paths...)
		}
	}
	live := map[uint64]int64{}
	maps.Copy(live, b.live)
	for _, s := range sums {
		b.stats.Entries += s.entries
		b.stats.Lost += s.lost
		for segment, n := range s.live {
			live[segment] += n
		}
	}
	maps.DeleteFunc(live, func(_ uint64, n int64) bool { return n == 0 })
	if err := errors.Join(b.writeRest(last, live, m), last.finish()); err != nil {
		return nil, err
	}
	return append(paths, last.paths...), nil
}

// writeRest writes the keys behind those of entries.
func (b *Rebuilder) writeRest(w *tableWriter, live map[uint64]int64, m meta) error {
	if err := w.set(metaKey(), appendMeta(nil, m)); err != nil {
		return err
	}
	if err := b.writeValues(w); err != nil {
		return err
	}
	for _, segment := range sortedKeys(live) {
		b.stats.LiveBytes += live[segment]
		if err := w.set(appendLiveKey(nil, segment), appendLive(nil, live[segment])); err != nil {
			return err
		}
	}
	return nil
}

// entrySums are of the entries of a part.
type entrySums struct {
	entries, lost uint64
	live          map[uint64]int64 // of each segment
}

// writeEntries joins counts with locations.
func (p *rebuildPart) writeEntries(w *tableWriter, f *filter) (*entrySums, error) {
	sums := &entrySums{live: map[uint64]int64{}}
	var key, value []byte
	err := p.counted(func(id ID, n int64, at located, found bool) error {
		if n < 0 {
			return fmt.Errorf("%w: %d for %v", ErrUnderflow, n, id)
		}
		if n == 0 {
			return nil
		}
		e := Entry{Count: uint64(n)}
		if found {
			e.Location, e.Node, e.Lost = at.loc, at.node, at.salvaged
			if share := int64(e.Share()); share > 0 {
				sums.live[e.Segment] += share
			}
		} else {
			e.Lost = true
		}
		if e.Lost {
			sums.lost++
		}
		sums.entries++
		f.addOld(&id)
		key, value = appendEntryKey(key[:0], id), appendEntry(value[:0], e)
		return w.set(key, value)
	})
	return sums, err
}

// counted calls f in order for each ID that has a location or was counted, with the
// sum of its counts.
func (p *rebuildPart) counted(f func(id ID, n int64, at located, found bool) error) (err error) {
	m, err := p.pairs.merge()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	counts := countCursor{m: m}
	next := p.at.walk()
	at, kept, haveAt, err := next()
	if err := errors.Join(err, counts.next()); err != nil {
		return err
	}
	for haveAt || counts.more {
		order := -1
		switch {
		case !haveAt:
			order = 1
		case counts.more:
			order = bytes.Compare(at.id[:], counts.id[:])
		}
		switch {
		case order < 0:
			err = f(at.id, kept, at, true)
		case order > 0:
			err = f(counts.id, counts.n, located{}, false)
		default:
			err = f(at.id, kept+counts.n, at, true)
		}
		if err != nil {
			return err
		}
		if order >= 0 {
			if err := counts.next(); err != nil {
				return err
			}
		}
		if order <= 0 {
			if at, kept, haveAt, err = next(); err != nil {
				return err
			}
		}
	}
	return nil
}

// writeValues writes records and state, the last of each key.
func (b *Rebuilder) writeValues(w *tableWriter) (err error) {
	values, err := b.values.merge()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, values.close()) }()
	var key, value []byte
	for {
		k, v, err := values.next()
		if err != nil && err != io.EOF {
			return err
		}
		if len(key) > 0 && (err == io.EOF || !bytes.Equal(k, key)) {
			if err := w.set(key, value); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		key, value = append(key[:0], k...), append(value[:0], v...)
	}
}

// replace puts tmpDir in the place of the index. Each rename is durable before
// the next, so a crash never leaves a mixture.
func (b *Rebuilder) replace() error {
	fs, parent := b.o.FS, b.o.FS.PathDir(b.o.Dir)
	if _, err := fs.Stat(b.o.Dir); err == nil {
		if err := fs.Rename(b.o.Dir, b.o.oldDir()); err != nil {
			return err
		}
		if err := syncDir(fs, parent); err != nil {
			return err
		}
	}
	if err := fs.Rename(b.o.tmpDir(), b.o.Dir); err != nil {
		return err
	}
	return syncDir(fs, parent)
}

// tableWriter writes keys that ascend into tables of Pebble's target size.
type tableWriter struct {
	fs      vfs.FS
	dir     string
	name    string // of its files, before their number
	options sstable.WriterOptions
	paths   []string
	w       *sstable.Writer
}

const rebuiltTable = 32 << 20

func (t *tableWriter) set(key, value []byte) error { return t.setOrDelete(key, value, false) }

// setOrDelete writes a key with its value, or that it is deleted.
func (t *tableWriter) setOrDelete(key, value []byte, gone bool) error {
	if t.w != nil && t.w.Raw().EstimatedSize() >= rebuiltTable {
		if err := t.finish(); err != nil {
			return err
		}
	}
	if t.w == nil {
		path := t.fs.PathJoin(t.dir, fmt.Sprintf("%s-%06d.sst", t.name, len(t.paths)))
		f, err := t.fs.Create(path, vfs.WriteCategoryUnspecified)
		if err != nil {
			return err
		}
		t.paths = append(t.paths, path)
		t.w = sstable.NewWriter(objstorageprovider.NewFileWritable(f), t.options)
	}
	if gone {
		return t.w.Delete(key)
	}
	return t.w.Set(key, value)
}

// finish syncs and closes the table that is open.
func (t *tableWriter) finish() error {
	if t.w == nil {
		return nil
	}
	w := t.w
	t.w = nil
	return w.Close()
}
