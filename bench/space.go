package bench

import (
	"context"
	"errors"
	"os"

	"github.com/snapstore/snapstore/bench/workload"
	"github.com/snapstore/snapstore/engine"
)

// space compares what is on disk with the ideal, after gc.
func (m *mix) space(ctx context.Context, s *store, ideal *workload.Ideal) error {
	n, err := s.cleaned(ctx, engine.GCOptions{})
	if err != nil {
		return err
	}
	m.rec.add("disk.ideal", mb(n), mb(ideal.Bytes))
	again, err := recompressed(ctx, s)
	if err != nil {
		return err
	}
	m.rec.add("disk.recompressed", mb(again), mb(ideal.Bytes))
	m.series = append(m.series, Series{
		ID: "space", Title: "bytes on disk after 11 snapshots", X: "", Y: "MB",
		Lines: []Line{
			{"images as they are", []Point{{0, mb(int64(len(m.image.Mem)) * (kept + 1))}}},
			{"distinct pages, raw", []Point{{0, mb(int64(ideal.Pages) * workload.PageSize)}}},
			{"snapstore", []Point{{0, mb(n)}}},
			{"recompressed", []Point{{0, mb(again)}}},
			{"ideal", []Point{{0, mb(ideal.Bytes)}}},
		},
	})
	return s.open()
}

// recompressed is how much is on disk of a copy of a store, which is closed, that was
// recompressed.
func recompressed(ctx context.Context, s *store) (n int64, err error) {
	c := &store{dir: s.dir + "-copy", o: s.o}
	defer func() { err = errors.Join(err, c.remove()) }()
	if err := os.CopyFS(c.dir, os.DirFS(s.dir)); err != nil {
		return 0, err
	}
	if err := c.open(); err != nil {
		return 0, err
	}
	return c.cleaned(ctx, engine.GCOptions{Recompress: true})
}

// cleaned is how much is on disk of a store once it has settled and was cleaned. It is
// closed then.
func (s *store) cleaned(ctx context.Context, o engine.GCOptions) (int64, error) {
	if err := s.settle(ctx); err != nil {
		return 0, err
	}
	if _, err := s.e.GC(ctx, o); err != nil {
		return 0, err
	}
	if err := s.close(); err != nil {
		return 0, err
	}
	return onDisk(s.dir)
}
