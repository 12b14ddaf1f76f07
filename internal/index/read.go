package index

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"

	"github.com/cockroachdb/pebble/v2"
)

// MayContain says whether the index may have an entry for the ID. False is
// sure, at the time of the call: an ID is in the filter before it is in the
// index. It reads no disk and takes about 20 ns.
func (x *Index) MayContain(id ID) bool {
	if forget := x.forget.Load(); forget != nil && (*forget)(id) {
		return false
	}
	f := x.filter.Load()
	return f == nil || f.mayContain(&id)
}

// MayContainEach sets may[i] to MayContain(ids[i]).
func (x *Index) MayContainEach(ids []ID, may []bool) {
	f := x.filter.Load()
	if f == nil || x.forget.Load() != nil {
		for i := range ids {
			may[i] = x.MayContain(ids[i])
		}
		return
	}
	f.mayContainEach(ids, may)
}

// ForgetInFilter makes the filter deny the IDs for which forget is true, as a
// filter with a fault would. It is for tests of what that does; nil ends it.
func (x *Index) ForgetInFilter(forget func(ID) bool) {
	if forget == nil {
		x.forget.Store(nil)
		return
	}
	x.forget.Store(&forget)
}

// Get returns the entry of an ID, asking the filter first. Who knows that the
// ID must be there, and is told that it is not, asks GetUnfiltered.
func (x *Index) Get(id ID) (Entry, bool, error) {
	x.counters.gets.Add(1)
	if !x.MayContain(id) {
		x.counters.filtered.Add(1)
		return Entry{}, false, nil
	}
	return x.GetUnfiltered(id)
}

// GetUnfiltered returns the entry of an ID without asking the filter.
func (x *Index) GetUnfiltered(id ID) (e Entry, ok bool, err error) {
	if err := x.enter(); err != nil {
		return Entry{}, false, err
	}
	defer x.leave()
	x.mem.RLock()
	c, known := x.mem.entry(&id)
	x.mem.RUnlock()
	if known {
		if c.presence.isGone() {
			x.counters.misses.Add(1)
			return Entry{}, false, nil
		}
		return c.entry(), true, nil
	}
	// It was not in memory, so what tables have is the newest, or was when memory
	// was asked.
	defer x.trust.caught("get", &err)
	var buf [idKeySize]byte
	v, closer, err := x.db.Get(appendEntryKey(buf[:0], id))
	if errors.Is(err, pebble.ErrNotFound) {
		x.counters.misses.Add(1)
		return Entry{}, false, nil
	}
	if err != nil {
		return Entry{}, false, x.trust.judge(err)
	}
	e, err = decodeEntry(v)
	if err := errors.Join(err, closer.Close()); err != nil {
		return Entry{}, false, x.undecodable("entry", id[:], err)
	}
	return e, true, nil
}

// undecodable takes the trust away for a value that Pebble gave and that no
// version of this package wrote.
func (x *Index) undecodable(what string, key []byte, err error) error {
	err = fmt.Errorf("index: %s %x: %w", what, key, err)
	x.trust.lose(err)
	return err
}

// GetSorted calls fn for each of ids, which must ascend, with its entry if there
// is one. It never asks the filter: it is for those who will change the entry.
// All of it sees one state. An error of fn ends it and is returned.
func (x *Index) GetSorted(ids []ID, fn func(i int, e Entry, ok bool) error) (err error) {
	if err := x.enter(); err != nil {
		return err
	}
	defer x.leave()
	room, _ := x.founds.Get().(*[]foundCell)
	if room == nil {
		room = new([]foundCell)
	}
	defer x.founds.Put(room)
	found, c, err := x.lookUp(ids, (*room)[:0])
	if err != nil {
		return err
	}
	*room = found
	if c != nil {
		defer func() { err = errors.Join(err, c.close()) }()
	}
	var key []byte
	for i := range ids {
		var e Entry
		ok := found[i].known && !found[i].presence.isGone()
		switch {
		case ok:
			e = found[i].entry()
		case found[i].known:
		default:
			key = appendEntryKey(key[:0], ids[i])
			ok = c.find(key)
			if c.err != nil {
				return nil // close returns it
			}
			if ok {
				if e, err = decodeEntry(c.kv().value); err != nil {
					return x.undecodable("entry", ids[i][:], err)
				}
			}
		}
		if err := fn(i, e, ok); err != nil {
			return err
		}
	}
	return nil
}

