package gc

import (
	"bytes"

	"github.com/snapstore/snapstore/chunk"
)

// regroup packs what cleaning found alive into new frames. A frame is of one
// domain, and small takes of many canisters lie side by side, so each domain
// gathers its own.
type regroup struct {
	w     *chunk.Writer
	codec chunk.Codec
	coder *chunk.Coder
	sets  map[shelf]*gathered
	order []shelf // as they came, so that one history gives one log
	held  int     // bytes
}

func newRegroup(w *chunk.Writer, codec chunk.Codec, coder *chunk.Coder) *regroup {
	return &regroup{w: w, codec: codec, coder: coder, sets: map[shelf]*gathered{}}
}

// shelf is what may share a frame: a domain, and, for zstd, pages that nothing makes
// smaller apart from the others.
type shelf struct {
	domain chunk.Domain
	dense  bool
}

// gathered waits for a full frame.
type gathered struct {
	ids   []chunk.ID
	pages []byte

	names []chunk.ID
	nodes [][]byte
}

// gatherAtMost bounds what waits for full frames. Where more domains meet in one
// segment, frames are less full.
const gatherAtMost = 4 << 20

func (r *regroup) of(t shelf) *gathered {
	g := r.sets[t]
	if g == nil {
		g = &gathered{}
		r.sets[t] = g
		r.order = append(r.order, t)
	}
	return g
}

func (r *regroup) page(d chunk.Domain, id chunk.ID, page []byte) error {
	g := r.of(shelf{d, r.codec == chunk.CodecZstd && r.coder.Dense(page)})
	g.ids, g.pages = append(g.ids, id), append(g.pages, page...)
	r.held += len(page)
	if len(g.ids) == chunk.GroupPages {
		return r.pages(d, g)
	}
	return r.bound()
}

func (r *regroup) node(d chunk.Domain, id chunk.ID, node []byte) error {
	g := r.of(shelf{domain: d})
	g.names, g.nodes = append(g.names, id), append(g.nodes, bytes.Clone(node))
	r.held += len(node)
	if len(g.nodes) == chunk.FrameNodes {
		return r.frame(d, g)
	}
	return r.bound()
}

func (r *regroup) bound() error {
	if r.held > gatherAtMost {
		return r.flush()
	}
	return nil
}

// flush writes all that waits.
func (r *regroup) flush() error {
	for _, t := range r.order {
		g := r.sets[t]
		if err := r.pages(t.domain, g); err != nil {
			return err
		}
		if err := r.frame(t.domain, g); err != nil {
			return err
		}
	}
	clear(r.sets)
	r.order, r.held = nil, 0
	return nil
}

func (r *regroup) pages(d chunk.Domain, g *gathered) error {
	if len(g.ids) == 0 {
		return nil
	}
	err := r.w.AddGroup(d, r.codec, g.ids, g.pages)
	r.held -= len(g.pages)
	g.ids, g.pages = g.ids[:0], g.pages[:0]
	return err
}

func (r *regroup) frame(d chunk.Domain, g *gathered) error {
	if len(g.nodes) == 0 {
		return nil
	}
	err := r.w.AddNodes(d, g.names, g.nodes)
	for _, n := range g.nodes {
		r.held -= len(n)
	}
	clear(g.nodes)
	g.names, g.nodes = g.names[:0], g.nodes[:0]
	return err
}
