package realrows

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/testkit/drive"
	"github.com/snapstore/snapstore/internal/testkit/matrix"
)

// smallSize of a file system that gets full, in bytes.
const smallSize = 64 << 20

func fullRow() matrix.Row {
	return matrix.Row{
		Name:  "full",
		Fault: "a file system of 64 MiB, tmpfs and ext4 in turn, is filled to the last byte, three times in each store",
		Holds: "takes are refused for want of space, all snapshots read, delete and gc work at zero bytes free, and the store goes on without being opened again",
		Fast:  0, Full: 20,
		Needs: needsDevices,
		Run:   fill,
	}
}

// album is a store of one canister whose snapshots are images from a seed.
type album struct {
	e      *engine.Engine
	c      *engine.Canister
	m      *engine.Memory
	rng    *rand.Rand
	size   int
	images map[engine.SnapshotID]uint64
	ids    []engine.SnapshotID // by age
}

func openAlbum(ctx context.Context, dir string, o *engine.Options, rng *rand.Rand, size int) (a *album, err error) {
	a = &album{rng: rng, size: size, images: map[engine.SnapshotID]uint64{}}
	if a.e, err = engine.Open(dir, o); err != nil {
		return nil, err
	}
	if a.c, err = a.e.CreateCanister(ctx, drive.Canister(0)); errors.Is(err, engine.ErrExists) {
		a.c, err = a.e.Canister(drive.Canister(0))
	}
	if err != nil {
		return nil, errors.Join(err, a.e.Close())
	}
	if a.m, err = a.c.Memory(engine.WasmMemory); err == nil {
		err = a.m.Resize(uint64(size))
	}
	if err != nil {
		return nil, errors.Join(err, a.e.Close())
	}
	return a, nil
}

// image has pages of noise, of which some are the same in all images.
func (a *album) image(seed uint64) []byte {
	var key [32]byte
	p := make([]byte, a.size)
	for i := 0; i < a.size; i += engine.PageSize {
		binary.LittleEndian.PutUint64(key[:], seed)
		if i/engine.PageSize%4 == 0 {
			clear(key[:8])
		}
		binary.LittleEndian.PutUint64(key[8:], uint64(i))
		_, _ = rand.NewChaCha8(key).Read(p[i : i+engine.PageSize])
	}
	return p
}

func (a *album) take(ctx context.Context) error {
	seed := 1 + a.rng.Uint64N(1<<40)
	if _, err := a.m.WriteAt(a.image(seed), 0); err != nil {
		return err
	}
	r, err := a.c.Take(ctx, engine.TakeOptions{})
	if err == nil {
		a.images[r.ID] = seed
		a.ids = append(a.ids, r.ID)
	}
	return err
}

func (a *album) remove(ctx context.Context, i int) error {
	if err := a.e.Delete(ctx, a.ids[i]); err != nil {
		return err
	}
	delete(a.images, a.ids[i])
	a.ids = append(a.ids[:i], a.ids[i+1:]...)
	return nil
}

// readAll reads every snapshot, and that there are no others.
func (a *album) readAll(ctx context.Context, t *matrix.Tally) error {
	n := 0
	for info, err := range a.e.Snapshots(a.c.ID()) {
		if err != nil {
			return err
		}
		seed, ok := a.images[info.ID]
		if !ok {
			return fmt.Errorf("snapshot %v should not be there", info.ID)
		}
		n++
		s, err := a.e.Snapshot(ctx, info.ID)
		if err != nil {
			t.Lost++
			return err
		}
		var got bytes.Buffer
		sec, err := s.Section(engine.WasmMemory)
		if err == nil {
			_, err = sec.WriteTo(&got)
		}
		s.Close()
		if err != nil {
			t.Lost++
			return err
		}
		if !bytes.Equal(got.Bytes(), a.image(seed)) {
			t.Silent++
			return fmt.Errorf("snapshot %v is not what was taken", info.ID)
		}
	}
	if n != len(a.images) {
		t.Lost += int64(len(a.images) - n)
		return fmt.Errorf("%d snapshots, want %d", n, len(a.images))
	}
	return nil
}

func (a *album) verify(ctx context.Context, t *matrix.Tally) error {
	for p, err := range a.e.Verify(ctx, engine.VerifyOptions{}) {
		if err != nil {
			return err
		}
		if p.Kind == engine.ProblemLeak {
			t.Leaked++
		} else {
			t.FreedEarly++
		}
		return fmt.Errorf("verify: %+v", p)
	}
	return nil
}

