package gc

import (
	"bytes"
	"encoding/binary"
	"io"
	"testing"

	"github.com/snapstore/snapstore/chunk"
	"github.com/snapstore/snapstore/internal/seglog"
)

// payload is a log of one frame, unverified.
type payload []byte

func (p payload) ReadPart(_ seglog.Loc, off int, buf []byte) error {
	if copy(buf, p[min(off, len(p)):]) < len(buf) {
		return io.ErrUnexpectedEOF
	}
	return nil
}

// at is where the frame would be that has p, and n bytes behind it.
func (p payload) at(n int) seglog.Loc {
	loc := seglog.Loc{Segment: 1, Length: 1 << 10}
	loc.Length += uint32(len(p) + n - loc.PayloadSize())
	return loc
}

// newGroup is a full group in parts, of pages that compress.
func newGroup(t *testing.T) (ids []chunk.ID, pages []byte, p payload) {
	t.Helper()
	ids = make([]chunk.ID, chunk.GroupPages)
	pages = make([]byte, chunk.GroupPages*chunk.PageSize)
	for b := 0; b < len(pages); b += 32 {
		binary.LittleEndian.PutUint64(pages[b:], uint64(b)*0x9e3779b97f4a7c15)
	}
	if err := chunk.SumPages(ids, pages); err != nil {
		t.Fatal(err)
	}
	p, codec, err := chunk.AppendGroup(nil, chunk.CodecS2Parts, ids, pages)
	if err != nil || codec != chunk.CodecS2Parts {
		t.Fatal(codec, err)
	}
	return ids, pages, p
}

// A place in a damaged frame is of the length that the log knows; where that has none, of
// the one that the group says.
func TestSalvagedPlacesKeepTheLengthOfTheirFrame(t *testing.T) {
	_, _, p := newGroup(t)
	var coder chunk.Coder
	for kind, more := range map[seglog.Kind]int{seglog.KindGroup: 0, 0: 100} {
		places, err := SalvagePlacements(append(p, make([]byte, more)...), &coder, kind, p.at(more))
		if err != nil || len(places) != chunk.GroupPages || places[0].Loc.Length != p.at(0).Length {
			t.Errorf("kind %v: %d places of %d bytes, want %d: %v", kind, len(places), places[0].Loc.Length, p.at(0).Length, err)
		}
	}
	const storedAt = 8 // how much the group says that it stores
	binary.LittleEndian.PutUint32(p[storedAt:], binary.LittleEndian.Uint32(p[storedAt:])-8)
	places, err := SalvagePlacements(p, &coder, seglog.KindGroup, p.at(0))
	if err != nil || len(places) == 0 || len(places) == chunk.GroupPages {
		t.Fatal(len(places), err)
	}
	for _, pl := range places {
		if pl.Loc.Length != p.at(0).Length {
			t.Errorf("slot %d is in a frame of %d bytes, which has %d", pl.Loc.Slot, pl.Loc.Length, p.at(0).Length)
		}
	}
}

// A group that can not be decoded, in a frame that is whole, costs the pages that need
// what is wrong.
func TestCleaningAGroupThatDoesNotDecode(t *testing.T) {
	ids, pages, p := newGroup(t)
	for i := len(p) - 8; i < len(p); i++ {
		p[i] = 0xff
	}
	if _, _, err := chunk.DecodeGroup(nil, p); err == nil {
		t.Fatal("it decodes")
	}
	_, store, _ := newTestCounter(t)
	g := &Collector{store: store}
	f := seglog.FrameInfo{Kind: seglog.KindGroup, Loc: p.at(0), Payload: bytes.Clone(p)}
	into := pointers{into: map[slotAt]chunk.Key{}}
	for i, id := range ids {
		into.into[slotAt{f.Loc.Offset, uint8(i)}] = chunk.Key(id)
	}
	var res cleaned
	to := newRegroup(nil, chunk.CodecRaw, store.Coder())
	if err := g.cleanGroup(f, into, &res, to); err != nil {
		t.Fatal(err)
	}
	if res.pages < chunk.GroupPages*3/4 || len(res.damaged) == 0 || int(res.pages)+len(res.damaged) != chunk.GroupPages {
		t.Errorf("%d pages, %d damaged", res.pages, len(res.damaged))
	}
	for _, kept := range to.sets {
		for i, id := range kept.ids {
			if !bytes.Equal(kept.pages[i*chunk.PageSize:(i+1)*chunk.PageSize], pages[i*chunk.PageSize:(i+1)*chunk.PageSize]) || id != ids[i] {
				t.Errorf("page %d is another", i)
			}
		}
	}
	if !bytes.Equal(f.Payload, p) {
		t.Error("the frame was changed")
	}
}
