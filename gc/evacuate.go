package gc

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"github.com/snapstore/snapstore/internal/seglog"
)

// Evacuated says what became of a segment that was to be emptied.
type Evacuated struct {
	Segment seglog.SegmentID
	// Aside: something in it was not whole, and its file is in quarantine.
	// Gone: it has no file. Otherwise it was dropped, unless Err says why it
	// stays.
	Aside, Gone bool
	Err         error
}

// Evacuate moves everything that can be read out of the given segments and
// drops them, or puts those with damage aside. What could not be read is lost
// from then on: named by its versions and stored nowhere, until a take brings it
// again. Segments that are gone already are left out of the answer.
func (g *Collector) Evacuate(ctx context.Context, segments []seglog.SegmentID) ([]Evacuated, error) {
	leave, err := g.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(g.life, cancel)()
	if err := g.waitApplied(ctx); err != nil {
		return nil, err
	}
	g.breath.began = time.Now()
	if err := g.sealOpen(ctx); err != nil {
		return nil, err
	}
	want := map[seglog.SegmentID]bool{}
	for _, id := range segments {
		want[id] = true
	}
	evidence := len(g.counter.Damaged()) > 0
	var out []Evacuated
	for _, s := range g.log.Segments() {
		if !want[s.ID] {
			continue
		}
		e := Evacuated{Segment: s.ID}
		switch {
		case evidence && s.Stream == seglog.StreamCommit:
			e.Err = errEvidence
		case !s.Sealed || s.Busy:
			e.Err = errInUse
		default:
			v := victim{id: s.ID, size: s.Size, live: g.idx.Live()[uint64(s.ID)]}
			var err error
			v.damaged, err = g.empty(ctx, v)
			if errors.Is(err, errUnread) && errors.Is(err, fs.ErrNotExist) {
				g.abandoned[s.ID], e.Gone = true, true
				v.damaged, err = g.empty(ctx, v)
			}
			if errors.Is(err, errLeft) {
				e.Err = err
				break
			} else if err != nil {
				return out, err
			}
			e.Aside = v.damaged && !e.Gone
			if err := g.release(ctx, []victim{v}); err != nil {
				return out, err
			}
		}
		out = append(out, e)
	}
	return out, nil
}

var (
	errEvidence = errors.New("it stays: a canister's newest record can not be read, and what it says may be proved by this segment")
	errInUse    = errors.New("it stays: it is being written to")
)
