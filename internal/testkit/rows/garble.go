package rows

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/seglog"
	"github.com/snapstore/snapstore/internal/testkit"
	"github.com/snapstore/snapstore/internal/testkit/drive"
	"github.com/snapstore/snapstore/internal/testkit/matrix"
)

// garbler says when it is time to do harm. Safe for concurrent use.
type garbler struct {
	mu   sync.Mutex
	rng  *rand.Rand
	seen int
	done bool
}

func (g *garbler) turn(wait, often int, once bool) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.seen++
	if g.seen <= wait || g.done || (g.seen-wait-1)%often != 0 {
		return false
	}
	g.done = once
	return true
}

func (g *garbler) draw(n int) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.rng.IntN(max(n, 1))
}

// runRAM flips a bit in one write of a history of takes and deletes. What the
// store says then is right or names damage, and so is what it says when opened.
func runRAM(ctx context.Context, env *matrix.Env, index int64) (t matrix.Tally, err error) {
	rng := env.Rand("ram", index)
	cfg := drive.Config{Seed: rng.Uint64(), Options: func(o *engine.Options) { o.NoBackground, o.IdleSync = true, -1 }}
	r, err := drive.New(cfg)
	if err != nil {
		return t, err
	}
	var g garbler
	where := "nothing was written"
	at, bit := rng.IntN(40), rng.Uint64()
	arm := func() {
		r.FS.OnWrite(func(name string, off int64, p []byte) {
			if len(p) > 0 && g.turn(at, 1, true) {
				b := bit % uint64(8*len(p))
				p[b/8] ^= 1 << (b % 8)
				where = fmt.Sprintf("bit %d of a write of %d bytes at %d of %s", b, len(p), off, name)
			}
		})
	}
	fail := func(err error) (matrix.Tally, error) {
		t.Add(harm(err))
		return t, fmt.Errorf("%s: %w\n%s", where, err, r.History())
	}
	var stop error
	for i, o := range []testkit.Op{
		on(testkit.Create, 0), on(testkit.Create, 1), resize(0, wasm(), 60), resize(1, wasm(), 60),
		fill(0, wasm(), 0, 30, 2), on(testkit.Take, 0), fill(1, wasm(), 0, 40, 20), on(testkit.Take, 1), op(testkit.FlushIndex),
		fill(0, wasm(), 20, 20, 200), replace(0, 0), fill(0, wasm(), 3, 2, 300), on(testkit.Take, 0), op(testkit.FlushIndex),
		fill(1, wasm(), 30, 20, 400), on(testkit.Checkpoint, 1), on(testkit.Checkpoint, 0), on(testkit.Checkpoint, 1), on(testkit.Checkpoint, 1),
	} {
		if i == 4 {
			arm()
		}
		if stop = r.Do(ctx, o); stop != nil {
			break
		}
	}
	if stop != nil && !errors.Is(stop, engine.ErrCorrupt) && !errors.Is(stop, engine.ErrDamaged) && r.E.Stats().IndexUntrusted == "" {
		return fail(errors.Join(stop, r.Close()))
	}
	allowed := r.M
	r.FS.OnWrite(nil)
	_ = r.Close() // it may say that something is not as it was written
	t.Points, t.Acknowledged = 2, 2*int64(allowed.Snapshots())
	c := drive.Resume(cfg, r.Disk, allowed.Reopened())
	d, opened, err := c.CompareDamaged()
	if err != nil {
		return fail(err)
	}
	if opened && d.None() {
		t.Harmless = 1
	} else {
		t.Named = 1
	}
	cfg.Options = func(o *engine.Options) { o.NoBackground, o.IdleSync, o.RebuildIndex = true, -1, true }
	if _, _, err := drive.Resume(cfg, r.Disk, allowed.Reopened()).CompareDamaged(); err != nil {
		return fail(fmt.Errorf("rebuilt: %w", err))
	}
	return t, nil
}

