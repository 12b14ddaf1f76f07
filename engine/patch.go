package engine

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"

	"github.com/snapstore/snapstore/chunk"
	"github.com/snapstore/snapstore/internal/trackmem"
	"github.com/snapstore/snapstore/manifest"
)

// patchKept is how many pages of a load are kept from when they are verified to
// when they are written into live memory; the rest is read twice.
const patchKept = 256 << 20 / PageSize

// patch is what makes a lent section equal to a version: the pages that differ
// from it, or may.
type patch struct {
	m     *Memory
	from  *chunk.Store // that has the pages
	root  SectionRoot
	pages []uint64
	ids   []chunk.ID
	kept  []byte // of the first pages
}

// patches plans and verifies what lent sections need to become those of a
// manifest; differ is where it differs from the durable state. Until apply or
// cancel, what was dirty belongs to the patches. The caller holds the gate, and
// the guest stands still.
func (c *Canister) patches(ctx context.Context, from *chunk.Store, to *manifest.Manifest, id SnapshotID, differ map[Section][]manifest.PageEntry) (out []*patch, pages uint64, err error) {
	defer func() {
		if err != nil {
			cancelPatches(out)
			out = nil
		}
	}()
	budget := patchKept
	for _, m := range c.sections {
		if m.lent == nil {
			continue
		}
		root, ok := to.Section(m.section)
		if !ok {
			root = SectionRoot{Section: m.section}
		}
		if limit := uint64(m.lent.tm.Limit()); root.Size > limit {
			return out, 0, fmt.Errorf("%s of %d bytes, and it is lent with a limit of %d: %w", m.section, root.Size, limit, ErrInvalid)
		}
		p := &patch{m: m, from: from, root: root}
		out = append(out, p)
		if err := p.plan(ctx, differ[m.section]); err != nil {
			return out, 0, locate(err, c.id, id, m.section, 0)
		}
		keep := min(budget, len(p.pages))
		budget -= keep
		if err := p.read(ctx, keep, id); err != nil {
			return out, 0, err
		}
		pages += uint64(len(p.pages))
	}
	return out, pages, nil
}

// plan finds the pages: where the trees differ, what is dirty, and what was cut
// off since the base.
func (p *patch) plan(ctx context.Context, differ []manifest.PageEntry) error {
	m := p.m
	l := m.lent
	l.taken.Union(&l.dirty)
	l.dirty.Clear()
	m.collected(l.tm.Look(&l.taken))
	end := pagesOf(p.root.Size)
	for len(differ) > 0 && differ[len(differ)-1].Index >= end {
		differ = differ[:len(differ)-1]
	}
	var d trackmem.DirtySet
	d.Union(&l.taken)
	d.AddRange(min(m.low, end), min(pagesOf(m.base.Size), end))
	d.RemoveFrom(end)
	pages := slices.AppendSeq(make([]uint64, 0, d.Len()), d.Pages())
	ids := make([]chunk.ID, len(pages))
	if err := manifest.Leaves(ctx, p.from, p.root, pages, ids); err != nil {
		return err
	}
	// Both are ascending.
	for _, en := range differ {
		for ; len(pages) > 0 && pages[0] < en.Index; pages, ids = pages[1:], ids[1:] {
			p.pages, p.ids = append(p.pages, pages[0]), append(p.ids, ids[0])
		}
		if !d.Has(en.Index) {
			p.pages, p.ids = append(p.pages, en.Index), append(p.ids, en.ID)
		}
	}
	p.pages, p.ids = append(p.pages, pages...), append(p.ids, ids...)
	return nil
}

// read verifies every page, and keeps the first ones.
func (p *patch) read(ctx context.Context, keep int, id SnapshotID) error {
	p.kept = make([]byte, keep*PageSize)
	refs := make([]chunk.PageRef, 0, keep)
	for i := range keep {
		if !p.ids[i].IsZero() {
			refs = append(refs, chunk.PageRef{ID: p.ids[i], Dst: p.kept[i*PageSize : (i+1)*PageSize]})
		}
	}
	v := verifier{store: p.from, ctx: ctx, id: id}
	if err := p.from.Pages(ctx, refs); err != nil {
		// Name the place: the pages one by one.
		for i := range keep {
			if err := v.add(p.m.section, p.pages[i], p.ids[i]); err != nil {
				return err
			}
		}
		if err := v.flush(); err != nil {
			return err
		}
		return locate(err, id.Canister, id, p.m.section, 0)
	}
	for i := keep; i < len(p.pages); i++ {
		if err := v.add(p.m.section, p.pages[i], p.ids[i]); err != nil {
			return err
		}
	}
	return v.flush()
}

