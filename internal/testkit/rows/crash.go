package rows

import (
	"context"
	"errors"
	"fmt"
	"path"
	"sync"

	"github.com/snapstore/snapstore/internal/testkit"
	"github.com/snapstore/snapstore/internal/testkit/drive"
	"github.com/snapstore/snapstore/internal/testkit/matrix"
)

// Most crash bugs need three operations or fewer on a store that is new, and
// show right after a sync; the others need histories. So all short ones are
// played, and long ones are drawn.
func crashRows() []matrix.Row {
	const acknowledged = "what was acknowledged is there bit for bit, what was under way is wholly there or wholly absent, counts and sizes are those recomputed, nothing is leaked or freed early"
	return []matrix.Row{
		{
			Name: "crash", Fault: "a crash at random operations on files of random histories, with none, all or some unsynced data kept, and again during recovery, to depth 3",
			Holds: acknowledged, Fast: 5, Full: 600, Run: runCrash,
		},
		{
			Name: "crash-small", Fault: "a crash at every operation on files, in every history of at most three operations out of {take, replace} x {same, overlapping, other pages}, delete, load and gc (and of four, beyond), with none, all and some unsynced data kept",
			Holds: acknowledged, Fast: 3, Full: words(3), Run: runSmall,
		},
		{
			Name: "crash-open", Fault: "a crash at every operation on files of an open after a crash, replaying or building the index anew, and again while that is recovered from, to depth 3",
			Holds: acknowledged + "; the store opens, every time", Fast: 1, Full: 120, Run: runCrashOpen,
		},
	}
}

