package main

import (
	"context"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/ui"
	"github.com/snapstore/snapstore/manifest"
)

type inspectNodeOptions struct{}

func newInspectNodeCommand(a *app) *cobra.Command {
	o := &inspectNodeOptions{}
	return &cobra.Command{
		Use:     "node ID",
		Short:   "Show a tree node or a manifest",
		Long:    "Show a tree node with its children, or a manifest with its sections. The root of a snapshot is a manifest, the root of a section a node.",
		Example: `  snapstore inspect node $(snapstore snapshot show 0000000000000001 --json | jq -r .root)`,
		Args:    args(1, 1, "the id of a node"),
		RunE:    func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, args[0]) },
	}
}

// inspectNodeResult is the JSON of inspect node.
type inspectNodeResult struct {
	ID        string `json:"id"`
	Kind      string `json:"kind"` // tree, manifest
	SizeBytes int    `json:"size_bytes"`
	placeResult
	Level    *int            `json:"level,omitempty"`    // of a tree node; 0 holds pages
	Children []childResult   `json:"children,omitempty"` // of a tree node
	Sections []sectionResult `json:"sections,omitempty"` // of a manifest
	Metadata *metadataResult `json:"metadata,omitempty"` // of a manifest
}

// childResult is a child of a tree node; one that is missing is all zeros.
type childResult struct {
	Index int    `json:"index"`
	ID    string `json:"id"`
}

func (r inspectNodeResult) ids() []string { return []string{r.ID} }

func (r inspectNodeResult) text(w io.Writer) {
	kind := "manifest"
	if r.Level != nil {
		kind = "tree node of level " + strconv.Itoa(*r.Level)
	}
	pairs := append([]string{"id", r.ID, "kind", kind, "size", ui.Bytes(uint64(r.SizeBytes))}, r.placeResult.facts()...)
	if r.Metadata != nil {
		pairs = append(pairs, r.Metadata.facts()...)
	}
	facts(w, pairs...)
	if r.Metadata != nil {
		r.Metadata.globalTable(w)
	}
	sectionTable(w, r.Sections)
	var rows [][]string
	for _, c := range r.Children {
		rows = append(rows, []string{strconv.Itoa(c.Index), c.ID})
	}
	if len(rows) > 0 {
		table(w, []string{">CHILD", "ID"}, rows)
	}
}

func (o *inspectNodeOptions) run(ctx context.Context, a *app, name string) error {
	id, err := parseChunk(name)
	if err != nil {
		return err
	}
	return a.withStore(ctx, a.reading(), func(e *engine.Engine) error {
		r, err := inspectNode(ctx, e, id)
		if err != nil {
			return err
		}
		return a.emit(r)
	})
}

func inspectNode(ctx context.Context, e *engine.Engine, id engine.Root) (inspectNodeResult, error) {
	r := inspectNodeResult{ID: id.String()}
	en, err := lookUp(e, id)
	if err != nil {
		return r, err
	}
	if !en.Node {
		return r, fail(exitNotFound, `look at it with "snapstore inspect chunk"`, "%s is a page, not a node", id)
	}
	r.placeResult = toPlace(en)
	enc, err := e.Node(ctx, id)
	if err != nil {
		return r, err
	}
	r.SizeBytes = len(enc)
	if m, err := manifest.Decode(enc); err == nil {
		meta := toMetadata(m.Meta)
		r.Kind, r.Sections, r.Metadata = "manifest", toSections(m.Sections), &meta
		return r, nil
	}
	n, err := manifest.DecodeNode(enc)
	if err != nil {
		return r, err
	}
	level := n.Level()
	r.Kind, r.Level = "tree", &level
	for i := range manifest.Fanout {
		if c := n.Child(i); !c.IsZero() {
			r.Children = append(r.Children, childResult{i, c.String()})
		}
	}
	return r, nil
}
