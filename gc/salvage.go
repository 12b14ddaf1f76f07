package gc

import (
	"github.com/snapstore/snapstore/chunk"
	"github.com/snapstore/snapstore/internal/index"
	"github.com/snapstore/snapstore/internal/seglog"
)

// salvage reads what is left of a group whose frame is damaged: a page proves
// itself by its ID, so one wrong byte costs the pages that need it and no others.
// Nothing is left of other frames.
func salvage(log *seglog.Log, coder *chunk.Coder, loc seglog.Loc) (g chunk.Salvaged, ok bool) {
	if loc.PayloadSize() <= 0 {
		return g, false
	}
	payload := make([]byte, loc.PayloadSize())
	if log.ReadPart(loc, 0, payload) != nil {
		return g, false
	}
	g = coder.Salvage(payload)
	return g, g.Whole != 0
}

// SalvagePlacements is FramePlacements of a damaged frame: it lists the pages that
// are whole. What a reader takes from such a frame must be found by who builds an
// index as well.
func SalvagePlacements(log *seglog.Log, coder *chunk.Coder, loc seglog.Loc) []chunk.Placement {
	g, ok := salvage(log, coder, loc)
	if !ok {
		return nil
	}
	var out []chunk.Placement
	for i, id := range g.IDs {
		if g.Has(i) {
			out = append(out, chunk.Placement{Key: g.Domain.Key(id), Loc: index.Location{
				Segment: uint64(loc.Segment), Offset: loc.Offset, Length: loc.Length, Slot: uint8(i), Slots: uint8(len(g.IDs)),
			}})
		}
	}
	return out
}