func runCrash(ctx context.Context, env *matrix.Env, index int64) (t matrix.Tally, err error) {
	rng := env.Rand("crash", index)
	r, err := drive.New(drive.Config{Seed: rng.Uint64()})
	if err != nil {
		return t, err
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
	err = draw(ctx, r, testkit.NewGenerator(r.Seed, testkit.PowerLoss, testkit.Break, testkit.Mend), 60)
	if err == nil {
		r.FS.KillAt(0)
		if r.FS.Dead() { // work in the background met the end
			err = r.Recover()
		}
	}
	if err == nil {
		err = r.Check(ctx, drive.Collect)
	}
	r.OnOp(nil)
	if err = errors.Join(err, r.Close()); err != nil {
		return harm(err), played(r, err)
	}
	rng.Shuffle(len(points), func(i, j int) { points[i], points[j] = points[j], points[i] })
	for i, p := range points[:min(len(points), 16)] {
		rc := drive.Recheck{Levels: 3}
		if i == 0 {
			rc.Least = drive.Rebuild
		}
		err := p.Check(ctx, &rc)
		t.Points += int64(rc.Checks)
		t.Acknowledged += int64(rc.Acknowledged)
		if err != nil {
			t.Add(harm(err))
			return t, crashed(r.Config, p.Ops, err)
		}
	}
	return t, nil
}

// crashed is the error of a crash in a history: what is made smaller is the
// history of which every operation is a point.
func crashed(cfg drive.Config, ops []testkit.Op, err error) error {
	return &failedHistory{
		cfg: cfg, ops: ops, err: err,
		call: "drive.CrashAtEvery(t.Context(), cfg, ops, &drive.Every{Recheck: drive.Recheck{Levels: 3}, Last: 1})",
		play: func(ctx context.Context, ops []testkit.Op) error {
			return drive.CrashAtEvery(ctx, cfg, ops, &drive.Every{Recheck: drive.Recheck{Levels: 3}, Last: 1})
		},
	}
}

// letters of the alphabet that small histories are words of.
const letters = 9

// words is how many words there are of at most n letters.
func words(n int) int64 {
	sum, power := int64(0), int64(1)
	for range n {
		power *= letters
		sum += power
	}
	return sum
}

// word gives the letters of the word with a number: the short ones come first.
func word(n int64) (w []int) {
	length, first := 1, int64(0)
	for power := int64(letters); n-first >= power; power *= letters {
		first += power
		length++
	}
	for n -= first; len(w) < length; n /= letters {
		w = append(w, int(n%letters))
	}
	return w
}

// small is a history of a word: after a store with something in it, each letter
// is an operation on the file system's side, and the write before it.
func small(w []int) []testkit.Op {
	ops := []testkit.Op{on(testkit.Create, 0), resize(0, wasm(), 24), fill(0, wasm(), 0, 8, 1), on(testkit.Take, 0)}
	next := testkit.Content(100)
	snapshots := []uint64{0} // there now
	local := uint64(1)
	for _, l := range w {
		if l < 6 {
			switch l % 3 {
			case 0:
				ops = append(ops, fill(0, wasm(), 0, 8, 1)) // the same pages, as they were at first
			case 1:
				ops = append(ops, fill(0, wasm(), 4, 8, next)) // half of them others
			case 2:
				ops = append(ops, fill(0, wasm(), 14, 8, next)) // others beside them
			}
			next += 20
		}
		oldest := uint64(0)
		if len(snapshots) > 0 {
			oldest = snapshots[0]
		}
		switch {
		case l < 3:
			ops = append(ops, on(testkit.Take, 0))
			snapshots = append(snapshots, local)
			local++
		case l < 6:
			if len(snapshots) == 0 {
				ops = append(ops, on(testkit.Take, 0))
			} else {
				ops = append(ops, replace(0, oldest))
				snapshots = snapshots[1:]
			}
			snapshots = append(snapshots, local)
			local++
		case l == 6:
			ops = append(ops, remove(0, oldest)) // refused where there is none
			if len(snapshots) > 0 {
				snapshots = snapshots[1:]
			}
		case l == 7:
			ops = append(ops, load(0, 0, oldest))
		case l == 8:
			ops = append(ops, op(testkit.GC))
		}
	}
	return ops
}

// runSmall crashes at every operation of a word's last letter: those of the
// others are points of the words that they end. Of short words what follows is
// crashed as well: the index is made durable and the store closed.
func runSmall(ctx context.Context, env *matrix.Env, index int64) (t matrix.Tally, err error) {
	n := index
	if all := words(3); n < all {
		n = n * 400 % all // 400 has no factor of words(3): a short run has words of all lengths
	}
	w := word(n)
	ops := small(w)
	cfg := quietly(env.Seed+uint64(index), nil)
	cfg.Limit = 8
	every := &drive.Every{Recheck: drive.Recheck{Levels: 1}, Last: 1, Closing: len(w) <= 2}
	err = drive.CrashAtEvery(ctx, cfg, ops, every)
	t = matrix.Tally{Points: int64(every.Checks), Acknowledged: int64(every.Acknowledged)}
	if err != nil {
		t.Add(harm(err))
		return t, crashed(cfg, ops, err)
	}
	return t, nil
}

func runCrashOpen(ctx context.Context, env *matrix.Env, index int64) (t matrix.Tally, err error) {
	rng := env.Rand("crash-open", index)
	r, err := drive.New(drive.Config{Seed: rng.Uint64()})
	if err != nil {
		return t, err
	}
	g := testkit.NewGenerator(r.Seed, testkit.PowerLoss, testkit.Break, testkit.Mend, testkit.KillSoon)
	if err := draw(ctx, r, g, 10+rng.IntN(30)); err != nil {
		err = errors.Join(err, r.Close())
		return harm(err), played(r, err)
	}
	left := r.Catch(rng, "at the end of the history")
	if err := r.Close(); err != nil {
		return t, played(r, err)
	}
	if rng.IntN(3) == 0 {
		// The index is gone as well, so that the open builds another.
		if err := left.Disk.Mount().RemoveAll(path.Join(drive.Dir, "index")); err != nil {
			return t, err
		}
		left.Disk.SyncAll()
	}
	c := drive.Resume(left.Config, left.Disk, left.Allowed...)
	var mu sync.Mutex
	var points []*drive.Point
	c.OnOp(func(op testkit.FileOp) {
		mu.Lock()
		defer mu.Unlock()
		points = append(points, c.Catch(rng, fmt.Sprintf("during an open, before %v", op)))
	})
	if err := errors.Join(c.Open(), c.Close()); err != nil {
		return harm(err), fmt.Errorf("%w\n%s", err, r.History())
	}
	c.OnOp(nil)
	rc := drive.Recheck{Levels: 3}
	for _, p := range points {
		if err = p.Check(ctx, &rc); err != nil {
			err = fmt.Errorf("%w\n%s", err, r.History())
			break
		}
	}
	t = harm(err)
	t.Points, t.Acknowledged = int64(rc.Checks), int64(rc.Acknowledged)
	return t, err
}
