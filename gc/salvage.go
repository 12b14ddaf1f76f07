package gc

import (
	"github.com/snapstore/snapstore/chunk"
	"github.com/snapstore/snapstore/internal/index"
	"github.com/snapstore/snapstore/internal/seglog"
)

// salvage reads what is left of a group whose frame is damaged: a page proves
// itself by its ID, so one wrong byte costs the pages that need it and no others.
// Nothing is left of other frames. kind is 0 where the header is lost and no
// directory tells; loc may then reach beyond the frame, and the one that is returned
// does not. With an error there may be more.
func salvage(log chunk.PartReader, coder *chunk.Coder, kind seglog.Kind, loc seglog.Loc) (g chunk.Salvaged, at seglog.Loc, err error) {
	n := loc.PayloadSize()
	if kind == 0 {
		n = min(n, chunk.MaxGroup)
	}
	if kind != 0 && kind != seglog.KindGroup {
		return g, at, nil
	}
	g, err = coder.SalvageAt(log, loc, n)
	at = loc
	if kind == 0 { // else a length in the group may be what is damaged
		at.Length -= uint32(loc.PayloadSize() - g.Size)
	}
	return g, at, err
}

// SalvagePlacements is FramePlacements of a damaged frame: it lists the pages that
// are whole. What a reader takes from such a frame must be found by who builds an
// index as well. With an error there may be more, and those that are listed are
// whole all the same.
func SalvagePlacements(log chunk.PartReader, coder *chunk.Coder, kind seglog.Kind, loc seglog.Loc) (out []chunk.Placement, err error) {
	g, at, err := salvage(log, coder, kind, loc)
	for i, id := range g.IDs {
		if g.Has(i) {
			out = append(out, chunk.Placement{Key: g.Domain.Key(id), Damaged: true, Loc: index.Location{
				Segment: uint64(at.Segment), Offset: at.Offset, Length: at.Length, Slot: uint8(i), Slots: uint8(len(g.IDs)),
			}})
		}
	}
	return out, err
}
