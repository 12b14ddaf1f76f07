package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/snapstore/snapstore/bench/workload"
	"github.com/snapstore/snapstore/engine"
)

// churned is a canister with the snapshots that it has, oldest first.
type churned struct {
	little
	ids []engine.SnapshotID
}

// do carries out an operation.
func (c *churned) do(ctx context.Context, e *engine.Engine, op workload.Operation) error {
	if op.Action == workload.Delete {
		id := c.ids[op.Victim]
		c.ids = append(c.ids[:op.Victim:op.Victim], c.ids[op.Victim+1:]...)
		return e.Delete(ctx, id)
	}
	if err := c.change(smallDirty); err != nil {
		return err
	}
	var o engine.TakeOptions
	if op.Action == workload.Replace {
		o.Replace, c.ids = c.ids[0], c.ids[1:]
	}
	res, err := c.c.Take(ctx, o)
	c.ids = append(c.ids, res.ID)
	return err
}

// churn takes, replaces and deletes snapshots of many canisters, collects, and
// checks that the store is whole.
func (r *run) churn(ctx context.Context) (err error) {
	r.step("%s, preparing %d canisters", Churn, r.s.churned)
	s, err := r.newStore(&engine.Options{SnapshotLimit: kept + 1})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.remove()) }()
	small, err := r.littles(ctx, s, r.s.churned)
	if err != nil {
		return err
	}
	all := make([]*churned, len(small))
	for i, l := range small {
		all[i] = &churned{little: *l}
		if err := s.e.Delete(ctx, l.last); err != nil {
			return err
		}
	}
	ops := workload.NewChurn(r.o.Seed, len(all), kept)
	for repeat := range r.o.Repeats {
		r.step("%s, repeat %d of %d", Churn, repeat+1, r.o.Repeats)
		bound, err := r.raw(smallWritten)
		if err != nil {
			return err
		}
		// Each taker has canisters of its own and does their operations in order.
		queues := make([][]workload.Operation, takers)
		n := r.s.churn / r.o.Repeats
		for range n {
			op := ops.Next()
			queues[op.Canister%takers] = append(queues[op.Canister%takers], op)
		}
		times := make([][]float64, takers)
		g, gctx := errgroup.WithContext(ctx)
		began := time.Now()
		for t, queue := range queues {
			g.Go(func() error {
				for _, op := range queue {
					from := time.Now()
					if err := all[op.Canister].do(gctx, s.e, op); err != nil {
						return fmt.Errorf("%v of canister %d: %w", op.Action, op.Canister, err)
					}
					if op.Action != workload.Delete {
						times[t] = append(times[t], ms(time.Since(from)))
					}
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			return err
		}
		if err := s.settle(ctx); err != nil {
			return err
		}
		r.rec.add("churn.operations", float64(n)/time.Since(began).Seconds(), bound)
		var takes []float64
		for _, t := range times {
			takes = append(takes, t...)
		}
		r.rec.add("churn.p99", quantile(takes, 0.99), 0)
	}
	if _, err := s.e.GC(ctx, engine.GCOptions{}); err != nil {
		return err
	}
	st := s.e.Stats()
	r.rec.add("churn.left", mb(st.LogBytes), mb(st.LiveBytes))
	return whole(ctx, s.e)
}

// whole verifies every byte of a store.
func whole(ctx context.Context, e *engine.Engine) error {
	for p, err := range e.Verify(ctx, engine.VerifyOptions{}) {
		if err != nil {
			return err
		}
		return fmt.Errorf("the store is damaged after the run: %s: %s", p.Kind, p.Detail)
	}
	return nil
}