type foundCell struct {
	cell
	known bool
}

// lookUp sets found to what memory knows of ids, and returns a cursor over the tables
// of the same state if it does not know all of them.
func (x *Index) lookUp(ids []ID, room []foundCell) (found []foundCell, c *cursor, err error) {
	found = slices.Grow(room, len(ids))[:len(ids)]
	all := true
	x.mem.RLock()
	defer x.mem.RUnlock()
	for i := range ids {
		found[i].cell, found[i].known = x.mem.entry(&ids[i])
		all = all && found[i].known
	}
	if all {
		return found, nil, nil
	}
	lower, upper := kindSpan(kindEntry)
	c, err = x.newCursor(x.db, &pebble.IterOptions{LowerBound: lower, UpperBound: upper, UseL6Filters: true})
	return found, c, err
}

// scan yields the keys from lower up to upper, as of its start. The slices are
// valid until the next one. It ends early when the index closes.
func (x *Index) scan(lower, upper []byte) iter.Seq2[keyValue, error] {
	return func(yield func(keyValue, error) bool) {
		if err := x.enter(); err != nil {
			yield(keyValue{}, err)
			return
		}
		defer x.leave()
		stopped := false
		err := x.scanInto(span{lower, upper}, func(kv keyValue) bool {
			stopped = !yield(kv, nil)
			return !stopped
		})
		if err != nil && !stopped {
			yield(keyValue{}, err)
		}
	}
}

// scanInto calls yield for the keys within until it returns false. A panic of yield
// is not caught.
func (x *Index) scanInto(in span, yield func(keyValue) bool) (err error) {
	c, err := x.newScan(in)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	for c.next() {
		select {
		case <-x.closing:
			return ErrClosed
		default:
		}
		if !yield(c.kv()) {
			return nil
		}
	}
	return nil
}

