package guesttest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"

	"github.com/snapstore/snapstore/engine"
)

// zeros is randomness that is the same in every run.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// A program of a real compiler with a real collector, restored, goes on as if
// nothing had happened.
func TestRestoreSorter(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("compiles a program")
	}
	wasm := filepath.Join(t.TempDir(), "sorter.wasm")
	cmd := exec.Command("go", "build", "-buildmode=c-shared", "-o", wasm, filepath.Join("testdata", "sorter.go"))
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("the toolchain here does not compile for wasip1: %v\n%s", err, out)
	}
	module, err := os.ReadFile(wasm)
	if err != nil {
		t.Fatal(err)
	}
	inModes(t, func(t *testing.T, mode engine.TrackingMode) {
		p := compile(t, module, func(rt wazero.Runtime) error {
			_, err := wasi_snapshot_preview1.Instantiate(bg, rt)
			return err
		})
		// Clocks stand still: what they say gets into the memory.
		p.config = p.config.WithRandSource(zeros{}).
			WithWalltime(func() (int64, int32) { return 1_700_000_000, 0 }, sys.ClockResolution(1)).
			WithNanotime(func() int64 { return 1 }, sys.ClockResolution(1))
		restores(t, mode, p, func(g *guest) { g.must(t, "_initialize") }, func(g *guest, i int) error {
			_, err := g.call("step", uint64(2000+500*i))
			return err
		}, 4, 9)
	})
}
