package manifest

import (
	"context"
	"fmt"
	"iter"
	"math/bits"

	"github.com/snapstore/snapstore/chunk"
)

// ref is what a version has at and below a place. Trees of different depth
// meet in one walk: at a place above a tree's root, height says how far down,
// always along child 0, the root is; the place itself has nothing.
//
// Refs of one place are equal exactly when everything at and below is known to
// be equal, so == is the test that prunes.
type ref struct {
	id     chunk.ID
	height uint8
}

// unreadable is the height of what is below a node that could not be read: no
// place reaches it, so it never passes for known. Two such refs at one place
// are equal when they come from the same node.
const unreadable = 0xff

func (r ref) isZero() bool  { return r.id.IsZero() }
func (r ref) unknown() bool { return r.height == unreadable }

// at is the ID a version has at a place of the given height.
func (r ref) at(height uint8) chunk.ID {
	if r.height != height {
		return chunk.ID{}
	}
	return r.id
}

func rootRef(r SectionRoot) ref {
	if r.Root.IsZero() {
		return ref{}
	}
	return ref{id: r.Root, height: uint8(Depth(r.Size))}
}

// family is the children of a ref.
type family struct {
	node   Node
	height uint8 // of the node's children
	// whole stands in when there is no node to read: for child 0 when it is a
	// root further down, for each child when it is unreadable.
	whole ref
}

// open reads the children of r at p.
func open(ctx context.Context, g Getter, p Place, r ref) (family, error) {
	if r.isZero() || r.height != p.height {
		return family{whole: r}, nil
	}
	n, err := readNode(ctx, g, p, r.id)
	return family{node: n, height: p.height - 1}, err
}

func (f *family) child(i int) (r ref) {
	f.childTo(&r, i)
	return r
}

// childTo is child into a place that the caller has. Walks spend a good part of
// their time here.
func (f *family) childTo(r *ref, i int) {
	if f.node.bitmap != 0 {
		if f.node.bitmap>>i&1 == 0 {
			*r = ref{}
			return
		}
		copy(r.id[:], f.node.at(i))
		r.height = f.height
		return
	}
	if i == 0 || f.whole.unknown() {
		*r = f.whole
		return
	}
	*r = ref{}
}

// idTo sets id, which is zero, to that of a child: child and at, without the way
// through a ref. height is that of children.
func (f *family) idTo(id *chunk.ID, i int, height uint8) {
	if f.node.bitmap == 0 {
		*id = f.child(i).at(height)
		return
	}
	if f.node.bitmap>>i&1 != 0 {
		copy(id[:], f.node.at(i))
	}
}

// sameChild tells that a child is the same in both; it may say no where it is.
func (f *family) sameChild(o *family, i int) bool {
	has := f.node.bitmap >> i & 1
	if f.node.bitmap == 0 || o.node.bitmap == 0 || has != o.node.bitmap>>i&1 || f.height != o.height {
		return false
	}
	return has == 0 || string(f.node.at(i)) == string(o.node.at(i))
}

// known is a bitmap of the children that are there and can be followed.
func (f *family) known() uint16 {
	switch {
	case f.node.bitmap != 0 || f.whole.isZero():
		return f.node.bitmap
	case f.whole.unknown():
		return 0
	}
	return 1
}

// Leaf returns the ID of one page, zero beyond the section's end.
func Leaf(ctx context.Context, g Getter, root SectionRoot, page uint64) (chunk.ID, error) {
	var out [1]chunk.ID
	err := Leaves(ctx, g, root, []uint64{page}, out[:])
	return out[0], err
}

// Leaves fills out with the IDs of pages, which ascend. Each node on the way
// is read once.
func Leaves(ctx context.Context, g Getter, root SectionRoot, pages []uint64, out []chunk.ID) error {
	if len(out) != len(pages) {
		return fmt.Errorf("manifest: room for %d leaves, %d asked for", len(out), len(pages))
	}
	for i := 1; i < len(pages); i++ {
		if pages[i] < pages[i-1] {
			return fmt.Errorf("manifest: page %d asked for after %d", pages[i], pages[i-1])
		}
	}
	clear(out)
	inside := len(pages)
	for inside > 0 && pages[inside-1] >= root.PageCount() {
		inside--
	}
	r := rootRef(root)
	return leaves(ctx, g, treePlace(root.Section, r.height, 0), r, pages[:inside], out[:inside])
}

