package gc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/snapstore/snapstore/chunk"
	"github.com/snapstore/snapstore/internal/failpoint"
	"github.com/snapstore/snapstore/internal/seglog"
)

// victim is a sealed segment worth emptying.
type victim struct {
	id      seglog.SegmentID
	size    int64
	live    int64
	damaged bool // something in it could not be read
	stream  seglog.Stream
	small   bool // stores that are opened and closed often make many of them
	early   bool // may not go yet; see sealed
}

// sealed lists the segments that may go. Those are early that the durable index does not
// know whole, or, where somebody asked or the disk is full, the one in memory: their time
// has not come.
func (g *Collector) sealed(asked bool) []victim {
	segments, applied, live := g.observe()
	durable := g.idx.DurableWatermark()
	if asked || g.log.Short() {
		durable = applied
	}
	stays := g.stays()
	var out []victim
	for _, s := range segments {
		if !stays(s) && s.Sealed && !s.Busy {
			out = append(out, victim{
				id: s.ID, size: s.Size, live: live[uint64(s.ID)], stream: s.Stream,
				small: s.Size < g.o.SegmentSize/8, early: s.LastSeq != 0 && uint64(s.LastSeq) >= durable,
			})
		}
	}
	return out
}

// under tells whether less than CleanBelow of so many bytes is alive.
func (g *Collector) under(live, size int64) bool { return float64(live) < g.o.CleanBelow*float64(size) }

// victims lists what to reclaim, emptiest first. Besides those under the
// threshold these are small ones when there are many: stores that are opened
// and closed often leave a small segment each time.
func (g *Collector) victims(asked bool) []victim { return g.worth(g.sealed(asked), asked) }

func (g *Collector) worth(all []victim, asked bool) []victim {
	var out, small []victim
	for _, v := range all {
		switch {
		case v.early:
		case v.live == 0, g.under(v.live, v.size) && (v.size > g.o.SegmentSize/64 || asked):
			out = append(out, v)
		case v.small:
			small = append(small, v)
		}
	}
	if len(small) >= 32 {
		out = append(out, small...)
	}
	slices.SortFunc(out, func(a, b victim) int {
		return cmp.Or(cmp.Compare(a.live*b.size, b.live*a.size), cmp.Compare(a.id, b.id))
	})
	return out
}

// due lists what background work empties now, emptiest first: what victims has, while
// less than CleanBelow of all segments together is alive. Each at the moment in which it
// falls under that share itself would be the dearest: then four bytes are moved for each
// that comes free. Small ones go as before, and all of them where the disk is full, or
// where half of MaxDebt waits to be given back in such segments.
func (g *Collector) due() []victim {
	all := g.sealed(false)
	// What is empty goes by itself and is no reason.
	all = slices.DeleteFunc(all, func(v victim) bool { return v.live == 0 && !v.early })
	var size, alive, debt int64
	for _, v := range all {
		size, alive = size+v.size, alive+v.live
		switch {
		case v.early:
			alive += v.size - v.live // what died young is not made up for by others
		case g.under(v.live, v.size):
			debt += v.size - v.live
		}
	}
	wanting := g.under(alive, size) || debt > g.o.MaxDebt/2 || g.log.Short()
	return slices.DeleteFunc(g.worth(all, false), func(v victim) bool { return !wanting && !v.small })
}

// stays says which segments do not go whatever is alive in them. Where a record
// is damaged the batches around it are the evidence: without them a rebuild would
// take an older record for the newest. For the rest see Counter.Partial.
func (g *Collector) stays() func(seglog.SegmentInfo) bool {
	evidence, below := len(g.counter.Damaged()) > 0, g.counter.Partial()
	return func(s seglog.SegmentInfo) bool {
		return evidence && s.Stream == seglog.StreamCommit || s.ID < below
	}
}

// observe looks at segments, at the watermark, and at how much is alive, in this
// order. What a batch stored becomes alive when it is applied, and a spill lets
// its segments go only then. So a sealed segment that nobody holds, and whose
// last batch is below the watermark, has all that is alive in it counted. Seen in
// another order it can look dead, and what a take has just stored in it be taken
// for damage.
func (g *Collector) observe() (segments []seglog.SegmentInfo, applied uint64, live map[uint64]int64) {
	segments = g.log.Segments()
	applied, _ = g.idx.Watermark()
	return segments, applied, g.idx.Live()
}

