package bench

import (
	"context"
	"errors"

	"github.com/snapstore/snapstore/engine"
)

// countsKept is how many snapshots the row has when count changes are counted.
const countsKept = 100

// row lets the snapshots of one canister grow, and compares the first takes
// with the last, each beside the same work without a store.
func (r *run) row(ctx context.Context) (err error) {
	m, release, err := r.newMix()
	if err != nil {
		return err
	}
	defer release()
	s, err := r.newStore(&engine.Options{SnapshotLimit: limitOf})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.remove()) }()
	c, mem, err := s.canister(ctx, 1, engine.WasmMemory, uint64(len(m.image.Mem)))
	if err != nil {
		return err
	}
	if err := fill(mem, m.image.Mem); err != nil {
		return err
	}
	var ids []engine.SnapshotID
	res, err := c.Take(ctx, engine.TakeOptions{})
	if err != nil {
		return err
	}
	ids = append(ids, res.ID)
	const window = 10
	var takes, bounds []float64 // of the window under way
	var curve, limits []Point
	var first, last, firstBound, lastBound float64
	counted := false
	for len(ids) < r.s.row {
		if len(ids)%50 == 1 {
			r.step("%s, %d of %d snapshots", Row, len(ids), r.s.row)
		}
		if !counted && len(ids) == min(countsKept, r.s.row-1) {
			counted = true
			if ids, err = m.countsAt(ctx, s, c, mem, ids); err != nil {
				return err
			}
		}
		t, err := m.takeOne(ctx, s, c, mem, engine.TakeOptions{}, len(ids))
		if err != nil {
			return err
		}
		ids = append(ids, t.id)
		takes, bounds = append(takes, ms(t.took)), append(bounds, ms(t.bound))
		if len(takes) < window {
			continue
		}
		last, lastBound = quantile(takes, 0.5), quantile(bounds, 0.5)
		if first == 0 {
			first, firstBound = last, lastBound
		}
		curve, limits = append(curve, Point{float64(len(ids)), last}), append(limits, Point{float64(len(ids)), lastBound})
		takes, bounds = takes[:0], bounds[:0]
	}
	// The machine may have become slower meanwhile, and its limit tells.
	r.rec.add("take.row", last/lastBound, first/firstBound)
	r.series = append(r.series, Series{
		ID: "row", Title: "take of 1 % against the number of snapshots", X: "snapshots", Y: "ms",
		Lines: []Line{{"take, p50 of ten", curve}, {takeLimit, limits}},
	})
	return nil
}

// countsAt takes snapshots that replace the oldest and counts how many counts
// change.
func (m *mix) countsAt(ctx context.Context, s *store, c *engine.Canister, mem *engine.Memory, ids []engine.SnapshotID) ([]engine.SnapshotID, error) {
	if err := s.settle(ctx); err != nil {
		return ids, err
	}
	before := s.e.Stats()
	for range m.s.takes {
		if _, err := m.change(mem); err != nil {
			return ids, err
		}
		res, err := c.Take(ctx, engine.TakeOptions{Replace: ids[0]})
		if err != nil {
			return ids, err
		}
		ids = append(ids[1:], res.ID)
	}
	if err := s.settle(ctx); err != nil {
		return ids, err
	}
	m.addCounts("take.counts.100", before, s.e.Stats(), m.s.takes)
	return ids, nil
}
