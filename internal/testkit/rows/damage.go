package rows

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/testkit"
	"github.com/snapstore/snapstore/internal/testkit/drive"
	"github.com/snapstore/snapstore/internal/testkit/matrix"
)

func damageRows() []matrix.Row {
	const found = "it is found and named, or the store holds all it held; no wrong byte, no panic, and a second open finds the same, or all that only a damaged index kept from being read"
	all := &subjects{}
	flips, kinds := int64(len(sized())), int64(len(every()))
	return []matrix.Row{
		{
			Name: "flip", Fault: "one bit flips, in every kind of file: " + names(sized()),
			Holds: found + "; versions that need nothing of a damaged group of pages load, and the store opens unless a whole batch is hidden", Fast: 5 * flips, Full: 1000 * flips,
			Run: func(ctx context.Context, env *matrix.Env, index int64) (matrix.Tally, error) {
				return damaged(ctx, env, all, "flip", index, sized(), flip)
			},
		},
		{
			Name: "block", Fault: "sectors zeroed or filled with noise, blocks swapped within a file or between files, written to another place, and files cut off, in every kind of file",
			Holds: found, Fast: 3 * flips, Full: 200 * flips,
			Run: func(ctx context.Context, env *matrix.Env, index int64) (matrix.Tally, error) {
				return damaged(ctx, env, all, "block", index, sized(), blocks)
			},
		},
		{
			Name: "file", Fault: "files missing, empty, replaced by another of their kind or by what they were before: " + names(every()),
			Holds: found + "; a store that is older than its host knows is refused", Fast: 3 * kinds, Full: 40 * kinds,
			Run: func(ctx context.Context, env *matrix.Env, index int64) (matrix.Tally, error) {
				return damaged(ctx, env, all, "file", index, every(), files)
			},
		},
		{
			Name: "misread", Fault: "reads that give another block, an older one, or zeros, once, now and then, or always, in every kind of file, with gc or without",
			Holds: "no wrong byte; nothing is missing when the disk reads well again, but what gc has put aside", Fast: 2 * flips, Full: 200 * flips,
			Run: func(ctx context.Context, env *matrix.Env, index int64) (matrix.Tally, error) {
				return misread(ctx, env, all, index)
			},
		},
		{Name: "ram", Fault: "one bit flips in memory, in what a store is about to write", Holds: found, Fast: 15, Full: 1000, Run: runRAM},
		{
			Name: "forged", Fault: "guests whose memory is made of the store's own frames and keys, and then a flip, a crash, or the index built anew",
			Holds: "no frame of a guest is taken for one of the store", Fast: 6, Full: 600, Run: runForged,
		},
	}
}

func names(kinds []kind) string {
	var out []string
	for _, k := range kinds {
		out = append(out, string(k))
	}
	return strings.Join(out, ", ")
}

// A spot is where damage was done.
type spot struct {
	what   string
	file   string
	offset int64
	// one: nothing but the byte at offset was changed.
	one bool
	// older: the store, or a part of it, is older than its host knows.
	older bool
}

// damage does harm to a file on a disk.
type damage func(rng *rand.Rand, s *subject, disk *testkit.Disk, file string) (spot, error)

func damaged(ctx context.Context, env *matrix.Env, all *subjects, row string, index int64, kinds []kind, do damage) (t matrix.Tally, err error) {
	n := int64(len(kinds))
	s, err := all.get(ctx, env.Seed, index/n)
	if err != nil {
		return t, err
	}
	rng := env.Rand(row, index)
	have := s.files(kinds[index%n])
	if row != "file" {
		have = slices.DeleteFunc(have, func(f string) bool { p, err := s.disk.Bytes(f); return err != nil || len(p) == 0 })
	}
	if len(have) == 0 {
		return t, fmt.Errorf("the store has no %s", kinds[index%n])
	}
	disk := s.disk.Crash(100, nil)
	at, err := do(rng, s, disk, have[rng.IntN(len(have))])
	if err != nil {
		return t, err
	}
	disk.SyncAll()
	cfg := s.cfg
	rebuild := rng.IntN(3) == 0
	cfg.Options = func(o *engine.Options) {
		s.cfg.Options(o)
		o.RebuildIndex = rebuild
		if at.older {
			o.MinSequence = s.sequence
		}
	}
	t.Points, t.Acknowledged = 2, 2*int64(s.model.Snapshots())
	fail := func(err error) (matrix.Tally, error) {
		t.Add(harm(err))
		return t, fmt.Errorf("%s in %s (a %s), rebuild %t: %w", at.what, at.file, s.kinds[at.file], rebuild, err)
	}
	d, opened, err := drive.Resume(cfg, disk, s.model).CompareDamaged()
	if err != nil {
		return fail(err)
	}
	if opened {
		if err := s.justified(at, d); err != nil {
			return fail(err)
		}
	} else if at.one && !errors.Is(d.Refused, engine.ErrLost) {
		// One bit hides what others need only where it hides a whole batch.
		return fail(fmt.Errorf("the store does not open, and lacks no batch: %w", d.Refused))
	}
	if opened && d.None() {
		t.Harmless = 1
	} else {
		t.Named = 1
	}
	again, opened2, err := drive.Resume(cfg, disk, s.model).CompareDamaged()
	if err != nil {
		return fail(fmt.Errorf("opened again: %w", err))
	}
	if d.Index {
		// What the index alone kept from being read is there once it is built anew.
		if !opened2 || !again.None() {
			return fail(fmt.Errorf("degraded by the index %v, opened again (%t) %v: %w", d.Names, opened2, again.Names, errors.Join(again.Errors...)))
		}
		return t, nil
	}
	if opened != opened2 || !again.Equal(d) {
		return fail(fmt.Errorf("degraded %v, opened again %v", d.Names, again.Names))
	}
	return t, nil
}

