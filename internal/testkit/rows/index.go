package rows

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"strings"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/testkit"
	"github.com/snapstore/snapstore/internal/testkit/drive"
	"github.com/snapstore/snapstore/internal/testkit/matrix"
)

func indexRows() []matrix.Row {
	const intact = "all snapshots are there bit for bit, and the counts are those recomputed"
	return []matrix.Row{
		{
			Name: "index-lost", Fault: "the whole index removed, files of it removed, cut off or emptied, or up to eight bits of it flipped anywhere, after random histories that were closed or crashed",
			Holds: "the index is built anew where it must be; " + intact, Fast: 6, Full: 1000, Run: runIndexLost,
		},
		{
			Name: "index-older", Fault: "the index put back to an earlier durable state of it, and the store goes on",
			Holds: intact + ", also of pages that were deleted since and come again", Fast: 2, Full: 400, Run: runIndexOlder,
		},
		{
			Name: "segments", Fault: "segments removed, put back to earlier states, exchanged or put under another's name, after random histories",
			Holds: "what is lost is named for every snapshot and head that needs it, what is not loads, and a store older than its host knows is refused", Fast: 8, Full: 1000, Run: runSegments,
		},
	}
}

const indexDir = drive.Dir + "/index"

// lived is a store after a random history, with its index durable now and then,
// and states that it went through.
func lived(ctx context.Context, rng *rand.Rand, steps int) (r *drive.Run, older []*testkit.Disk, err error) {
	r, err = drive.New(drive.Config{Seed: rng.Uint64()})
	if err != nil {
		return nil, nil, err
	}
	g := testkit.NewGenerator(r.Seed, testkit.PowerLoss, testkit.Break, testkit.Mend, testkit.KillSoon, testkit.DropIndex)
	for range steps {
		if err := draw(ctx, r, g, 8); err != nil {
			return r, nil, played(r, errors.Join(err, r.Close()))
		}
		if err := r.E.FlushIndex(); err != nil {
			return r, nil, played(r, errors.Join(err, r.Close()))
		}
		older = append(older, r.Disk.Crash(100, nil))
	}
	if err := draw(ctx, r, g, rng.IntN(8)); err != nil {
		return r, nil, played(r, errors.Join(err, r.Close()))
	}
	return r, older, nil
}

