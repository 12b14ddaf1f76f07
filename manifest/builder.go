package manifest

import (
	"context"
	"errors"
	"fmt"

	"github.com/snapstore/snapstore/chunk"
)

// Builder makes the tree of a section from another one and the pages that
// differ. It holds one node for each level, reads base nodes only on the way
// to pages that are set or to a new end, and its result depends on nothing but
// the pages and the byte length. Not safe for concurrent use.
type Builder struct {
	ctx   context.Context
	g     Getter
	emit  func(id chunk.ID, node []byte) error
	out   SectionRoot
	pages uint64
	cut   bool // the base has pages beyond the new end
	path  []frame
	next  uint64 // lowest page that may be set
	buf   []byte
	err   error
}

// frame is a node being made, the one for its level.
type frame struct {
	place    Place
	base     chunk.ID // what the base has at the place
	old      family
	children [Fanout]chunk.ID
}

// NewBuilder starts a tree of size bytes that equals base but for what is set.
// Pages of base beyond the new end are dropped, so that growing again shows
// zeros; zeroing the tail of a partial last page is up to the caller. emit gets
// each node that base does not have at the same place, children first; its
// bytes are valid during the call; nil when only the root is wanted.
func NewBuilder(ctx context.Context, g Getter, base SectionRoot, size uint64, emit func(id chunk.ID, node []byte) error) *Builder {
	b := &Builder{ctx: ctx, g: g, emit: emit, out: SectionRoot{Section: base.Section, Size: size}, pages: pageCount(size)}
	if b.err = base.validate(); b.err == nil {
		b.err = b.out.validate()
	}
	if b.err == nil {
		b.cut = base.PageCount() > b.pages
		b.err = b.adopt(base)
	}
	return b
}

// adopt starts the path at the new tree's root. A deeper base has what belongs
// there on its leftmost path; a shallower one is child 0 of nodes that are new.
func (b *Builder) adopt(base SectionRoot) error {
	if b.pages == 0 {
		return nil
	}
	r, top := rootRef(base), uint8(Depth(b.out.Size))
	for r.height > top {
		f, err := open(b.ctx, b.g, treePlace(base.Section, r.height, 0), r)
		if err != nil {
			return err
		}
		r = f.child(0)
	}
	p := treePlace(base.Section, top, 0)
	if err := b.push(p, r); err != nil {
		return err
	}
	for !r.isZero() && p.height > r.height+1 {
		p = p.child(0)
		if err := b.push(p, r); err != nil {
			return err
		}
	}
	return nil
}

// push starts the node at p, of which the base has r.
func (b *Builder) push(p Place, r ref) error {
	old, err := open(b.ctx, b.g, p, r)
	if err != nil {
		return err
	}
	b.path = append(b.path, frame{place: p, base: r.at(p.height), old: old})
	f := &b.path[len(b.path)-1]
	_, end := p.Pages()
	for i := range f.children {
		// A child wholly beyond the end is gone; one across it will be cut when
		// the walk along the end comes to it.
		if end > b.pages {
			if from, _ := p.child(i).Pages(); from >= b.pages {
				break
			}
		}
		old.idTo(&f.children[i], i, p.height-1)
	}
	return nil
}

var errBuilt = errors.New("manifest: builder is finished")

// Set gives page the content id, zero for zeros. Pages ascend.
func (b *Builder) Set(page uint64, id chunk.ID) error {
	if b.err != nil {
		return b.err
	}
	switch {
	case page >= b.pages:
		b.err = fmt.Errorf("manifest: page %d set in %v of %d pages", page, b.out.Section, b.pages)
	case page < b.next:
		b.err = fmt.Errorf("manifest: page %d of %v set out of order", page, b.out.Section)
	default:
		b.next = page + 1
		if b.err = b.seek(page); b.err == nil {
			b.path[len(b.path)-1].children[page%Fanout] = id
		}
	}
	return b.err
}

// seek makes the path end at the parent of page.
func (b *Builder) seek(page uint64) error {
	for {
		if _, to := b.path[len(b.path)-1].place.Pages(); page < to {
			break
		}
		if err := b.pop(); err != nil {
			return err
		}
	}
	for {
		f := &b.path[len(b.path)-1]
		if f.place.height == 1 {
			return nil
		}
		if err := b.ctx.Err(); err != nil {
			return err
		}
		i := int(page >> (fanoutBits * (f.place.height - 1)) & (Fanout - 1))
		if err := b.push(f.place.child(i), f.old.child(i)); err != nil {
			return err
		}
	}
}

// pop finishes the last node of the path and hands it to its parent, or makes
// it the root.
func (b *Builder) pop() error {
	f := &b.path[len(b.path)-1]
	id, err := b.node(f)
	if err != nil {
		return err
	}
	b.path = b.path[:len(b.path)-1]
	if len(b.path) == 0 {
		b.out.Root = id
	} else {
		b.path[len(b.path)-1].children[f.place.index%Fanout] = id
	}
	return nil
}

// node gives the ID of what was made at f, and emits it when it is new there.
func (b *Builder) node(f *frame) (chunk.ID, error) {
	if f.children == [Fanout]chunk.ID{} {
		return chunk.ID{}, nil
	}
	var err error
	if b.buf, err = AppendNode(b.buf[:0], f.place.Level(), &f.children); err != nil {
		return chunk.ID{}, err
	}
	id, err := NodeID(b.buf)
	if err != nil || id == f.base || b.emit == nil {
		return id, err
	}
	return id, b.emit(id, b.buf)
}

// Finish returns the new root. The builder is of no use afterwards.
func (b *Builder) Finish() (SectionRoot, error) {
	if b.err != nil {
		return SectionRoot{}, b.err
	}
	b.err = errBuilt
	if b.cut && b.pages > 0 {
		if err := b.seek(b.pages - 1); err != nil {
			b.err = err
			return SectionRoot{}, err
		}
	}
	for len(b.path) > 0 {
		if err := b.pop(); err != nil {
			b.err = err
			return SectionRoot{}, err
		}
	}
	return b.out, nil
}
