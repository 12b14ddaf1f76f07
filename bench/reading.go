package bench

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/snapstore/snapstore/bench/limit"
	"github.com/snapstore/snapstore/bench/workload"
	"github.com/snapstore/snapstore/chunk"
	"github.com/snapstore/snapstore/engine"
)

// Why a figure of what is read from the disk is missing.
const (
	neverForgets = "this system can not be asked to forget a file"
	notForgotten = "what was read came from memory, not from the disk: the file system does not forget"
)

// restore reads a whole snapshot into dst and compares it.
func (m *mix) restore(ctx context.Context, s *store, id engine.SnapshotID) (took time.Duration, err error) {
	began := time.Now()
	err = s.read(ctx, id, engine.WasmMemory, func(sec *engine.SectionReader) error {
		n, err := sec.ReadAt(m.dst, 0)
		if err != nil {
			return err
		}
		took = time.Since(began)
		if n != len(m.dst) || !bytes.Equal(m.dst, m.image.Mem) {
			return errors.New("what was restored is not what was taken")
		}
		return nil
	})
	return took, err
}

func (m *mix) restoreWarm(ctx context.Context, s *store, id engine.SnapshotID) error {
	n := len(m.image.Mem)
	if _, err := m.restore(ctx, s, id); err != nil { // what was just written is in memory, and is read once
		return err
	}
	for range 3 { // one alone differed by a third from the next
		bound, err := limit.Decode(m.groups, m.dst, int64(n))
		if err != nil {
			return err
		}
		took, err := m.restore(ctx, s, id)
		if err != nil {
			return err
		}
		m.rec.add("machine.decode", mbps(n, bound), 0)
		m.rec.add("restore.warm", mbps(n, took), mbps(n, bound))
	}
	return m.randomPages(ctx, s, id, cachedReads, 1000, "page.warm")
}

// cachedReads is after how many reads of single pages the engine's cache of pages is
// full, whatever a read puts there: up to then each takes new memory, and where the
// host has to give that first it was half of 41 to 102 us.
const cachedReads = engine.DefaultPageCache / (4 * workload.PageSize)

// randomPages reads single pages that are not zero, and counts n behind the first.
func (m *mix) randomPages(ctx context.Context, s *store, id engine.SnapshotID, first, n int, figure string) error {
	pages := workload.NewSparse(m.o.Seed+1, uint64(len(m.image.Mem)))
	page := make([]byte, workload.PageSize)
	var times []float64
	zero := make([]byte, workload.PageSize)
	if err := s.read(ctx, id, engine.WasmMemory, func(sec *engine.SectionReader) error {
		for i := range pages.Indexes(2 * (first + n)) { // a quarter is zeros
			if len(times) == n {
				break
			}
			if bytes.Equal(m.image.Page(i), zero) {
				continue
			}
			began := time.Now()
			if _, err := sec.ReadAt(page, int64(i)*workload.PageSize); err != nil {
				return err
			}
			took := time.Since(began)
			if first--; first < 0 {
				times = append(times, float64(took)/1e3)
			}
			if !bytes.Equal(page, m.image.Page(i)) {
				return errors.New("a page that was read is not the one that was taken")
			}
		}
		return nil
	}); err != nil {
		return err
	}
	m.rec.add(figure, quantile(times, 0.5), 0)
	return nil
}

// loadDiff loads snapshots that differ from the live state in one step, and
// ends with the newest loaded.
func (m *mix) loadDiff(ctx context.Context, s *store, c *engine.Canister, ids []engine.SnapshotID) error {
	n := max(1, int(float64(len(m.groups))*dirtyShare))
	var loads, bounds []float64
	for i := range 6 {
		if err := s.settle(ctx); err != nil {
			return err
		}
		decode, err := limit.Decode(m.groups[:n], m.dst, int64(n)*chunk.GroupPages*chunk.PageSize)
		if err != nil {
			return err
		}
		sync, err := m.disk.Append(4096)
		if err != nil {
			return err
		}
		began := time.Now()
		if _, err := c.Load(ctx, ids[len(ids)-1-(i+1)%2], engine.LoadOptions{}); err != nil {
			return err
		}
		loads, bounds = append(loads, ms(time.Since(began))), append(bounds, ms(decode+sync))
	}
	m.rec.add("load.diff", quantile(loads, 0.5), quantile(bounds, 0.5))
	return s.settle(ctx)
}

