package gc

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/snapstore/snapstore/chunk"
	"github.com/snapstore/snapstore/internal/index"
	"github.com/snapstore/snapstore/internal/record"
	"github.com/snapstore/snapstore/internal/seglog"
	"github.com/snapstore/snapstore/manifest"
)

// stepDeltas bounds one atomic step of counting: about 6 MiB of the index's memory
// and as much of deltas.
const stepDeltas = 65_536

// ErrUnderflow: a count would fall below zero. The index is wrong; the next
// open recounts.
var ErrUnderflow = errors.New("reference count underflow")

// Record is a canister record of a batch.
type Record struct {
	Key     []byte
	Seq     uint64
	Loc     seglog.Loc
	Payload []byte
	// Moved: the same record at a new place.
	Moved bool
}

// Move says where cleaning put what it found alive in a segment.
type Move struct {
	Victim seglog.SegmentID
	Places []chunk.Placement
}

// Batch is a synced batch of the log, to be applied in order of sequence. Its
// placements have been published to the chunk store.
type Batch struct {
	Seq     seglog.Sequence
	Hash    seglog.Hash
	Records []Record
	Moves   []Move
	Placed  []*chunk.Places
	// Done is called once the batch is applied, or given up on because the
	// index is not to be trusted any more.
	Done func()
}

// Counter owns every change of the index. Methods are safe for concurrent
// use; one of them works at a time.
type Counter struct {
	mu    sync.Mutex
	idx   *index.Index
	store *chunk.Store
	dedup chunk.DedupDomain
	alive func(segment uint64) bool
	log   *slog.Logger
	known map[string]*runs
	// where is each canister's newest record: two records of one canister can
	// share a batch when cleaning copies one, so the index would be behind.
	where map[string]recordAt
	// waiting is how many versions of known are dying, and due the canisters that
	// have any: among thousands of others they are few.
	waiting atomic.Int64
	due     map[string]struct{}
	limbo   *suspects
	// cold says that nodes were missed in the cache during the last step of a drop, by
	// whoever. It belongs to who calls DropStep.
	cold bool
	// entered tells what the batch being applied has placed, and which of that has
	// got its entry.
	entered map[*chunk.Places][]bool
	// lossy says that content was lost since the index was built.
	lossy, marked atomic.Bool
	// heldBelow is the segment under which none may go; see Partial.
	heldBelow atomic.Uint64
	step      int
	stats     CounterStats
	deltas    deltas // of the step under way
}

// lossyKey is a key among the counting states that is too long for a canister.
// It has no value, and stands there once anything was lost, for as long as the
// index does.
const lossyKey = "lost content since the index was built"

// partialKey is another. Its value is the segment of Partial, 8 bytes in big
// endian.
const partialKey = "what could not be read when the index was built"

type recordAt struct {
	seq uint64
	loc seglog.Loc
}

// CounterStats are totals since the index was opened.
type CounterStats struct {
	Batches, Changes, Births, Deaths, Lost uint64
	// Unreadable nodes were met while counting; a recount settles what they left.
	Unreadable uint64
}

// NewCounter reads the counting state of every canister. dedup says in which
// domain the versions of each are counted, alive whether a segment is in the
// log's table: an entry that points elsewhere is absent.
func NewCounter(idx *index.Index, store *chunk.Store, dedup chunk.DedupDomain, alive func(uint64) bool, log *slog.Logger) (*Counter, error) {
	c := &Counter{idx: idx, store: store, dedup: dedup, alive: alive, log: log, known: map[string]*runs{}, due: map[string]struct{}{}, where: map[string]recordAt{}, limbo: newSuspects(), step: stepDeltas}
	for st, err := range idx.State(nil) {
		var rs *runs
		if err == nil && c.recall(string(st.Key), st.Value) {
			continue
		}
		if err == nil {
			rs, err = decodeRuns(st.Value)
		}
		if err != nil {
			idx.MarkUntrusted(err)
			return nil, fmt.Errorf("counting state of %x: %w", st.Key, err)
		}
		c.know(string(st.Key), rs)
	}
	for r, err := range idx.Records() {
		if err != nil {
			idx.MarkUntrusted(err)
			return nil, err
		}
		c.where[string(r.Key)] = recordAt{r.RecordSeq, seglog.Loc{Segment: seglog.SegmentID(r.Segment), Offset: r.Offset, Length: r.Length}}
	}
	if err := idx.Untrusted(); err != nil {
		return nil, err
	}
	return c, nil
}

