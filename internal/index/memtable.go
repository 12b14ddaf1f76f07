package index

import (
	"bytes"
	"slices"
	"strings"
	"sync"
)

// A memtable holds what batches have changed since the last flush: of each key
// the newest, in hash tables. Pebble's own, a skip list, took 15 µs for a look-up
// and 5 µs for a change once it was some ten megabytes large, which was most of
// the work behind a take; a hash table takes a tenth of a microsecond, and what is
// born and dies between two flushes leaves nothing in it that would have to be
// written.
//
// Nothing in it is durable. When it is full it is frozen and another one takes its
// place; the frozen one is written as tables, which Pebble takes in by one step.
type memtable struct {
	entries map[ID]cell
	// limbo is in parts by the first byte of the ID: it is read in order, a bit at
	// a time.
	limbo [256]map[ID]presence
	rest  map[string]value // records, states and live bytes, under their keys
	// meta is what the index is after the last batch in it.
	meta    meta
	batches int
	bytes   uint64 // about what it takes in memory
}

func newMemtable() *memtable {
	return &memtable{entries: map[ID]cell{}, rest: map[string]value{}}
}

// reset empties a memtable and keeps its memory: the next one needs as much.
func (t *memtable) reset() {
	clear(t.entries)
	for _, part := range t.limbo {
		clear(part)
	}
	clear(t.rest)
	t.meta, t.batches, t.bytes = meta{}, 0, 0
}

// apply does what a batch does, after which the index is m.
func (t *memtable) apply(o *ops, m meta) {
	for i := range o.entries {
		t.setEntry(o.entries[i].id, o.entries[i].cell)
	}
	for _, l := range o.limbo {
		t.setLimbo(l.id, l.presence)
	}
	for _, r := range o.rest {
		t.setRest(r.key, r.value)
	}
	t.meta = m
	t.batches++
}

// What a key takes in memory: a slot of a Go map, two thirds of which are full.
const (
	entryBytes = 100
	limboBytes = 52
	restBytes  = 100 // and key and value
)

// presence says how a key stands in a memtable.
type presence uint8

const (
	// gone: the key was deleted; what is below does not count.
	gone presence = 1 << iota
	// fresh: nothing is below under this key, neither in a frozen memtable nor in
	// tables. When it is deleted nothing need be written.
	fresh

	cellLost
	cellNode
)

func (p presence) isGone() bool { return p&gone != 0 }

// over is the presence of a key that was old in this memtable and becomes p. What
// is below is known from the first time on.
func (p presence) over(old presence) presence { return p&^fresh | old&fresh }

// cell is an entry in a memtable: 32 bytes, without pointers, so that Go's
// collector does not look at them.
type cell struct {
	segment, count uint64
	offset, length uint32
	slot, slots    uint8
	presence       presence
}

func cellOf(e Entry, p presence) cell {
	if e.Lost {
		p |= cellLost
	}
	if e.Node {
		p |= cellNode
	}
	return cell{e.Segment, e.Count, e.Offset, e.Length, e.Slot, e.Slots, p}
}

func (c cell) entry() Entry {
	return Entry{
		Location: Location{c.segment, c.offset, c.length, c.slot, c.slots},
		Count:    c.count,
		Lost:     c.presence&cellLost != 0,
		Node:     c.presence&cellNode != 0,
	}
}

// value is of any other key. bytes never change.
type value struct {
	bytes []byte
	gone  bool
}

func (t *memtable) setEntry(id ID, c cell) {
	old, ok := t.entries[id]
	switch {
	case !ok:
		t.bytes += entryBytes
	case c.presence.isGone() && old.presence&fresh != 0:
		delete(t.entries, id)
		t.bytes -= entryBytes
		return
	default:
		c.presence = c.presence.over(old.presence)
	}
	t.entries[id] = c
}

func (t *memtable) setLimbo(id ID, p presence) {
	part := t.limbo[id[0]]
	if part == nil {
		part = map[ID]presence{}
		t.limbo[id[0]] = part
	}
	old, ok := part[id]
	switch {
	case !ok:
		t.bytes += limboBytes
	case p.isGone() && old&fresh != 0:
		delete(part, id)
		t.bytes -= limboBytes
		return
	default:
		p = p.over(old)
	}
	part[id] = p
}

