package rows

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/testkit"
	"github.com/snapstore/snapstore/internal/testkit/drive"
	"github.com/snapstore/snapstore/internal/testkit/matrix"
)

// stripes is over how many cases the places of a fault are spread.
const stripes = 8

func faultRows() []matrix.Row {
	combos := int64(len(victims()) * len(faults()))
	spaces := int64(len(victims()) * len(full()))
	return []matrix.Row{
		{
			Name: "io-error", Fault: "an error at the n-th operation on files, for every n until the operation succeeds, once and for ever: of writes, syncs, creates, renames, removals, reads",
			Holds: "the operation succeeds, or fails and changes nothing; a sync that failed is never retried as success; the store opens once the disk is mended, after a power loss that keeps nothing unsynced",
			Fast:  combos / 5, Full: combos * stripes, Run: func(ctx context.Context, env *matrix.Env, index int64) (matrix.Tally, error) {
				return runFault(ctx, env, "io-error", index, faults(), false)
			},
		},
		{
			Name: "no-space", Fault: "no space from the n-th operation on that needs some, for every n, and then space again",
			Holds: "as for errors; and without being opened again the store goes on when there is space",
			Fast:  spaces / 5, Full: spaces * stripes, Run: func(ctx context.Context, env *matrix.Env, index int64) (matrix.Tally, error) {
				return runFault(ctx, env, "no-space", index, full(), true)
			},
		},
		{
			Name: "full-disk", Fault: "a disk that takes fill to the last byte",
			Holds: "takes are refused with ErrNoSpace, all snapshots load, deletes and gc work at zero bytes free and give space back, and takes work again without an open",
			Fast:  1, Full: 100, Run: runFullDisk,
		},
	}
}

// victims are the operations that meet faults.
func victims() []testkit.Op {
	upload := on(testkit.BeginUpload, 0)
	upload.Sizes = map[testkit.Section]uint64{stable(): 9000}
	return []testkit.Op{
		on(testkit.Take, 0), on(testkit.Checkpoint, 0), replace(0, 0), remove(0, 0), load(0, 0, 0), load(1, 0, 0), upload,
		on(testkit.Create, 2), on(testkit.Destroy, 0), op(testkit.GC), op(testkit.Reopen), op(testkit.DropIndex), op(testkit.FlushIndex),
	}
}

func faults() []testkit.Fault {
	eio := error(syscall.EIO)
	return []testkit.Fault{
		{Kind: testkit.Mutating, Times: 1, Err: eio},
		{Kind: testkit.Mutating, Err: eio},
		{Kind: testkit.OpSync, Times: 1, Err: eio},
		{Kind: testkit.OpSync, Err: eio},
		{Kind: testkit.OpWrite, Times: 1, Torn: true, Err: eio},
		{Kind: testkit.OpCreate | testkit.OpRename | testkit.OpRemove | testkit.OpTruncate, Times: 2, Err: eio},
		{Kind: testkit.OpRead | testkit.OpOpen | testkit.OpList, Times: 1, Err: eio},
		{Kind: testkit.OpRead | testkit.OpOpen | testkit.OpList, Times: 3, Err: eio},
	}
}

func full() []testkit.Fault {
	needs := testkit.OpWrite | testkit.OpCreate | testkit.OpReserve | testkit.OpMkdir
	return []testkit.Fault{
		{Kind: needs, Err: syscall.ENOSPC},
		{Kind: needs, Err: syscall.ENOSPC, Torn: true},
		{Kind: needs, Err: syscall.ENOSPC, Times: 1},
		{Kind: testkit.OpWrite, Err: syscall.ENOSPC, Under: "store/index"},
		{Kind: testkit.OpWrite, Err: syscall.ENOSPC, Under: "store/log", Torn: true},
	}
}