// SetStep changes how many count changes one atomic step holds, before anything
// is counted.
func (c *Counter) SetStep(n int) { c.step = n }

// Stats returns the totals.
func (c *Counter) Stats() CounterStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stats
}

// recall takes up what stands among the counting states and is no canister's.
func (c *Counter) recall(key string, value []byte) (taken bool) {
	switch key {
	case lossyKey:
		c.lossy.Store(true)
	case partialKey:
		c.heldBelow.Store(math.MaxUint64)
		if len(value) == 8 {
			c.heldBelow.Store(binary.BigEndian.Uint64(value))
		}
	case scrubKey: // the scrubber's own
	default:
		return false
	}
	return true
}

// Partial returns the segment under which the log may hold content that is named
// and not counted, since a node or a record that names it could not be read when
// the index was built; 0 is none. It may be whole: a disk can give other bytes
// than it has, and give the right ones tomorrow. So no older segment goes until
// an index is built that lacks nothing, or a person gives up what is damaged.
func (c *Counter) Partial() seglog.SegmentID { return seglog.SegmentID(c.heldBelow.Load()) }

// Lossy tells whether content was ever lost since the index was built. A take
// then looks up even what its canister's head already names.
func (c *Counter) Lossy() bool { return c.lossy.Load() }

// NoteLossy makes Lossy true for as long as the index lives.
func (c *Counter) NoteLossy() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lossy.Load() {
		return nil
	}
	out := c.idx.NewBatch()
	c.lossy.Store(true)
	c.marked.Store(true)
	out.PutState([]byte(lossyKey), nil)
	return out.Commit()
}

// noteLost counts one more entry that is lost by out.
func (c *Counter) noteLost(out *index.Batch) {
	c.stats.Lost++
	c.lossy.Store(true)
	out.PutState([]byte(lossyKey), nil)
}

// Marked tells whether readers marked something lost since the index was opened,
// or a rebuild did: that is worth to be made durable, for the next process to
// know. What a replay finds missing is not: as long as it is replayed, the
// damaged frame is met and named each time.
func (c *Counter) Marked() bool { return c.marked.Load() }

// Apply brings the index to the batch. What is stored on return is one atomic
// step, or several of which only the last moves the watermark; none of it is
// synced, since the log is the truth.
func (c *Counter) Apply(ctx context.Context, b *Batch) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.idx.Untrusted(); err != nil {
		return err
	}
	if err := c.apply(ctx, b); err != nil {
		c.idx.MarkUntrusted(err)
		return err
	}
	for _, p := range b.Placed {
		c.store.Retire(p)
	}
	return nil
}

func (c *Counter) apply(ctx context.Context, b *Batch) error {
	deltas := c.emptyDeltas()
	out := c.idx.NewBatch().Over(3)
	c.entered = make(map[*chunk.Places][]bool, len(b.Placed))
	for _, p := range b.Placed {
		c.entered[p] = make([]bool, len(p.List))
	}
	defer func() { c.entered = nil }()
	for i := range b.Records {
		if err := c.applyRecord(ctx, &out, deltas, &b.Records[i]); err != nil {
			return err
		}
	}
	if err := c.flushDeltas(out, deltas); err != nil {
		return err
	}
	if err := c.enterUnmet(out); err != nil {
		return err
	}
	if len(b.Moves) > 0 && len(b.Records) > 0 {
		// Moves read the entries as they are stored, so counts that changed in
		// the same batch must be there. A replay that finds only this first
		// step counts no record twice, since the runs know the last one.
		if err := out.Commit(); err != nil {
			return err
		}
		out = c.idx.NewBatch().Over(3)
	}
	for _, m := range b.Moves {
		if err := c.applyMove(out, m); err != nil {
			return err
		}
	}
	out.SetWatermark(uint64(b.Seq), b.Hash)
	if err := out.Commit(); err != nil {
		return err
	}
	c.stats.Batches++
	return c.idx.Untrusted()
}

// enterUnmet gives an entry to what the batch stored and no count has entered, in limbo:
// until it is applied another take could meet it, and relies on finding it
// afterwards. An entry whose bytes were lost gets the ones that came.
func (c *Counter) enterUnmet(out *index.Batch) error {
	var ids []chunk.Key
	for p, entered := range c.entered {
		for i := range entered {
			if entered[i] {
				continue
			}
			// The first of those that the batch placed stands for all.
			if q, j, ok := c.store.PlacedIn(p.List[i].Key); ok && q == p && j == i {
				ids = append(ids, p.List[i].Key)
			}
		}
	}
	sorted := toIndex(ids)
	return c.idx.GetSorted(sorted, func(i int, e index.Entry, ok bool) error {
		if ok && !e.Lost && c.alive(e.Segment) {
			return nil
		}
		p, found := c.store.Placed(sorted[i])
		if !found {
			return nil
		}
		if !ok {
			e.Node = p.Node
			out.PutLimbo(sorted[i])
		}
		c.put(out, &e, p)
		setEntry(out, sorted[i], e, ok)
		return nil
	})
}

