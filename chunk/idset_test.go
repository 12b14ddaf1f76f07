package chunk

import (
	"encoding/binary"
	"testing"
)

func (s *idSet) has(id *ID) bool {
	if s.at.n == 0 {
		return false
	}
	slot, _ := s.slot(id)
	return *slot != 0
}

// An idSet does what a map does, also with IDs of which 32 bits, or all that choose a
// place, are the same.
func TestIDSet(t *testing.T) {
	t.Parallel()
	r := newRand(t)
	for _, kinds := range []uint64{1 << 62, 3000, 40, 1} {
		s, want := newIDSet(r.Uint64()), map[ID]struct{}{}
		for range 9000 {
			var id ID
			// Of what places it there are few, and many IDs of each.
			binary.LittleEndian.PutUint64(id[8:], r.Uint64N(kinds))
			binary.LittleEndian.PutUint64(id[16:], r.Uint64N(2000))
			if kinds == 1 {
				binary.LittleEndian.PutUint64(id[16:], r.Uint64N(300))
			}
			_, had := want[id]
			if s.has(&id) != had || s.add(&id) == had || !s.has(&id) {
				t.Fatalf("%d kinds: of %d IDs one is there: %t", kinds, len(want), had)
			}
			want[id] = struct{}{}
		}
		if s.at.n != len(want) {
			t.Fatalf("%d of %d", s.at.n, len(want))
		}
		for id := range want {
			if !s.has(&id) {
				t.Fatal("one is lost")
			}
		}
	}
}
