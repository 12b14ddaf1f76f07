package engine_test

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"github.com/snapstore/snapstore/internal/testkit"
	"github.com/snapstore/snapstore/internal/testkit/drive"
)

// number reads an environment variable that asks for more, or for one seed.
func number(t testing.TB, name string, otherwise uint64) uint64 {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(v, 10, 64)
	if err != nil {
		t.Fatalf("%s=%q: %v", name, v, err)
	}
	return n
}

// seeds gives the seeds of a test's histories: the one of SNAPSTORE_SEED, or as
// many as asked for, counted from a base of the test's own.
func seeds(t testing.TB, base, n uint64) []uint64 {
	t.Helper()
	if one := number(t, "SNAPSTORE_SEED", 0); one != 0 {
		return []uint64{one}
	}
	out := make([]uint64, n)
	for i := range out {
		out[i] = base + uint64(i)
	}
	return out
}

// config is that of a history: all else is drawn from the seed.
func config(seed uint64) drive.Config { return drive.Config{Seed: seed} }

// Random histories with closes, kills, power losses and indexes thrown away:
// the store is what the model says after every step, and whole at the end.
func TestHistoriesAgainstModel(t *testing.T) {
	for _, seed := range seeds(t, 1_000, number(t, "SNAPSTORE_HISTORIES", 60)) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			history(t, config(seed), 120, testkit.Break, testkit.Mend)
		})
	}
}

// The same on a disk that fails now and then, once or until it is mended: an
// operation that fails changes nothing.
func TestHistoriesOnAFailingDisk(t *testing.T) {
	for _, seed := range seeds(t, 2_000, number(t, "SNAPSTORE_HISTORIES", 60)) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			cfg := config(seed)
			cfg.Faulty = true
			history(t, cfg, 120, testkit.GC, testkit.Verify, testkit.Copy)
		})
	}
}

func history(t *testing.T, cfg drive.Config, ops int, without ...testkit.OpName) {
	t.Helper()
	ctx := t.Context()
	r, err := drive.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	g := testkit.NewGenerator(cfg.Seed, without...)
	err = r.Play(ctx, func(yield func(testkit.Op) bool) {
		for range ops {
			if !yield(g.Next(r.M)) {
				return
			}
		}
	}, drive.Rebuild)
	if err == nil {
		return
	}
	t.Errorf("%v\n%s", err, r.History())
	if tries := number(t, "SNAPSTORE_MINIMISE", 0); tries > 0 {
		left, err := drive.Minimise(ctx, cfg, r.Ops, int(tries))
		t.Logf("fewer operations that fail: %v", err)
		for i, o := range left {
			t.Logf("%4d %v", i+1, o)
		}
	}
}

func rng(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 8)) }
