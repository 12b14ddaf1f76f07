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
	// Damaged, when not nil, tells of pages that are known to be damaged. Seen
	// then leaves out only what was found whole, so that every version that has
	// damage is told of it.
	Damaged func(chunk.ID) bool
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
		if _, err := w.tree(treePlace(s.Section, r.height, 0), r.id, s.PageCount()); err != nil {
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

// tree tells whether all at and below p was found whole.
func (w *verifier) tree(p Place, id chunk.ID, pages uint64) (whole bool, err error) {
	from, to := p.Pages()
	if from >= pages {
		return false, w.bad(p, id, &NodeError{Place: p, ID: id, Err: fmt.Errorf("%w: beyond the end of the section", ErrMalformed)})
	}
	whole = true
	switch {
	case p.IsPage():
		whole = w.o.Damaged == nil || !w.o.Damaged(id)
	case w.ctx.Err() != nil:
		return false, w.ctx.Err()
	case w.leaveOut(id, to <= pages):
	default:
		if whole, err = w.children(p, id, pages); err != nil {
			return false, err
		}
		if w.o.Seen != nil && w.o.Damaged != nil && whole && to <= pages {
			w.o.Seen.add(id)
		}
	}
	return whole, w.visit(p, id)
}

// leaveOut tells whether a walk went below the node before. A subtree across
// the section's end is not shared: another version may end elsewhere.
func (w *verifier) leaveOut(id chunk.ID, inside bool) bool {
	switch {
	case w.o.Seen == nil || !inside:
		return false
	case w.o.Damaged != nil:
		return w.o.Seen.has(id)
	}
	return !w.o.Seen.add(id)
}

func (w *verifier) children(p Place, id chunk.ID, pages uint64) (whole bool, err error) {
	n, err := readNode(w.ctx, w.g, p, id)
	if err != nil {
		return false, w.bad(p, id, err)
	}
	whole = true
	for m := n.bitmap; m != 0; m &= m - 1 {
		i := bits.TrailingZeros16(m)
		child, err := w.tree(p.child(i), n.Child(i), pages)
		if err != nil {
			return false, err
		}
		whole = whole && child
	}
	return whole, nil
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

func (s *Seen) has(id chunk.ID) bool {
	shard := &s.shards[int(id[0])%len(s.shards)]
	shard.Lock()
	defer shard.Unlock()
	_, ok := shard.ids[id]
	return ok
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
