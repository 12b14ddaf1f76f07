package chunk

import (
	"bytes"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/snapstore/snapstore/internal/failpoint"
)

// A take that meets an ID in the store writes a reference to it instead of its
// bytes. Meanwhile the collector may find that nothing refers to the ID any
// more. That neither may undo the other rests on this:
//
//	taker                             destroyer
//	(1) lock; not dying? pin; unlock  (a) lock; pinned, or published? leave it;
//	(2) look up: published? indexed?      else mark it dying; unlock
//	(3) absent: unpin                 (b) remove it from the index
//	(4) write a record that refers    (c) lock; unmark; unlock
//	(5) synced, applied: count > 0
//	(6) unpin
//
// (1) and (a) are under one lock, so one of them is first. If (1), then (a)
// leaves the ID alone until (6), and by (5) its count is no longer zero: (b)
// checks the count in the step that removes, and applying and removing exclude
// each other. If (a), then (1) finds it dying until (c), takes it for absent,
// and the take stores the page itself; after (c) the look-up misses. In no order
// does a take refer to what (b) removes. If the pin comes first and the look-up
// finds nothing, the ID was pinned in vain and one destroyer left it for later.
// That something is absent may be found out before (1), and is then the end of
// it: storing a page twice harms nothing, since counts are sums.
//
// What a take stores itself needs no pin: from the sync until it is applied its
// placement is published, and applying it gives an entry if there is none. To
// see that nothing is lost when the same ID was dying at that time: (b) removes
// the old entry before or after the new batch is applied. If before, applying
// finds no entry and makes one. If after, the count is not zero and (b) leaves
// it. The destroyer leaves published IDs alone anyway, since they are about to
// be counted.
//
// Clocks decide nothing, and no lock is held while anything is read or written.

const stripeCount = 256

// A stripe is the part of the state that concerns the IDs with one first byte.
type stripe struct {
	mu        sync.Mutex
	pinned    map[Key]uint32 // how often
	dying     map[Key]struct{}
	published map[Key]placeRef   // the oldest of each
	later     map[Key][]placeRef // the others, in order; mostly nil
}

func (st *stripe) init() {
	st.pinned = map[Key]uint32{}
	st.dying = map[Key]struct{}{}
	st.published = map[Key]placeRef{}
}

func (st *stripe) unpin(id Key) {
	if n := st.pinned[id]; n > 1 {
		st.pinned[id] = n - 1
	} else {
		delete(st.pinned, id)
	}
}

func (s *shared) stripe(id Key) *stripe { return &s.stripes[id[0]] }

// Pins keep IDs from being destroyed until they are released. They are safe for
// concurrent use, except that Release waits for no Meet.
type Pins struct {
	s        *shared
	mu       sync.Mutex
	ids      []Key
	released bool
}

// NewPins returns pins that hold nothing yet.
func (s *Store) NewPins() *Pins { return &Pins{s: s.shared} }

// Release lets go of everything. It is called when the record that refers to
// what was met is applied, or will never be written. It may be called again.
func (p *Pins) Release() {
	p.mu.Lock()
	ids := p.ids
	p.ids, p.released = nil, true
	p.mu.Unlock()
	for _, id := range ids {
		p.s.unpin(id)
	}
}

// add takes over pins that were set for it; false if it is released already.
func (p *Pins) add(ids []Key) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.released {
		return false
	}
	p.ids = append(p.ids, ids...)
	return true
}

// Meet sets met[i] to whether ids[i] is stored in the domain of s, readable as
// far as is known, and now pinned by p. What is not met is not pinned. The zero ID is met always. On
// an error nothing is pinned.
func (s *Store) Meet(p *Pins, ids []ID, met []bool) error {
	return s.meet(p, s.domain.keys(ids), met)
}

func (s *shared) meet(p *Pins, ids []Key, met []bool) error {
	if len(met) != len(ids) {
		return fmt.Errorf("chunk: meet %d ids, %d answers", len(ids), len(met))
	}
	failpoint.At(failpoint.Meet, "")
	s.maybe(ids, met)
	var held, ask []int // pinned; of those, what only the index can know
	for i, id := range ids {
		if !met[i] {
			continue // most of what a take brings is new: that is known without a pin
		}
		if met[i] = id == (Key{}); met[i] {
			continue
		}
		st := s.stripe(id)
		st.mu.Lock()
		if _, dying := st.dying[id]; !dying {
			st.pinned[id]++
			held = append(held, i)
			if _, met[i] = st.published[id]; !met[i] {
				ask = append(ask, i)
			}
		}
		st.mu.Unlock()
	}
	failpoint.At(failpoint.Pinned, "")
	err := s.ask(ids, met, ask)
	failpoint.At(failpoint.Asked, "")
	kept := make([]Key, 0, len(held))
	for _, i := range held {
		if err == nil && met[i] {
			kept = append(kept, ids[i])
		} else {
			s.unpin(ids[i])
		}
	}
	if err == nil && !p.add(kept) {
		for _, id := range kept {
			s.unpin(id)
		}
		err = fmt.Errorf("chunk: meet: %w", ErrReleased)
	}
	if err != nil {
		clear(met)
	}
	return err
}

