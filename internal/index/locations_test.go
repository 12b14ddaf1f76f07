package index

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A table finds what is in it and nothing else, however the IDs are spread: evenly
// as hashes are, in heaps, with equal starts, at the ends, one and none.
func TestLocationTableFinds(t *testing.T) {
	seeds(t, rounds(60), func(t *testing.T, seed uint64) {
		rng := rand.New(rand.NewPCG(seed, 77))
		draw := func() (id ID) {
			for i := range id {
				id[i] = byte(rng.Uint32())
			}
			switch rng.IntN(8) * int(seed%3) {
			case 2, 4:
				copy(id[:8], "samestart"[:8])
			case 3, 6:
				binary.BigEndian.PutUint64(id[:], rng.Uint64N(1000))
			case 5:
				binary.BigEndian.PutUint64(id[:], ^rng.Uint64N(1000))
			}
			return id
		}
		s := newSorter(vfs.NewMem(), "spill", "test", 1<<30)
		want := map[ID]Location{}
		for range []int{0, 1, 2, 3, 100, 5000}[seed%6] {
			l := located{id: draw(), loc: Location{Segment: 1 + rng.Uint64N(9), Offset: 1, Length: 1, Slots: 1}}
			for range 1 + rng.IntN(2) {
				if err := s.add(appendLocationKey(nil, l), appendLocationValue(nil, l)); err != nil {
					t.Fatal(err)
				}
				if old, ok := want[l.id]; !ok || l.loc.Before(old) {
					want[l.id] = l.loc
				}
				l.loc.Segment = 1 + rng.Uint64N(9)
			}
		}
		table := newLocationTable(s)
		if table.len() != uint64(len(want)) {
			t.Fatalf("%d of %d IDs", table.len(), len(want))
		}
		for id, loc := range want {
			if got, ok, err := table.lookup(id); !ok || err != nil || got.loc != loc {
				t.Fatalf("%v: %v %t %v, want %v", id, got.loc, ok, err, loc)
			}
			near := id
			near[31]++
			if _, has := want[near]; has {
				continue
			}
			if _, ok, _ := table.lookup(near); ok {
				t.Fatalf("found %v, which is not there", near)
			}
		}
		for range 1000 {
			id := draw()
			if _, has := want[id]; has {
				continue
			}
			if _, ok, _ := table.lookup(id); ok || table.count(id, 1) {
				t.Fatalf("found %v, which is not there", id)
			}
		}
	})
}