// runFault is one operation, one kind of fault, and one of several stripes of
// the places that it can come at.
func runFault(ctx context.Context, env *matrix.Env, row string, index int64, kinds []testkit.Fault, goesOn bool) (t matrix.Tally, err error) {
	all := victims()
	combos := int64(len(all) * len(kinds))
	stripe := int(index / combos % stripes)
	// Neighbours are different operations, so that a short run has some of all.
	combo := index % combos * 29 % combos
	victim, fault := all[combo%int64(len(all))], kinds[combo/int64(len(all))]
	rng := env.Rand(row, index)
	cfg := drive.Config{Seed: rng.Uint64(), Faulty: true, Options: func(o *engine.Options) {
		o.NoBackground, o.IdleSync = true, -1
	}}
	base, err := drive.New(cfg)
	if err != nil {
		return t, err
	}
	for _, o := range []testkit.Op{
		on(testkit.Create, 0), on(testkit.Create, 1), resize(0, wasm(), 30), fill(0, wasm(), 0, 20, 2), on(testkit.Take, 0), on(testkit.Take, 0), remove(0, 1),
		fill(0, wasm(), 0, 10, 100), on(testkit.Checkpoint, 0), fill(0, wasm(), 5, 3, 200),
	} {
		if err := base.Do(ctx, o); err != nil {
			return t, errors.Join(err, base.Close())
		}
	}
	disk, model := base.Disk.Crash(100, nil), base.M.Reopened()
	if err := base.Close(); err != nil {
		return t, err
	}
	for n, passed := stripe, 0; passed < 2; n += stripes {
		if n > 4000 {
			return t, fmt.Errorf("%v with %v: faults without end", victim, &fault)
		}
		f := fault
		f.After = n
		met, err := faulted(ctx, drive.Resume(cfg, disk.Crash(100, nil), model), victim, f, rng, goesOn)
		t.Points++
		t.Acknowledged += int64(model.Snapshots())
		if err != nil {
			t.Add(harm(err))
			return t, fmt.Errorf("%v with %v: %w", victim, &f, err)
		}
		if met {
			passed = 0
		} else {
			passed++
		}
	}
	return t, nil
}

// faulted lets an operation meet a fault, and a power loss follow.
func faulted(ctx context.Context, r *drive.Run, victim testkit.Op, f testkit.Fault, rng *rand.Rand, goesOn bool) (met bool, err error) {
	defer func() { err = errors.Join(err, r.Close()) }()
	if err := r.Open(); err != nil {
		return false, err
	}
	if err := r.Do(ctx, fill(0, wasm(), 5, 3, 300)); err != nil {
		return false, err
	}
	var hit atomic.Bool
	f.Met = func() { hit.Store(true) }
	if err := r.Do(ctx, testkit.Op{Name: testkit.Break, Fault: f}); err != nil {
		return false, err
	}
	if err := r.Do(ctx, victim); err != nil {
		return hit.Load(), err
	}
	r.FS.Inject()
	healthy := r.E.Log().ReadOnly() == nil && r.E.Stats().IndexUntrusted == ""
	if goesOn && r.E.Log().ReadOnly() != nil {
		return hit.Load(), errors.New("a full disk made the store read-only")
	}
	if healthy {
		// It goes on without being opened again.
		before := r.M
		if err := r.Do(ctx, op(testkit.Compare)); err != nil {
			return hit.Load(), err
		}
		if goesOn && r.M.Canisters[0].Exists {
			if err := r.Do(ctx, fill(0, wasm(), 8, 2, 400)); err != nil {
				return hit.Load(), err
			}
			if err := r.Do(ctx, on(testkit.Take, 0)); err != nil {
				return hit.Load(), err
			}
			if r.M.Snapshots() == before.Snapshots() {
				return hit.Load(), errors.New("there is space again, and a take failed")
			}
		}
	}
	keep := 50
	if f.Kind == testkit.OpSync {
		keep = 0
	}
	if err := r.LosePower(keep, rng); err != nil {
		return hit.Load(), fmt.Errorf("then power loss: %w", err)
	}
	return hit.Load(), r.Check(ctx, drive.Collect)
}

