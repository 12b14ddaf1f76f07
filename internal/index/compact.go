package index

import "context"

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
	if waste, all := x.waste(); waste < 1<<20 || waste < all/4 {
		return nil
	}
	// Pebble would wait for ever for what is never begun.
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
	return x.trust.judge(x.db.Compact(ctx, []byte{0}, []byte{0xff}, false))
}

// waste is what tables take above the last level, and in all.
func (x *Index) waste() (above, all int64) {
	p := x.db.Metrics()
	all = p.Total().TablesSize
	return all - p.Levels[len(p.Levels)-1].TablesSize, all
}
