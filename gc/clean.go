package gc

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/snapstore/snapstore/chunk"
	"github.com/snapstore/snapstore/internal/index"
	"github.com/snapstore/snapstore/internal/seglog"
	"github.com/snapstore/snapstore/manifest"
)

// cleaned is what emptying a segment came to.
type cleaned struct {
	pages, nodes, records uint64
	written               int64 // bytes of frames
	damaged               []chunk.ID
	seq                   seglog.Sequence // the batch that moved, 0 if nothing was alive
}

// clean copies what is alive in a sealed segment to the moved stream, page by
// page and not group by group, since a group seldom dies as a whole. What can
// not be read is marked lost and stays behind. On return the copies are
// durable and the batch that repoints to them is queued for the applier.
func (g *Collector) clean(ctx context.Context, victim seglog.SegmentID) (cleaned, error) {
	var res cleaned
	w := g.store.NewWriter(chunk.WriterOptions{
		Codec: g.o.MoveCodec, SpillAfter: 1, NoDedup: true, Workers: 1,
		Spill: func() (chunk.Spill, error) { return g.log.Spill(seglog.StreamMoved) },
	})
	closeWriter := true
	defer func() {
		if closeWriter {
			w.Close()
		}
	}()

	live, err := g.pointers(ctx, victim)
	if err != nil {
		return res, err
	}
	req := &seglog.Request{Reserve: true}
	var ids []chunk.ID
	var pages []byte
	flush := func() error {
		if len(ids) == 0 {
			return nil
		}
		err := w.AddGroup(g.o.MoveCodec, ids, pages)
		ids, pages = ids[:0], pages[:0]
		return err
	}
	for f, err := range g.log.ScanSegment(ctx, victim) {
		if err != nil {
			return res, err
		}
		if err := ctx.Err(); err != nil {
			return res, err
		}
		if f.Damaged != nil {
			continue // what still points at it is found by leftover
		}
		switch f.Kind {
		case seglog.KindGroup:
			err = g.cleanGroup(f, live, &res, func(id chunk.ID, page []byte) error {
				ids, pages = append(ids, id), append(pages, page...)
				res.pages++
				if len(ids) == chunk.GroupPages {
					return flush()
				}
				return nil
			})
		case seglog.KindNodes:
			err = cleanNodes(f, live, func(id chunk.ID, node []byte) error {
				res.nodes++
				return w.AddNode(id, bytes.Clone(node))
			})
		case seglog.KindRecord:
			err = g.cleanRecord(f, req)
		}
		if err != nil {
			return res, err
		}
	}
	if err := flush(); err != nil {
		return res, err
	}
	if len(res.damaged) > 0 {
		if err := g.counter.MarkLost(res.damaged); err != nil {
			return res, err
		}
	}
	res.records = uint64(len(req.Records))
	if res.pages+res.nodes+res.records == 0 {
		return res, nil
	}

	frames, ranges, err := w.Finish()
	if err != nil {
		return res, err
	}
	if len(frames) > 0 {
		return res, errors.New("cleaning wrote to the commit stream")
	}
	places := w.Placements(nil)
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
	req.Ranges = ranges
	if len(locs) > 0 {
		req.Frames = []seglog.NewFrame{{Kind: seglog.KindMove, Payload: encodeMove(victim, locs)}}
	}
	for _, r := range req.Records {
		res.written += int64(len(r.Payload))
	}
	closeWriter = false
	seq, err := g.o.Commit(ctx, req, &Commit{Moves: []Move{{Victim: victim, Places: places}}, Done: func() { w.Close() }})
	if err != nil {
		w.Close()
		return res, err
	}
	res.seq = seq
	return res, nil
}

// slotAt is a place within a segment.
type slotAt struct {
	offset uint32
	slot   uint8
}

// pointers lists the places of a segment that entries point at. Every ID in it
// is asked for once, in the order of keys.
func (g *Collector) pointers(ctx context.Context, segment seglog.SegmentID) (map[slotAt]struct{}, error) {
	var ids []chunk.ID
	for f, err := range g.log.ScanSegment(ctx, segment) {
		if err != nil {
			return nil, err
		}
		if f.Damaged != nil || f.Kind != seglog.KindGroup && f.Kind != seglog.KindNodes {
			continue // what points at damage is found by leftover
		}
		if in, err := frameIDs(f.Kind, f.Payload); err == nil {
			ids = append(ids, in...)
		}
	}
	into := map[slotAt]struct{}{}
	sorted := toIndex(ids)
	return into, g.idx.GetSorted(sorted, func(_ int, e index.Entry, ok bool) error {
		if ok && !e.Lost && e.Segment == uint64(segment) {
			into[slotAt{e.Offset, e.Slot}] = struct{}{}
		}
		return ctx.Err()
	})
}

