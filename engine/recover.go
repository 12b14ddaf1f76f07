package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/snapstore/snapstore/chunk"
	"github.com/snapstore/snapstore/gc"
	"github.com/snapstore/snapstore/internal/index"
	"github.com/snapstore/snapstore/internal/record"
	"github.com/snapstore/snapstore/internal/seglog"
	"github.com/snapstore/snapstore/manifest"
)

// recovery says what Open had to do.
type recovery struct {
	rebuilt  string // why the index was built anew; empty if it was not
	batches  int
	duration time.Duration
	lost     uint64 // IDs that a rebuild found named, and not in a whole frame
	bad      error  // of the last node or record that could not be read while counting
	unread   error  // of what a rebuild left out because reading failed
	rereads  int    // so far
}

func (e *Engine) indexOptions() index.Options {
	return index.Options{
		FS: e.o.FS, Dir: path.Join(e.dir, "index"), StoreID: e.log.StoreID(),
		CacheSize: e.o.IndexCache, MemTableSize: uint64(e.o.MemTable), Logger: e.o.Logger,
		Floor: uint64(e.log.Floor()), Check: e.checkWatermark, MakeRoom: e.log.MakeRoom,
		Breather: e.pace.Breather,
	}
}

// checkWatermark refuses an index that is ahead of the log, or of another one.
func (e *Engine) checkWatermark(seq uint64, hash [32]byte) error {
	if last, _ := e.log.Last(); seglog.Sequence(seq) > last {
		e.ahead = seglog.Sequence(seq)
		return fmt.Errorf("it is at batch %d and the log ends at %v", seq, last)
	}
	have, ok, err := e.log.HashAt(seglog.Sequence(seq))
	switch {
	case err != nil:
		return err
	case !ok:
		return fmt.Errorf("the log has no batch %d", seq)
	case have != seglog.Hash(hash):
		return fmt.Errorf("batch %d of the log is another one", seq)
	}
	return nil
}

// recover brings index and canister table to the end of the log and starts
// the goroutines. The log is started first: from then on nothing it accepted
// can be lost again, so the index never gets ahead of it.
func (e *Engine) recover(ctx context.Context) error {
	began := time.Now()
	idx, err := e.openIndex()
	if err != nil {
		return err
	}
	e.idx = idx
	if e.ahead > 0 {
		// The index follows synced batches only. So what the log took for a
		// torn tail was synced, and what is missing of it is damage.
		if err := e.log.Close(); err != nil {
			return err
		}
		if err := e.openLog(e.ahead); err != nil {
			return err
		}
	}
	if err := e.checkLoss(); err != nil {
		return err
	}
	if err := e.log.Start(ctx); err != nil {
		return err
	}
	if e.idx == nil {
		if err := e.rebuild(ctx); err != nil {
			return err
		}
	}
	again := ""
	if err := e.catchUp(ctx); err != nil {
		// An index that can not be brought to the end of the log is as good as
		// none. Built anew it must come there.
		if e.idx.Untrusted() == nil {
			return err
		}
		again = "it could not be brought up to date"
		e.o.Logger.Warn("index is built anew", "reason", e.idx.Untrusted())
	} else if e.counter.Partial() > 0 && e.recovery.rebuilt == "" {
		again = "it lacks what could not be read when it was built"
		e.o.Logger.Warn("index is built anew", "reason", again)
	}
	if again != "" {
		e.recovery.rebuilt = again
		e.copies = copies(e.idx)
		if err := e.idx.Close(); err != nil {
			e.o.Logger.Warn("close of the index that is given up", "error", err)
		}
		e.idx = nil
		if err := e.rebuild(ctx); err != nil {
			return err
		}
		if err := e.catchUp(ctx); err != nil {
			return err
		}
	}
	if err := e.settleLoss(); err != nil {
		return err
	}
	e.account()
	e.applier = gc.NewApplier(e.counter, e.watermark(), e.o.Logger)
	e.gc = gc.NewCollector(e.log, e.idx, e.store, e.counter, e.applier, e.pace, gc.CollectorOptions{
		CleanBelow: e.o.CleanBelow, MaxDebt: e.o.MaxDebt, MoveCodec: e.moveCodec(), QuickCodec: e.o.Codec, SegmentSize: e.o.SegmentSize,
		Reading: e.reading, Commit: e.commitMoves, Logger: e.o.Logger,
	})
	e.tickets.OnEnd(e.gc.Kick)
	e.early.mu.Lock()
	for _, b := range e.early.queue {
		if b.Seq > e.watermark() {
			e.applier.Enqueue(b)
		}
	}
	e.early.running, e.early.queue = true, nil
	e.early.mu.Unlock()
	if !e.o.NoBackground {
		e.gc.Start()
		e.gc.Kick()
	}
	if err := e.recovery.unread; err != nil && !e.o.AcceptLoss {
		// What could not be read is not in the index, and may be whole. Nothing is
		// freed, and the next Open looks again; a repair moves it out of the way.
		e.idx.MarkUntrusted(fmt.Errorf("the index was built without what could not be read: %w", err))
	}
	e.recovery.duration = time.Since(began)
	return e.startScrubbing()
}

