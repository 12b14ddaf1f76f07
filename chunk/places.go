package chunk

import (
	"fmt"

	"github.com/snapstore/snapstore/internal/index"
	"github.com/snapstore/snapstore/internal/seglog"
)

// A Placement says where the bytes of an ID of some domain are.
type Placement struct {
	Key  Key
	Loc  index.Location
	Node bool
	// Damaged: the frame is not whole, though this page of it is.
	Damaged bool
}

// Between the sync that makes a batch visible and the step that applies it to
// the index, its placements are published here.
//
// Two takes can store the same ID, each unaware of the other. Their placements
// then form a queue, in the order they were published, which is the order of
// sync and of apply. Publish adds at the end; Retire, called once for each
// batch when it is applied, removes the first. So
//
//   - Placed gives the placement of the oldest batch that is not applied, which
//     is the one that the applier is about to need;
//   - retiring one batch never takes away what a later one published, even if
//     what the earlier one had put into the index has been destroyed since;
//   - whoever looks here first and into the index second finds every ID that
//     was published when it began: a placement leaves here only after the index
//     has its ID.
type published struct {
	place Placement
	next  *published // of the same ID, published later
	last  *published // the end of the queue; kept in its first element only
}

// Publish makes placements findable. The batch that brings them is synced. They
// are published in the order of sync.
func (s *shared) Publish(places []Placement) {
	all := make([]published, len(places))     // together, since they go together
	s.stats.published.Add(int64(len(places))) // before there is any: see maybe
	for i := range places {
		p := &all[i]
		p.place = places[i]
		st := s.stripe(places[i].Key)
		st.mu.Lock()
		if first := st.published[p.place.Key]; first == nil {
			p.last = p
			st.published[p.place.Key] = p
		} else {
			first.last.next, first.last = p, p
		}
		st.mu.Unlock()
	}
}

// Placed returns the oldest placement of id that waits to be applied.
func (s *shared) Placed(id Key) (Placement, bool) {
	st := s.stripe(id)
	st.mu.Lock()
	defer st.mu.Unlock()
	if p := st.published[id]; p != nil {
		return p.place, true
	}
	return Placement{}, false
}

// Retire undoes the oldest Publish of each of ids. It is called when a batch is
// applied, with every ID that was published for the batch, as often as it was.
func (s *shared) Retire(ids []Key) {
	n := 0
	for _, id := range ids {
		st := s.stripe(id)
		st.mu.Lock()
		if first := st.published[id]; first != nil {
			n++
			if first.next == nil {
				delete(st.published, id)
			} else {
				first.next.last = first.last
				st.published[id] = first.next
			}
		}
		st.mu.Unlock()
	}
	s.stats.published.Add(int64(-n))
}

// locate says where to read id: what is published first, then the index.
func (s *Store) locate(id ID) (index.Location, error) {
	p, err := s.place(id)
	return p.Loc, err
}

// place is locate, and says what is there.
func (s *Store) place(id ID) (Placement, error) {
	key := s.domain.Key(id)
	if p, ok := s.Placed(key); ok {
		return p, nil
	}
	s.stats.lookups.Add(1)
	e, ok, err := s.index.Get(key)
	if err != nil {
		return Placement{}, fmt.Errorf("chunk: look up %v: %w", id, err)
	}
	// A lost entry is tried all the same: what could not be read may be readable
	// again.
	if !ok || e.Location == (index.Location{}) {
		return Placement{}, &NotStoredError{id}
	}
	return Placement{Key: key, Loc: e.Location, Node: e.Node}, nil
}

func frameLoc(l index.Location) seglog.Loc {
	return seglog.Loc{Segment: seglog.SegmentID(l.Segment), Offset: l.Offset, Length: l.Length}
}

func slotLocation(l seglog.Loc, slot, slots int) index.Location {
	return index.Location{Segment: uint64(l.Segment), Offset: l.Offset, Length: l.Length, Slot: uint8(slot), Slots: uint8(slots)}
}
