package drive

import (
	"context"
	"slices"

	"github.com/snapstore/snapstore/internal/testkit"
)

// Minimise looks for fewer operations that fail too, trying each shorter
// history a few times, since what runs in the background is not of the seed.
// It returns what is left and how it fails; nothing when the whole does not
// fail any more.
func Minimise(ctx context.Context, cfg Config, ops []testkit.Op, tries int) ([]testkit.Op, error) {
	return MinimiseFor(ctx, ops, tries, func(ops []testkit.Op) error {
		r, err := New(cfg)
		if err != nil {
			return err
		}
		err = r.Play(ctx, slices.Values(ops), Look)
		_ = r.Close() // the history has failed or not; that is all that counts
		return err
	})
}

// MinimiseFor is Minimise for whatever is done with a history. Any part of a
// history is a history: operations on what is not there are refused, and the
// model knows that.
func MinimiseFor(ctx context.Context, ops []testkit.Op, tries int, play func([]testkit.Op) error) ([]testkit.Op, error) {
	fails := func(ops []testkit.Op) error {
		for range tries {
			if err := play(ops); err != nil && ctx.Err() == nil {
				return err
			}
		}
		return nil
	}
	last := fails(ops)
	if last == nil {
		return nil, nil
	}
	for size := max(len(ops)/2, 1); ; size = max(size/2, 1) {
		shorter := false
		for at := 0; at < len(ops) && ctx.Err() == nil; {
			less := slices.Delete(slices.Clone(ops), at, min(at+size, len(ops)))
			if err := fails(less); err != nil {
				ops, last, shorter = less, err, true
			} else {
				at += size
			}
		}
		if size == 1 && !shorter || ctx.Err() != nil {
			return ops, last
		}
	}
}
