package index

import (
	"crypto/rand"
	"encoding/binary"

	"github.com/cockroachdb/pebble/v2"
)

// smallFilter is up to how many entries Open builds the filter before it
// returns: about 10 ms.
const smallFilter = 32 << 10

// openFilter loads the filter of the state m, or builds it: at once if that is
// quick, in the background otherwise.
func (x *Index) openFilter(m meta) error {
	f, err := loadFilter(x.o.FS, x.o.Dir, m)
	if err == nil {
		x.filter.Store(f)
		x.savedFilter.Store(m.state.serial)
		return nil
	}
	x.trust.log.Debug("index: filter not loaded", "reason", err)
	n, err := x.estimateEntries()
	if err != nil {
		return err
	}
	if n <= smallFilter {
		return x.buildFilter(n, func() {})
	}
	x.startFilterBuild()
	return nil
}

// startFilterBuild builds a filter in the background. At most one build runs.
// The caller is one that Close waits for.
func (x *Index) startFilterBuild() {
	if x.filterBuilding.Swap(true) {
		return
	}
	breathe := func() {}
	if x.filter.Load() != nil { // without any, takes ask the tables for every page
		breathe = x.breather()
	}
	x.builder.Go(func() {
		defer x.filterBuilding.Store(false)
		n, err := x.estimateEntries()
		if err == nil {
			err = x.buildFilter(n, breathe)
		}
		if err == nil {
			return
		}
		x.trust.log.Warn("index: filter not built", "error", err)
		if f := x.filter.Load(); f != nil {
			x.filterGaveUp.Store(int64(len(*f.layers.Load())))
		}
	})
}

// maybeRebuildFilter replaces a filter that has grown too many layers. After a
// failure it waits for one layer more.
func (x *Index) maybeRebuildFilter() {
	f := x.filter.Load()
	if f != nil && f.crowded() && int64(len(*f.layers.Load())) > x.filterGaveUp.Load() {
		x.startFilterBuild()
	}
}

// addToFilters adds the IDs of a batch before it is applied. commit is held.
func (x *Index) addToFilters(entries []changedEntry) {
	for _, f := range [...]*filter{x.filter.Load(), x.building} {
		if f == nil {
			continue
		}
		for i := range entries {
			if !entries[i].presence.isGone() {
				f.add(&entries[i].id)
			}
		}
	}
}

// buildFilter makes a filter of all entries and puts it in place. Batches go on
// meanwhile: from the moment the scan's state is fixed they add to the new
// filter too.
func (x *Index) buildFilter(n uint64, breathe func()) error {
	var seed [8]byte
	if _, err := rand.Read(seed[:]); err != nil {
		return err
	}
	x.commit.Lock()
	f := newFilter(x.applied.Load().state.serial, binary.LittleEndian.Uint64(seed[:]), roomFor(n))
	lower, upper := kindSpan(kindEntry)
	c, err := x.newScan(span{lower, upper})
	if err == nil {
		x.building = f
	}
	x.commit.Unlock()
	if err != nil {
		return err
	}
	err = x.fillFilter(f, c, breathe)
	x.commit.Lock()
	defer x.commit.Unlock()
	x.building = nil
	if err == nil {
		x.filter.Store(f)
		x.counters.filterBuilds.Add(1)
	}
	return err
}

// fillFilter adds all keys of c to f and closes c.
func (x *Index) fillFilter(f *filter, c *cursor, breathe func()) error {
	c.mem.breathe = breathe
	for n := 0; c.next(); n++ {
		if n%breatheEvery == 0 {
			breathe()
		}
		select {
		case <-x.closing:
			_ = c.close()
			return ErrClosed
		default:
		}
		id, err := decodeIDKey(kindEntry, c.kv().key)
		if err != nil {
			_ = c.close()
			return x.undecodable("entry key", c.kv().key, err)
		}
		f.addOld(&id)
	}
	return c.close()
}

// estimateEntries returns about how many entries there are. Those that were
// changed since the last compaction count more than once.
func (x *Index) estimateEntries() (n uint64, err error) {
	defer x.trust.caught("estimate", &err)
	lower, upper := kindSpan(kindEntry)
	levels, err := x.db.SSTables(pebble.WithProperties(), pebble.WithKeyRangeFilter(lower, upper))
	if err != nil {
		return 0, x.trust.judge(err)
	}
	for _, level := range levels {
		for _, table := range level {
			n += table.Properties.NumEntries
		}
	}
	return n + x.unflushed()/entryBytes, nil
}

// saveFilter writes the filter beside Pebble, for the next Open, unless what is
// there will do: a crash now would leave a state that it covers.
func (x *Index) saveFilter() error {
	if saved := x.savedFilter.Load(); saved != 0 && x.durableMeta().state.serial <= saved {
		return nil
	}
	// In this order: what is applied now is in the filter that is there later.
	m := x.applied.Load()
	f := x.filter.Load()
	if f == nil || f.base > m.state.serial {
		return nil
	}
	h := filterHeader{store: x.o.StoreID, opened: x.opened, session: x.session, covers: m.state.serial}
	if err := saveFilter(x.o.FS, x.o.Dir, h, f); err != nil {
		return err
	}
	x.savedFilter.Store(h.covers)
	return nil
}
