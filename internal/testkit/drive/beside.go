package drive

import (
	"fmt"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/testkit"
)

// Beside makes a run of an engine that was opened elsewhere, on any file
// system, and that others may drive too: what it plays must not depend on what
// they do. It opens, closes and kills nothing.
func Beside(cfg Config, e *engine.Engine, m *testkit.Model) *Run {
	r := newRun(cfg)
	r.Disk = testkit.NewDisk()
	r.FS = r.Disk.Mount()
	r.E, r.M, r.allowed = e, m, []*testkit.Model{m}
	return r
}

// CompareCanister holds one canister, durable and live, against what it must
// be.
func (r *Run) CompareCanister(i int, c *testkit.Canister) error {
	for info, err := range r.E.Canisters() {
		if err != nil {
			return fmt.Errorf("canisters: %w", err)
		}
		if info.ID != Canister(i) {
			continue
		}
		if !c.Exists {
			return fmt.Errorf("canister c%d should not be there", i)
		}
		if err := r.compareCanister(i, c, info); err != nil {
			return fmt.Errorf("canister c%d: %w", i, err)
		}
		handle, err := r.E.Canister(info.ID)
		if err != nil {
			return err
		}
		if err := r.compareMemory(handle, c.Live); err != nil {
			return fmt.Errorf("live canister c%d: %w", i, err)
		}
		return nil
	}
	if c.Exists {
		return fmt.Errorf("canister c%d is missing", i)
	}
	return nil
}
