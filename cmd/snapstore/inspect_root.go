package main

import (
	"context"
	"io"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/seglog"
	"github.com/snapstore/snapstore/internal/ui"
)

type inspectRootOptions struct{}

func newInspectRootCommand(a *app) *cobra.Command {
	o := &inspectRootOptions{}
	return &cobra.Command{
		Use:     "root",
		Short:   "Show what ROOT says and the segments it lists",
		Example: "  snapstore inspect root",
		Args:    args(0, 0, ""),
		RunE:    func(c *cobra.Command, _ []string) error { return o.run(c.Context(), a) },
	}
}

// inspectRootResult is the JSON of inspect root.
type inspectRootResult struct {
	StoreID      string          `json:"store_id"`
	Generation   uint64          `json:"generation"` // of ROOT
	Epoch        uint64          `json:"epoch"`      // how often the store was opened
	IndexFloor   uint64          `json:"index_floor"`
	LastSequence uint64          `json:"last_sequence"`
	LastHash     string          `json:"last_hash"`
	Segments     []segmentResult `json:"segments"`
}

// segmentResult is a segment in JSON.
type segmentResult struct {
	Segment       uint64 `json:"segment"`
	File          string `json:"file"`
	Stream        string `json:"stream"`
	Sealed        bool   `json:"sealed"`
	SizeBytes     int64  `json:"size_bytes"`
	FirstSequence uint64 `json:"first_sequence"` // of the batches that end in it; 0 is none
	LastSequence  uint64 `json:"last_sequence"`
}

func toSegment(s seglog.SegmentInfo) segmentResult {
	return segmentResult{
		Segment: uint64(s.ID), File: filepath.ToSlash(segmentFile(uint64(s.ID))), Stream: s.Stream.String(), Sealed: s.Sealed,
		SizeBytes: s.Size, FirstSequence: uint64(s.FirstSeq), LastSequence: uint64(s.LastSeq),
	}
}

func (s segmentResult) batches() string {
	if s.FirstSequence == 0 {
		return "none"
	}
	return strconv.FormatUint(s.FirstSequence, 10) + "-" + strconv.FormatUint(s.LastSequence, 10)
}

func (r inspectRootResult) ids() []string { return []string{r.StoreID} }

func (r inspectRootResult) text(w io.Writer) {
	facts(w,
		"store id", r.StoreID,
		"generation of ROOT", strconv.FormatUint(r.Generation, 10),
		"epoch", strconv.FormatUint(r.Epoch, 10),
		"index floor", strconv.FormatUint(r.IndexFloor, 10),
		"last batch", strconv.FormatUint(r.LastSequence, 10),
		"its hash", r.LastHash,
	)
	var rows [][]string
	for _, s := range r.Segments {
		state := "open"
		if s.Sealed {
			state = "sealed"
		}
		rows = append(rows, []string{strconv.FormatUint(s.Segment, 10), s.Stream, state, ui.Bytes(uint64(s.SizeBytes)), s.batches(), s.File})
	}
	table(w, []string{">SEGMENT", "STREAM", "STATE", ">SIZE", "BATCHES", "FILE"}, rows)
}

func (o *inspectRootOptions) run(ctx context.Context, a *app) error {
	return a.withStore(ctx, a.reading(), func(e *engine.Engine) error {
		log := e.Log()
		s := log.Stats()
		seq, hash := log.Last()
		r := inspectRootResult{
			StoreID: log.StoreID().String(), Generation: s.Generation, Epoch: uint64(s.Epoch), IndexFloor: uint64(s.Floor),
			LastSequence: uint64(seq), LastHash: hash.String(), Segments: []segmentResult{},
		}
		for _, info := range log.Segments() {
			r.Segments = append(r.Segments, toSegment(info))
		}
		return a.emit(r)
	})
}