// applyRecord counts what a record changes. A large change is committed in
// steps, each with the progress that a replay goes on from; *out is then a
// fresh batch on return.
func (c *Counter) applyRecord(ctx context.Context, out **index.Batch, deltas *deltas, r *Record) error {
	have, ok := c.known[string(r.Key)]
	if !ok {
		have = &runs{}
	}
	if r.Moved || r.Seq <= have.recordSeq {
		return c.moveRecord(*out, r)
	}
	rec, err := record.Decode(r.Payload)
	if err != nil {
		return err
	}
	if rec.Seq != r.Seq {
		return fmt.Errorf("%w: frame says %d, record %d", errPlan, r.Seq, rec.Seq)
	}
	next, changes, err := plan(have, rec)
	if err != nil {
		return fmt.Errorf("canister %x: %w", r.Key, err)
	}
	store := c.in(r.Key)
	first, from := 0, manifest.Place{}
	if p := have.partial; p != nil {
		if p.recordSeq != rec.Seq {
			return fmt.Errorf("canister %x: %w: record %d was counted in part, and %d comes", r.Key, errPlan, p.recordSeq, rec.Seq)
		}
		first, from = p.op, p.place
	}
	for op := first; op < len(changes); op++ {
		for {
			at, err := manifest.Replace(ctx, store, changes[op], from, max(1, c.step-deltas.len()), deltas.add(store.Domain()), c.unreadable)
			if err != nil {
				return err
			}
			if at.IsEnd() {
				break
			}
			from = at
			mid := have.clone()
			mid.partial = &progress{recordSeq: rec.Seq, op: op, place: at}
			if err := c.flushDeltas(*out, deltas); err != nil {
				return err
			}
			(*out).PutState(r.Key, mid.encode())
			if err := (*out).Commit(); err != nil {
				return err
			}
			c.know(string(r.Key), mid)
			have = mid
			*out = c.idx.NewBatch().Over(3)
		}
		from = manifest.Place{}
	}
	c.putRecord(*out, r)
	c.putRuns(*out, string(r.Key), next)
	return nil
}

// Damaged lists the canisters whose newest record can not be read, with its
// sequence.
func (c *Counter) Damaged() map[string]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[string]uint64{}
	for key, rs := range c.known {
		if rs.damaged != 0 {
			out[key] = rs.damaged
		}
	}
	return out
}

// putRuns replaces what counting knows of a canister, here and in the index.
func (c *Counter) putRuns(out *index.Batch, key string, rs *runs) {
	putState(out, key, rs)
	c.know(key, rs)
}

func putState(out *index.Batch, key string, rs *runs) {
	if rs.empty() {
		out.DeleteState([]byte(key))
	} else {
		out.PutState([]byte(key), rs.encode())
	}
}

// know replaces what counting knows of a canister.
func (c *Counter) know(key string, rs *runs) {
	was := 0
	if old := c.known[key]; old != nil {
		was = old.waiting()
	}
	c.known[key] = rs
	now := rs.waiting()
	c.waiting.Add(int64(now - was))
	if now > 0 {
		c.due[key] = struct{}{}
	} else {
		delete(c.due, key)
	}
}

// unreadable is told of a node that could not be read while counting. The walk
// then counts rather too much, which keeps garbage until the next recount; only
// where it may have counted too little the index is not to be trusted.
func (c *Counter) unreadable(at manifest.Place, id chunk.ID, err error) {
	c.stats.Unreadable++
	c.log.Error("counting met a node that can not be read", "place", at.String(), "node", id.String(), "error", err)
	if errors.Is(err, manifest.ErrUncounted) {
		c.idx.MarkUntrusted(fmt.Errorf("counting at %v: node %v: %w", at, id, err))
	}
}

// moveRecord follows a record that cleaning copied, if it is still the newest.
func (c *Counter) moveRecord(out *index.Batch, r *Record) error {
	if c.where[string(r.Key)].seq == r.Seq {
		c.putRecord(out, r)
	}
	return nil
}