// Entries yields all entries in the order of their IDs, as of its start. The
// last yielded error, if any, ends it.
func (x *Index) Entries(ctx context.Context) iter.Seq2[KeyedEntry, error] {
	return func(yield func(KeyedEntry, error) bool) {
		for kv, err := range x.scan(kindSpan(kindEntry)) {
			if err == nil {
				err = ctx.Err()
			}
			var e KeyedEntry
			if err == nil {
				e, err = x.decodeKeyedEntry(kv)
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

func (x *Index) decodeKeyedEntry(kv keyValue) (KeyedEntry, error) {
	id, err := decodeIDKey(kindEntry, kv.key)
	if err != nil {
		return KeyedEntry{}, x.undecodable("entry key", kv.key, err)
	}
	e, err := decodeEntry(kv.value)
	if err != nil {
		return KeyedEntry{}, x.undecodable("entry", id[:], err)
	}
	return KeyedEntry{ID: id, Entry: e}, nil
}

// Record returns the record stored under a canister key.
func (x *Index) Record(key []byte) (r Record, ok bool, err error) {
	v, ok, err := x.value(appendRecordKey(nil, key))
	if !ok || err != nil {
		return Record{}, false, err
	}
	r, err = decodeRecord(v)
	if err != nil {
		return Record{}, false, x.undecodable("record", key, err)
	}
	return r, true, nil
}

// StateValue returns a value of the counting layer.
func (x *Index) StateValue(key []byte) ([]byte, bool, error) {
	return x.value(appendStateKey(nil, key))
}

// value returns a copy of the value of a key.
func (x *Index) value(key []byte) (v []byte, ok bool, err error) {
	if err := x.enter(); err != nil {
		return nil, false, err
	}
	defer x.leave()
	if v, known := x.mem.value(key); known {
		return append([]byte{}, v.bytes...), !v.gone, nil
	}
	defer x.trust.caught("get", &err)
	b, closer, err := x.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, x.trust.judge(err)
	}
	v = append([]byte{}, b...)
	return v, true, closer.Close()
}

// Records yields all records in the order of their keys, as of its start.
func (x *Index) Records() iter.Seq2[KeyedRecord, error] {
	return func(yield func(KeyedRecord, error) bool) {
		for kv, err := range x.scan(kindSpan(kindRecord)) {
			var r KeyedRecord
			if err == nil {
				r.Key = append([]byte(nil), kv.key[1:]...)
				if r.Record, err = decodeRecord(kv.value); err != nil {
					err = x.undecodable("record", r.Key, err)
				}
			}
			if !yield(r, err) || err != nil {
				return
			}
		}
	}
}

// State yields the values of the counting layer whose keys start with prefix, in
// the order of their keys, as of its start. The slices are the caller's.
func (x *Index) State(prefix []byte) iter.Seq2[KeyedState, error] {
	return func(yield func(KeyedState, error) bool) {
		for kv, err := range x.scan(prefixSpan(appendStateKey(nil, prefix))) {
			var s KeyedState
			if err == nil {
				s.Key = append([]byte(nil), kv.key[1:]...)
				s.Value = append([]byte{}, kv.value...)
			}
			if !yield(s, err) || err != nil {
				return
			}
		}
	}
}

// Limbo returns up to limit IDs in limbo that follow after, in their order. The
// zero ID starts at the beginning.
func (x *Index) Limbo(after ID, limit int) (ids []ID, err error) {
	lower := append(appendLimboKey(nil, after), 0)
	if after == (ID{}) {
		lower = appendLimboKey(nil, after)
	}
	for limit > 0 {
		upper, last := x.limboStride(lower, limit)
		for kv, err := range x.scan(lower, upper) {
			if err != nil {
				return nil, err
			}
			id, err := decodeIDKey(kindLimbo, kv.key)
			if err != nil {
				return nil, x.undecodable("limbo key", kv.key, err)
			}
			if ids = append(ids, id); len(ids) == limit {
				return ids, nil
			}
		}
		if last {
			return ids, nil
		}
		lower = upper
	}
	return nil, nil
}

// limboStride says up to which key limbo has about so many IDs in memory: what a scan
// copies and sorts of them. last: that is all of it.
func (x *Index) limboStride(lower []byte, want int) (upper []byte, last bool) {
	x.mem.RLock()
	defer x.mem.RUnlock()
	n := 0
	for part := (span{lower: lower}).firstPart(kindLimbo); part < 255; part++ {
		if n += len(x.mem.active.limbo[part]); x.mem.frozen != nil {
			n += len(x.mem.frozen.limbo[part])
		}
		if n >= want {
			return appendLimboKey(nil, ID{byte(part + 1)}), false
		}
	}
	_, upper = kindSpan(kindLimbo)
	return upper, true
}

// Live returns how many bytes of each segment entries point at. Segments with
// none are left out.
func (x *Index) Live() map[uint64]int64 {
	x.liveMu.Lock()
	defer x.liveMu.Unlock()
	return maps.Clone(x.live)
}

// loadLive reads the sums once, at Open.
func (x *Index) loadLive() error {
	for kv, err := range x.scan(kindSpan(kindLive)) {
		if err != nil {
			return err
		}
		segment, err := decodeLiveKey(kv.key)
		if err != nil {
			return x.undecodable("live key", kv.key, err)
		}
		bytes, err := decodeLive(kv.value)
		if err != nil {
			return x.undecodable("live", kv.key, err)
		}
		x.live[segment] = bytes
	}
	return nil
}
