package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/snapstore/snapstore/bench/workload"
	"github.com/snapstore/snapstore/engine"
)

// sparseSection is a memory of which little is there.
type sparseSection struct {
	gib    uint64
	s      *store
	c      *engine.Canister
	mem    *engine.Memory
	pages  *workload.Sparse
	last   engine.SnapshotID
	times  []float64
	medium []float64 // medians of the repeats
}

// sparse takes as many dirty pages of memories of different sizes, in turns.
func (r *run) sparse(ctx context.Context) (err error) {
	var sections []*sparseSection
	defer func() {
		for _, x := range sections {
			err = errors.Join(err, x.s.remove())
		}
	}()
	for _, gib := range []uint64{4, 16, 64} {
		r.step("%s, preparing %d GiB", Sparse, gib)
		s, err := r.newStore(&engine.Options{SnapshotLimit: limitOf})
		if err != nil {
			return err
		}
		x := &sparseSection{gib: gib, s: s, pages: workload.NewSparse(r.o.Seed+gib, gib<<30)}
		sections = append(sections, x)
		if x.c, x.mem, err = s.canister(ctx, 1, engine.StableMemory, gib<<30); err != nil {
			return err
		}
		// What is there before lies as far apart as what will be written.
		for range 8 {
			if err := x.step(ctx, r.s.sparse); err != nil {
				return err
			}
		}
		x.times = nil
	}
	for repeat := range r.o.Repeats {
		r.step("%s, repeat %d of %d", Sparse, repeat+1, r.o.Repeats)
		for range max(3, r.s.takes/2) {
			for _, x := range sections {
				if err := x.step(ctx, r.s.sparse); err != nil {
					return err
				}
			}
		}
		for _, x := range sections {
			x.medium = append(x.medium, quantile(x.times, 0.5))
			x.times = nil
		}
		r.rec.add("size.16", sections[1].medium[repeat], sections[0].medium[repeat])
		r.rec.add("size.64", sections[2].medium[repeat], sections[0].medium[repeat])
	}
	line := Line{Name: fmt.Sprintf("take of %s pages, p50", group(fmt.Sprint(r.s.sparse)))}
	for _, x := range sections {
		line.Points = append(line.Points, Point{float64(x.gib), spread(x.medium).Median})
	}
	r.series = append(r.series, Series{ID: "size", Title: "take against the size of a sparse memory", X: "GiB", Y: "ms", LogX: true, Lines: []Line{line}})
	return nil
}

// step changes n pages and takes, replacing the take before.
func (x *sparseSection) step(ctx context.Context, n int) error {
	if err := x.pages.Step(n, func(i uint64, page []byte) error {
		_, err := x.mem.WriteAt(page, int64(i)*workload.PageSize)
		return err
	}); err != nil {
		return err
	}
	if err := x.s.settle(ctx); err != nil {
		return err
	}
	began := time.Now()
	res, err := x.c.Take(ctx, engine.TakeOptions{Replace: x.last})
	if err != nil {
		return err
	}
	x.last = res.ID
	x.times = append(x.times, ms(time.Since(began)))
	return nil
}