func fill(ctx context.Context, env *matrix.Env, index int64) (t matrix.Tally, err error) {
	t.Cases = 1
	rng := env.Rand("full", index)
	d, err := newDevice(ctx, env.Dir, []string{"tmpfs", "ext4"}[index%2], smallSize)
	if err != nil {
		return t, err
	}
	defer func() { err = errors.Join(err, d.detach()) }()
	dir := filepath.Join(d.mount, "store")
	o := &engine.Options{SnapshotLimit: 1000, SegmentSize: 1 << 20 << rng.IntN(3), MemTable: 1 << 20, NoBackground: rng.IntN(2) == 0}
	if err := engine.Create(dir, o); err != nil {
		return t, err
	}
	a, err := openAlbum(ctx, dir, o, rng, 1<<20+rng.IntN(2<<20)&^4095)
	if err != nil {
		return t, err
	}
	defer func() { err = errors.Join(err, a.e.Close()) }()
	for round := range 3 {
		if err := a.fillOnce(ctx, d, &t); err != nil {
			return t, fmt.Errorf("%s, %v, round %d: %w", d.kind, o, round, err)
		}
	}
	if err := a.verify(ctx, &t); err != nil {
		return t, err
	}
	t.Acknowledged += int64(len(a.ids))
	return t, a.readAll(ctx, &t)
}

// fillOnce fills the file system to the last byte and gets out of it again.
func (a *album) fillOnce(ctx context.Context, d *device, t *matrix.Tally) error {
	t.Points++
	for n := 0; ; n++ {
		err := a.take(ctx)
		if errors.Is(err, engine.ErrNoSpace) || errors.Is(err, engine.ErrDebt) {
			break
		} else if err != nil {
			return fmt.Errorf("take: %w", err)
		}
		if n > 1000 {
			return errors.New("the file system does not get full")
		}
	}
	pad := filepath.Join(d.mount, "pad")
	// What the background gives up meanwhile is filled too.
	for began := time.Now(); ; {
		if err := padTo(pad); err != nil {
			return err
		}
		free, err := d.free()
		if err != nil {
			return err
		}
		if free <= 4096 {
			break
		}
		if time.Since(began) > patience {
			return fmt.Errorf("%d bytes are free when none should be", free)
		}
	}
	t.Acknowledged += int64(len(a.ids))
	if err := a.readAll(ctx, t); err != nil {
		return fmt.Errorf("full: %w", err)
	}
	// A load writes a record, and may be refused for want of space, or have it.
	id := a.ids[a.rng.IntN(len(a.ids))]
	switch _, err := a.c.Load(ctx, id, engine.LoadOptions{}); {
	case err == nil:
		p := make([]byte, a.size)
		if _, err := a.m.ReadAt(p, 0); err != nil || !bytes.Equal(p, a.image(a.images[id])) {
			return fmt.Errorf("what was loaded on a full disk is something else: %w", err)
		}
	case !errors.Is(err, engine.ErrNoSpace):
		return fmt.Errorf("load on a full disk: %w", err)
	}
	// What the load gave up may come free behind it, and has room for a take.
	var err error
	for range 1 + len(a.ids) {
		if err = a.take(ctx); err != nil {
			break
		}
	}
	if !errors.Is(err, engine.ErrNoSpace) && !errors.Is(err, engine.ErrDebt) {
		return fmt.Errorf("take on a full disk: %w", err)
	}
	before, err := d.free()
	if err != nil {
		return err
	}
	n := len(a.ids)
	for range n * 2 / 3 {
		if err := a.remove(ctx, a.rng.IntN(len(a.ids))); err != nil {
			return fmt.Errorf("delete on a full disk: %w", err)
		}
	}
	if r, err := a.e.GC(ctx, engine.GCOptions{}); err != nil {
		return fmt.Errorf("gc on a full disk: %w, %+v", err, r)
	}
	after, err := d.free()
	if err != nil {
		return err
	}
	// Each image has three quarters of its own; two thirds of them are deleted.
	if want := int64(n*a.size) / 4; after-before < want {
		return fmt.Errorf("%d bytes came free, want %d at least", after-before, want)
	}
	if err := a.readAll(ctx, t); err != nil {
		return fmt.Errorf("after gc on a full disk: %w", err)
	}
	if err := os.Remove(pad); err != nil {
		return err
	}
	// Takes are refused until the index could be written: it is tried again before
	// long.
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if err := a.take(ctx); !errors.Is(err, engine.ErrNoSpace) || time.Since(began) > patience {
			return err
		}
	}
}

// padTo appends until nothing more goes in.
func padTo(name string) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, n := range []int{1 << 20, 1 << 12, 1} {
		for {
			if _, err := f.Write(make([]byte, n)); errors.Is(err, syscall.ENOSPC) {
				break
			} else if err != nil {
				return err
			}
		}
	}
	if err := f.Sync(); err != nil && !errors.Is(err, syscall.ENOSPC) {
		return err
	}
	return nil
}
