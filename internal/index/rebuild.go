package index

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
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
	// Lost is how many of the entries have no location: the log misses them.
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

	mu        sync.Mutex
	err       error
	pairs     *sorter // locations, then counts
	values    *sorter // records and state, as index keys
	locations *locationFile
	live      map[uint64]int64 // of what is no entry
	stats     RebuildStats
	done      bool
}

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
	b.pairs = newSorter(o.FS, r.TmpDir, "location", r.Memory)
	b.values = newSorter(o.FS, r.TmpDir, "value", r.Memory/8)
	return b, nil
}

// fail keeps the first error: a rebuild that missed something must not finish.
func (b *Rebuilder) fail(err error) error {
	if err != nil && b.err == nil {
		b.err = fmt.Errorf("index: rebuild: %w", err)
	}
	return b.err
}

// AddLocation says where an ID is. Of several locations of one ID the lowest by
// segment, offset and slot is taken.
func (b *Rebuilder) AddLocation(id ID, loc Location, node bool) error {
	return b.addLocation(located{id: id, loc: loc, node: node})
}

// AddSalvaged is AddLocation of a page that lies in a damaged frame: it is taken where
// there is no other location.
func (b *Rebuilder) AddSalvaged(id ID, loc Location) error {
	return b.addLocation(located{id: id, loc: loc, salvaged: true})
}

func (b *Rebuilder) addLocation(l located) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil || b.done || b.locations != nil {
		return b.fail(errPhase)
	}
	if err := l.loc.check(); err != nil {
		return b.fail(err)
	}
	var key [locationSize]byte
	var value [6]byte
	return b.fail(b.pairs.add(appendLocationKey(key[:0], l), appendLocationValue(value[:0], l)))
}

// FinishLocations ends the adding of locations and makes Lookup possible.
func (b *Rebuilder) FinishLocations() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil || b.done || b.locations != nil {
		return b.fail(errPhase)
	}
	m, err := b.pairs.merge()
	if err != nil {
		return b.fail(err)
	}
	path := b.o.FS.PathJoin(b.r.TmpDir, "locations")
	l, err := writeLocations(b.o.FS, path, m)
	if err := errors.Join(err, m.close(), b.pairs.discard()); err != nil {
		return b.fail(err)
	}
	b.locations = l
	b.stats.Locations = l.count
	b.pairs = newCountSorter(b.o.FS, b.r)
	return nil
}

// newCountSorter returns a sorter that sums the counts of one ID.
func newCountSorter(fs vfs.FS, r RebuildOptions) *sorter {
	s := newSorter(fs, r.TmpDir, "count", r.Memory)
	s.combine = func(a, b []byte) []byte {
		return appendCount(nil, decodeCount(a)+decodeCount(b))
	}
	return s
}

func appendCount(dst []byte, n int64) []byte { return binary.BigEndian.AppendUint64(dst, uint64(n)) }
func decodeCount(b []byte) int64             { return int64(binary.BigEndian.Uint64(b)) }

// Lookup returns the location that was taken for an ID.
func (b *Rebuilder) Lookup(id ID) (Location, bool, error) {
	b.mu.Lock()
	l := b.locations
	b.mu.Unlock()
	if l == nil {
		return Location{}, false, errPhase
	}
	found, ok, err := l.lookup(id)
	return found.loc, ok, err
}

// AddCount adds n to the count of an ID. The sum of all must not be below zero.
func (b *Rebuilder) AddCount(id ID, n int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil || b.done || b.locations == nil {
		return b.fail(errPhase)
	}
	var value [8]byte
	return b.fail(b.pairs.add(id[:], appendCount(value[:0], n)))
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
	if b.err != nil || b.done {
		return b.fail(errPhase)
	}
	if err := checkKey(given); err != nil {
		return b.fail(err)
	}
	return b.fail(b.values.add(key, value))
}

// AddLive adds to the live bytes of a segment, beside those of the entries:
// what else keeps it alive, such as the frames of records.
func (b *Rebuilder) AddLive(segment uint64, bytes int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil || b.done {
		return b.fail(errPhase)
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
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.done {
		return
	}
	b.done = true
	b.closeFiles()
	_ = b.o.FS.RemoveAll(b.r.TmpDir)
	_ = b.o.FS.RemoveAll(b.o.tmpDir())
}

func (b *Rebuilder) closeFiles() {
	if b.locations != nil {
		_ = b.locations.close()
		b.locations = nil
	}
	b.pairs, b.values = nil, nil
}

// Finish writes the index, with the watermark given, puts it in the place of the
// old one and opens it. IDs whose count is zero are left out. A crash leaves
// the old index, none, or the new one. An error leaves the old one, or none.
func (b *Rebuilder) Finish(seq uint64, hash [32]byte) (*Index, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil || b.done || b.locations == nil {
		return nil, b.fail(errPhase)
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
	b.done = true
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

	w := &tableWriter{fs: b.o.FS, dir: b.r.TmpDir, options: p.MakeWriterOptions(6, pebble.FormatNewest.MaxTableFormat())}
	f := newFilter(m.state.serial, 0, roomFor(b.locations.count))
	if err := errors.Join(b.writeTables(w, f, m), w.finish()); err != nil {
		return err
	}
	if err := ingest(trust, b.o.FS.PathJoin(dir, pebbleDir), p, w.paths); err != nil {
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

// writeTables writes all keys in order.
func (b *Rebuilder) writeTables(w *tableWriter, f *filter, m meta) error {
	live, err := b.writeEntries(w, f)
	if err != nil {
		return err
	}
	for segment, n := range b.live {
		if n != 0 {
			live[segment] += n
		}
	}
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

// writeEntries joins counts with locations and returns the live bytes of each
// segment.
func (b *Rebuilder) writeEntries(w *tableWriter, f *filter) (live map[uint64]int64, err error) {
	counts, err := b.pairs.merge()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, counts.close()) }()
	live = map[uint64]int64{}
	at := &locationCursor{l: b.locations}
	loc, more, err := at.next()
	if err != nil {
		return nil, err
	}
	var key, value []byte
	for {
		k, v, err := counts.next()
		if err == io.EOF {
			return live, nil
		}
		if err != nil {
			return nil, err
		}
		id, n := ID(k), decodeCount(v)
		if n < 0 {
			return nil, fmt.Errorf("%w: %d for %v", ErrUnderflow, n, id)
		}
		if n == 0 {
			continue
		}
		for more && less(loc.id, id) {
			if loc, more, err = at.next(); err != nil {
				return nil, err
			}
		}
		e := Entry{Count: uint64(n)}
		if more && loc.id == id {
			e.Location, e.Node = loc.loc, loc.node
			if share := int64(e.Share()); share > 0 {
				live[e.Segment] += share
			}
		} else {
			e.Lost = true
			b.stats.Lost++
		}
		b.stats.Entries++
		f.add(&id)
		key, value = appendEntryKey(key[:0], id), appendEntry(value[:0], e)
		if err := w.set(key, value); err != nil {
			return nil, err
		}
	}
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
		path := t.fs.PathJoin(t.dir, fmt.Sprintf("table-%06d.sst", len(t.paths)))
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