// checkLoss refuses a log that lacks batches which the index has not seen
// either: any canister may have changed in them.
func (e *Engine) checkLoss() error {
	if e.idx == nil {
		return e.lossSince(0)
	}
	return e.lossSince(e.watermark())
}

// lossSince refuses batches that are lost and higher than after, unless that was
// accepted.
func (e *Engine) lossSince(after seglog.Sequence) error {
	if lost := e.log.LostThrough(); lost > after && !e.o.AcceptLoss {
		return e.lossError(lost)
	}
	return nil
}

func (e *Engine) lossError(lost seglog.Sequence) error {
	var where []error
	for _, d := range e.log.Damage() {
		where = append(where, errors.New(d.String()))
	}
	return fmt.Errorf("%w: through batch %s: %w", ErrLost, lost, errors.Join(where...))
}

// settleLoss makes an accepted loss the state that the next Open begins with.
func (e *Engine) settleLoss() error {
	if e.log.LostThrough() == 0 || !e.o.AcceptLoss {
		return nil
	}
	return e.idx.Flush()
}

// copies gives the records that an index has: one that has rotten in the log may
// be whole there. An error ends the listing early and costs no more than that.
func copies(idx *index.Index) map[string]index.Record {
	out := map[string]index.Record{}
	for r, err := range idx.Records() {
		if err != nil {
			break
		}
		if rec, err := record.Decode(r.Payload); err == nil && rec.Seq == r.RecordSeq {
			out[string(r.Key)] = r.Record
		}
	}
	return out
}

// catchUp reads what the index knows and applies what it has not seen.
func (e *Engine) catchUp(ctx context.Context) (err error) {
	if err := e.makeStore(lookup{e.idx}); err != nil {
		return err
	}
	for r, err := range e.idx.Records() {
		if err == nil {
			err = e.enter(r.Key, r.Payload)
		}
		if err != nil {
			e.idx.MarkUntrusted(err)
			return err
		}
	}
	if e.counter, err = gc.NewCounter(e.idx, e.store, e.dedup, e.alive, e.o.Logger); err != nil {
		return err
	}
	e.counter.SetStep(e.o.countStep())
	if e.recovery.lost > 0 {
		if err := e.counter.NoteLossy(); err != nil {
			return err
		}
	}
	for key, seq := range e.counter.Damaged() {
		e.damage([]byte(key), seq, errOldDamage)
	}
	after := e.watermark()
	if err := e.replay(ctx); err != nil {
		return err
	}
	if err := e.lossSince(after); err != nil {
		return err
	}
	return e.idx.Untrusted()
}

// errOldDamage is all that is left of damage that an earlier open has met.
var errOldDamage = errors.New("the newest record could not be read")

// moveCodec is what gc that was asked for compresses with: what survives is cold.
func (e *Engine) moveCodec() chunk.Codec {
	if e.o.Codec == chunk.CodecRaw {
		return chunk.CodecRaw
	}
	return chunk.CodecZstd
}

func (e *Engine) watermark() seglog.Sequence {
	seq, _ := e.idx.Watermark()
	return seglog.Sequence(seq)
}

// openIndex gives nil when it has to be built anew.
func (e *Engine) openIndex() (*index.Index, error) {
	if e.o.RebuildIndex {
		e.recovery.rebuilt = "asked for"
		return nil, nil
	}
	idx, err := index.Open(e.indexOptions())
	if noSpace(err) && e.log.MakeRoom() {
		idx, err = index.Open(e.indexOptions())
	}
	var stale *index.StaleError
	if errors.As(err, &stale) {
		e.recovery.rebuilt = stale.Reason
		e.o.Logger.Warn("index is built anew", "reason", stale.Reason, "error", stale.Err)
		return nil, nil
	}
	return idx, err
}

// alive tells whether the log still has a segment.
func (e *Engine) alive(segment uint64) bool { return e.log.Has(seglog.SegmentID(segment)) }

