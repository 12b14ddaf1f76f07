package chunk

import (
	"math/bits"

	"github.com/snapstore/snapstore/internal/seglog"
)

// Salvaged is what is left of a group that is damaged.
type Salvaged struct {
	Domain Domain
	IDs    []ID
	Whole  uint32 // a bit for each slot whose page is what its ID names
	pages  []byte
}

// Has tells whether the page of a slot is whole.
func (s Salvaged) Has(slot int) bool { return s.Whole&(1<<slot) != 0 }

// Page is the page of a slot that is whole.
func (s Salvaged) Page(slot int) []byte { return s.pages[slot*PageSize : (slot+1)*PageSize] }

// Salvage finds what is whole in the payload of a group's frame that is not.
// Nothing is where the table of IDs does not fit the data. The payload is not to be
// used afterwards.
func (c *Coder) Salvage(payload []byte) Salvaged {
	g, err := parseGroup(payload)
	if err != nil {
		return Salvaged{}
	}
	s := Salvaged{Domain: g.domain, IDs: g.ids(), pages: make([]byte, g.raw())}
	for p := range g.parts(1<<g.n - 1) {
		stored, err := g.stored(p)
		if err != nil {
			continue
		}
		// From the last page on: what is in front of the damage is whole, and is
		// decoded without what follows.
		pages := make([]byte, p.raw())
		for left := p.bits(); left != 0; {
			slot := bits.Len32(left) - 1
			same, err := g.decodeFor(c, p, pages, stored, left)
			if err != nil || same == 0 {
				left &^= 1 << slot
				continue
			}
			for i := p.first; i < p.end; i++ {
				if same&(1<<i) != 0 {
					copy(s.pages[i*PageSize:], p.of(pages, i))
				}
			}
			s.Whole |= same
			break
		}
	}
	return s
}

// salvage reads a page from a frame that is damaged, and says whether it is whole.
func (s *Store) salvage(loc seglog.Loc, slot int, id ID, dst []byte) bool {
	if loc.PayloadSize() <= 0 {
		return false
	}
	payload := make([]byte, loc.PayloadSize())
	if s.log.ReadPart(loc, 0, payload) != nil {
		return false
	}
	g := s.coder.Salvage(payload)
	if slot >= len(g.IDs) || !g.Has(slot) || g.IDs[slot] != id || g.Domain != s.domain {
		return false
	}
	copy(dst, g.Page(slot))
	return true
}
