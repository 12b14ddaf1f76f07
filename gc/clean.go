package gc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/snapstore/snapstore/chunk"
	"github.com/snapstore/snapstore/internal/failpoint"
	"github.com/snapstore/snapstore/internal/index"
	"github.com/snapstore/snapstore/internal/seglog"
	"github.com/snapstore/snapstore/manifest"
)

// cleaned is what emptying a segment came to.
type cleaned struct {
	pages, nodes, records uint64
	written               int64 // bytes of frames
	damaged               []Lost
	broken                int             // frames that are not whole
	seq                   seglog.Sequence // the last batch that moved, 0 if nothing was alive
}

// movePart is how many pages and nodes one batch moves. Applying it is some 10 us for
// each, and a take waits until its last record is applied, behind that.
const movePart = 1024

// clean copies what is alive in a sealed segment to the moved stream, page by
// page and not group by group, since a group seldom dies as a whole. So it does
// with what was lost and turns out to be readable, and with the pages of a damaged
// group that are whole. What can not be read is marked lost and stays behind. On
// return the copies are durable, and the last of the batches that repoint to them
// is queued for the applier; the others are applied.
func (g *Collector) clean(ctx context.Context, victim seglog.SegmentID, p pointers) (res cleaned, err error) {
	part := uint64(min(movePart, g.counter.step))
	m := g.newMover(victim)
	defer func() { m.close() }()
	marked := 0
	mark := func() error {
		some := res.damaged[marked:]
		if marked = len(res.damaged); len(some) == 0 {
			return nil
		}
		return g.counter.MarkLost(some)
	}
	for f, err := range g.log.ScanSegment(ctx, victim) {
		if err != nil {
			return res, err
		}
		if err := ctx.Err(); err != nil {
			return res, err
		}
		g.breathe(ctx)
		if unread(f.Damaged) && !g.abandoned[victim] {
			return res, fmt.Errorf("%w: %w", errUnread, f.Damaged)
		}
		switch {
		case f.Damaged != nil:
			res.broken++ // what still points at it is found by leftover
			err = g.cleanDamaged(f, p, &res, m.to)
		case f.Kind == seglog.KindGroup:
			err = g.cleanGroup(f, p, &res, m.to)
		case f.Kind == seglog.KindNodes:
			err = cleanNodes(f, p, &res, m.to)
		}
		if err != nil {
			return res, err
		}
		// Where the disk is full, what does not fit is withdrawn as a whole: parts would
		// fill the reserve, and the segment stand there all the same.
		if res.pages+res.nodes-m.before >= part && !g.log.Short() {
			if err := mark(); err != nil {
				return res, err
			}
			if err := m.commit(ctx, nil, &res); err != nil {
				return res, err
			}
			if err := errors.Join(g.applier.Wait(ctx, res.seq), g.idx.Untrusted()); err != nil {
				return res, err
			}
			m = g.newMover(victim)
			m.before = res.pages + res.nodes
		}
	}
	records, err := g.records(victim)
	if err != nil {
		return res, err
	}
	if err := mark(); err != nil {
		return res, err
	}
	res.records = uint64(len(records))
	if res.pages+res.nodes == m.before && len(records) == 0 {
		return res, nil
	}
	err = m.commit(ctx, records, &res)
	return res, err
}

// mover takes what one batch moves out of a segment.
type mover struct {
	g      *Collector
	victim seglog.SegmentID
	w      *chunk.Writer // nil once it was committed
	to     *regroup
	before uint64 // pages and nodes that went before
}

func (g *Collector) newMover(victim seglog.SegmentID) *mover {
	codec := g.o.MoveCodec
	if g.inBackground {
		codec = g.o.QuickCodec
	}
	w := g.store.NewWriter(chunk.WriterOptions{
		Codec: codec, SpillAfter: 1, NoDedup: true, Workers: 1,
		Spill: func() (chunk.Spill, error) { return g.log.Spill(seglog.StreamMoved) },
	})
	return &mover{g: g, victim: victim, w: w, to: newRegroup(w, codec, g.store.Coder())}
}

func (m *mover) close() {
	if m.w != nil {
		m.w.Close()
	}
}