func (e *Engine) makeStore(l chunk.Lookup) (err error) {
	e.store, err = chunk.NewStore(chunk.StoreOptions{
		Index: l, Log: e.log, NodeID: manifest.NodeID, PageCacheBytes: e.o.PageCache, NodeCacheBytes: e.o.NodeCache,
		Alive: e.alive,
		OnLost: func(id chunk.Key, err *chunk.CorruptionError) {
			e.counters.lost.Add(1)
			e.o.Logger.Error("chunk is damaged", "error", err)
			if e.counter != nil {
				e.lost.add(gc.Lost{Key: id, Segment: err.Segment, Offset: err.Offset}, func(lost []gc.Lost) { _ = e.counter.MarkLost(lost) })
			}
		},
	})
	return err
}

// lookup asks the filter only where a wrong "no" costs nothing, which is when a
// take wonders whether a page is stored; whoever reads knows that it is.
type lookup struct{ *index.Index }

func (l lookup) Get(id index.ID) (index.Entry, bool, error) { return l.GetUnfiltered(id) }

// gone tells whether the content of an ID that a head names was lost: writing it
// once more brings it back.
func (s *space) gone(id chunk.ID) bool {
	if id.IsZero() {
		return false
	}
	entry, ok, err := s.e.idx.Get(s.store.Domain().Key(id))
	return err == nil && (!ok || entry.Lost || !s.e.alive(entry.Segment))
}

// enter puts a record into the canister table if it is the newest.
func (e *Engine) enter(key, payload []byte) error {
	rec, err := record.Decode(payload)
	if err != nil {
		return err
	}
	id, err := CanisterIDFromBytes(key)
	if err != nil {
		return err
	}
	ent := e.table[id]
	if ent == nil {
		ent = newEntry(id)
		e.table[id] = ent
	}
	if rec.Seq >= ent.seen {
		ent.rec, ent.seen, ent.damaged = rec, rec.Seq, nil
	}
	return nil
}

// damage notes a record that can not be read, unless a copy of it, or a newer
// one, is known.
func (e *Engine) damage(key []byte, seq uint64, err error) {
	id, kerr := CanisterIDFromBytes(key)
	if kerr != nil {
		return
	}
	ent := e.table[id]
	if ent == nil {
		ent = newEntry(id)
		e.table[id] = ent
	}
	if seq > ent.seen {
		ent.seen, ent.damaged = seq, err
		e.o.Logger.Error("canister record is damaged", "canister", id.String(), "record", seq, "error", err)
	}
}

// replay applies every batch that the index has not seen.
func (e *Engine) replay(ctx context.Context) error {
	after := e.watermark()
	return e.log.Replay(ctx, after, func(in *seglog.Batch) error {
		// Nothing behind a loss is applied: an index that has seen it would tell the
		// next Open that nothing is missing.
		if err := e.lossSince(after); err != nil {
			return err
		}
		e.recovery.batches++
		b := &gc.Batch{Seq: in.Seq, Hash: in.Hash}
		if err := e.replayFrames(in, b); err != nil {
			if unread(err) {
				// It may well be whole: to leave it out would be to lose it. The
				// index is built anew, which reads once more.
				e.idx.MarkUntrusted(err)
			}
			return err
		}
		for _, r := range in.Records {
			err := r.Damaged
			if err == nil {
				err = e.enter(r.Key, r.Payload)
			}
			if err != nil {
				// What the record named would stay uncounted, and later records
				// share it. Counting anew, from all that is there, does not.
				err = fmt.Errorf("record %d of canister %x: %w", r.RecordSeq, r.Key, err)
				e.idx.MarkUntrusted(err)
				return err
			}
			b.Records = append(b.Records, gc.Record{Key: bytes.Clone(r.Key), Seq: r.RecordSeq, Loc: r.Loc, Payload: bytes.Clone(r.Payload), Moved: r.Moved})
		}
		return e.counter.Apply(ctx, b)
	})
}