// fresh lists the sealed segments with data as takes wrote it, or as the background
// has moved it. Cleaning writes to segments of its own kind. quick is which of these
// are the background's, as far as it was looked at.
func (g *Collector) fresh(ctx context.Context, quick map[seglog.SegmentID]bool) (out []victim) {
	for _, v := range g.sealed(true) {
		if v.early || v.live <= g.o.SegmentSize/64 { // records alone are not worth it
			continue
		}
		if v.stream == seglog.StreamMoved {
			q, known := quick[v.id]
			if !known {
				q = g.movedQuickly(ctx, v.id)
				quick[v.id] = q
			}
			if !q {
				continue
			}
		}
		out = append(out, v)
	}
	return out
}

// movedQuickly tells by the first group that is compressed whether the background has
// written a segment that was moved. One pass writes all of it.
func (g *Collector) movedQuickly(ctx context.Context, id seglog.SegmentID) bool {
	if g.o.MoveCodec == chunk.CodecRaw {
		return false // nothing is made smaller
	}
	for f, err := range g.log.ScanSegment(ctx, id) {
		if err != nil {
			return false
		}
		if f.Kind != seglog.KindGroup || f.Damaged != nil {
			continue
		}
		if codec, err := chunk.GroupCodec(f.Payload); err == nil && codec != chunk.CodecRaw {
			return codec != g.o.MoveCodec
		}
	}
	return false
}

// wasteful tells whether sealing open segments is worth it: they hold dead
// bytes that cleaning could give back.
func (g *Collector) wasteful() bool {
	live := g.idx.Live()
	for _, s := range g.log.Segments() {
		if !s.Sealed && s.ID >= g.counter.Partial() && g.under(live[uint64(s.ID)], s.Size) {
			return true
		}
	}
	return false
}

// together is how many bytes of emptied segments are released at once: each
// release may flush the index and writes ROOT, and until then the disk holds
// both the segments and the copies of what lived in them.
const together = 256 << 20

// empty moves what is alive in a segment elsewhere. It returns whether damage
// was left behind, so that the segment must be kept aside.
func (g *Collector) empty(ctx context.Context, v victim) (damaged bool, err error) {
	p, err := g.pointers(ctx, v.id)
	if err != nil {
		return false, err
	}
	res := cleaned{broken: p.broken}
	if v.live > 0 || len(p.found) > 0 {
		res, err = g.clean(ctx, v.id, p)
		g.totals.written.Add(res.written) // also by the parts before one that failed
		if err != nil {
			return false, fmt.Errorf("clean segment %v: %w", v.id, err)
		}
		g.totals.cleaned.Add(1)
		if res.seq != 0 {
			if err := g.applier.Wait(ctx, res.seq); err != nil {
				return false, err
			}
		}
	}
	if err := g.idx.Untrusted(); err != nil {
		return false, err
	}
	damaged = len(res.damaged)+res.broken > 0
	left := g.idx.Live()[uint64(v.id)]
	if left == 0 {
		return damaged, nil
	}
	ids, err := g.leftover(ctx, v.id)
	if err != nil {
		return false, err
	}
	if len(ids) == 0 {
		return false, g.distrust(fmt.Errorf("segment %v counts %d live bytes and no entry points into it", v.id, left))
	}
	if !damaged {
		// Only what could not be read is given up.
		return false, fmt.Errorf("%w: %d entries point into %v, and every frame of it is whole", errLeft, len(ids), v.id)
	}
	return true, g.counter.Abandon(ids)
}

// flush makes the index durable, and rests meanwhile if the pass does.
func (g *Collector) flush() error {
	if !g.rests() {
		return g.withRoom(g.idx.Flush)
	}
	defer func() { g.breath.began = time.Now() }() // it worked and rested in turns
	return g.withRoom(g.idx.FlushBeside)
}

// withRoom does a step that frees segments. On a full disk it may have the room
// that is kept back for those who make room.
func (g *Collector) withRoom(step func() error) error {
	err := step()
	if noSpace(err) && g.log.MakeRoom() {
		err = step()
	}
	return err
}