func runIndexLost(ctx context.Context, env *matrix.Env, index int64) (t matrix.Tally, err error) {
	rng := env.Rand("index-lost", index)
	r, _, err := lived(ctx, rng, 4)
	if err != nil {
		return harm(err), err
	}
	disk := r.Disk.Crash(100, nil)
	if closed := rng.IntN(2) == 0; closed {
		if err := r.Close(); err != nil {
			return t, err
		}
		disk = r.Disk.Crash(100, nil)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	fs, have := disk.Mount(), disk.Files(indexDir)
	file := have[rng.IntN(len(have))]
	what := ""
	switch way := rng.IntN(6); {
	case way == 0:
		what, err = "the whole index removed", fs.RemoveAll(indexDir)
	case way == 1:
		what, err = file+" removed", fs.Remove(file)
	case way == 2:
		p, berr := disk.Bytes(file)
		n := rng.IntN(len(p) + 1)
		what, err = fmt.Sprintf("%s cut to %d of %d", file, n, len(p)), errors.Join(berr, truncate(disk, file, int64(n)))
	default:
		sized := slices.DeleteFunc(slices.Clone(have), func(f string) bool { p, err := disk.Bytes(f); return err != nil || len(p) == 0 })
		for range 1 + rng.IntN(8)*(way%2) {
			at, ferr := flip(rng, nil, disk, sized[rng.IntN(len(sized))])
			what, err = what+at.what+" in "+at.file+"; ", errors.Join(err, ferr)
		}
	}
	if err != nil {
		return t, err
	}
	disk.SyncAll()
	c := drive.Resume(r.Config, disk, r.M.Reopened())
	if err := intact(ctx, c, &t); err != nil {
		t.Add(harm(err))
		return t, fmt.Errorf("%s: %w\n%s", what, err, r.History())
	}
	return t, nil
}

// intact opens a store that must have everything, and looks at all of it. What
// the index can not answer while it is open, it answers after the next open.
func intact(ctx context.Context, c *drive.Run, t *matrix.Tally) (err error) {
	defer func() { err = errors.Join(err, c.Close()) }()
	t.Points++
	if err := c.Open(); err != nil {
		return err
	}
	t.Acknowledged += int64(c.M.Snapshots())
	if c.E.Stats().IndexUntrusted != "" {
		if err := c.Reopen(); err != nil {
			return err
		}
	}
	rebuilt := c.E.Stats().Rebuilt != ""
	err = c.Check(ctx, drive.Rebuild)
	if errors.Is(err, engine.ErrIndex) {
		// It was asked for what is damaged only now.
		rebuilt = true
		if err := c.Reopen(); err != nil {
			return err
		}
		err = c.Check(ctx, drive.Rebuild)
	}
	if rebuilt {
		t.Named++
	} else {
		t.Harmless++
	}
	return err
}

func runIndexOlder(ctx context.Context, env *matrix.Env, index int64) (t matrix.Tally, err error) {
	rng := env.Rand("index-older", index)
	r, older, err := lived(ctx, rng, 5)
	if err != nil {
		return harm(err), err
	}
	if err := r.Close(); err != nil {
		return t, err
	}
	for _, old := range older {
		disk := r.Disk.Crash(100, nil)
		if err := old.Copy(disk, indexDir); err != nil {
			return t, err
		}
		c := drive.Resume(r.Config, disk, r.M.Reopened())
		if err := goesOn(ctx, c, rng.Uint64(), &t); err != nil {
			t.Add(harm(err))
			return t, fmt.Errorf("an older index: %w\n%s\nthen\n%s", err, r.History(), c.History())
		}
	}
	return t, nil
}

// goesOn plays a few operations on a store that must have everything.
func goesOn(ctx context.Context, c *drive.Run, seed uint64, t *matrix.Tally) (err error) {
	defer func() { err = errors.Join(err, c.Close()) }()
	t.Points++
	if err := c.Open(); err != nil {
		return err
	}
	t.Acknowledged += int64(c.M.Snapshots())
	if c.E.Stats().Rebuilt != "" {
		t.Named++
	} else {
		t.Harmless++
	}
	// Contents come from a pool that the history drew from as well.
	g := testkit.NewGenerator(seed, testkit.PowerLoss, testkit.Break, testkit.Mend, testkit.KillSoon, testkit.Kill)
	if err := draw(ctx, c, g, 12); err != nil {
		return err
	}
	return c.Check(ctx, drive.Rebuild)
}

func runSegments(ctx context.Context, env *matrix.Env, index int64) (t matrix.Tally, err error) {
	rng := env.Rand("segments", index)
	r, older, err := lived(ctx, rng, 4)
	if err != nil {
		return harm(err), err
	}
	sequence := r.E.Sequence()
	if err := r.Close(); err != nil {
		return t, err
	}
	disk := r.Disk.Crash(100, nil)
	logs := slices.DeleteFunc(disk.Files(drive.Dir+"/log"), func(f string) bool { return !strings.HasSuffix(f, ".seg") })
	pick := func() string { return logs[rng.IntN(len(logs))] }
	a, b := pick(), pick()
	what := ""
	switch rng.IntN(4) {
	case 0:
		what, err = a+" removed", disk.Mount().Remove(a)
	case 1:
		old := older[rng.IntN(len(older))]
		was := slices.DeleteFunc(old.Files(drive.Dir+"/log"), func(f string) bool { return !strings.HasSuffix(f, ".seg") })
		if len(was) > 0 {
			a = was[rng.IntN(len(was))] // it may be one that was dropped since
		}
		p, berr := old.Bytes(a)
		what, err = a+" as it was", errors.Join(berr, put(disk, a, p))
	case 2:
		p, err1 := disk.Bytes(a)
		q, err2 := disk.Bytes(b)
		what, err = fmt.Sprintf("%s and %s exchanged", a, b), errors.Join(err1, err2, put(disk, a, q), put(disk, b, p))
	case 3:
		p, err1 := disk.Bytes(a)
		other := path.Join(path.Dir(a), fmt.Sprintf("%010x.seg", rng.IntN(40)))
		what, err = fmt.Sprintf("%s under the name of %s", a, other), errors.Join(err1, put(disk, other, p))
	}
	if err != nil {
		return t, err
	}
	disk.SyncAll()
	cfg := r.Config
	rebuild := rng.IntN(2) == 0
	cfg.Options = func(o *engine.Options) { o.MinSequence, o.RebuildIndex = sequence, rebuild }
	t.Points, t.Acknowledged = 1, int64(r.M.Snapshots())
	d, opened, err := drive.Resume(cfg, disk, r.M.Reopened()).CompareDamaged()
	if err != nil {
		t.Add(harm(err))
		return t, fmt.Errorf("%s, rebuild %t: %w\n%s", what, rebuild, err, r.History())
	}
	if opened && d.None() {
		t.Harmless = 1
	} else {
		t.Named = 1
	}
	return t, nil
}