func leaves(ctx context.Context, g Getter, p Place, r ref, pages []uint64, out []chunk.ID) error {
	if len(pages) == 0 || r.isZero() {
		return nil
	}
	if p.IsPage() {
		for i := range out {
			out[i] = r.id
		}
		return nil
	}
	f, err := open(ctx, g, p, r)
	if err != nil {
		return err
	}
	for len(pages) > 0 {
		i := int(pages[0] >> (fanoutBits * (p.height - 1)) & (Fanout - 1))
		c := p.child(i)
		_, end := c.Pages()
		n := 1
		for n < len(pages) && pages[n] < end {
			n++
		}
		if err := leaves(ctx, g, c, f.child(i), pages[:n], out[:n]); err != nil {
			return err
		}
		pages, out = pages[n:], out[n:]
	}
	return nil
}

// PageEntry is a page that is not all zeros.
type PageEntry struct {
	Index uint64
	ID    chunk.ID
}

// Pages yields the pages from <= index < to that are not all zeros, ascending.
// The last yielded error ends it.
func Pages(ctx context.Context, g Getter, root SectionRoot, from, to uint64) iter.Seq2[PageEntry, error] {
	to = min(to, root.PageCount())
	return func(yield func(PageEntry, error) bool) {
		if from >= to {
			return
		}
		r := rootRef(root)
		w := pageWalk{ctx, g, from, to, yield}
		outcome{w.at(treePlace(root.Section, r.height, 0), r)}.finish(func(err error) { yield(PageEntry{}, err) })
	}
}

// pageWalk is what Pages goes through a tree with. A walker would do: but it compares
// versions, and has room for several at each level, which was two thirds of the time.
type pageWalk struct {
	ctx      context.Context
	g        Getter
	from, to uint64
	yield    func(PageEntry, error) bool
}

// at yields what is below p, of which the tree has r.
func (w *pageWalk) at(p Place, r ref) error {
	if r.isZero() {
		return nil
	}
	if err := w.ctx.Err(); err != nil {
		return err
	}
	f, err := open(w.ctx, w.g, p, r)
	if err != nil {
		return err
	}
	for m := f.known() & w.wanted(p); m != 0; m &= m - 1 {
		i := bits.TrailingZeros16(m)
		c := f.child(i)
		if p.height > 1 {
			err = w.at(p.child(i), c)
		} else if !w.yield(PageEntry{p.index<<fanoutBits | uint64(i), c.id}, nil) {
			err = errStop
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// wanted are the children of p that have pages from w.from to w.to.
func (w *pageWalk) wanted(p Place) uint16 {
	first, end := p.Pages()
	each := fanoutBits * (p.height - 1)
	m := ^uint16(0)
	if w.from > first {
		m <<= min((w.from-first)>>each, Fanout)
	}
	if w.to < end {
		m &= 1<<((max(w.to, first)-first+1<<each-1)>>each) - 1
	}
	return m
}

// Stat counts what a section's tree holds.
type Stat struct {
	Pages uint64 // not all zeros
	Nodes uint64
}

// StatSection walks the whole tree of a section. Nodes and pages are counted
// at every place, however often they repeat.
func StatSection(ctx context.Context, g Getter, root SectionRoot) (Stat, error) {
	var s Stat
	r := rootRef(root)
	err := stat(ctx, g, treePlace(root.Section, r.height, 0), r, &s)
	return s, err
}

func stat(ctx context.Context, g Getter, p Place, r ref, s *Stat) error {
	if r.isZero() {
		return nil
	}
	f, err := open(ctx, g, p, r)
	if err != nil {
		return err
	}
	s.Nodes++
	if p.height == 1 {
		s.Pages += uint64(bits.OnesCount16(f.known()))
		return nil
	}
	for m := f.known(); m != 0; m &= m - 1 {
		i := bits.TrailingZeros16(m)
		if err := stat(ctx, g, p.child(i), f.child(i), s); err != nil {
			return err
		}
	}
	return nil
}