// putRecord notes the newest record and what keeps its segment alive.
func (c *Counter) putRecord(out *index.Batch, r *Record) {
	if old, ok := c.where[string(r.Key)]; ok {
		out.AddLive(uint64(old.loc.Segment), -int64(old.loc.Length))
	}
	out.AddLive(uint64(r.Loc.Segment), int64(r.Loc.Length))
	out.PutRecord(r.Key, index.Record{RecordSeq: r.Seq, Segment: uint64(r.Loc.Segment), Offset: r.Loc.Offset, Length: r.Loc.Length, Payload: r.Payload})
	c.where[string(r.Key)] = recordAt{r.Seq, r.Loc}
}

// applyMove repoints what still points into the victim, and what was lost and
// was found there; anything else has died or moved since and stays as it is.
func (c *Counter) applyMove(out *index.Batch, m Move) error {
	places := slices.Clone(m.Places)
	slices.SortFunc(places, func(a, b chunk.Placement) int { return bytes.Compare(a.Key[:], b.Key[:]) })
	places = slices.CompactFunc(places, func(a, b chunk.Placement) bool { return a.Key == b.Key })
	ids := make([]index.ID, len(places))
	for i := range places {
		ids[i] = places[i].Key
	}
	return c.idx.GetSorted(ids, func(i int, e index.Entry, ok bool) error {
		if !ok || e.Segment != uint64(m.Victim) && e.Location != (index.Location{}) {
			return nil
		}
		place(out, &e, places[i].Loc)
		out.SetEntry(ids[i], e)
		return nil
	})
}

// Lost is content that could not be read from the frame at a place.
type Lost struct {
	Key     chunk.Key
	Segment uint64
	Offset  uint32
}

// MarkLost records what could not be read where its entry says; an entry that got
// another place since is left as it is. Takes then treat the content as absent, and
// the next one that brings such a page heals it. What could not be read may be
// readable again, so the place stays, is tried by every read, and keeps its segment
// alive.
func (c *Counter) MarkLost(lost []Lost) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.idx.Untrusted(); err != nil {
		return err
	}
	out := c.idx.NewBatch()
	lost = slices.Clone(lost)
	slices.SortFunc(lost, func(a, b Lost) int { return bytes.Compare(a.Key[:], b.Key[:]) })
	lost = slices.CompactFunc(lost, func(a, b Lost) bool { return a.Key == b.Key })
	sorted := make([]chunk.Key, len(lost))
	for i := range lost {
		sorted[i] = lost[i].Key
	}
	err := c.idx.GetSorted(sorted, func(i int, e index.Entry, ok bool) error {
		if !ok || e.Lost || e.Segment != lost[i].Segment || e.Offset != lost[i].Offset {
			return nil
		}
		e.Lost = true
		out.SetEntry(sorted[i], e)
		c.noteLost(out)
		c.marked.Store(true)
		return nil
	})
	if err != nil {
		return err
	}
	return out.Commit()
}

// Abandon takes their places from ids that could not be read even when their
// segment was cleaned, so that it can be put aside. They are lost.
func (c *Counter) Abandon(ids []chunk.Key) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.idx.Untrusted(); err != nil {
		return err
	}
	out := c.idx.NewBatch()
	sorted := toIndex(ids)
	err := c.idx.GetSorted(sorted, func(i int, e index.Entry, ok bool) error {
		if !ok {
			return nil
		}
		if !e.Lost {
			c.noteLost(out)
		}
		unplace(out, &e)
		out.SetEntry(sorted[i], e)
		return nil
	})
	if err != nil {
		return err
	}
	return out.Commit()
}

// unplace takes an entry's place away: it is lost until it gets another.
func unplace(out *index.Batch, e *index.Entry) {
	if share := e.Share(); share > 0 {
		out.AddLive(e.Segment, -int64(share))
	}
	e.Location, e.Lost = index.Location{}, true
}

// place gives an entry a place.
func place(out *index.Batch, e *index.Entry, at index.Location) {
	unplace(out, e)
	e.Location, e.Lost = at, false
	out.AddLive(e.Segment, int64(e.Share()))
}

// put gives an entry the place where a batch stored it. In a damaged frame it is lost
// all the same: what brings it again is not to rely on that, and heals it.
func (c *Counter) put(out *index.Batch, e *index.Entry, p chunk.Placement) {
	lost := e.Lost
	place(out, e, p.Loc)
	if p.Damaged {
		e.Lost = true
		if !lost {
			c.noteLost(out)
		}
	}
}

