// Package rows has the rows of the fault matrix that need one process and a
// disk in memory: crashes, disks that fail or are full, rot, lost and stale
// files, hostile pages, and histories that must lead to one result.
package rows

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/testkit"
	"github.com/snapstore/snapstore/internal/testkit/drive"
	"github.com/snapstore/snapstore/internal/testkit/matrix"
)

// InProcess gives the rows.
func InProcess() []matrix.Row {
	return slices.Concat(crashRows(), faultRows(), damageRows(), indexRows(), historyRows())
}

// harm is what an error of a case says the store has done.
func harm(err error) (t matrix.Tally) {
	switch h, n := drive.HarmOf(err); h {
	case drive.Lost:
		t.Lost = n
	case drive.Silent:
		t.Silent = n
	case drive.Leaked:
		t.Leaked = n
	case drive.FreedEarly:
		t.FreedEarly = n
	}
	return t
}

// failedHistory is a history that failed, to be made smaller.
type failedHistory struct {
	cfg  drive.Config
	ops  []testkit.Op
	call string // what plays it, in a test
	play func(ctx context.Context, ops []testkit.Op) error
	err  error
}

func (f *failedHistory) Error() string { return f.err.Error() }

func (f *failedHistory) Unwrap() error { return f.err }

// Reduce implements matrix.Reducer.
func (f *failedHistory) Reduce(ctx context.Context) string {
	left, err := drive.MinimiseFor(ctx, f.ops, 3, func(ops []testkit.Op) error { return f.play(ctx, ops) })
	if err == nil {
		return "" // what runs beside it had its part in it
	}
	return GoTest(f.cfg, left, f.call, err)
}

// played gives the error of a run's history, if there is one.
func played(r *drive.Run, err error) error {
	if err == nil {
		return nil
	}
	cfg, ops := r.Config, slices.Clone(r.Ops)
	cfg.Roots = nil
	return &failedHistory{
		cfg: cfg, ops: ops, err: fmt.Errorf("%w\n%s", err, r.History()),
		call: "r.Play(t.Context(), slices.Values(ops), drive.Look)",
		play: func(ctx context.Context, ops []testkit.Op) error {
			r, err := drive.New(cfg)
			if err != nil {
				return err
			}
			err = r.Play(ctx, slices.Values(ops), drive.Look)
			_ = r.Close() // it has failed or not; that is all that counts
			return err
		},
	}
}

// draw plays n operations of a generator.
func draw(ctx context.Context, r *drive.Run, g *testkit.Generator, n int) error {
	for range n {
		err := r.Do(ctx, g.Next(r.M))
		for errors.Is(err, drive.ErrCrashed) {
			err = r.Recover()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Short ways to write operations down.

func op(name testkit.OpName) testkit.Op {
	return testkit.Op{Name: name, Replace: testkit.NoSnapshot}
}

func on(name testkit.OpName, c int) testkit.Op {
	return testkit.Op{Name: name, C: c, Replace: testkit.NoSnapshot, At: 1}
}

func replace(c int, local uint64) testkit.Op {
	return testkit.Op{Name: testkit.Take, C: c, Replace: local, At: 2}
}

func remove(c int, local uint64) testkit.Op {
	return testkit.Op{Name: testkit.Delete, C: c, Local: local, Replace: testkit.NoSnapshot}
}

func load(c, from int, local uint64) testkit.Op {
	return testkit.Op{Name: testkit.Load, C: c, From: from, Local: local, Replace: testkit.NoSnapshot}
}

func resize(c int, s testkit.Section, pages uint64) testkit.Op {
	return testkit.Op{Name: testkit.Resize, C: c, Section: s, Size: pages * engine.PageSize, Replace: testkit.NoSnapshot}
}

// fill writes pages one after the other, each content one more than that before.
func fill(c int, s testkit.Section, page uint64, n int, from testkit.Content) testkit.Op {
	o := testkit.Op{Name: testkit.Write, C: c, Section: s, Replace: testkit.NoSnapshot}
	for i := range uint64(n) {
		o.Spans = append(o.Spans, testkit.Span{Off: (page + i) * engine.PageSize, Len: engine.PageSize, Content: from + testkit.Content(i)})
	}
	return o
}

func wasm() testkit.Section { return testkit.Section{Kind: 2} }

func stable() testkit.Section { return testkit.Section{Kind: 3} }

// quietly is a store in which nothing is left to chance.
func quietly(seed uint64, change func(*engine.Options)) drive.Config {
	return drive.Config{Seed: seed, Options: func(o *engine.Options) {
		o.NoBackground, o.IdleSync = true, -1
		if change != nil {
			change(o)
		}
	}}
}
