package gc

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"

	"github.com/snapstore/snapstore/chunk"
	"github.com/snapstore/snapstore/internal/index"
	"github.com/snapstore/snapstore/internal/record"
	"github.com/snapstore/snapstore/internal/seglog"
	"github.com/snapstore/snapstore/manifest"
)

// Rebuilder is what counting needs of an index that is being built anew.
type Rebuilder interface {
	AddCount(id index.ID, n int64) error
	PutRecord(key []byte, r index.Record) error
	PutState(key, value []byte) error
	// AddLive counts what keeps a segment alive beside the IDs.
	AddLive(segment uint64, bytes int64) error
}

// Rebuild counts, from its newest readable record alone, what a canister
// introduces, and enters record and counting state. Nodes that can not be read
// are handed to bad; what lies below them is not counted, and neither will its
// drop count it. damaged is the sequence of a newer record that can not be read,
// or 0; with it the canister is counted, so that nothing of it is destroyed, and
// not served. g sees the canister's domain.
func Rebuild(ctx context.Context, rb Rebuilder, g *chunk.Store, key []byte, at index.Record, damaged uint64, bad func(id chunk.ID, err error)) error {
	rec, err := record.Decode(at.Payload)
	if err != nil {
		return err
	}
	rs := fromRecord(rec)
	rs.damaged = damaged
	add := func(id chunk.ID, node bool) error { return rb.AddCount(g.Domain().Key(id), 1) }
	if err := rs.recount(ctx, g, add, func(_ manifest.Place, id chunk.ID, err error) { bad(id, err) }); err != nil {
		return fmt.Errorf("canister %x: %w", key, err)
	}
	if err := rb.PutRecord(key, at); err != nil {
		return err
	}
	if err := rb.AddLive(at.Segment, int64(at.Length)); err != nil {
		return err
	}
	if rs.empty() {
		return nil
	}
	return rb.PutState(key, rs.encode())
}

// RebuildDamaged notes a canister of which no record can be read at all.
func RebuildDamaged(rb Rebuilder, key []byte, damaged uint64) error {
	return rb.PutState(key, (&runs{damaged: damaged}).encode())
}

// RebuildPartial notes that the index lacks counts of what older segments hold;
// see Counter.Partial.
func RebuildPartial(rb Rebuilder, below seglog.SegmentID) error {
	return rb.PutState([]byte(partialKey), binary.BigEndian.AppendUint64(nil, uint64(below)))
}

// Compare recomputes every count, as of now, and hands what differs from the
// stored ones to found. Counting goes on meanwhile; the caller holds a ticket,
// so that nothing is destroyed that is still to be walked.
func (c *Counter) Compare(ctx context.Context, o index.RebuildOptions, found func(index.CountMismatch) error, bad func(key []byte, id chunk.ID, err error)) error {
	cmp, known, err := c.fix(o)
	if err != nil {
		return err
	}
	defer cmp.Close()
	for key, rs := range known {
		g := c.in([]byte(key))
		add := func(id chunk.ID, node bool) error { return cmp.AddCount(g.Domain().Key(id), 1) }
		if err := rs.recount(ctx, g, add, func(_ manifest.Place, id chunk.ID, err error) { bad([]byte(key), id, err) }); err != nil {
			return fmt.Errorf("canister %x: %w", key, err)
		}
	}
	for m, err := range cmp.Mismatches(ctx) {
		if err == nil {
			err = found(m)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// fix takes stored counts and what explains them at one moment.
func (c *Counter) fix(o index.RebuildOptions) (*index.CountComparison, map[string]*runs, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	cmp, err := c.idx.CompareCounts(o)
	return cmp, maps.Clone(c.known), err // what is known is replaced, never changed
}
