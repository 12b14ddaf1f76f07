package drive

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/testkit"
)

// Degraded is what a damaged store can not give any more.
type Degraded struct {
	Canisters, Snapshots, Heads int
	Names                       []string // of all of them: "c1", "c1/0", "c1/head"
	Errors                      []error  // how reading them failed
	// Index: some failed by the index alone. It is not what is lost, and the next
	// open builds it anew.
	Index bool
	// Refused is why the store did not open; nil if it did.
	Refused error
}

// None tells whether the store gives everything.
func (d Degraded) None() bool { return len(d.Names) == 0 }

// Equal compares what is degraded, whatever the errors say.
func (d Degraded) Equal(o Degraded) bool { return slices.Equal(d.Names, o.Names) }

func (d *Degraded) add(count *int, err error, format string, args ...any) {
	*count++
	d.Index = d.Index || errors.Is(err, engine.ErrIndex)
	d.Names = append(d.Names, fmt.Sprintf(format, args...))
	d.Errors = append(d.Errors, err)
}

// CompareDamaged opens a store that was damaged. What it gives must be right,
// bit for bit, and what it can not give it must name: nothing is missing
// without a word. An error that is no finding is one that says so: the store
// does not open, and why.
func (r *Run) CompareDamaged() (d Degraded, opened bool, err error) {
	o := r.options
	o.FS, o.NoBackground, o.IdleSync = r.FS, true, -1
	if r.Options != nil {
		r.Options(&o)
	}
	r.E, err = engine.Open(Dir, &o)
	if err != nil {
		if !named(err) {
			return d, false, fmt.Errorf("open fails and does not say that it is damage: %w", err)
		}
		d.Refused = err
		return d, false, nil
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w; the log knows of %v", err, r.E.Log().Damage())
		}
		err = errors.Join(err, r.Close())
	}()
	have := map[engine.CanisterID]engine.CanisterInfo{}
	for info, err := range r.E.Canisters() {
		if err != nil && !named(err) {
			return d, true, fmt.Errorf("canisters: %w", err)
		}
		have[info.ID] = info
	}
	for i, c := range r.M.Canisters {
		info, ok := have[Canister(i)]
		delete(have, Canister(i))
		switch {
		case !c.Exists && ok && !info.Damaged:
			return d, true, finding(Silent, 1, fmt.Errorf("canister c%d came back", i))
		case !c.Exists:
		case !ok:
			return d, true, finding(Silent, len(c.Snapshots), fmt.Errorf("canister c%d is missing without a word", i))
		case info.Damaged:
			d.add(&d.Canisters, engine.ErrDamaged, "c%d", i)
		default:
			if err := r.compareDamaged(i, c, &d); err != nil {
				return d, true, fmt.Errorf("canister c%d: %w", i, err)
			}
		}
	}
	if len(have) > 0 {
		return d, true, fmt.Errorf("canisters from nowhere: %v", have)
	}
	if r.Collect {
		if _, err := r.E.GC(context.Background(), engine.GCOptions{}); err != nil && !named(err) {
			return d, true, fmt.Errorf("gc: %w", err)
		}
	}
	return d, true, nil
}

func (r *Run) compareDamaged(i int, c *testkit.Canister, d *Degraded) error {
	n := 0
	for have, err := range r.E.Snapshots(Canister(i)) {
		if err != nil {
			return err
		}
		if n == len(c.Snapshots) || have.ID.Local != c.Snapshots[n].Local {
			return finding(Silent, 1, fmt.Errorf("snapshot %v should not be there", have.ID))
		}
		w := c.Snapshots[n]
		n++
		err := func() error {
			s, err := r.E.Snapshot(context.Background(), have.ID)
			if err != nil {
				return err
			}
			defer s.Close()
			return compareSnapshot(s, w.State, r.roots)
		}()
		if named(err) {
			d.add(&d.Snapshots, err, "c%d/%d", i, w.Local)
		} else if err != nil {
			return fmt.Errorf("snapshot %d: %w", w.Local, err)
		}
	}
	if n != len(c.Snapshots) {
		return finding(Silent, len(c.Snapshots)-n, fmt.Errorf("%d snapshots of %d are missing without a word", len(c.Snapshots)-n, len(c.Snapshots)))
	}
	handle, err := r.E.Canister(Canister(i))
	if err == nil {
		// Where the state can not be read, every section says so.
		if _, err = handle.Memory(engine.WasmMemory); err == nil {
			err = r.compareMemory(handle, c.Head)
		}
	}
	if named(err) {
		d.add(&d.Heads, err, "c%d/head", i)
		return nil
	}
	return err
}

// named tells whether an error says that there is damage, and where, or that the
// store is older than it must be.
func named(err error) bool {
	return errors.Is(err, engine.ErrCorrupt) || errors.Is(err, engine.ErrIndex) || errors.Is(err, engine.ErrDamaged) || errors.Is(err, engine.ErrRolledBack)
}
