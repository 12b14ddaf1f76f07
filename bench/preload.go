package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"time"

	"github.com/snapstore/snapstore/chunk"
	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/index"
	"github.com/snapstore/snapstore/internal/osfs"
	"github.com/snapstore/snapstore/internal/seglog"
)

// preloadRounds is how many times as many takes a repeat has here: 200 at full size.
// What the index writes of a take comes later, when it is merged, and what a store
// writes at its end, the filter of all chunks too, is shared by all takes: closed after
// each forty of them it wrote twice as much.
const preloadRounds = 5

// preload fills the index with chunks of other canisters, and takes 1 % of an
// image again and again. What is written is counted once, over all repeats.
func (r *run) preload(ctx context.Context) (err error) {
	m, release, err := r.newMix()
	if err != nil {
		return err
	}
	defer release()
	s, err := r.newStore(&engine.Options{SnapshotLimit: limitOf})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.remove()) }()
	if err := r.fillIndex(ctx, s); err != nil {
		return err
	}
	c, mem, err := s.canister(ctx, 1, engine.WasmMemory, uint64(len(m.image.Mem)))
	if err != nil {
		return err
	}
	if err := fill(mem, m.image.Mem); err != nil {
		return err
	}
	var ids []engine.SnapshotID
	for range kept {
		res, err := c.Take(ctx, engine.TakeOptions{})
		if err != nil {
			return err
		}
		ids = append(ids, res.ID)
		if _, err := m.change(mem); err != nil {
			return err
		}
	}
	count, err := r.countWritten(ctx, s)
	if err != nil {
		return err
	}
	if c, mem, err = s.again(1, engine.WasmMemory); err != nil {
		return err
	}
	stats := s.e.Stats()
	compressed, n := int64(0), int64(0)
	for repeat := range r.o.Repeats {
		r.step("%s, repeat %d of %d", Preload, repeat+1, r.o.Repeats)
		var takes, bounds []float64
		for turn := range preloadRounds * r.s.takes {
			t, err := m.takeOne(ctx, s, c, mem, engine.TakeOptions{Replace: ids[0]}, turn)
			if err != nil {
				return err
			}
			ids = append(ids[1:], t.id)
			takes, bounds, compressed = append(takes, ms(t.took)), append(bounds, ms(t.bound)), compressed+t.compressed
			n++
		}
		r.rec.add("preload.take", quantile(takes, 0.5), quantile(bounds, 0.5))
	}
	byGC := s.e.Stats().GC.BytesWritten - stats.GC.BytesWritten
	if err := s.reopen(); err != nil {
		return err
	}
	if err := count.add(ctx, "preload.written", byGC, compressed, n); err != nil {
		return err
	}
	return r.misses(ctx, s)
}

// fillIndex stores pages that are distinct and small when compressed, until the
// index has as many chunks as it shall have. They belong to a canister that has
// only its live state.
func (r *run) fillIndex(ctx context.Context, s *store) error {
	const atOnce = 64 << 20 / chunk.PageSize
	size := uint64(r.o.Preload) * chunk.PageSize
	c, mem, err := s.canister(ctx, 2, engine.StableMemory, size)
	if err != nil {
		return err
	}
	page := make([]byte, chunk.PageSize)
	for i := range r.o.Preload {
		binary.LittleEndian.PutUint64(page, r.o.Seed)
		binary.LittleEndian.PutUint64(page[8:], uint64(i)+1)
		if _, err := mem.WriteAt(page, int64(i)*chunk.PageSize); err != nil {
			return err
		}
		if (i+1)%atOnce != 0 && i+1 < r.o.Preload {
			continue
		}
		r.step("%s, %s of %s chunks", Preload, number(float64(i+1)), number(float64(r.o.Preload)))
		if _, err := c.Checkpoint(ctx); err != nil {
			return err
		}
	}
	return s.settle(ctx)
}

// misses times what a take asks for a page that is not stored: the tables of
// what is on its way, the filter, and the index, with their locks. It opens the
// index of the closed store as the engine does.
func (r *run) misses(ctx context.Context, s *store) (err error) {
	id := s.e.Log().StoreID()
	if err := s.close(); err != nil {
		return err
	}
	x, err := index.Open(index.Options{FS: osfs.New(), Dir: filepath.Join(s.dir, "index"), StoreID: id, CacheSize: engine.DefaultIndexCache})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, x.Close()) }()
	ids, met := make([]chunk.ID, chunk.GroupPages), make([]bool, chunk.GroupPages)
	random := rand.NewChaCha8([32]byte{byte(r.o.Seed)})
	// Until the filter is built, a miss is a read of the index.
	for wait := time.Now(); x.MayContain(index.ID(ids[0])); {
		if time.Since(wait) > time.Minute {
			r.rec.note("index.miss", "the filter was not built within a minute")
			return nil
		}
		_, _ = random.Read(ids[0][:]) // never fails
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
	st, err := chunk.NewStore(chunk.StoreOptions{Index: x, Log: noFrames{}, NodeID: func([]byte) (chunk.ID, error) { return chunk.ID{}, nil }})
	if err != nil {
		return err
	}
	const groups = 20_000
	for range r.o.Repeats {
		pins := st.NewPins()
		var took time.Duration
		for range groups {
			for i := range ids {
				_, _ = random.Read(ids[i][:])
			}
			began := time.Now()
			if err := st.Meet(pins, ids, met); err != nil {
				return err
			}
			took += time.Since(began)
		}
		pins.Release()
		r.rec.add("index.miss", float64(took)/1e3/groups/chunk.GroupPages, 0)
	}
	return nil
}

// noFrames is a log without frames: nothing is read from it.
type noFrames struct{}

func (noFrames) ReadFrame(seglog.Loc, []byte) (seglog.Kind, []byte, error) {
	return 0, nil, errors.New("nothing is read here")
}

func (noFrames) ReadPart(seglog.Loc, int, []byte) error { return errors.New("nothing is read here") }

func (noFrames) ReadOn(seglog.Loc, []byte, int) (seglog.Kind, []byte, seglog.Behind, error) {
	return 0, nil, seglog.Behind{}, errors.New("nothing is read here")
}