// justified holds what is degraded against what needs the frame that was hit:
// where that is a group of pages, only versions that have one of them may be,
// and each names page and segment. Outside the log there is nothing to lose.
func (s *subject) justified(at spot, d drive.Degraded) error {
	switch s.kinds[at.file] {
	case kindCommit, kindBulk, kindMoved:
	default:
		if at.one && !d.Index && !d.None() {
			return fmt.Errorf("%v degraded by a file that has nothing of them: %w", d.Names, errors.Join(d.Errors...))
		}
	}
	f := s.frameAt(at.file, at.offset)
	if !at.one || f == nil || f.needed == nil {
		return nil
	}
	for i, name := range d.Names {
		if !f.needed[name] {
			return fmt.Errorf("%s is degraded, and needs nothing of the damaged frame %v: %w", name, f.loc, d.Errors[i])
		}
		var c *engine.CorruptionError
		if !errors.As(d.Errors[i], &c) || c.ID.IsZero() || c.Section == "" {
			return fmt.Errorf("%s is degraded, and the error does not name the page: %w", name, d.Errors[i])
		}
	}
	return nil
}

func flip(rng *rand.Rand, _ *subject, disk *testkit.Disk, file string) (at spot, err error) {
	at = spot{file: file, one: true}
	err = disk.Edit(file, func(p []byte) {
		bit := rng.Int64N(8 * int64(len(p)))
		at.offset = bit / 8
		p[bit/8] ^= 1 << (bit % 8)
		at.what = fmt.Sprintf("bit %d of byte %d flipped", bit%8, bit/8)
	})
	return at, err
}

// aligned draws a place for n bytes, at a multiple of the sector where the file
// has as many.
func aligned(rng *rand.Rand, size, n int) (from, to int) {
	n = min(n, size)
	from = rng.IntN(size-n+1) / 512 * 512
	return from, min(from+n, size)
}

func blocks(rng *rand.Rand, s *subject, disk *testkit.Disk, file string) (at spot, err error) {
	at.file = file
	size := []int{512, 4096}[rng.IntN(2)]
	what := rng.IntN(6)
	other := file
	if peers := s.files(s.kinds[file]); what == 4 {
		other = peers[rng.IntN(len(peers))]
	}
	theirs, err := disk.Bytes(other)
	if err != nil {
		return at, err
	}
	if what == 5 {
		p, err := disk.Bytes(file)
		if err != nil {
			return at, err
		}
		n := rng.IntN(len(p))
		at.what, at.older = fmt.Sprintf("cut to %d of %d bytes", n, len(p)), true
		return at, truncate(disk, file, int64(n))
	}
	err = disk.Edit(file, func(p []byte) {
		from, to := aligned(rng, len(p), size)
		at.offset = int64(from)
		switch what {
		case 0:
			clear(p[from:to])
			at.what = fmt.Sprintf("bytes %d to %d zeroed", from, to)
		case 1:
			for i := from; i < to; i++ {
				p[i] = byte(rng.Uint32())
			}
			at.what = fmt.Sprintf("bytes %d to %d filled with noise", from, to)
		case 2:
			there, end := aligned(rng, len(p), to-from)
			old := slices.Clone(p[from:to])
			copy(p[from:to], p[there:end])
			copy(p[there:end], old)
			at.what = fmt.Sprintf("bytes %d to %d and those from %d swapped", from, to, there)
		default:
			there, end := aligned(rng, len(theirs), to-from)
			copy(p[from:to], theirs[there:end])
			at.what = fmt.Sprintf("bytes %d to %d written to %d, from %s", there, end, from, other)
		}
	})
	at.older = true // what was the newest may be gone
	return at, err
}