// commit makes the copies durable, with records, and queues what repoints to them.
// The mover is of no use afterwards.
func (m *mover) commit(ctx context.Context, records []seglog.NewRecord, res *cleaned) error {
	if err := m.to.flush(); err != nil {
		return err
	}
	frames, ranges, err := m.w.Finish()
	if err != nil {
		return err
	}
	if len(frames) > 0 {
		return errors.New("cleaning wrote to the commit stream")
	}
	places := m.w.Placements(nil)
	var locs []seglog.Loc
	seen := map[seglog.Loc]bool{}
	for _, p := range places {
		l := seglog.Loc{Segment: seglog.SegmentID(p.Loc.Segment), Offset: p.Loc.Offset, Length: p.Loc.Length}
		if !seen[l] {
			seen[l] = true
			locs = append(locs, l)
			res.written += int64(l.Length)
		}
	}
	req := &seglog.Request{Reserve: seglog.ReserveFirst, Records: records, Ranges: ranges}
	if len(locs) > 0 {
		req.Frames = []seglog.NewFrame{{Kind: seglog.KindMove, Payload: encodeMove(m.victim, locs)}}
	}
	for _, r := range records {
		res.written += int64(len(r.Payload))
	}
	failpoint.At(failpoint.Copied, "")
	w := m.w
	m.w = nil
	seq, err := m.g.o.Commit(ctx, req, &Commit{Moves: []Move{{Victim: m.victim, Places: places}}, Done: func() { w.Close() }})
	if err != nil {
		w.Close()
		return err
	}
	res.seq = seq
	return nil
}

// slotAt is a place within a segment.
type slotAt struct {
	offset uint32
	slot   uint8
}

// pointers is what points into a segment, place by place.
type pointers struct {
	into map[slotAt]chunk.Key
	// found are places with what was lost and has no place any more.
	found map[slotAt]struct{}
	// broken counts the frames that are not whole. What points at them is
	// found by leftover.
	broken int
}

// at tells whether what is at a place is to be kept.
func (p pointers) at(s slotAt) bool {
	_, live := p.into[s]
	_, found := p.found[s]
	return live || found
}

// pointers looks at what is in a segment. Every ID is asked for once, in the
// order of keys.
func (g *Collector) pointers(ctx context.Context, segment seglog.SegmentID) (pointers, error) {
	p := pointers{into: map[slotAt]chunk.Key{}, found: map[slotAt]struct{}{}}
	at := map[chunk.Key]slotAt{}
	for f, err := range g.log.ScanSegment(ctx, segment) {
		g.breathe(ctx)
		switch {
		case err != nil:
			return p, err
		case unread(f.Damaged) && !g.abandoned[segment]:
			return p, fmt.Errorf("%w: %w", errUnread, f.Damaged)
		case f.Damaged != nil:
			p.broken++
			places, err := SalvagePlacements(g.log, g.store.Coder(), f.Kind, f.Loc)
			if err != nil {
				return p, fmt.Errorf("%w: %w", errUnread, err)
			}
			for _, pl := range places {
				at[pl.Key] = slotAt{f.Loc.Offset, pl.Loc.Slot}
			}
			continue
		case f.Kind != seglog.KindGroup && f.Kind != seglog.KindNodes:
			continue
		}
		if d, ids, err := frameIDs(f.Kind, f.Payload); err == nil {
			for i, id := range ids {
				at[d.Key(id)] = slotAt{f.Loc.Offset, uint8(i)}
			}
		}
	}
	// Nothing begins to point into a segment that is sealed and counted, so that it does
	// not matter of which moment each step is.
	for some := range slices.Chunk(toIndex(slices.Collect(maps.Keys(at))), lookStep) {
		g.breathe(ctx)
		err := g.idx.GetSorted(some, func(i int, e index.Entry, ok bool) error {
			switch {
			case ok && e.Segment == uint64(segment):
				p.into[slotAt{e.Offset, e.Slot}] = some[i]
			case ok && e.Location == index.Location{} && e.Count > 0:
				p.found[at[some[i]]] = struct{}{}
			}
			return ctx.Err()
		})
		if err != nil {
			return p, err
		}
	}
	return p, nil
}

// lookStep is how many entries are looked up between two breaths, at 2 to 4 us each.
// A segment has twenty thousand, and takes beside gc met looks of 40 to 70 ms.
const lookStep = 512

// cleanGroup hands on the pages of a group that entries point at.
func (g *Collector) cleanGroup(f seglog.FrameInfo, p pointers, res *cleaned, to *regroup) error {
	d, ids, err := chunk.GroupIDs(f.Payload)
	if err != nil {
		return nil // not a group: nothing can point at it, or leftover finds it
	}
	live := make([]bool, len(ids))
	any := false
	for i := range ids {
		live[i] = p.at(slotAt{f.Loc.Offset, uint8(i)})
		any = any || live[i]
	}
	if !any {
		return nil
	}
	buf, _ := g.raws.Get().(*[]byte)
	if buf == nil {
		buf = new([]byte)
		*buf = make([]byte, chunk.GroupPages*chunk.PageSize)
	}
	defer g.raws.Put(buf)
	pages, _, err := g.store.Coder().DecodeGroup(*buf, f.Payload)
	var left chunk.Salvaged
	if err != nil { // the frame is whole, and was not when it was made
		left = g.store.Coder().Salvage(bytes.Clone(f.Payload))
	}
	for i, id := range ids {
		if !live[i] {
			continue
		}
		var page []byte
		switch {
		case err == nil:
			page = pages[i*chunk.PageSize : (i+1)*chunk.PageSize]
		case left.Has(i):
			page = left.Page(i)
		}
		if page == nil || chunk.Sum(page) != id {
			res.damaged = append(res.damaged, Lost{d.Key(id), uint64(f.Loc.Segment), f.Loc.Offset})
			continue
		}
		res.pages++
		if err := to.page(d, id, page); err != nil {
			return err
		}
	}
	return nil
}

