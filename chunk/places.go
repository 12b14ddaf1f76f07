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
//
// Placements lie in the list that was published, and nowhere else: a full take of
// 1 GiB has two hundred thousand.

// Places are placements that were published together. They do not change.
type Places struct{ List []Placement }

// placeRef is one of them.
type placeRef struct {
	in *Places
	i  uint32
}

// Publish makes placements findable, and keeps the list. The batch that brings them is
// synced. They are published in the order of sync.
func (s *shared) Publish(list []Placement) *Places {
	p := &Places{list}
	s.stats.published.Add(int64(len(list))) // before there is any: see maybe
	for i := range list {
		key, ref := list[i].Key, placeRef{p, uint32(i)}
		st := s.stripe(key)
		st.mu.Lock()
		if _, first := st.published[key]; !first {
			st.published[key] = ref
		} else {
			if st.later == nil {
				st.later = map[Key][]placeRef{}
			}
			st.later[key] = append(st.later[key], ref)
		}
		st.mu.Unlock()
	}
	return p
}

// Placed returns the oldest placement of id that waits to be applied.
func (s *shared) Placed(id Key) (Placement, bool) {
	p, i, ok := s.PlacedIn(id)
	if !ok {
		return Placement{}, false
	}
	return p.List[i], true
}

// PlacedIn says where the oldest placement of id is that waits to be applied.
func (s *shared) PlacedIn(id Key) (p *Places, i int, ok bool) {
	st := s.stripe(id)
	st.mu.Lock()
	defer st.mu.Unlock()
	ref, ok := st.published[id]
	return ref.in, int(ref.i), ok
}

// Retire undoes the oldest Publish of each key of p. It is called when a batch is
// applied, with all that was published for the batch.
func (s *shared) Retire(p *Places) {
	n := 0
	for i := range p.List {
		id := p.List[i].Key
		st := s.stripe(id)
		st.mu.Lock()
		if _, ok := st.published[id]; ok {
			n++
			later := st.later[id]
			switch len(later) {
			case 0:
				delete(st.published, id)
			case 1:
				st.published[id] = later[0]
				delete(st.later, id)
			default:
				st.published[id], st.later[id] = later[0], later[1:]
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
