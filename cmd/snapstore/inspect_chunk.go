package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/snapstore/snapstore/chunk"
	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/index"
	"github.com/snapstore/snapstore/internal/seglog"
)

type inspectChunkOptions struct{}

func newInspectChunkCommand(a *app) *cobra.Command {
	o := &inspectChunkOptions{}
	return &cobra.Command{
		Use:     "chunk ID",
		Short:   "Show where a page or node is, and how often it is counted",
		Long:    "Show where a page or node is, how its frame is stored, how often it is introduced, and whether it can be read.",
		Example: "  snapstore inspect chunk 63b1b5a4f1a5b1b5c9b0f7e6a3f0f1f5e2d7c1a9e8b3d4c5f6a7b8c9d0e1f203",
		Args:    args(1, 1, "the id of a page or node"),
		RunE:    func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, args[0]) },
	}
}

// inspectChunkResult is the JSON of inspect chunk.
type inspectChunkResult struct {
	ID   string `json:"id"`
	Kind string `json:"kind"` // page, node
	placeResult
	Codec      string `json:"codec,omitempty"` // of a page's frame
	Unreadable string `json:"unreadable,omitempty"`
}

func (r inspectChunkResult) ids() []string { return []string{r.ID} }

func (r inspectChunkResult) text(w io.Writer) {
	pairs := append([]string{"id", r.ID, "kind", r.Kind}, r.placeResult.facts()...)
	if r.Codec != "" {
		pairs = append(pairs, "codec", r.Codec)
	}
	if r.Unreadable != "" {
		pairs = append(pairs, "can not be read", r.Unreadable)
	}
	facts(w, pairs...)
}

func (o *inspectChunkOptions) run(ctx context.Context, a *app, name string) error {
	id, err := parseChunk(name)
	if err != nil {
		return err
	}
	return a.withStore(ctx, a.reading(), func(e *engine.Engine) error {
		r, err := inspectChunk(ctx, e, id)
		if err != nil {
			return err
		}
		if err := a.emit(r); err != nil {
			return err
		}
		if r.Unreadable != "" {
			return fail(exitProblems, `run "snapstore verify" to see who uses it`, "%s can not be read", id)
		}
		return nil
	})
}

func inspectChunk(ctx context.Context, e *engine.Engine, id engine.Root) (inspectChunkResult, error) {
	r := inspectChunkResult{ID: id.String(), Kind: "page"}
	en, err := lookUp(e, id)
	if err != nil {
		return r, err
	}
	r.placeResult = toPlace(en)
	if en.Node {
		r.Kind = "node"
		_, err = e.Node(ctx, id)
	} else {
		err = e.Page(id, make([]byte, engine.PageSize))
	}
	switch {
	case ctx.Err() != nil:
		return r, ctx.Err()
	case err != nil:
		r.Unreadable = err.Error()
		return r, nil
	}
	kind, payload, err := e.Log().ReadFrame(frameOf(en.Location), nil)
	if err != nil {
		return r, err
	}
	r.Codec = codecOf(kind, payload)
	return r, nil
}

// frameOf is the frame that a location is in.
func frameOf(l index.Location) seglog.Loc {
	return seglog.Loc{Segment: seglog.SegmentID(l.Segment), Offset: l.Offset, Length: l.Length}
}

// codecOf names how a group that was checked is compressed. Other frames are
// never compressed.
func codecOf(kind seglog.Kind, payload []byte) string {
	if kind != seglog.KindGroup {
		return ""
	}
	codec, err := chunk.GroupCodec(payload)
	if err != nil {
		return ""
	}
	return codec.String()
}