func noSpace(err error) bool {
	full := errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, seglog.ErrNoSpace)
	return full && !errors.Is(err, seglog.ErrReadOnly) // which no room heals
}

// release drops emptied segments, after proving for each that it is empty, and
// making that state of the index durable. Damaged ones are kept aside.
func (g *Collector) release(ctx context.Context, emptied []victim) error {
	if len(emptied) == 0 {
		return nil
	}
	failpoint.At(failpoint.Prove, "")
	for _, v := range emptied {
		into, err := g.pointedInto(ctx, v.id)
		if err != nil {
			return err // also when it can not be read: nothing is proved then
		}
		if into {
			return g.distrust(fmt.Errorf("segment %v counts no live bytes and entries point into it", v.id))
		}
	}
	// From here on no entry of the applied state points in, and no later one
	// can: placements come only from batches after this one.
	// The steps of drops leave the watermark where it is, so the watermark being
	// durable is not enough: an index without them would drop again and read
	// nodes that are gone with these segments.
	floor, _ := g.idx.Watermark()
	if !g.idx.Settled() {
		err := g.flush()
		if noSpace(err) && g.worthDisowning(emptied) {
			floor, err = g.disown(ctx)
		}
		if err != nil {
			return err
		}
	}
	var drop []seglog.SegmentID
	for _, v := range emptied {
		if !v.damaged {
			drop = append(drop, v.id)
		} else if err := g.withRoom(func() error { return g.log.Quarantine(ctx, seglog.Sequence(floor), v.id) }); err != nil {
			return fmt.Errorf("put segment %v aside: %w", v.id, err)
		} else {
			g.totals.quarantined.Add(1)
		}
		g.totals.segments.Add(1)
		g.totals.reclaimed.Add(v.size)
	}
	if len(drop) == 0 {
		return nil
	}
	failpoint.At(failpoint.Remove, "")
	if err := g.withRoom(func() error { return g.log.Drop(ctx, seglog.Sequence(floor), drop...) }); err != nil {
		return fmt.Errorf("drop segments %v: %w", drop, err)
	}
	failpoint.At(failpoint.Removed, "")
	return nil
}

// worthDisowning weighs what would come free against an index that the next
// Open may have to build anew. For a delete that has no room, anything is worth it.
func (g *Collector) worthDisowning(emptied []victim) bool {
	var free, all int64
	for _, v := range emptied {
		free += v.size
	}
	for _, s := range g.log.Segments() {
		all += s.Size
	}
	return free >= g.o.SegmentSize || free >= all/16 || g.pace.relief.Load() > 0
}

// disown gives a floor above every durable state of the index. The index is
// derived: where there is no room to write it, segments may go without that,
// and an Open before the next flush builds it anew.
func (g *Collector) disown(ctx context.Context) (floor uint64, err error) {
	seq, err := g.o.Commit(ctx, &seglog.Request{Reserve: seglog.ReserveAll}, &Commit{})
	if err != nil {
		return 0, err
	}
	g.o.Logger.Warn("the disk is too full to write the index: segments are dropped without that", "floor", seq)
	return uint64(seq), g.applier.Wait(ctx, seq)
}

func (g *Collector) distrust(err error) error {
	g.idx.MarkUntrusted(err)
	return err
}

// worthFlush says when background work may force the index out: when as large a share
// of the log as cleaning leaves garbage, and 64 MiB at least, wait only for that.
// Forcing it for less rewrote the whole index again and again.
func (g *Collector) worthFlush() bool {
	live := g.idx.Live()
	durable := g.idx.DurableWatermark()
	if g.idx.Settled() {
		return false
	}
	if g.log.Short() {
		return true
	}
	var waiting, all int64
	for _, s := range g.log.Segments() {
		all += s.Size
		l := live[uint64(s.ID)]
		switch {
		case !s.Sealed || s.Busy || s.ID < g.counter.Partial():
		case l == 0, uint64(s.LastSeq) >= durable && g.under(l, s.Size):
			waiting += s.Size - l
		}
	}
	return waiting > 64<<20 && float64(waiting) > (1-g.o.CleanBelow)*float64(all) || waiting > g.o.MaxDebt/4
}
