package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/snapstore/snapstore/internal/seglog"
)

// RepairOptions of Repair.
type RepairOptions struct {
	// Verify is how the store is checked, before and after.
	Verify VerifyOptions
	// Problem is called with each problem that was found at first; Left with
	// each that is left. Either may be nil.
	Problem, Left func(Problem)
}

// RepairReport says what Repair did.
type RepairReport struct {
	// Found and Left count problems before and after.
	Found, Left int
	// RebuiltIndex: the index was thrown away and built anew from the log.
	RebuiltIndex bool
	// SetAside are segments with damage that are in the quarantine directory
	// now, Emptied those that turned out to hold nothing that was not whole, Gone
	// those that had no file any more, and Kept those that stay, each with the
	// reason.
	SetAside, Emptied, Gone []uint64
	Kept                    map[uint64]string
}

// Repair checks a store that nobody has open, mends what can be mended, and
// checks again. The index, counts and the directories of segments are derived
// and built anew. What is damaged in the log is moved out of the way: everything
// that can be read in its segment goes to a new one, and the file is put into
// the quarantine directory, nothing of it changed. What can not be read stays
// named, page by page, by the second check, and is never replaced by anything: a
// take that brings the page heals it.
//
// Every step is durable and whole by itself: a repair that is interrupted can be
// run again.
func Repair(ctx context.Context, dir string, o *Options, ro RepairOptions) (r RepairReport, err error) {
	defer func() { err = opError("repair "+dir, CanisterID{}, SnapshotID{}, translate(err)) }()
	r.Kept = map[uint64]string{}
	opts := o.withDefaults()
	opts.NoBackground, opts.AcceptLoss = true, true
	segments, index := map[seglog.SegmentID]bool{}, false
	found, err := survey(ctx, dir, &opts, ro.Verify, func(p Problem) {
		switch p.Kind {
		case ProblemCount, ProblemLeak, ProblemMissing, ProblemIndex:
			index = true
		}
		if p.Segment != 0 {
			segments[seglog.SegmentID(p.Segment)] = true
		}
		if ro.Problem != nil {
			ro.Problem(p)
		}
	})
	r.Found, r.Left = found, found
	if err != nil || found == 0 {
		return r, err
	}
	opts.RebuildIndex = index
	if err := r.mend(ctx, dir, &opts, segments); err != nil {
		return r, err
	}
	opts.RebuildIndex = false
	r.Left, err = survey(ctx, dir, &opts, ro.Verify, ro.Left)
	return r, err
}

// survey opens a store, verifies it, and closes it again.
func survey(ctx context.Context, dir string, o *Options, vo VerifyOptions, found func(Problem)) (n int, err error) {
	e, err := open(dir, o)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	for p, err := range e.Verify(ctx, vo) {
		if err != nil {
			return n, err
		}
		n++
		if found != nil {
			found(p)
		}
	}
	return n, nil
}

// mend opens a store, with a new index if that is asked for, and empties the
// segments.
func (r *RepairReport) mend(ctx context.Context, dir string, o *Options, segments map[seglog.SegmentID]bool) (err error) {
	e, err := open(dir, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	r.RebuiltIndex = e.recovery.rebuilt != ""
	if len(segments) == 0 {
		return nil
	}
	ids := make([]seglog.SegmentID, 0, len(segments))
	for id := range segments {
		ids = append(ids, id)
	}
	done, err := e.gc.Evacuate(ctx, ids)
	for _, s := range done {
		switch id := uint64(s.Segment); {
		case s.Err != nil:
			r.Kept[id] = s.Err.Error()
		case s.Gone:
			r.Gone = append(r.Gone, id)
		case s.Aside:
			r.SetAside = append(r.SetAside, id)
		default:
			r.Emptied = append(r.Emptied, id)
		}
	}
	if err != nil {
		return fmt.Errorf("after %d of %d damaged segments: %w", len(done), len(ids), err)
	}
	return nil
}