// toIndex gives keys in the order of the index, each once.
func toIndex(ids []chunk.Key) []chunk.Key {
	out := slices.Clone(ids)
	slices.SortFunc(out, func(a, b chunk.Key) int { return bytes.Compare(a[:], b[:]) })
	return slices.Compact(out)
}

// deltas gathers count changes of one atomic step.
type deltas struct {
	at   map[chunk.Key]int32 // in list
	list []delta
}

type delta struct {
	key  chunk.Key
	n    int64
	node bool
}

// keptDeltas is up to how many the memory of a step is used for the next: takes of
// some pages are many, and growing a map was a twentieth of the CPU time of each.
const keptDeltas = 1 << 12

// emptyDeltas begins a step. Those of the last one are gone.
func (c *Counter) emptyDeltas() *deltas {
	d := &c.deltas
	if cap(d.list) > keptDeltas || d.at == nil {
		*d = deltas{at: map[chunk.Key]int32{}}
	}
	d.clear()
	return d
}

func (d *deltas) clear() {
	clear(d.at)
	d.list = d.list[:0]
}

func (d *deltas) len() int { return len(d.list) }

// add gives what takes the changes of one domain.
func (d *deltas) add(in chunk.Domain) func(id chunk.ID, n int64, node bool) error {
	return func(id chunk.ID, n int64, node bool) error {
		key := in.Key(id)
		i, ok := d.at[key]
		if !ok {
			i = int32(len(d.list))
			d.at[key] = i
			d.list = append(d.list, delta{key: key})
		}
		d.list[i].n += n
		d.list[i].node = d.list[i].node || node
		return nil
	}
}

// in gives the store as the canister under a key sees it.
func (c *Counter) in(canister []byte) *chunk.Store { return c.store.In(c.dedup.Of(canister)) }

// flushDeltas turns deltas into absolute entries in out and empties them.
func (c *Counter) flushDeltas(out *index.Batch, d *deltas) error {
	defer d.clear()
	list := slices.DeleteFunc(d.list, func(x delta) bool { return x.n == 0 })
	if len(list) == 0 {
		return nil
	}
	slices.SortFunc(list, func(a, b delta) int { return bytes.Compare(a.key[:], b.key[:]) })
	ids := make([]chunk.Key, len(list))
	for i := range list {
		ids[i] = list[i].key
	}
	err := c.idx.GetSorted(ids, func(i int, e index.Entry, ok bool) error {
		return c.setCount(out, ids[i], e, ok, list[i].n, list[i].node)
	})
	c.stats.Changes += uint64(len(ids))
	return err
}

func (c *Counter) setCount(out *index.Batch, id chunk.Key, e index.Entry, ok bool, delta int64, node bool) error {
	count := int64(e.Count) + delta
	if count < 0 {
		return fmt.Errorf("%w: %v has %d, changed by %d", ErrUnderflow, id, e.Count, delta)
	}
	gone := !ok || e.Lost || !c.alive(e.Segment)
	// What came with this batch heals, whatever its count does: after this
	// nobody looks at it any more.
	var p *chunk.Places
	var at int
	found, came := false, false
	if gone {
		p, at, found = c.store.PlacedIn(id)
		entered := c.entered[p]
		came = entered != nil && !entered[at]
	}
	if gone && (delta > 0 || came) {
		e.Node = node || e.Node
		if came {
			c.entered[p][at] = true
		}
		if found {
			if ok && e.Lost && node {
				// What lies below it may have been left out of the counts.
				c.idx.MarkUntrusted(fmt.Errorf("node %v was lost and is back: what it names must be counted anew", id))
			}
			c.put(out, &e, p.List[at])
		} else if !e.Lost {
			unplace(out, &e)
			c.noteLost(out)
			c.log.Error("named but not stored", "chunk", id.String())
		}
	}
	switch {
	case e.Count == 0 && count > 0:
		c.stats.Births++
		if ok {
			out.DeleteLimbo(id)
			c.limbo.clear(id)
		}
	case count == 0:
		c.stats.Deaths++
		out.PutLimbo(id)
	}
	e.Count = uint64(count)
	setEntry(out, id, e, ok)
	return nil
}

// setEntry stores an entry of which GetSorted has just said whether it is there.
func setEntry(out *index.Batch, id chunk.Key, e index.Entry, ok bool) {
	if ok {
		out.SetEntry(id, e)
	} else {
		out.AddEntry(id, e)
	}
}