// forget closes the store, lets the system forget its files, and opens it again, in
// both cases. It is false where the system can not be asked.
func (m *mix) forget(ctx context.Context, s *store) (bool, error) {
	// What the next process would apply again, and drop, is no part of restoring.
	if err := errors.Join(s.settle(ctx), s.e.FlushIndex(), s.close()); err != nil {
		return false, err
	}
	ok, err := limit.ForgetTree(s.dir)
	return ok, errors.Join(err, s.open())
}

// restoreCold restores a snapshot from a disk that has to be read, some times, in turns
// with reading as many bytes as its pages have compressed from a file. On return the
// store was opened anew.
func (m *mix) restoreCold(ctx context.Context, s *store, id engine.SnapshotID, figure string, times int) error {
	n := len(m.image.Mem)
	for turn := range times {
		var read, took time.Duration
		for half := range 2 {
			if half == turn%2 {
				var err error
				if _, read, _, err = m.disk.Sequential(m.compressed); err != nil {
					return err
				}
				continue
			}
			ok, err := m.forget(ctx, s)
			if err != nil {
				return err
			}
			if !ok {
				m.rec.note(figure, neverForgets)
				return nil
			}
			_, before, counted := ioCounters()
			if took, err = m.restore(ctx, s, id); err != nil {
				return err
			}
			if _, after, _ := ioCounters(); counted && after-before < m.compressed/2 {
				m.rec.note(figure, notForgotten)
				return nil
			}
		}
		m.rec.add(figure, mbps(n, took), mbps(n, read))
	}
	return nil
}

// coldAndRebuild reads the newest snapshot, which takes have scattered, from a disk
// that has to be read, and builds the index anew. On return the store is open.
func (m *mix) coldAndRebuild(ctx context.Context, s *store) error {
	id, err := newest(s, 1)
	if err != nil {
		return err
	}
	if err := m.restoreCold(ctx, s, id, "restore.scattered", 2); err != nil {
		return err
	}
	ok, err := m.forget(ctx, s)
	if err != nil {
		return err
	}
	if !ok {
		m.rec.note("page.cold", neverForgets)
	} else if err := m.randomPages(ctx, s, id, 0, 150, "page.cold"); err != nil {
		return err
	}
	if err := m.rebuild(ctx, s, ok); err != nil {
		return err
	}
	return s.open()
}

// rebuild builds the index of a store anew, from the disk where it can be made to
// forget, and then from memory. On return the store is closed.
func (m *mix) rebuild(ctx context.Context, s *store, forgets bool) error {
	log := s.e.Stats().LogBytes
	if err := s.close(); err != nil {
		return err
	}
	o := *s.o
	o.RebuildIndex = true
	once := func() (seconds float64, err error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		e, err := engine.Open(s.dir, &o)
		if err != nil {
			return 0, err
		}
		seconds = e.Stats().OpenSeconds
		return seconds, e.Close()
	}
	if forgets {
		var err error
		if forgets, err = limit.ForgetTree(s.dir); err != nil {
			return err
		}
	}
	_, before, counted := ioCounters()
	took, err := once()
	if err != nil {
		return err
	}
	_, after, _ := ioCounters()
	switch {
	case !forgets:
		m.rec.note("index.rebuild.cold", neverForgets)
	case counted && after-before < log/2:
		m.rec.note("index.rebuild.cold", notForgotten)
	default:
		_, read, _, err := m.disk.Sequential(log)
		if err != nil {
			return err
		}
		m.rec.add("index.rebuild.cold", took, read.Seconds())
	}
	if took, err = once(); err != nil {
		return err
	}
	m.rec.add("index.rebuild", took, 0)
	return nil
}
