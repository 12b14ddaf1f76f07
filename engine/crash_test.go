package engine_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/snapstore/snapstore/internal/testkit"
	"github.com/snapstore/snapstore/internal/testkit/drive"
)

// Power losses at random operations on the file system, all through random
// histories, and again while the store recovers from them: what was
// acknowledged is there, what was under way is wholly there or wholly absent,
// and the store goes on.
func TestPowerLossAnywhere(t *testing.T) {
	want := int64(number(t, "SNAPSTORE_CRASH_POINTS", 2_000))
	if testing.Short() {
		want = 200
	}
	next := make(chan uint64)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		defer close(next)
		for _, seed := range seeds(t, 50_000, 1<<20) {
			select {
			case next <- seed:
			case <-ctx.Done():
				return
			}
		}
	}()
	var points, histories atomic.Int64
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for seed := range next {
				n, err := crashes(ctx, seed, 60)
				if err != nil {
					t.Errorf("SNAPSTORE_SEED=%d: %v", seed, err)
					cancel()
					return
				}
				histories.Add(1)
				if points.Add(int64(n)) >= want {
					cancel()
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d crash points in %d histories", points.Load(), histories.Load())
}

// crashes plays a history, catches the disk at random moments, and checks what
// a power loss would have left each time.
func crashes(ctx context.Context, seed uint64, ops int) (checked int, err error) {
	rng := rand.New(rand.NewPCG(seed, 5))
	r, err := drive.New(config(seed))
	if err != nil {
		return 0, err
	}
	var mu sync.Mutex
	var points []*drive.Point
	gap := 1 + rng.Int64N(40)
	at := 1 + rng.Int64N(gap)
	r.OnOp(func(op testkit.FileOp) {
		mu.Lock()
		defer mu.Unlock()
		if at--; at <= 0 {
			at = 1 + rng.Int64N(2*gap)
			points = append(points, r.Catch(rng, fmt.Sprintf("before %v", op)))
		}
	})
	g := testkit.NewGenerator(seed, testkit.PowerLoss, testkit.Break, testkit.Mend)
	err = r.Play(ctx, func(yield func(testkit.Op) bool) {
		for range ops {
			if !yield(g.Next(r.M)) {
				return
			}
		}
	}, drive.Look)
	r.OnOp(nil)
	err = errors.Join(err, r.Close())
	if err != nil {
		if ctx.Err() != nil {
			return 0, nil
		}
		return 0, fmt.Errorf("%w\n%s", err, r.History())
	}
	rng.Shuffle(len(points), func(i, j int) { points[i], points[j] = points[j], points[i] })
	rc := drive.Recheck{Levels: 3}
	for _, p := range points[:min(len(points), 16)] {
		if ctx.Err() != nil {
			return rc.Checks, nil
		}
		// Not ctx: what is begun is finished, so that its errors count.
		if err := p.Check(context.Background(), &rc); err != nil {
			return rc.Checks, err
		}
	}
	return rc.Checks, nil
}
