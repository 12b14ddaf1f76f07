package drive

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"

	"github.com/snapstore/snapstore/internal/testkit"
)

// Point is a crash: the disk as it was found, and what it may hold.
type Point struct {
	Config  Config
	Seed    uint64 // of the check
	Disk    *testkit.Disk
	Allowed []*testkit.Model
	Proved  uint64
	// Where says when the crash was: the operation on the file system, and
	// before how many operations of the history.
	Where string
	Ops   []testkit.Op
	Level int // 1 for a crash of the first run, more for those during recovery
}

// Catch takes the disk as a power loss at this moment would leave it. It may be
// called from a hook of the file system.
func (r *Run) Catch(rng *rand.Rand, where string) *Point {
	return r.CatchKeeping(keepPercent(rng), rng, where)
}

// CatchKeeping is Catch with so many percent kept of what was not synced.
func (r *Run) CatchKeeping(keep int, rng *rand.Rand, where string) *Point {
	r.mu.Lock()
	defer r.mu.Unlock()
	return &Point{
		Config: r.Config, Seed: rng.Uint64(), Disk: r.Disk.Crash(keep, rng), Allowed: r.allowed, Proved: r.proved,
		Where: fmt.Sprintf("%s, %d%% of the unsynced kept", where, keep), Ops: slices.Clone(r.Ops), Level: 1,
	}
}

// Recheck limits what Check goes on to do, and counts what it did.
type Recheck struct {
	Levels int   // of crashes during recovery
	Least  Depth // of the first check; some are deeper
	// Checks is how many points were checked, Acknowledged how many snapshots
	// were held against the model in all.
	Checks, Acknowledged int
}

// Check opens what the crash left and holds it against the model, works with
// it, and crashes it again while it does. On an error the disk as it was found
// is written to a directory, whose name the error tells.
func (p *Point) Check(ctx context.Context, rc *Recheck) error {
	found := p.Disk.Crash(100, nil)
	err := p.check(ctx, rc)
	if err == nil {
		return nil
	}
	kept := "not kept"
	if dir, derr := os.MkdirTemp("", "snapstore-crash-"); derr == nil {
		if derr = found.Export(dir); derr == nil {
			kept = dir
		}
	}
	return fmt.Errorf("crash %s (level %d, check seed %d, disk in %s): %w", p.Where, p.Level, p.Seed, kept, err)
}

func (p *Point) check(ctx context.Context, rc *Recheck) error {
	rc.Checks++
	rng := rand.New(rand.NewPCG(p.Seed, 2))
	r := Resume(p.Config, p.Disk, p.Allowed...)
	r.proved = p.Proved
	r.Ops = append(slices.Clone(p.Ops), testkit.Op{Name: "crash " + testkit.OpName(p.Where), Replace: testkit.NoSnapshot})

	var next *Point
	if p.Level < rc.Levels {
		// Early operations are those of recovery; later ones come from what is
		// done with the recovered store.
		at := 1 + rng.Int64N(40)
		if rng.IntN(3) == 0 {
			at = 1 + rng.Int64N(400)
		}
		catch := rand.New(rand.NewPCG(rng.Uint64(), 3))
		var once sync.Once // each process counts its operations from 1
		r.OnOp(func(op testkit.FileOp) {
			if op.N == at {
				once.Do(func() {
					next = r.Catch(catch, fmt.Sprintf("before %v after %s", op, p.Where))
					next.Level = p.Level + 1
				})
			}
		})
	}
	if err := p.work(ctx, r, rng, rc); err != nil {
		return fmt.Errorf("%w\n%s", err, r.History())
	}
	if next == nil {
		return nil
	}
	return next.Check(ctx, rc)
}

// work opens the store, checks it, plays a few operations and checks again.
func (p *Point) work(ctx context.Context, r *Run, rng *rand.Rand, rc *Recheck) (err error) {
	defer func() {
		cerr := r.Close()
		if err == nil {
			err = cerr
		}
	}()
	if err := r.Open(); err != nil {
		return err
	}
	rc.Acknowledged += r.M.Snapshots()
	depth := rc.Least
	switch n := rng.IntN(16); {
	case n == 0:
		depth = Rebuild
	case n < 4:
		depth = max(depth, Collect)
	}
	if err := r.Check(ctx, depth); err != nil {
		return err
	}
	if rng.IntN(3) > 0 {
		return nil
	}
	g := testkit.NewGenerator(rng.Uint64(), testkit.PowerLoss, testkit.DropIndex, testkit.Break, testkit.Mend)
	return r.Play(ctx, func(yield func(testkit.Op) bool) {
		for range 2 + rng.IntN(6) {
			if !yield(g.Next(r.M)) {
				return
			}
		}
	}, Look)
}