func truncate(disk *testkit.Disk, file string, size int64) error {
	f, err := disk.Mount().OpenReadWrite(file, "")
	if err != nil {
		return err
	}
	return errors.Join(f.(interface{ Truncate(int64) error }).Truncate(size), f.Close())
}

func put(disk *testkit.Disk, file string, p []byte) error {
	f, err := disk.Mount().Create(file, "")
	if err != nil {
		return err
	}
	_, err = f.Write(p)
	return errors.Join(err, f.Close())
}

func files(rng *rand.Rand, s *subject, disk *testkit.Disk, file string) (at spot, err error) {
	at = spot{file: file, older: true}
	switch rng.IntN(5) {
	case 0:
		at.what = "removed"
		return at, disk.Mount().Remove(file)
	case 1:
		at.what = "emptied"
		return at, truncate(disk, file, 0)
	case 2:
		peers := s.files(s.kinds[file])
		other := peers[rng.IntN(len(peers))]
		at.what = "replaced by " + other
		p, err := disk.Bytes(other)
		return at, errors.Join(err, put(disk, file, p))
	}
	// What it was before; where it was not there, another of then.
	then := rng.IntN(len(s.older))
	for i := range s.older {
		old := s.older[(then+i)%len(s.older)]
		if p, err := old.Bytes(file); err == nil {
			at.what = fmt.Sprintf("as it was at %d of %d", (then+i)%len(s.older), len(s.older))
			return at, put(disk, file, p)
		}
	}
	at.what = "removed, since it was not there before"
	return at, disk.Mount().Remove(file)
}

// misread opens a store on a disk that serves other bytes than it has, and then
// on one that reads well.
func misread(ctx context.Context, env *matrix.Env, all *subjects, index int64) (t matrix.Tally, err error) {
	kinds := sized()
	n := int64(len(kinds))
	s, err := all.get(ctx, env.Seed, index/n)
	if err != nil {
		return t, err
	}
	rng := env.Rand("misread", index)
	victim := kinds[index%n]
	disk := s.disk.Crash(100, nil)
	cfg := s.cfg
	rebuild := rng.IntN(3) == 0
	cfg.Options = func(o *engine.Options) {
		s.cfg.Options(o)
		o.RebuildIndex = rebuild
		o.MinSequence = s.sequence // the newest may not be seen
	}
	old := s.older[rng.IntN(len(s.older))]
	how, often, wait := rng.IntN(3), []int{1, 1, 3}[rng.IntN(3)], rng.IntN(60)
	once := rng.IntN(2) == 0
	c := drive.Resume(cfg, disk, s.model)
	var g garbler
	c.FS.OnRead(func(name string, off int64, p []byte) {
		if s.kinds[name] != victim || !g.turn(wait, often, once) {
			return
		}
		switch how {
		case 0: // another block of the file
			if all, err := disk.Bytes(name); err == nil {
				copy(p, all[g.draw(len(all)):])
			}
		case 1: // what was there before, or nothing
			before, err := old.Bytes(name)
			if clear(p); err == nil && off < int64(len(before)) {
				copy(p, before[off:])
			}
		case 2:
			clear(p)
		}
	})
	g.rng = rand.New(rand.NewPCG(rng.Uint64(), 1))
	what := fmt.Sprintf("%s misread, way %d, from read %d on every %d, once %t, rebuild %t", victim, how, wait, often, once, rebuild)
	t.Points, t.Acknowledged = 2, 2*int64(s.model.Snapshots())
	c.Collect = rng.IntN(2) == 0
	d, opened, err := c.CompareDamaged()
	if err != nil {
		t.Add(harm(err))
		return t, fmt.Errorf("%s: %w", what, err)
	}
	if opened && d.None() {
		t.Harmless = 1
	} else {
		t.Named = 1
	}
	// The disk holds what it held: all must be there, at the latest when the
	// index is built anew. What gc could not read it has put aside and not removed.
	cfg.Options = func(o *engine.Options) {
		s.cfg.Options(o)
		o.RebuildIndex = true
	}
	again, opened, err := drive.Resume(cfg, disk, s.model).CompareDamaged()
	if aside, _ := disk.Mount().List(drive.Dir + "/quarantine"); err == nil && opened && c.Collect && len(aside) > 0 {
		return t, nil
	}
	if err == nil && (!opened || !again.None()) {
		err = fmt.Errorf("with a disk that reads well: opened %t, %v degraded: %w", opened, again.Names, errors.Join(again.Errors...))
	}
	if err != nil {
		t.Add(harm(err))
		return t, fmt.Errorf("%s: %w", what, err)
	}
	return t, nil
}