// cleanGroup hands out the pages of a group that entries point at.
func (g *Collector) cleanGroup(f seglog.FrameInfo, into map[slotAt]struct{}, res *cleaned, keep func(chunk.ID, []byte) error) error {
	ids, err := chunk.GroupIDs(f.Payload)
	if err != nil {
		return nil // not a group: nothing can point at it, or leftover finds it
	}
	live := make([]bool, len(ids))
	any := false
	for i := range ids {
		_, live[i] = into[slotAt{f.Loc.Offset, uint8(i)}]
		any = any || live[i]
	}
	if !any {
		return nil
	}
	pages, _, err := g.store.Coder().DecodeGroup(nil, f.Payload)
	for i, id := range ids {
		if !live[i] {
			continue
		}
		if err != nil {
			res.damaged = append(res.damaged, id)
			continue
		}
		page := pages[i*chunk.PageSize : (i+1)*chunk.PageSize]
		if chunk.Sum(page) != id {
			res.damaged = append(res.damaged, id)
			continue
		}
		if err := keep(id, page); err != nil {
			return err
		}
	}
	return nil
}

func cleanNodes(f seglog.FrameInfo, into map[slotAt]struct{}, keep func(chunk.ID, []byte) error) error {
	nodes, err := chunk.SplitNodes(f.Payload)
	if err != nil {
		return nil
	}
	for i, node := range nodes {
		if _, live := into[slotAt{f.Loc.Offset, uint8(i)}]; !live {
			continue
		}
		id, err := manifest.NodeID(node)
		if err != nil {
			continue
		}
		if err := keep(id, node); err != nil {
			return err
		}
	}
	return nil
}

func (g *Collector) cleanRecord(f seglog.FrameInfo, req *seglog.Request) error {
	key, seq, payload, err := g.log.ReadRecord(f.Loc)
	if err != nil {
		return skipDamage(err)
	}
	if now, loc, ok := g.counter.RecordAt(key); ok && now == seq && loc == f.Loc {
		req.Records = append(req.Records, seglog.NewRecord{Key: bytes.Clone(key), RecordSeq: seq, Payload: bytes.Clone(payload), Moved: true})
	}
	return nil
}

// skipDamage lets a damaged frame be stepped over; its live entries are found
// by leftover.
func skipDamage(err error) error {
	if errors.Is(err, seglog.ErrDamaged) {
		return nil
	}
	return err
}

// leftover lists the entries that still point into a segment after it was
// cleaned: those whose frames could not be read, and none otherwise. It looks
// at every entry of the index, so it is asked only when the live bytes of a
// cleaned segment have not come to zero.
func (g *Collector) leftover(ctx context.Context, victim seglog.SegmentID) ([]chunk.ID, error) {
	var ids []chunk.ID
	for e, err := range g.idx.Entries(ctx) {
		if err != nil {
			return nil, err
		}
		if !e.Lost && e.Segment == uint64(victim) {
			ids = append(ids, chunk.ID(e.ID))
		}
	}
	return ids, g.idx.Untrusted()
}

// pointedInto proves, ID by ID, that no entry and no record points into a
// segment. The live counters only propose; this decides.
func (g *Collector) pointedInto(ctx context.Context, victim seglog.SegmentID) (bool, error) {
	into, err := g.pointers(ctx, victim)
	return len(into) > 0 || g.counter.recordIn(victim), err
}

// frameIDs lists what a group or a nodes frame holds, in slot order.
func frameIDs(kind seglog.Kind, payload []byte) ([]chunk.ID, error) {
	if kind == seglog.KindGroup {
		return chunk.GroupIDs(payload)
	}
	nodes, err := chunk.SplitNodes(payload)
	if err != nil {
		return nil, err
	}
	ids := make([]chunk.ID, len(nodes))
	for i, n := range nodes {
		if ids[i], err = manifest.NodeID(n); err != nil {
			return nil, fmt.Errorf("slot %d: %w", i, err)
		}
	}
	return ids, nil
}

// FramePlacements lists where the content of a group or nodes frame is.
func FramePlacements(kind seglog.Kind, loc seglog.Loc, payload []byte) ([]chunk.Placement, error) {
	ids, err := frameIDs(kind, payload)
	if err != nil {
		return nil, err
	}
	out := make([]chunk.Placement, len(ids))
	for i, id := range ids {
		out[i] = chunk.Placement{ID: id, Node: kind == seglog.KindNodes, Loc: index.Location{
			Segment: uint64(loc.Segment), Offset: loc.Offset, Length: loc.Length, Slot: uint8(i), Slots: uint8(len(ids)),
		}}
	}
	return out, nil
}