func (t *memtable) setRest(key string, v value) {
	if old, ok := t.rest[key]; ok {
		t.bytes -= uint64(len(old.bytes))
	} else {
		t.bytes += restBytes + uint64(len(key))
	}
	t.bytes += uint64(len(v.bytes))
	t.rest[key] = v
}

// memory is the memtables of an index. Its lock is never held while anything is read
// from a disk, and for moments only, but for who copies all entries: some 0.1 s when
// 64 MiB are full.
type memory struct {
	sync.RWMutex
	active *memtable
	// frozen is being written, or nil. It does not change any more.
	frozen *memtable
	// spare is empty, for who freezes next, or nil.
	spare *memtable
}

// freeze puts another memtable in the place of the active one, if none is frozen.
func (m *memory) freeze() {
	m.Lock()
	defer m.Unlock()
	if m.frozen != nil || m.active.batches == 0 {
		return
	}
	m.frozen, m.active, m.spare = m.active, m.spare, nil
	if m.active == nil {
		m.active = newMemtable()
	}
}

// thaw forgets the frozen memtable. One that has grown beyond usual, while the disk was
// full, is not used again: a map never becomes smaller.
func (m *memory) thaw(usual uint64) {
	m.Lock()
	old := m.frozen
	m.frozen = nil
	m.Unlock()
	if old.bytes > 2*usual {
		return
	}
	old.reset() // nobody looks at it any more
	m.Lock()
	m.spare = old
	m.Unlock()
}

// view returns what is frozen, and whether the active memtable takes as much as most.
func (m *memory) view(most uint64) (frozen *memtable, full bool) {
	m.RLock()
	defer m.RUnlock()
	return m.frozen, m.active.bytes >= most
}

// entry returns what is known of an ID in memory. The lock is held.
func (m *memory) entry(id *ID) (c cell, known bool) {
	if c, known = m.active.entries[*id]; !known && m.frozen != nil {
		c, known = m.frozen.entries[*id]
	}
	return c, known
}

// value is entry for any other key.
func (m *memory) value(key []byte) (v value, known bool) {
	m.RLock()
	defer m.RUnlock()
	if v, known = m.active.rest[string(key)]; !known && m.frozen != nil {
		v, known = m.frozen.rest[string(key)]
	}
	return v, known
}

// bytes is what both take. The lock is held.
func (m *memory) bytes() uint64 {
	n := m.active.bytes
	if m.frozen != nil {
		n += m.frozen.bytes
	}
	return n
}

// changes are keys of memtables in their order: entries, limbo, and the rest.
type changes struct {
	entries []changedEntry
	limbo   []changedLimbo
	rest    []changedRest

	key, val []byte // of the first
	isGone   bool

	breathe func() // see Options.Breather; nil in scans
}

type changedEntry struct {
	id ID
	cell
}

type changedLimbo struct {
	id       ID
	presence presence
}

type changedRest struct {
	key string
	value
}

// changes returns what is in memory of a range of keys, the newest of each. It
// copies that, so that it stays one state; the lock is held. It must be sorted
// before it is read, without the lock.
func (m *memory) changes(in span) *changes {
	c := &changes{}
	c.add(m.active, in, nil)
	if m.frozen != nil {
		c.add(m.frozen, in, m.active)
	}
	return c
}

// add copies what t has and newer, if there is one, has not.
func (c *changes) add(t *memtable, in span, newer *memtable) {
	var key []byte
	if in.meets(kindEntry) {
		c.entries = slices.Grow(c.entries, len(t.entries))
		for id, cell := range t.entries {
			if key = appendEntryKey(key[:0], id); !in.has(key) {
				continue
			}
			if newer != nil {
				if _, again := newer.entries[id]; again {
					continue
				}
			}
			c.entries = append(c.entries, changedEntry{id, cell})
			c.step(len(c.entries))
		}
	}
	if in.meets(kindLimbo) {
		for part := in.firstPart(kindLimbo); part <= in.lastPart(kindLimbo); part++ {
			for id, p := range t.limbo[part] {
				if key = appendLimboKey(key[:0], id); !in.has(key) {
					continue
				}
				if newer != nil {
					if _, again := newer.limbo[part][id]; again {
						continue
					}
				}
				c.limbo = append(c.limbo, changedLimbo{id, p})
				c.step(len(c.limbo))
			}
		}
	}
	if in.upper != nil && in.upper[0] <= kindLimbo {
		return
	}
	for key, v := range t.rest {
		if !in.has([]byte(key)) {
			continue
		}
		if newer != nil {
			if _, again := newer.rest[key]; again {
				continue
			}
		}
		c.rest = append(c.rest, changedRest{key, v})
	}
	if t.batches > 0 && (newer == nil || newer.batches == 0) && in.has(metaKey()) {
		c.rest = append(c.rest, changedRest{string(metaKey()), value{bytes: appendMeta(nil, t.meta)}})
	}
}