// runFullDisk fills a disk with takes, deletes at zero bytes free, and goes on.
func runFullDisk(ctx context.Context, env *matrix.Env, index int64) (t matrix.Tally, err error) {
	rng := env.Rand("full-disk", index)
	cfg := drive.Config{Seed: rng.Uint64(), Faulty: true, Limit: 1000, Options: func(o *engine.Options) {
		o.Ballast, o.SnapshotLimit, o.NoBackground, o.CleanBelow = 768<<10, 1000, index%2 == 0, 0.8
	}}
	r, err := drive.New(cfg)
	if err != nil {
		return t, err
	}
	defer func() {
		err = errors.Join(err, r.Close())
		t.Add(harm(err))
	}()
	do := func(ops ...testkit.Op) {
		for _, o := range ops {
			if err == nil {
				err = r.Do(ctx, o)
			}
		}
	}
	do(on(testkit.Create, 0), on(testkit.Create, 1), resize(0, wasm(), 60), resize(1, wasm(), 10), fill(1, wasm(), 0, 9, 7), on(testkit.Take, 1))
	if err != nil {
		return t, err
	}
	r.Disk.SetCapacity(r.Disk.Used() + 2<<20 + rng.Int64N(2<<20))
	fresh := testkit.Content(1 << 40)
	for round := range 2 {
		for last := -1; last != r.M.Snapshots() && err == nil; {
			last = r.M.Snapshots()
			n := 1 + rng.IntN(50)
			do(fill(0, wasm(), 0, n, fresh*3+2), on(testkit.Take, 0)) // contents that do not compress
			fresh += 60
			if last > 900 {
				return t, errors.New("the disk does not get full")
			}
		}
		if err != nil {
			return t, err
		}
		c, cerr := r.E.Canister(drive.Canister(0))
		if cerr != nil {
			return t, cerr
		}
		// There may be room for a last take of few pages, or what a refused one gave
		// back; before long one of many must fail.
		for tries := 0; ; tries++ {
			do(fill(0, wasm(), 0, 60, fresh*3+2))
			fresh += 60
			if err != nil {
				return t, err
			}
			take := on(testkit.Take, 0)
			_, terr := c.Take(ctx, engine.TakeOptions{TakenAt: time.Unix(0, take.At)})
			if errors.Is(terr, engine.ErrNoSpace) {
				break
			}
			if terr != nil || tries == 20 {
				return t, errors.Join(errors.New("a take on a full disk is not refused with ErrNoSpace"), terr)
			}
			r.M = r.M.Apply(take).Next
		}
		if cause := r.E.Log().ReadOnly(); cause != nil {
			return t, fmt.Errorf("a full disk made the store read-only: %w", cause)
		}
		capacity, used := r.Disk.Capacity(), r.Disk.Used()
		// Cleaning in the background may be using the reserve: what is free then is
		// what stands for it.
		if rng.IntN(2) == 0 && r.E.Log().Stats().BallastHeld {
			r.Disk.SetCapacity(used) // not a byte but for the reserve
		}
		do(op(testkit.Compare))
		t.Points++
		t.Acknowledged += int64(r.M.Snapshots())
		have := r.M.Canisters[0].Snapshots
		for _, s := range have[:len(have)-1] {
			n := r.M.Snapshots()
			do(remove(0, s.Local))
			if err == nil && r.M.Snapshots() != n-1 {
				return t, errors.New("a delete failed on a full disk")
			}
		}
		if err != nil {
			return t, err
		}
		if _, gerr := r.E.GC(ctx, engine.GCOptions{}); gerr != nil {
			return t, fmt.Errorf("gc on a full disk: %w", gerr)
		}
		if len(have) > 20 && r.Disk.Used() >= used {
			return t, fmt.Errorf("round %d: %d bytes used, %d after deleting %d snapshots", round, used, r.Disk.Used(), len(have)-1)
		}
		r.Disk.SetCapacity(capacity)
		n := r.M.Snapshots()
		do(fill(0, wasm(), 0, 2, fresh*3+2), on(testkit.Take, 0), on(testkit.Take, 1))
		if err == nil && len(have) > 20 && r.M.Snapshots() != n+2 {
			return t, errors.New("no take after room was made")
		}
	}
	r.Disk.SetCapacity(0)
	do(op(testkit.Reopen))
	if err == nil {
		err = r.Check(ctx, drive.Rebuild)
	}
	return t, err
}
