package engine_test

import (
	"context"
	"slices"
	"strconv"
	"syscall"
	"testing"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/testkit"
	"github.com/snapstore/snapstore/internal/testkit/drive"
)

// lending is the config of a history in which wasm memory is written by a guest.
func lending(seed uint64, mode engine.TrackingMode) drive.Config {
	cfg := config(seed)
	cfg.Lend = true
	cfg.Options = func(o *engine.Options) { o.Tracking = mode }
	return cfg
}

func lendingModes(t *testing.T) []engine.TrackingMode {
	t.Helper()
	if kernelTracks(t) {
		return []engine.TrackingMode{engine.TrackKernel, engine.TrackKernel, engine.TrackHash}
	}
	return []engine.TrackingMode{engine.TrackHash}
}

// The histories of the model, with wasm memory lent and written behind the
// engine's back.
func TestHistoriesOfLentMemory(t *testing.T) {
	modes := lendingModes(t)
	for _, seed := range seeds(t, 8_000, number(t, "SNAPSTORE_HISTORIES", 24)) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			history(t, lending(seed, modes[seed%uint64(len(modes))]), 120, testkit.Break, testkit.Mend)
		})
	}
}

// The same on a disk that fails: a take that fails loses no page.
func TestHistoriesOfLentMemoryOnAFailingDisk(t *testing.T) {
	modes := lendingModes(t)
	for _, seed := range seeds(t, 9_000, number(t, "SNAPSTORE_HISTORIES", 24)) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			cfg := lending(seed, modes[seed%uint64(len(modes))])
			cfg.Faulty = true
			history(t, cfg, 120, testkit.GC, testkit.Verify, testkit.Copy)
		})
	}
}

// A take of lent memory that is given up at any operation on the file system,
// by its caller or by a full disk, loses no dirty page: the next one has them.
func TestFailedTakeOfLentMemoryLosesNothing(t *testing.T) {
	for name, fail := range map[string]func(r *drive.Run, cancel func(), n int64){
		"cancelled": func(r *drive.Run, cancel func(), n int64) {
			at := r.FS.Ops() + n
			r.OnOp(func(op testkit.FileOp) {
				if op.N == at {
					cancel()
				}
			})
		},
		"full disk": func(r *drive.Run, _ func(), n int64) {
			r.FS.Inject(&testkit.Fault{Kind: testkit.OpWrite | testkit.OpCreate | testkit.OpReserve, Under: "store/log", After: int(n) - 1, Err: syscall.ENOSPC})
		},
	} {
		for _, mode := range slices.Compact(lendingModes(t)) {
			t.Run(name+"/"+mode.String(), func(t *testing.T) {
				t.Parallel()
				for n, passed := int64(1), 0; passed < 2; n++ {
					cfg := quietly(nil)
					cfg.Faulty, cfg.Lend = true, true
					options := cfg.Options
					cfg.Options = func(o *engine.Options) {
						if options != nil {
							options(o)
						}
						o.Tracking = mode
					}
					r, err := drive.New(cfg)
					if err != nil {
						t.Fatal(err)
					}
					do(t, r, create(0), resize(0, wasm, 200*engine.PageSize), fill(0, wasm, 0, contents(1, 30)...), take(0))
					do(t, r, fill(0, wasm, 20, contents(100, 50)...), resize(0, wasm, 60*engine.PageSize), resize(0, wasm, 90*engine.PageSize))
					ctx, cancel := context.WithCancel(t.Context())
					fail(r, cancel, n)
					before := r.M
					if err := r.Do(ctx, take(0)); err != nil {
						t.Fatalf("%d: %v", n, err)
					}
					cancel()
					if r.M != before {
						passed++ // it was not met
					}
					r.OnOp(nil)
					r.FS.Inject()
					if err := r.Compare(); err != nil {
						t.Fatalf("failed at %d: %v", n, err)
					}
					do(t, r, fill(0, wasm, 25, contents(300, 3)...), resize(0, wasm, 80*engine.PageSize), take(0))
					check(t, r, drive.Collect)
					if err := r.LosePower(0, nil); err != nil {
						t.Fatal(err)
					}
					check(t, r, drive.Look)
					r.Close()
				}
			})
		}
	}
}