// replayFrames publishes where a batch put its pages and nodes. Of damaged frames
// only pages that prove themselves are: the rest will be named and not stored.
func (e *Engine) replayFrames(in *seglog.Batch, b *gc.Batch) error {
	var buf []byte
	var moves []seglog.FrameInfo
	damaged := func(err error) bool { return errors.Is(err, seglog.ErrDamaged) && !unread(err) }
	places := func(loc seglog.Loc) ([]chunk.Placement, error) {
		kind, payload, err := e.log.ReadFrame(loc, buf)
		if err != nil {
			return nil, err
		}
		buf = payload
		return gc.FramePlacements(kind, loc, payload)
	}
	for _, f := range in.Frames {
		if unread(f.Damaged) {
			return f.Damaged
		}
		switch {
		case f.Kind == seglog.KindMove && f.Damaged == nil:
			moves = append(moves, f)
		case f.Kind == seglog.KindMove || f.Stream == seglog.StreamMoved:
		default:
			var p []chunk.Placement
			err := f.Damaged
			if err == nil {
				p, err = places(f.Loc)
			}
			if f.Damaged != nil || damaged(err) {
				p, err = gc.SalvagePlacements(e.log, &e.coder, f.Kind, f.Loc)
			}
			if err != nil {
				return err
			}
			b.Placed = append(b.Placed, e.store.Publish(p))
		}
	}
	for _, f := range moves {
		_, payload, err := e.log.ReadFrame(f.Loc, nil)
		if damaged(err) {
			continue
		}
		if err != nil {
			return err
		}
		victim, frames, err := gc.DecodeMove(payload)
		if err != nil {
			return err
		}
		m := gc.Move{Victim: victim}
		for _, loc := range frames {
			p, err := places(loc)
			if errors.Is(err, seglog.ErrSegmentGone) || damaged(err) {
				// What is gone was moved on. Where it is damaged, the victim has the
				// better copy, and stands: it goes with a floor at or above its moves,
				// and an index below that is not replayed to but built anew.
				continue
			}
			if err != nil {
				return err
			}
			m.Places = append(m.Places, p...)
		}
		b.Moves = append(b.Moves, m)
	}
	return nil
}

// rebuild makes the index from the log alone, in bounded memory: where
// everything is from every frame, how often it is introduced from the newest
// record of every canister.
func (e *Engine) rebuild(ctx context.Context) error {
	err := e.rebuildOnce(ctx)
	if noSpace(err) && e.log.MakeRoom() {
		err = e.rebuildOnce(ctx)
	}
	return err
}

func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

