package engine_test

import (
	"strconv"
	"testing"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/testkit"
	"github.com/snapstore/snapstore/internal/testkit/drive"
)

// lending is the config of a history in which wasm memory is written by a guest.
func lending(seed uint64, mode engine.TrackingMode) drive.Config {
	cfg := config(seed)
	cfg.Lend = true
	options := cfg.Options
	cfg.Options = func(o *engine.Options) {
		options(o)
		o.Tracking = mode
	}
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
			history(t, cfg, 120, testkit.GC, testkit.Verify)
		})
	}
}