// runForged writes what the store has on its disk into a canister's memory, as
// a guest that knows every byte of it would, and then does harm.
func runForged(ctx context.Context, env *matrix.Env, index int64) (t matrix.Tally, err error) {
	rng := env.Rand("forged", index)
	cfg := quietly(rng.Uint64(), func(o *engine.Options) { o.NoCompression = true })
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
	do(on(testkit.Create, 0), on(testkit.Create, 1), resize(1, wasm(), 20), fill(1, wasm(), 0, 20, 2), on(testkit.Take, 1), on(testkit.Checkpoint, 1), on(testkit.Take, 1))
	for range 2 {
		if err != nil {
			return t, err
		}
		echo := echo(r.Disk, rng)
		do(testkit.Op{Name: testkit.Resize, C: 0, Section: wasm(), Size: uint64(len(echo)), Replace: testkit.NoSnapshot})
		do(testkit.Op{Name: testkit.Write, C: 0, Section: wasm(), Spans: []testkit.Span{{Len: len(echo), Data: echo}}, Replace: testkit.NoSnapshot})
		do(on(testkit.Take, 0), fill(1, wasm(), uint64(rng.IntN(10)), 10, testkit.Content(300+rng.IntN(100))), on(testkit.Take, 1))
	}
	do(on(testkit.Checkpoint, 1), on(testkit.Checkpoint, 1))
	if err != nil {
		return t, err
	}
	t.Points, t.Acknowledged = 1, int64(r.M.Snapshots())
	switch index % 3 {
	case 0: // headers of the store's own frames are lost
		var frames []seglog.Loc
		for f, err := range r.E.Log().Scan(ctx) {
			if err != nil {
				return t, err
			}
			frames = append(frames, f.Loc)
		}
		disk := r.Disk.Crash(100, nil)
		for range 1 + rng.IntN(3) {
			at := frames[rng.IntN(len(frames))]
			if err := disk.Edit(drive.Dir+"/log/"+at.Segment.String()+".seg", func(p []byte) { p[int(at.Offset)+rng.IntN(64)] ^= 1 << rng.IntN(8) }); err != nil {
				return t, err
			}
		}
		rebuild := rng.IntN(2) == 0
		cfg.Options = func(o *engine.Options) { o.NoBackground, o.IdleSync, o.RebuildIndex = true, -1, rebuild }
		d, opened, err := drive.Resume(cfg, disk, r.M.Reopened()).CompareDamaged()
		if opened && d.None() {
			t.Harmless = 1
		} else {
			t.Named = 1
		}
		return t, err
	case 1: // a crash in the next take
		every := &drive.Every{Recheck: drive.Recheck{Levels: 1}}
		err = drive.CrashAtEvery(ctx, cfg, append(r.Ops, fill(1, wasm(), 2, 8, 900), on(testkit.Take, 1)), every)
		t.Points, t.Acknowledged = int64(every.Checks), int64(every.Acknowledged)
		return t, err
	}
	do(remove(0, 0), op(testkit.GC), op(testkit.DropIndex))
	if err == nil {
		err = r.Check(ctx, drive.Rebuild)
	}
	return t, err
}

// echo gives frames and roots as they are on a disk, one after the other at
// every place where a frame can be.
func echo(disk *testkit.Disk, rng *rand.Rand) []byte {
	const most = 40 * testkit.PageSize
	var out []byte
	for _, f := range append(disk.Files(drive.Dir+"/log"), drive.Dir+"/ROOT-A") {
		p, err := disk.Bytes(f)
		if err != nil {
			continue
		}
		whole := rng.IntN(2) == 0 // frames as they are, or only their headers
		for len(p) >= 64 && len(out) < most {
			if whole || binary.LittleEndian.Uint32(p) != 0 {
				out = append(out, p[:64]...)
			}
			p = p[64:]
		}
	}
	return out[:len(out)/testkit.PageSize*testkit.PageSize]
}