func (e *Engine) rebuildOnce(ctx context.Context) error {
	e.recovery.unread, e.recovery.bad, e.recovery.rereads = nil, nil, 0
	if err := index.Destroy(e.indexOptions()); err != nil {
		return err
	}
	rb, err := index.NewRebuilder(e.indexOptions(), index.RebuildOptions{Memory: e.o.RebuildMemory})
	if err != nil {
		return err
	}
	defer rb.Abort()
	seq, hash := e.log.Last()
	var reading sync.Mutex // of what is read again
	err = e.log.ScanEach(ctx, func(f seglog.FrameInfo) error {
		if unread(f.Damaged) {
			reading.Lock()
			f = e.readAgain(ctx, f)
			reading.Unlock()
		}
		if f.Damaged != nil {
			reading.Lock()
			places := e.salvage(ctx, f)
			reading.Unlock()
			for _, p := range places {
				if err := rb.AddSalvaged(p.Key, p.Loc); err != nil {
					return err
				}
			}
			return nil
		}
		if f.Kind != seglog.KindGroup && f.Kind != seglog.KindNodes {
			return nil
		}
		places, err := gc.FramePlacements(f.Kind, f.Loc, f.Payload)
		if err != nil {
			e.o.Logger.Error("frame holds nothing that can be read", "frame", f.Loc.String(), "error", err)
			return nil
		}
		for _, p := range places {
			if err := rb.AddLocation(p.Key, p.Loc, p.Node); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	// Every frame was read: of the batches only the records are wanted.
	var newest map[string]index.Record
	var both errgroup.Group
	both.Go(rb.FinishLocations)
	both.Go(func() (err error) {
		newest, err = e.newestRecords(ctx, seq)
		return err
	})
	if err := both.Wait(); err != nil {
		return err
	}
	if err := e.checkLoss(); err != nil {
		return err
	}
	if err := e.makeStore(rebuilding{rb}); err != nil {
		return err
	}
	defer func() { e.store = nil }()
	for _, key := range sortedKeys(newest) {
		bad := func(id chunk.ID, err error) {
			e.recovery.bad = err
			if unread(err) {
				e.recovery.unread = err
			}
			e.o.Logger.Error("node can not be read", "node", id.String(), "error", err)
		}
		if err := gc.Rebuild(ctx, rb, e.store.In(e.dedup.Of([]byte(key))), []byte(key), newest[key], e.damagedSeq(key), bad); err != nil {
			return err
		}
	}
	for id, ent := range e.table {
		if ent.damaged != nil {
			e.recovery.bad = ent.damaged
		}
		if _, known := newest[id.raw]; ent.damaged != nil && !known {
			if err := gc.RebuildDamaged(rb, id.Bytes(), ent.seen); err != nil {
				return err
			}
		}
	}
	if e.recovery.bad != nil && !e.o.AcceptLoss {
		e.o.Logger.Warn("no segment is freed of those that hold what is not counted", "error", e.recovery.bad)
		if err := gc.RebuildPartial(rb, e.log.NextSegment()); err != nil {
			return err
		}
	}
	if e.idx, err = rb.Finish(uint64(seq), hash); err != nil {
		return err
	}
	e.recovery.lost = rb.Stats().Lost
	return nil
}

// unread tells whether something counts as damaged only because the file system
// failed to give it: it may well be whole. A file that is not there, or ends too
// early, is not that: to read it again does not help.
func unread(damage error) bool {
	var fe *seglog.FrameError
	return errors.As(damage, &fe) && fe.Err != nil && !errors.Is(fe.Err, fs.ErrNotExist) && !errors.Is(fe.Err, io.ErrUnexpectedEOF)
}

// rereads is how often a rebuild waits before it reads a frame again, in all: where a
// disk does not come back, each frame of a segment would cost as much.
const rereads = 100

// readAgain reads a frame that could not be read, a few times.
func (e *Engine) readAgain(ctx context.Context, f seglog.FrameInfo) seglog.FrameInfo {
	for range 3 {
		if f.Kind == 0 || ctx.Err() != nil { // nothing tells where it begins, or nobody wants it
			break
		}
		e.beforeReread()
		kind, payload, err := e.log.ReadFrame(f.Loc, nil)
		if err == nil {
			f.Kind, f.Payload, f.Damaged = kind, payload, nil
			return f
		}
		if f.Damaged = err; !unread(err) {
			return f
		}
	}
	e.recovery.unread = f.Damaged
	return f
}

func (e *Engine) beforeReread() {
	if e.recovery.rereads++; e.recovery.rereads <= rereads {
		time.Sleep(20 * time.Millisecond)
	}
}

// salvage lists the pages that are whole in a damaged frame. It tries again as
// readAgain does, where that has not tried.
func (e *Engine) salvage(ctx context.Context, f seglog.FrameInfo) []chunk.Placement {
	places, err := gc.SalvagePlacements(e.log, &e.coder, f.Kind, f.Loc)
	for try := 0; err != nil && try < 3 && !unread(f.Damaged) && ctx.Err() == nil; try++ {
		e.beforeReread()
		places, err = gc.SalvagePlacements(e.log, &e.coder, f.Kind, f.Loc)
	}
	if err != nil {
		e.recovery.unread = err
	}
	return places
}

// damagedSeq is the sequence of a canister's newest record if that can not be
// read, and 0 otherwise.
func (e *Engine) damagedSeq(key string) uint64 {
	if ent := e.table[CanisterID{key}]; ent != nil && ent.damaged != nil {
		return ent.seen
	}
	return 0
}

// newestRecords finds the newest readable record of every canister, and notes
// those whose newest can not be read: their chunks stay counted by the record
// before, which is never served.
func (e *Engine) newestRecords(ctx context.Context, upTo seglog.Sequence) (map[string]index.Record, error) {
	newest := map[string]index.Record{}
	for key, r := range e.copies {
		if err := e.enter([]byte(key), r.Payload); err == nil && e.alive(r.Segment) {
			newest[key] = r
		}
	}
	err := e.log.Records(ctx, func(in *seglog.Batch) error {
		if in.Seq > upTo {
			return nil
		}
		for _, r := range in.Records {
			err := r.Damaged
			if err == nil {
				_, err = record.Decode(r.Payload)
			}
			if unread(err) {
				e.recovery.unread = err
			}
			if err != nil {
				e.damage(r.Key, r.RecordSeq, err)
				continue
			}
			if err := e.enter(r.Key, r.Payload); err != nil {
				return err
			}
			if have, ok := newest[string(r.Key)]; !ok || r.RecordSeq >= have.RecordSeq {
				newest[string(r.Key)] = index.Record{
					RecordSeq: r.RecordSeq, Segment: uint64(r.Loc.Segment), Offset: r.Loc.Offset, Length: r.Loc.Length, Payload: bytes.Clone(r.Payload),
				}
			}
		}
		return nil
	})
	return newest, err
}

// rebuilding is the look-up of an index that is being built.
type rebuilding struct{ rb *index.Rebuilder }

func (r rebuilding) Get(id index.ID) (index.Entry, bool, error) {
	loc, ok, err := r.rb.Lookup(id)
	return index.Entry{Location: loc, Count: 1}, ok, err
}

func (r rebuilding) MayContain(index.ID) bool { return true }

func (r rebuilding) MayContainEach(ids []index.ID, may []bool) {
	for i := range ids {
		may[i] = true
	}
}