// apply writes the pages into the memory, at the same address. On an error the
// memory is part old, part new.
func (p *patch) apply(ctx context.Context) error {
	m := p.m
	tm := m.lent.tm
	if err := tm.Truncate(min(tm.Size(), int64(p.root.Size))); err != nil {
		return err
	}
	if err := tm.Grow(int64(p.root.Size)); err != nil {
		return err
	}
	keep := len(p.kept) / PageSize
	p.applyKept(keep)
	refs := make([]chunk.PageRef, 0, fillWindow)
	for i := keep; i < len(p.pages); i++ {
		dst := tm.Page(p.pages[i])
		if p.ids[i].IsZero() {
			zero(dst)
		} else {
			refs = append(refs, chunk.PageRef{ID: p.ids[i], Dst: dst})
		}
		if len(refs) == cap(refs) || i == len(p.pages)-1 {
			if err := p.from.Pages(ctx, refs); err != nil {
				return m.s.located(err, m.section, p.pages[i])
			}
			refs = refs[:0]
		}
	}
	m.lent.taken.Clear()
	tm.Touch()
	if tm.Mode() == trackmem.ModeHash {
		// What was written is what the guest's pages are compared with from now
		// on, and can not be looked at when it runs.
		var d trackmem.DirtySet
		if err := tm.Collect(&d); err != nil {
			m.lent.dirty.Union(&d)
		}
	}
	return nil
}

// keptShare is how many kept pages are worth another goroutine to write them. Most
// of the time goes to the faults of memory that is tracked, which do not wait for
// one another.
const keptShare = 256

// applyKept writes the first pages, which were kept.
func (p *patch) applyKept(keep int) {
	share := max((keep+runtime.GOMAXPROCS(0)-1)/runtime.GOMAXPROCS(0), keptShare)
	var wg sync.WaitGroup
	for from := 0; from < keep; from += share {
		wg.Go(func() {
			for i := from; i < min(from+share, keep); i++ {
				dst := p.m.lent.tm.Page(p.pages[i])
				if p.ids[i].IsZero() {
					zero(dst)
				} else {
					copy(dst, p.kept[i*PageSize:(i+1)*PageSize])
				}
			}
		})
	}
	wg.Wait()
}

// zero makes a page all zeros, and touches none that is.
func zero(page []byte) {
	if *(*pageBytes)(page) != (pageBytes{}) {
		clear(page)
	}
}

// rearm is for patches that were applied, when the guest may run again. Pages of
// which no copy was kept are taken for dirty.
func rearm(ps []*patch) {
	for _, p := range ps {
		p.m.rearm(func(yield func(uint64, []byte) bool) {
			for i := range len(p.kept) / PageSize {
				if !yield(p.pages[i], p.kept[i*PageSize:(i+1)*PageSize]) {
					return
				}
			}
		})
	}
}

// cancelPatches gives back what was dirty.
func cancelPatches(ps []*patch) {
	for _, p := range ps {
		p.m.lent.giveBack()
	}
}

// applyPatches is for after the commit. What fails now leaves memory that is
// nothing: it is closed, and opening the canister again gives what is durable.
func (c *Canister) applyPatches(ps []*patch) error {
	for _, p := range ps {
		// Not the caller's context: what is durable is brought to its end.
		if err := p.apply(context.Background()); err != nil {
			err = fmt.Errorf("live memory is part old, part new; open the canister again: %w", err)
			c.closed.Store(&err)
			c.closeLent()
			c.e.live.Lock()
			if c.ent.live == c {
				c.ent.live = nil
			}
			c.e.live.Unlock()
			return err
		}
	}
	return nil
}
