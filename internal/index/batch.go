package index

import (
	"errors"
	"fmt"
	"slices"
)

// Batch is one step of the applier. Its methods only gather; Commit applies all
// of it at once or nothing. The last call for a key wins. A Batch is used by one
// goroutine and once.
type Batch struct {
	x    *Index
	ops  *ops
	live map[uint64]int64
	mark *meta
	err  error
	// over: see Over.
	over uint64
}

// ops are what a batch does, in the order of its calls. Their memory goes from one
// batch to another.
type ops struct {
	entries []changedEntry
	limbo   []changedLimbo
	rest    []changedRest
}

func (o *ops) reset() {
	clear(o.rest)
	o.entries, o.limbo, o.rest = o.entries[:0], o.limbo[:0], o.rest[:0]
}

// NewBatch returns an empty batch.
func (x *Index) NewBatch() *Batch {
	o, _ := x.ops.Get().(*ops)
	if o == nil {
		o = &ops{}
	}
	return &Batch{x: x, ops: o}
}

// Over lets the batch in where the disk is full and too much waits to be flushed
// already, up to so many times what may wait otherwise. What gives something
// back may be 2 times over, and a batch of the log, which has to be applied
// before that can be had, 3 times.
func (b *Batch) Over(times uint64) *Batch {
	b.over = times
	return b
}

func (b *Batch) fail(err error) {
	if b.err == nil {
		b.err = err
	}
}

// SetEntry stores an entry, whatever was there before.
func (b *Batch) SetEntry(id ID, e Entry) { b.setEntry(id, e, 0) }

// AddEntry is SetEntry for an ID of which GetSorted said that it has none, and
// nobody has given it one since. An entry that was added and is deleted before the
// next flush leaves no trace, so one that was there would show again.
func (b *Batch) AddEntry(id ID, e Entry) { b.setEntry(id, e, fresh) }

func (b *Batch) setEntry(id ID, e Entry, p presence) {
	if err := e.check(); err != nil {
		b.fail(fmt.Errorf("%w for %v", err, id))
		return
	}
	b.ops.entries = append(b.ops.entries, changedEntry{id, cellOf(e, p)})
}

// DeleteEntry removes an entry. It is no error if there is none.
func (b *Batch) DeleteEntry(id ID) {
	b.ops.entries = append(b.ops.entries, changedEntry{id, cell{presence: gone}})
}

// PutLimbo notes that the ID has count zero and waits to be destroyed. It is not in
// limbo already.
func (b *Batch) PutLimbo(id ID) { b.ops.limbo = append(b.ops.limbo, changedLimbo{id, fresh}) }

// DeleteLimbo takes the ID out of limbo.
func (b *Batch) DeleteLimbo(id ID) { b.ops.limbo = append(b.ops.limbo, changedLimbo{id, gone}) }

func (b *Batch) put(key, bytes []byte) {
	b.ops.rest = append(b.ops.rest, changedRest{string(key), value{bytes: bytes}})
}

func (b *Batch) delete(key []byte) {
	b.ops.rest = append(b.ops.rest, changedRest{string(key), value{gone: true}})
}

func checkKey(key []byte) error {
	if len(key) == 0 || len(key) > maxKey {
		return fmt.Errorf("index: key of %d bytes, want 1 through %d", len(key), maxKey)
	}
	return nil
}

// PutRecord stores the newest record of a canister. There is no way to delete
// one: the record of a deleted canister lives for ever.
func (b *Batch) PutRecord(key []byte, r Record) {
	if err := checkKey(key); err != nil {
		b.fail(err)
		return
	}
	b.put(appendRecordKey(nil, key), appendRecord(nil, r))
}

// PutState stores a small value of the counting layer.
func (b *Batch) PutState(key, value []byte) {
	if err := checkKey(key); err != nil {
		b.fail(err)
		return
	}
	b.put(appendStateKey(nil, key), slices.Clone(value))
}

// DeleteState removes a value of the counting layer.
func (b *Batch) DeleteState(key []byte) {
	if err := checkKey(key); err != nil {
		b.fail(err)
		return
	}
	b.delete(appendStateKey(nil, key))
}

// AddLive changes how many bytes of a segment are pointed at. What is stored is
// the sum; a sum below zero is an error of Commit and makes the index untrusted.
func (b *Batch) AddLive(segment uint64, delta int64) {
	if b.live == nil {
		b.live = map[uint64]int64{}
	}
	b.live[segment] += delta
}

// SetWatermark names the log batch that the index is at once this Batch is
// applied. Without it the watermark stays. It never goes back.
func (b *Batch) SetWatermark(seq uint64, hash [32]byte) {
	b.mark = &meta{seq: seq, hash: hash}
}

// Commit applies the batch in one atomic step and makes it visible; it does not
// make it durable. Batches become durable in the order in which they were
// committed. An error means that nothing was applied, unless the index is
// untrusted by then.
//
// Commit waits while too much is not yet flushed. If it returns an error because
// flushes fail, the same batch may be committed again later.
func (b *Batch) Commit() error {
	x := b.x
	if b.ops == nil {
		return errors.New("index: batch was committed before")
	}
	if err := x.enter(); err != nil {
		return err
	}
	defer x.leave()
	x.commit.Lock()
	defer x.commit.Unlock()
	if b.err != nil {
		return b.err
	}
	if err := x.makeRoom(b.over); err != nil {
		return err
	}
	m, err := b.nextMeta()
	if err != nil {
		return err
	}
	live, err := b.sumLive()
	if err != nil {
		x.trust.lose(err)
		return err
	}
	for segment, bytes := range live {
		if key := appendLiveKey(nil, segment); bytes == 0 {
			b.delete(key)
		} else {
			b.put(key, appendLive(nil, bytes))
		}
	}
	x.addToFilters(b.ops.entries)
	x.mem.Lock()
	x.mem.active.apply(b.ops, m)
	x.applied.Store(&m)
	full := x.mem.active.bytes >= x.o.MemTableSize
	x.mem.Unlock()
	b.ops.reset()
	x.ops.Put(b.ops)
	b.ops = nil
	x.storeLive(live)
	if full {
		x.startFlush()
	}
	x.maybeRebuildFilter()
	return nil
}

// nextMeta returns what the index is once the batch is applied.
func (b *Batch) nextMeta() (meta, error) {
	old := b.x.applied.Load()
	m := meta{
		store: b.x.o.StoreID,
		seq:   old.seq,
		hash:  old.hash,
		state: stateID{session: b.x.session, serial: old.state.serial + 1},
	}
	if b.mark != nil {
		if b.mark.seq < old.seq {
			return meta{}, fmt.Errorf("index: watermark would go back from %d to %d", old.seq, b.mark.seq)
		}
		m.seq, m.hash = b.mark.seq, b.mark.hash
	}
	return m, nil
}

func (b *Batch) sumLive() (map[uint64]int64, error) {
	b.x.liveMu.Lock()
	defer b.x.liveMu.Unlock()
	sums := make(map[uint64]int64, len(b.live))
	for segment, delta := range b.live {
		sum := b.x.live[segment] + delta
		if sum < 0 {
			return nil, fmt.Errorf("index: segment %d would have %d live bytes", segment, sum)
		}
		sums[segment] = sum
	}
	return sums, nil
}

func (x *Index) storeLive(sums map[uint64]int64) {
	x.liveMu.Lock()
	defer x.liveMu.Unlock()
	for segment, sum := range sums {
		if sum == 0 {
			delete(x.live, segment)
		} else {
			x.live[segment] = sum
		}
	}
}
