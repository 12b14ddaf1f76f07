package manifest

import (
	"context"
	"fmt"
	"math/bits"
	"sync"

	"github.com/snapstore/snapstore/chunk"
)

// WalkOptions of Walk.
type WalkOptions struct {
	// Visit is called for each place that has something, children before
	// parents, the manifest last.
	Visit func(Place, chunk.ID) error
	// Bad is told of a node that can not be read or does not fit its place;
	// nothing below it is visited. Nil: the error ends the walk.
	Bad func(Place, chunk.ID, error)
	// Seen, when not nil, leaves out what is below nodes that this or another
	// walk with the same Seen went into; the nodes themselves are visited.
	// Damage below is then told once, not once for each version that has it.
	Seen *Seen
}

// Walk visits everything of one version. Unlike the reading functions it also
// judges whether the trees are as the builder makes them: depth by the byte
// length, and nothing beyond its end. Many walks may run at once.
func Walk(ctx context.Context, g Getter, v chunk.ID, o WalkOptions) error {
	if v.IsZero() {
		return nil
	}
	w := verifier{ctx: ctx, g: g, o: o}
	m, err := Load(ctx, g, v)
	if err != nil {
		if err := w.bad(manifestPlace(), v, err); err != nil {
			return err
		}
		return w.visit(manifestPlace(), v)
	}
	for _, s := range m.Sections {
		r := rootRef(s)
		if r.isZero() {
			continue
		}
		if err := w.tree(treePlace(s.Section, r.height, 0), r.id, s.PageCount()); err != nil {
			return err
		}
	}
	return w.visit(manifestPlace(), v)
}

type verifier struct {
	ctx context.Context
	g   Getter
	o   WalkOptions
}

func (w *verifier) visit(p Place, id chunk.ID) error {
	if w.o.Visit == nil {
		return nil
	}
	return w.o.Visit(p, id)
}

func (w *verifier) bad(p Place, id chunk.ID, err error) error {
	if halts(w.ctx, err) || w.o.Bad == nil {
		return err
	}
	w.o.Bad(p, id, err)
	return nil
}

func (w *verifier) tree(p Place, id chunk.ID, pages uint64) error {
	from, to := p.Pages()
	if from >= pages {
		return w.bad(p, id, &NodeError{Place: p, ID: id, Err: fmt.Errorf("%w: beyond the end of the section", ErrMalformed)})
	}
	if !p.IsPage() {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		// A subtree across the section's end is not shared: another version
		// may end elsewhere.
		if w.o.Seen == nil || to > pages || w.o.Seen.add(id) {
			if err := w.children(p, id, pages); err != nil {
				return err
			}
		}
	}
	return w.visit(p, id)
}

func (w *verifier) children(p Place, id chunk.ID, pages uint64) error {
	n, err := readNode(w.ctx, w.g, p, id)
	if err != nil {
		return w.bad(p, id, err)
	}
	for m := n.bitmap; m != 0; m &= m - 1 {
		i := bits.TrailingZeros16(m)
		if err := w.tree(p.child(i), n.Child(i), pages); err != nil {
			return err
		}
	}
	return nil
}

// Seen is a set of nodes that walks share. It holds at most so many, and
// forgets to prune, never to visit, beyond them. Concurrency-safe.
type Seen struct {
	shards [64]struct {
		sync.Mutex
		ids map[chunk.ID]struct{}
	}
	limit int // of a shard
}

// NewSeen returns a set of at most about limit nodes, at some 50 bytes each.
func NewSeen(limit int) *Seen {
	s := new(Seen)
	s.limit = max(1, limit/len(s.shards))
	return s
}

// add tells whether id was not in s, or can not be remembered.
func (s *Seen) add(id chunk.ID) bool {
	shard := &s.shards[int(id[0])%len(s.shards)]
	shard.Lock()
	defer shard.Unlock()
	if _, ok := shard.ids[id]; ok {
		return false
	}
	if shard.ids == nil {
		shard.ids = make(map[chunk.ID]struct{})
	}
	if len(shard.ids) < s.limit {
		shard.ids[id] = struct{}{}
	}
	return true
}
