package drive

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"

	"github.com/snapstore/snapstore/internal/testkit"
)

// Every says where CrashAtEvery crashes, and what it showed.
type Every struct {
	Recheck
	// Last is of how many operations of the history, counted from its end, every
	// operation on files is a point; 0 is one.
	Last int
	// Closing adds those of a flush of the index and of the close after it.
	Closing bool
	Points  int
}

// CrashAtEvery plays a history and catches the disk at every operation on files
// of its end, with nothing, all, and a part kept of what was not synced, and
// checks each.
func CrashAtEvery(ctx context.Context, cfg Config, ops []testkit.Op, w *Every) error {
	r, err := New(cfg)
	if err != nil {
		return err
	}
	points, err := w.points(ctx, r, ops)
	if err = errors.Join(err, r.Close()); err != nil {
		return fmt.Errorf("%w\n%s", err, r.History())
	}
	w.Points += len(points)
	for _, p := range points {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := p.Check(ctx, &w.Recheck); err != nil {
			return err
		}
	}
	return nil
}

func (w *Every) points(ctx context.Context, r *Run, ops []testkit.Op) (points []*Point, err error) {
	rng := rand.New(rand.NewPCG(r.Seed, 9))
	var mu sync.Mutex
	catch := func(where string) {
		mu.Lock()
		defer mu.Unlock()
		for _, keep := range []int{0, 100, 1 + rng.IntN(99)} {
			points = append(points, r.CatchKeeping(keep, rng, where))
		}
	}
	from := len(ops) - max(w.Last, 1)
	for i, o := range ops {
		if i == max(from, 0) {
			r.OnOp(func(op testkit.FileOp) { catch(fmt.Sprintf("before %v", op)) })
		}
		err := r.Do(ctx, o)
		for errors.Is(err, ErrCrashed) {
			err = r.Recover()
		}
		if err != nil {
			return nil, err
		}
	}
	if w.Closing {
		if err := r.E.FlushIndex(); err != nil {
			return nil, err
		}
		if err := r.Close(); err != nil {
			return nil, err
		}
	}
	r.OnOp(nil)
	catch("after the last operation")
	return points, nil
}
