package bench

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/snapstore/snapstore/bench/workload"
	"github.com/snapstore/snapstore/engine"
)

const (
	takers      = 8
	smallMemory = 1 << 20
	smallDirty  = 10
	// smallWritten is what a small take writes, for its limit: ten pages
	// compressed, the changed nodes and a record.
	smallWritten = 32 << 10
)

// little is one of many canisters. It is used by one goroutine at a time.
type little struct {
	c     *engine.Canister
	mem   *engine.Memory
	pages *workload.Sparse
	last  engine.SnapshotID
}

// change writes n pages.
func (l *little) change(n int) error {
	return l.pages.Step(n, func(i uint64, page []byte) error {
		_, err := l.mem.WriteAt(page, int64(i)*workload.PageSize)
		return err
	})
}

// littles makes n canisters of 1 MiB, each full and durable.
func (r *run) littles(ctx context.Context, s *store, n int) ([]*little, error) {
	out := make([]*little, n)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(takers)
	for i := range out {
		g.Go(func() error {
			c, mem, err := s.canister(ctx, i, engine.WasmMemory, smallMemory)
			if err != nil {
				return err
			}
			l := &little{c: c, mem: mem, pages: workload.NewSparse(r.o.Seed<<20+uint64(i), smallMemory)}
			out[i] = l
			if err := l.change(smallMemory / workload.PageSize / 2); err != nil {
				return err
			}
			res, err := c.Take(ctx, engine.TakeOptions{})
			l.last = res.ID
			return err
		})
	}
	return out, g.Wait()
}

// raw is how many writes of n bytes with an fdatasync each a single thread does
// in a second.
func (r *run) raw(n int) (float64, error) {
	const times = 300
	began := time.Now()
	for range times {
		if _, err := r.disk.Append(n); err != nil {
			return 0, err
		}
	}
	return times / time.Since(began).Seconds(), nil
}

// small lets eight takers take many canisters of which ten pages changed.
func (r *run) small(ctx context.Context) (err error) {
	r.step("%s, preparing %d canisters", Small, r.s.canisters)
	s, err := r.newStore(&engine.Options{SnapshotLimit: limitOf})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.remove()) }()
	all, err := r.littles(ctx, s, r.s.canisters)
	if err != nil {
		return err
	}
	for repeat := range r.o.Repeats {
		r.step("%s, repeat %d of %d", Small, repeat+1, r.o.Repeats)
		if err := s.settle(ctx); err != nil {
			return err
		}
		before, err := r.raw(smallWritten)
		if err != nil {
			return err
		}
		perSecond, times, err := takeAll(ctx, s, all)
		if err != nil {
			return err
		}
		after, err := r.raw(smallWritten)
		if err != nil {
			return err
		}
		r.rec.add("small.takes", perSecond, (before+after)/2)
		r.rec.add("small.p99", quantile(times, 0.99), 0)
	}
	return nil
}

// takeAll takes every canister a few times, replacing the take before, and
// waits for the index each time. The clock stands while pages are written.
func takeAll(ctx context.Context, s *store, all []*little) (perSecond float64, times []float64, err error) {
	const rounds = 3
	var total time.Duration
	for range rounds {
		for _, l := range all {
			if err := l.change(smallDirty); err != nil {
				return 0, nil, err
			}
		}
		took, err := takeEach(ctx, s, all, &times)
		if err != nil {
			return 0, nil, err
		}
		total += took
	}
	return float64(rounds*len(all)) / total.Seconds(), times, nil
}

// takeEach lets all takers at the canisters and waits for the index.
func takeEach(ctx context.Context, s *store, all []*little, times *[]float64) (time.Duration, error) {
	var next atomic.Int64
	var mu sync.Mutex
	g, gctx := errgroup.WithContext(ctx)
	began := time.Now()
	for range takers {
		g.Go(func() error {
			var own []float64
			defer func() {
				mu.Lock()
				defer mu.Unlock()
				*times = append(*times, own...)
			}()
			for {
				i := int(next.Add(1)) - 1
				if i >= len(all) {
					return nil
				}
				l, from := all[i], time.Now()
				res, err := l.c.Take(gctx, engine.TakeOptions{Replace: l.last})
				if err != nil {
					return err
				}
				own = append(own, ms(time.Since(from)))
				l.last = res.ID
			}
		})
	}
	if err := g.Wait(); err != nil {
		return 0, err
	}
	if err := s.settle(ctx); err != nil {
		return 0, err
	}
	return time.Since(began), nil
}