// span is the keys from lower up to upper; nil is no bound.
type span struct{ lower, upper []byte }

func (s span) has(key []byte) bool {
	return (s.lower == nil || bytes.Compare(key, s.lower) >= 0) && (s.upper == nil || bytes.Compare(key, s.upper) < 0)
}

// meets says whether keys of a kind can be within.
func (s span) meets(kind byte) bool {
	return (s.lower == nil || s.lower[0] <= kind) && (s.upper == nil || bytes.Compare(s.upper, []byte{kind}) > 0)
}

// firstPart and lastPart are the first bytes of the first and the last ID of a kind
// that can be within.
func (s span) firstPart(kind byte) int {
	if len(s.lower) < idKeySize || s.lower[0] != kind {
		return 0
	}
	return int(s.lower[idKeySize-len(ID{})])
}

func (s span) lastPart(kind byte) int {
	if len(s.upper) < idKeySize || s.upper[0] != kind {
		return 255
	}
	return int(s.upper[idKeySize-len(ID{})])
}

func (c *changes) sort() {
	sortByID(c.entries, func(e *changedEntry) *ID { return &e.id }, c.step)
	sortByID(c.limbo, func(l *changedLimbo) *ID { return &l.id }, c.step)
	slices.SortFunc(c.rest, func(a, b changedRest) int { return strings.Compare(a.key, b.key) })
}

// breatheEvery is after how many changes a step ends: tables take some 1 us for each.
const breatheEvery = 256

// step is called after the nth change.
func (c *changes) step(n int) {
	if c.breathe != nil && n%breatheEvery == 0 {
		c.breathe()
	}
}

// sortByID sorts by the start of the ID, which mostly settles it, and moves each
// item once. First each goes to those with the same first byte, so that no sort is long.
// step is called after each item with its number, and after each sort with 0.
func sortByID[T any](items []T, id func(*T) *ID, step func(n int)) {
	type at struct {
		prefix uint64
		i      uint32
	}
	var ends [256]int
	for i := range items {
		ends[id(&items[i])[0]]++
	}
	for b, n := range ends[:255] {
		ends[b+1] += n
	}
	order := make([]at, len(items))
	for i := len(items) - 1; i >= 0; i-- {
		p := id(&items[i])
		ends[p[0]]-- // becomes where the byte starts
		order[ends[p[0]]] = at{prefixOf(p[:]), uint32(i)}
		step(i)
	}
	for b, start := range ends {
		end := len(order)
		if b < 255 {
			end = ends[b+1]
		}
		slices.SortFunc(order[start:end], func(a, b at) int {
			switch {
			case a.prefix < b.prefix:
				return -1
			case a.prefix > b.prefix:
				return 1
			}
			return bytes.Compare(id(&items[a.i])[:], id(&items[b.i])[:])
		})
		step(0)
	}
	sorted := make([]T, len(items))
	for k, a := range order {
		sorted[k] = items[a.i]
		step(k)
	}
	copy(items, sorted)
}

// load makes key, val and isGone those of the first change; false: there is none.
func (c *changes) load() bool {
	switch {
	case len(c.entries) > 0:
		e := &c.entries[0]
		c.key, c.isGone = appendEntryKey(c.key[:0], e.id), e.presence.isGone()
		if !c.isGone {
			c.val = appendEntry(c.val[:0], e.entry())
		}
	case len(c.limbo) > 0:
		l := &c.limbo[0]
		c.key, c.val, c.isGone = appendLimboKey(c.key[:0], l.id), c.val[:0], l.presence.isGone()
	case len(c.rest) > 0:
		r := &c.rest[0]
		c.key, c.val, c.isGone = append(c.key[:0], r.key...), append(c.val[:0], r.bytes...), r.gone
	default:
		return false
	}
	return true
}

// drop takes the first change off.
func (c *changes) drop() {
	switch {
	case len(c.entries) > 0:
		c.entries = c.entries[1:]
	case len(c.limbo) > 0:
		c.limbo = c.limbo[1:]
	default:
		c.rest = c.rest[1:]
	}
}
