package rows

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/snapstore/snapstore/chunk"
	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/testkit"
	"github.com/snapstore/snapstore/internal/testkit/drive"
	"github.com/snapstore/snapstore/internal/testkit/matrix"
)

func historyRows() []matrix.Row {
	return []matrix.Row{
		{
			Name: "history", Fault: "none but closes, kills, power losses and indexes thrown away, in random histories over every operation",
			Holds: "after every step the store is what the model says; at the end all is recomputed, gc leaves what is reached and nothing else, and two rebuilds are equal", Fast: 3, Full: 2000,
			Run: func(ctx context.Context, env *matrix.Env, index int64) (matrix.Tally, error) {
				return runHistory(ctx, env, "history", index, false)
			},
		},
		{
			Name: "history-faulty", Fault: "a disk that fails now and then, once or until it is mended, in random histories",
			Holds: "an operation that fails changes nothing; the store opens once the disk is mended", Fast: 4, Full: 2000,
			Run: func(ctx context.Context, env *matrix.Env, index int64) (matrix.Tally, error) {
				return runHistory(ctx, env, "history-faulty", index, true)
			},
		},
		{
			Name: "options", Fault: "none: each history is played under fifty sets of options, five a case",
			Holds: "one history has one result: listings, sizes, and the root of every section", Fast: 1, Full: 500, Run: runOptions,
		},
	}
}

func runHistory(ctx context.Context, env *matrix.Env, row string, index int64, faulty bool) (t matrix.Tally, err error) {
	cfg := drive.Config{Seed: env.Rand(row, index).Uint64(), Faulty: faulty}
	r, err := drive.New(cfg)
	if err != nil {
		return t, err
	}
	without := []testkit.OpName{testkit.Break, testkit.Mend}
	if faulty {
		without = []testkit.OpName{testkit.GC, testkit.Verify, testkit.Copy}
	}
	g := testkit.NewGenerator(cfg.Seed, without...)
	err = r.Play(ctx, func(yield func(testkit.Op) bool) {
		for range 120 {
			if !yield(g.Next(r.M)) {
				return
			}
		}
	}, drive.Rebuild)
	t.Points, t.Acknowledged = int64(r.Opens), int64(r.M.Snapshots())
	if err = errors.Join(err, r.Close()); err != nil {
		t.Add(harm(err))
		return t, played(r, err)
	}
	return t, nil
}

// anyOptions draws a set of options, as far from the defaults as they go.
func anyOptions(rng *rand.Rand) func(*engine.Options) {
	segment := int64(64<<10) << rng.IntN(8)
	table := int64(256<<10) << rng.IntN(6)
	cache := []int64{1, 64 << 10, 16 << 20}
	page, node, idx := cache[rng.IntN(3)], cache[rng.IntN(3)], cache[rng.IntN(3)]
	codec := []chunk.Codec{chunk.CodecRaw, chunk.CodecS2, chunk.CodecZstd, chunk.CodecS2Parts, chunk.CodecDelta}[rng.IntN(5)]
	below := 0.1 + 0.85*rng.Float64()
	ballast := []int64{-1, 4 << 10, 1 << 20}[rng.IntN(3)]
	idle := []time.Duration{-1, time.Millisecond, time.Second}[rng.IntN(3)]
	bulk, step := []int64{0, 1, 10 << 10, 100 << 10}[rng.IntN(4)], []int{0, 1, 5, 1000}[rng.IntN(4)]
	quiet, scrub, memory := rng.IntN(2) == 0, rng.IntN(3) == 0, int64(1<<20)<<rng.IntN(4)
	least := []int{0, 1, 64 << 10}[rng.IntN(3)]
	return func(o *engine.Options) {
		o.SegmentSize, o.MemTable, o.PageCache, o.NodeCache, o.IndexCache = segment, table, page, node, idx
		o.Codec, o.NoCompression, o.CleanBelow, o.Ballast = codec, codec == chunk.CodecRaw, below, ballast
		o.IdleSync, o.BulkAfter, o.CountStep, o.NoBackground, o.RebuildMemory = idle, bulk, step, quiet, memory
		o.DirectLeast, o.NoDirectIO = least, least == 0
		if scrub {
			o.ScrubEvery = time.Second
		}
	}
}

func runOptions(ctx context.Context, env *matrix.Env, index int64) (t matrix.Tally, err error) {
	history, set := index/10, index%10
	seed := env.Rand("options", history).Uint64()
	roots := map[[32]byte]engine.Root{}
	rng := env.Rand("options-set", index)
	var ops []testkit.Op
	var last *testkit.Model
	for i := range 6 {
		cfg := drive.Config{Seed: seed, Roots: roots}
		if i > 0 || set > 0 {
			cfg.Options = anyOptions(rng)
		}
		r, err := drive.New(cfg)
		if err != nil {
			return t, err
		}
		if ops == nil {
			// Drawn once: the others play what was drawn.
			g := testkit.NewGenerator(seed, testkit.Break, testkit.Mend, testkit.KillSoon, testkit.PowerLoss)
			err = draw(ctx, r, g, 60)
			ops = append(ops, r.Ops...)
		} else {
			for _, o := range ops {
				if err == nil {
					err = r.Do(ctx, o)
				}
			}
		}
		if err == nil {
			err = r.Check(ctx, drive.Rebuild)
		}
		if err == nil && last != nil && !last.Durable(r.M) {
			err = errors.New("other options led to another result")
		}
		last = r.M
		t.Points++
		t.Acknowledged += int64(r.M.Snapshots())
		if err = errors.Join(err, r.Close()); err != nil {
			t.Add(harm(err))
			return t, played(r, fmt.Errorf("set of options %d: %w", i, err))
		}
	}
	return t, nil
}
