package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/index"
	"github.com/snapstore/snapstore/internal/seglog"
	"github.com/snapstore/snapstore/internal/ui"
)

func newInspectCommand(a *app) *cobra.Command {
	return newGroup("inspect", "Look inside the store", "  snapstore inspect root",
		newInspectRootCommand(a), newInspectSegmentCommand(a), newInspectNodeCommand(a), newInspectChunkCommand(a))
}

// placeResult is where the index says that a page or node is, in JSON.
type placeResult struct {
	Count   uint64 `json:"count"` // introductions; 0 waits to be destroyed
	Lost    bool   `json:"lost"`  // its bytes could not be read
	Segment uint64 `json:"segment"`
	File    string `json:"file,omitempty"`
	Offset  uint32 `json:"offset"`
	Length  uint32 `json:"length"` // of the frame
	Slot    int    `json:"slot"`   // in the frame
	Slots   int    `json:"slots"`
}

func toPlace(en index.Entry) placeResult {
	p := placeResult{Count: en.Count, Lost: en.Lost, Segment: en.Segment, Offset: en.Offset, Length: en.Length, Slot: int(en.Slot), Slots: int(en.Slots)}
	if en.Segment != 0 {
		p.File = segmentFile(en.Segment)
	}
	return p
}

// segmentFile is the name of a segment in the store's directory.
func segmentFile(segment uint64) string { return "log/" + seglog.SegmentID(segment).String() + ".seg" }

func (p placeResult) facts() []string {
	where := "nowhere"
	if p.File != "" {
		where = fmt.Sprintf("%s at %d, frame of %s, slot %d of %d", p.File, p.Offset, ui.Bytes(uint64(p.Length)), p.Slot, p.Slots)
	}
	out := []string{"introduced", plural(int(p.Count), "time"), "place", where}
	if p.Lost {
		out = append(out, "lost", "its bytes could not be read; the next take that brings them heals it")
	}
	return out
}

// lookUp finds what the index has of an id.
func lookUp(e *engine.Engine, id engine.Root) (index.Entry, error) {
	en, ok, err := e.Entry(id)
	if err != nil {
		return en, err
	}
	if !ok {
		return en, fail(exitNotFound, `"snapstore snapshot show" and "snapstore inspect node" print ids that are there`, "%s: not found", id)
	}
	return en, nil
}
