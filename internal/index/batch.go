package index

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// Batch is one step of the applier. Its methods only gather; Commit applies all
// of it at once or nothing. The last call for a key wins. A Batch is used by one
// goroutine and once.
type Batch struct {
	x    *Index
	b    *pebble.Batch
	ids  []ID
	live map[uint64]int64
	mark *meta
	err  error
	// over: see Over.
	over uint64
	key  []byte
	val  []byte
}

// NewBatch returns an empty batch.
func (x *Index) NewBatch() *Batch {
	return &Batch{x: x, b: x.db.NewBatch()}
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

func (b *Batch) set(err error) {
	if err != nil {
		b.fail(err)
	}
}

// SetEntry stores an entry, whatever was there before.
func (b *Batch) SetEntry(id ID, e Entry) {
	if err := e.check(); err != nil {
		b.fail(fmt.Errorf("%w for %v", err, id))
		return
	}
	b.ids = append(b.ids, id)
	b.key = appendEntryKey(b.key[:0], id)
	b.val = appendEntry(b.val[:0], e)
	b.set(b.b.Set(b.key, b.val, nil))
}

// DeleteEntry removes an entry. It is no error if there is none.
func (b *Batch) DeleteEntry(id ID) {
	b.key = appendEntryKey(b.key[:0], id)
	b.set(b.b.Delete(b.key, nil))
}

// PutLimbo notes that the ID has count zero and waits to be destroyed.
func (b *Batch) PutLimbo(id ID) {
	b.key = appendLimboKey(b.key[:0], id)
	b.set(b.b.Set(b.key, nil, nil))
}

// DeleteLimbo takes the ID out of limbo.
func (b *Batch) DeleteLimbo(id ID) {
	b.key = appendLimboKey(b.key[:0], id)
	b.set(b.b.Delete(b.key, nil))
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
	b.key = appendRecordKey(b.key[:0], key)
	b.val = appendRecord(b.val[:0], r)
	b.set(b.b.Set(b.key, b.val, nil))
}

// PutState stores a small value of the counting layer.
func (b *Batch) PutState(key, value []byte) {
	if err := checkKey(key); err != nil {
		b.fail(err)
		return
	}
	b.key = appendStateKey(b.key[:0], key)
	b.set(b.b.Set(b.key, value, nil))
}

// DeleteState removes a value of the counting layer.
func (b *Batch) DeleteState(key []byte) {
	if err := checkKey(key); err != nil {
		b.fail(err)
		return
	}
	b.key = appendStateKey(b.key[:0], key)
	b.set(b.b.Delete(b.key, nil))
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
	if b.b == nil {
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
		b.key = appendLiveKey(b.key[:0], segment)
		if bytes == 0 {
			b.set(b.b.Delete(b.key, nil))
			continue
		}
		b.val = appendLive(b.val[:0], bytes)
		b.set(b.b.Set(b.key, b.val, nil))
	}
	b.set(b.b.Set(metaKey(), appendMeta(b.val[:0], m), nil))
	if b.err != nil {
		return b.err
	}
	x.addToFilters(b.ids)
	// The memtable takes about this much more than the batch for each key.
	const perKey = 48
	size := uint64(b.b.Len()) + perKey*uint64(b.b.Count())
	err = b.apply()
	b.b = nil
	if err != nil {
		return err
	}
	x.storeLive(live)
	x.applied.Store(&m)
	x.pending = append(x.pending, unflushed{m.state.serial, size})
	x.pendingBytes += size
	x.trimPending(x.durableMeta())
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

func (b *Batch) apply() (err error) {
	defer b.x.trust.caught("commit", &err)
	if err := b.x.db.Apply(b.b, pebble.NoSync); err != nil {
		return b.x.trust.judge(err)
	}
	if err := b.x.trust.usable(); err != nil {
		return err
	}
	return b.b.Close()
}
