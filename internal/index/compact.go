package index

import (
	"cmp"
	"context"
)

// Compact merges all tables, if a quarter of what they take, and a megabyte, can be
// saved by that at most. It is for who asks for space, and not needed otherwise:
// tables are merged in the background when there are many. It needs as much room as
// the index takes, for a while.
func (x *Index) Compact(ctx context.Context) (err error) {
	if err := x.enter(); err != nil {
		return err
	}
	defer x.leave()
	defer x.trust.caught("compact", &err)
	if err := x.trust.err(); err != nil {
		return err
	}
	waste, all := x.waste()
	if waste < 1<<20 || waste < all/4 {
		return nil
	}
	if du, err := x.o.FS.GetDiskUsage(x.o.Dir); err == nil && du.AvailBytes < 2*uint64(all) {
		return nil // others need the room more
	}
	// Pebble would wait for ever for what is never begun.
	asked := ctx
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-x.trust.lost:
		case <-x.closing:
		case <-ctx.Done():
		}
		cancel()
	}()
	err = x.trust.judge(x.db.Compact(ctx, []byte{0}, []byte{0xff}, false))
	if err != nil && ctx.Err() != nil && asked.Err() == nil {
		return cmp.Or(x.trust.err(), ErrClosed) // which is why it was ended
	}
	return err
}

// waste is what tables take above the last level, and in all.
func (x *Index) waste() (above, all int64) {
	p := x.db.Metrics()
	all = p.Total().TablesSize
	return all - p.Levels[len(p.Levels)-1].TablesSize, all
}
