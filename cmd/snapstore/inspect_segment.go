package main

import (
	"context"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/snapstore/snapstore/chunk"
	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/gc"
	"github.com/snapstore/snapstore/internal/seglog"
	"github.com/snapstore/snapstore/internal/ui"
)

type inspectSegmentOptions struct{}

func newInspectSegmentCommand(a *app) *cobra.Command {
	o := &inspectSegmentOptions{}
	return &cobra.Command{
		Use:     "segment NUMBER",
		Short:   "List the frames of a segment, each checked",
		Long:    "List the frames of a segment. Every frame is read and checked; the exit code is 3 when some are damaged.",
		Example: "  snapstore inspect segment 1",
		Args:    args(1, 1, "the number of a segment"),
		RunE:    func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, args[0]) },
	}
}

// inspectSegmentResult is the JSON of inspect segment.
type inspectSegmentResult struct {
	segmentResult
	Frames []frameResult `json:"frames"`
}

// frameResult is a frame in JSON.
type frameResult struct {
	Offset  uint32 `json:"offset"`
	Length  uint32 `json:"length"`
	Kind    string `json:"kind"`
	Epoch   uint64 `json:"epoch"`
	Batch   uint64 `json:"batch"` // it was written with; 0 in bulk and moved segments
	Items   int    `json:"items"` // pages or nodes in it
	Codec   string `json:"codec,omitempty"`
	Damaged string `json:"damaged,omitempty"`
}

func (r inspectSegmentResult) ids() []string { return nil }

func (r inspectSegmentResult) text(w io.Writer) {
	state := "open"
	if r.Sealed {
		state = "sealed"
	}
	facts(w, "file", r.File, "stream", r.Stream, "state", state, "size", size(uint64(r.SizeBytes)), "batches", r.batches())
	var rows [][]string
	for _, f := range r.Frames {
		items, batch := "", ""
		if f.Items > 0 {
			items = strconv.Itoa(f.Items)
		}
		if f.Batch > 0 {
			batch = strconv.FormatUint(f.Batch, 10)
		}
		rows = append(rows, []string{strconv.FormatUint(uint64(f.Offset), 10), ui.Bytes(uint64(f.Length)), f.Kind, batch, items, f.Codec, f.Damaged})
	}
	table(w, []string{">OFFSET", ">LENGTH", "KIND", ">BATCH", ">ITEMS", "CODEC", "DAMAGE"}, rows)
}

func (o *inspectSegmentOptions) run(ctx context.Context, a *app, number string) error {
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil || n == 0 {
		return usageError(`"snapstore inspect root" lists the segments`, "%q is no number of a segment", clip(number))
	}
	return a.withStore(ctx, a.reading(), func(e *engine.Engine) error {
		r, damaged, err := inspectSegment(ctx, e, seglog.SegmentID(n))
		if err != nil {
			return err
		}
		if err := a.emit(r); err != nil {
			return err
		}
		if damaged > 0 {
			return fail(exitProblems, `run "snapstore verify" to see what they hold`, "%s damaged", plural(damaged, "frame"))
		}
		return nil
	})
}

func inspectSegment(ctx context.Context, e *engine.Engine, id seglog.SegmentID) (r inspectSegmentResult, damaged int, err error) {
	found := false
	for _, s := range e.Log().Segments() {
		if s.ID == id {
			r.segmentResult, found = toSegment(s), true
		}
	}
	if !found {
		return r, 0, fail(exitNotFound, `"snapstore inspect root" lists the segments`, "segment %d: not found", uint64(id))
	}
	r.Frames = []frameResult{}
	for f, err := range e.Log().ScanSegment(ctx, id) {
		if err != nil {
			return r, damaged, err
		}
		out := frameResult{Offset: f.Loc.Offset, Length: f.Loc.Length, Kind: f.Kind.String(), Epoch: uint64(f.Epoch), Batch: uint64(f.Batch)}
		why := f.Damaged
		if why == nil && (f.Kind == seglog.KindGroup || f.Kind == seglog.KindNodes) {
			var places []chunk.Placement
			if places, why = gc.FramePlacements(f.Kind, f.Loc, f.Payload); why == nil {
				out.Items, out.Codec = len(places), codecOf(f.Kind, f.Payload)
			}
		}
		if why != nil {
			out.Damaged = why.Error()
			damaged++
		}
		r.Frames = append(r.Frames, out)
	}
	return r, damaged, nil
}