// cleanDamaged hands on what is whole in a damaged group and pointed at.
func (g *Collector) cleanDamaged(f seglog.FrameInfo, p pointers, res *cleaned, to *regroup) error {
	s, _, err := salvage(g.log, g.store.Coder(), f.Kind, f.Loc)
	if err != nil {
		return fmt.Errorf("%w: %w", errUnread, err)
	}
	for i, id := range s.IDs {
		at := slotAt{f.Loc.Offset, uint8(i)}
		// The domain is of the damaged frame, and proves nothing.
		if key, live := p.into[at]; !s.Has(i) || !p.at(at) || live && key != s.Domain.Key(id) {
			continue
		}
		res.pages++
		if err := to.page(s.Domain, id, s.Page(i)); err != nil {
			return err
		}
	}
	return nil
}

func cleanNodes(f seglog.FrameInfo, p pointers, res *cleaned, to *regroup) error {
	d, nodes, err := chunk.SplitNodes(f.Payload)
	if err != nil {
		return nil
	}
	for i, node := range nodes {
		if !p.at(slotAt{f.Loc.Offset, uint8(i)}) {
			continue
		}
		id, err := manifest.NodeID(node)
		if err != nil {
			continue
		}
		res.nodes++
		if err := to.node(d, id, node); err != nil {
			return err
		}
	}
	return nil
}

// records copies the newest records that lie in a segment from the index, which
// has a copy of each: one that has rotten in the log is whole again then.
func (g *Collector) records(segment seglog.SegmentID) ([]seglog.NewRecord, error) {
	var out []seglog.NewRecord
	for _, key := range g.counter.recordsIn(segment) {
		r, ok, err := g.idx.Record([]byte(key))
		if err != nil {
			return nil, err
		}
		if ok && r.Segment == uint64(segment) {
			out = append(out, seglog.NewRecord{Key: []byte(key), RecordSeq: r.RecordSeq, Payload: r.Payload, Moved: true})
		}
	}
	return out, nil
}

// leftover lists the entries that still point into a segment after it was
// cleaned: those whose frames could not be read, and none otherwise. It looks
// at every entry of the index, so it is asked only when the live bytes of a
// cleaned segment have not come to zero.
func (g *Collector) leftover(ctx context.Context, victim seglog.SegmentID) ([]chunk.Key, error) {
	var ids []chunk.Key
	for e, err := range g.idx.Entries(ctx) {
		if err != nil {
			return nil, err
		}
		if e.Segment == uint64(victim) {
			ids = append(ids, e.ID)
		}
	}
	return ids, g.idx.Untrusted()
}

// pointedInto proves, ID by ID, that no entry and no record points into a
// segment. The live counters only propose; this decides.
func (g *Collector) pointedInto(ctx context.Context, victim seglog.SegmentID) (bool, error) {
	p, err := g.pointers(ctx, victim)
	return len(p.into) > 0 || len(g.counter.recordsIn(victim)) > 0, err
}

// frameIDs lists what a group or a nodes frame holds, in slot order, and the
// domain it is of.
func frameIDs(kind seglog.Kind, payload []byte) (chunk.Domain, []chunk.ID, error) {
	if kind == seglog.KindGroup {
		return chunk.GroupIDs(payload)
	}
	d, nodes, err := chunk.SplitNodes(payload)
	if err != nil {
		return d, nil, err
	}
	ids := make([]chunk.ID, len(nodes))
	for i, n := range nodes {
		if ids[i], err = manifest.NodeID(n); err != nil {
			return d, nil, fmt.Errorf("slot %d: %w", i, err)
		}
	}
	return d, ids, nil
}

// FrameDomain tells of which domain a group or nodes frame is.
func FrameDomain(kind seglog.Kind, payload []byte) (chunk.Domain, error) {
	d, _, err := frameIDs(kind, payload)
	return d, err
}

// FramePlacements lists where the content of a group or nodes frame is.
func FramePlacements(kind seglog.Kind, loc seglog.Loc, payload []byte) ([]chunk.Placement, error) {
	d, ids, err := frameIDs(kind, payload)
	if err != nil {
		return nil, err
	}
	out := make([]chunk.Placement, len(ids))
	for i, id := range ids {
		out[i] = chunk.Placement{Key: d.Key(id), Node: kind == seglog.KindNodes, Loc: index.Location{
			Segment: uint64(loc.Segment), Offset: loc.Offset, Length: loc.Length, Slot: uint8(i), Slots: uint8(len(ids)),
		}}
	}
	return out, nil
}