// absent tells that an ID is surely not stored in the domain of s; a false answer says
// nothing.
func (s *Store) absent(id ID) bool { return s.surelyAbsent(s.domain.Key(id)) }

func (s *shared) surelyAbsent(id Key) bool {
	_, placed := s.Placed(id)
	return !placed && !s.index.MayContain(id)
}

// maybe sets may[i] to whether ids[i] may be stored. What is published is looked for
// before the index is asked, as in Placed.
func (s *shared) maybe(ids []Key, may []bool) {
	if s.stats.published.Load() == 0 {
		s.index.MayContainEach(ids, may)
	} else {
		indexed := make([]bool, len(ids))
		for i, id := range ids {
			_, may[i] = s.Placed(id)
		}
		s.index.MayContainEach(ids, indexed)
		for i := range may {
			may[i] = may[i] || indexed[i]
		}
	}
	for i, id := range ids {
		may[i] = may[i] || id == (Key{})
	}
}

func (s *shared) unpin(id Key) {
	st := s.stripe(id)
	st.mu.Lock()
	st.unpin(id)
	st.mu.Unlock()
}

// parallelAsk is from how many questions on several goroutines ask the index:
// one that hits takes some microseconds, or a read of the disk.
const parallelAsk = 32

// ask sets met[i], for each i of ask, to whether the index can serve ids[i]. An
// index that turns out not to be trusted knows nothing: the take stores again
// what may be there, and does not fail.
func (s *shared) ask(ids []Key, met []bool, ask []int) error {
	err := s.askIndex(ids, met, ask)
	if s.trust != nil && s.trust.Untrusted() != nil {
		for _, i := range ask {
			met[i] = false
		}
		return nil
	}
	return err
}

func (s *shared) askIndex(ids []Key, met []bool, ask []int) error {
	if len(ask) == 0 {
		return nil
	}
	s.stats.lookups.Add(uint64(len(ask)))
	one := func(i int) error {
		e, ok, err := s.index.Get(ids[i])
		if err != nil {
			return fmt.Errorf("chunk: look up %v: %w", ids[i], err)
		}
		met[i] = ok && !e.Lost && s.alive(e.Segment)
		return nil
	}
	if len(ask) < parallelAsk || s.workers == 1 {
		for _, i := range ask {
			if err := one(i); err != nil {
				return err
			}
		}
		return nil
	}
	// Neighbours in the order of keys share blocks of the index.
	slices.SortFunc(ask, func(a, b int) int { return bytes.Compare(ids[a][:], ids[b][:]) })
	var g errgroup.Group
	for part := range slices.Chunk(ask, (len(ask)+s.workers-1)/s.workers) {
		g.Go(func() error {
			for _, i := range part {
				if err := one(i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// Destroy calls remove with those of ids that are neither pinned, published nor
// being destroyed already, if there are any. They are dying until it returns: to
// a taker they are absent. remove takes from the index those whose count is
// still zero, in one step with finding that out; it may wait for disks.
func (s *shared) Destroy(ids []Key, remove func([]Key) error) error {
	dying := make([]Key, 0, len(ids))
	for _, id := range ids {
		st := s.stripe(id)
		st.mu.Lock()
		_, already := st.dying[id]
		_, published := st.published[id]
		if !already && !published && st.pinned[id] == 0 {
			st.dying[id] = struct{}{}
			dying = append(dying, id)
		}
		st.mu.Unlock()
	}
	if len(dying) == 0 {
		return nil
	}
	defer func() {
		for _, id := range dying {
			st := s.stripe(id)
			st.mu.Lock()
			delete(st.dying, id)
			st.mu.Unlock()
		}
	}()
	failpoint.At(failpoint.Destroy, "")
	err := remove(slices.Clone(dying))
	failpoint.At(failpoint.Destroyed, "")
	return err
}
