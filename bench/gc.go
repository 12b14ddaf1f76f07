package bench

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/snapstore/snapstore/engine"
)

// deletes takes a row of snapshots, deletes all but two, and collects: first
// alone, then with takes going on beside it.
func (m *mix) deletes(ctx context.Context) (err error) {
	s, err := m.newStore(&engine.Options{SnapshotLimit: limitOf, NoBackground: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.remove()) }()
	c, mem, err := s.canister(ctx, 1, engine.WasmMemory, uint64(len(m.image.Mem)))
	if err != nil {
		return err
	}
	if err := fill(mem, m.image.Mem); err != nil {
		return err
	}
	g := &garbage{mix: m, s: s, c: c, mem: mem}
	if err := g.takes(ctx, m.s.takes+1, nil); err != nil {
		return err
	}
	if err := g.deleteAndCollect(ctx); err != nil {
		return err
	}
	if err := g.takes(ctx, 2*m.s.takes, &m.quiet); err != nil {
		return err
	}
	quiet := quantile(m.quiet[len(m.quiet)-2*m.s.takes:], 0.99)
	return g.takesBesideGC(ctx, quiet)
}

// garbage is a store that fills with what nothing names.
type garbage struct {
	*mix
	s   *store
	c   *engine.Canister
	mem *engine.Memory
	ids []engine.SnapshotID
}

// takes takes n snapshots, with a change before each, and notes how long each
// took unless times is nil.
func (g *garbage) takes(ctx context.Context, n int, times *[]float64) error {
	for range n {
		if _, err := g.change(g.mem); err != nil {
			return err
		}
		began := time.Now()
		res, err := g.c.Take(ctx, engine.TakeOptions{})
		if err != nil {
			return err
		}
		if times != nil {
			*times = append(*times, ms(time.Since(began)))
		}
		g.ids = append(g.ids, res.ID)
	}
	return nil
}

// deleteAllButTwo keeps the first and the last of what there is.
func (g *garbage) deleteAllButTwo(ctx context.Context, each func() error) error {
	if len(g.ids) < 3 {
		return errors.New("there is nothing to delete")
	}
	for _, id := range g.ids[1 : len(g.ids)-1] {
		if err := each(); err != nil {
			return err
		}
		if err := g.s.e.Delete(ctx, id); err != nil {
			return err
		}
	}
	g.ids = slices.Delete(g.ids, 1, len(g.ids)-1)
	return nil
}

func (g *garbage) deleteAndCollect(ctx context.Context) error {
	if err := g.s.settle(ctx); err != nil {
		return err
	}
	var deletes, syncs []float64
	var began time.Time
	note := func() {
		if !began.IsZero() {
			deletes = append(deletes, ms(time.Since(began)))
		}
	}
	if err := g.deleteAllButTwo(ctx, func() error {
		note()
		took, err := g.disk.Append(4096)
		syncs = append(syncs, ms(took))
		began = time.Now()
		return err
	}); err != nil {
		return err
	}
	note()
	g.rec.add("delete.p50", quantile(deletes, 0.5), quantile(syncs, 0.5))
	if err := g.s.settle(ctx); err != nil {
		return err
	}
	cpu := cpuTime()
	began = time.Now()
	rep, err := g.s.e.GC(ctx, engine.GCOptions{})
	if err != nil {
		return err
	}
	took := time.Since(began)
	cpu = cpuTime() - cpu
	st := g.s.e.Stats()
	g.rec.add("gc.time", took.Seconds(), 0)
	if net := rep.BytesReclaimed - rep.BytesWritten; net > 0 {
		g.rec.add("gc.written", mb(rep.BytesWritten), mb(net))
		if cpu > 0 {
			g.rec.add("gc.cpu", cpu.Seconds()/(float64(net)/1e9), 0)
		} else {
			g.rec.note("gc.cpu", "CPU time is not counted on this system")
		}
	} else {
		const little = "gc gave nothing back: there is too little at this scale"
		g.rec.note("gc.written", little)
		g.rec.note("gc.cpu", little)
	}
	g.rec.add("gc.left", mb(st.LogBytes), mb(st.LiveBytes))
	return nil
}

// takesBesideGC deletes again and takes while gc works, as many as a canister can
// have.
func (g *garbage) takesBesideGC(ctx context.Context, quiet float64) error {
	if err := g.deleteAllButTwo(ctx, func() error { return nil }); err != nil {
		return err
	}
	if err := g.s.settle(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var failed error
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, failed = g.s.e.GC(ctx, engine.GCOptions{})
	}()
	var times []float64
	for working := true; working && len(g.ids) < limitOf; {
		select {
		case <-done:
			working = false
		default:
			if err := g.takes(ctx, 1, &times); err != nil {
				cancel()
				<-done
				return errors.Join(err, failed)
			}
		}
	}
	if <-done; failed != nil {
		return failed
	}
	g.during = append(g.during, times...)
	if len(times) < 3 {
		g.rec.note("gc.takes", "gc was done before there were takes: there is too little at this scale")
		return nil
	}
	g.rec.add("gc.takes", quantile(times, 0.99), quiet)
	return nil
}

// distribution makes the curves of the latencies with and without gc.
func (m *mix) distribution() {
	line := func(name string, v []float64) Line {
		v = slices.Sorted(slices.Values(v))
		l := Line{Name: name}
		for i, x := range v {
			l.Points = append(l.Points, Point{X: x, Y: 100 * float64(i+1) / float64(len(v))})
		}
		return l
	}
	s := Series{ID: "gc", Title: "latency of takes with and without gc", X: "ms", Y: "% of takes not slower", Lines: []Line{line("without gc", m.quiet)}}
	if len(m.during) > 0 {
		s.Lines = append(s.Lines, line("while gc runs", m.during))
	}
	m.series = append(m.series, s)
}
