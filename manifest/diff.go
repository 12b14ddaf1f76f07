package manifest

import (
	"context"
	"iter"

	"github.com/snapstore/snapstore/chunk"
)

// PageDiff is a page that differs between two states; a zero ID is a page of
// zeros or beyond the section's end.
type PageDiff struct {
	Section Section
	Page    uint64
	A, B    chunk.ID
}

// Diff yields the pages that differ between two states, given by the IDs of
// their manifests (zero is the state of nothing), ordered by section and page.
// Equal subtrees are not read. The last yielded error ends it.
func Diff(ctx context.Context, g Getter, a, b chunk.ID) iter.Seq2[PageDiff, error] {
	return func(yield func(PageDiff, error) bool) {
		w := walker{ctx: ctx, g: g, rule: &differ{yield: yield}, equal: 1<<0 | 1<<1}
		outcome{w.versions([maxSlots]chunk.ID{a, b})}.finish(func(err error) { yield(PageDiff{}, err) })
	}
}

// DiffSection is Diff for one section, named by a.
func DiffSection(ctx context.Context, g Getter, a, b SectionRoot) iter.Seq2[PageDiff, error] {
	return func(yield func(PageDiff, error) bool) {
		w := walker{ctx: ctx, g: g, rule: &differ{yield: yield}, equal: 1<<0 | 1<<1}
		w.trees(a.Section, slots{rootRef(a), rootRef(b)}).finish(func(err error) { yield(PageDiff{}, err) })
	}
}

type differ struct {
	yield func(PageDiff, error) bool
}

func (d *differ) prune(_ Place, v *slots) bool { return v[0] == v[1] }

func (d *differ) bad(_ Place, _ *slots, unread *NodeError) error { return unread }

func (d *differ) visit(p Place, v *slots) error {
	if p.IsPage() && !d.yield(PageDiff{p.section, p.index, v[0].at(0), v[1].at(0)}, nil) {
		return errStop
	}
	return nil
}
