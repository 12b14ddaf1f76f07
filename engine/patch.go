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

// patch is what makes a lent section equal to a version: the pages that differ
// from it, or may.
type patch struct {
	m     *Memory
	from  *chunk.Store // that has the pages
	root  SectionRoot
	pages []uint64
	ids   []chunk.ID
	kept  [][]byte // nil for zeros, and for what is read again when it is written
}

// patches are those of all lent sections, and the memory of what they keep.
type patches struct {
	all []*patch
	k   *keeper
}

// differing is where a lent section differs, in order, and what is read of it.
type differing struct {
	pages []manifest.PageEntry
	kept  [][]byte
}

// patches plans and verifies what lent sections need to become those of a
// manifest; differ is where it differs from the durable state, of which k has begun
// to read. Until apply or cancel, what was dirty belongs to the patches. The caller
// holds the gate, and the guest stands still.
func (c *Canister) patches(ctx context.Context, k *keeper, to *manifest.Manifest, id SnapshotID, differ map[Section]*differing) (ps *patches, pages uint64, err error) {
	ps = &patches{k: k}
	of := c.id // of what is reverted to
	if !id.IsZero() {
		of = id.Canister
	}
	defer func() {
		if err != nil {
			ps.cancel()
			ps = nil
		}
	}()
	for _, m := range c.sections {
		if m.lent == nil {
			continue
		}
		root, ok := to.Section(m.section)
		if !ok {
			root = SectionRoot{Section: m.section}
		}
		if err := m.fits(root); err != nil {
			return ps, 0, err
		}
		p := &patch{m: m, from: k.from, root: root}
		ps.all = append(ps.all, p)
		if err := p.plan(ctx, k, differ[m.section]); err != nil {
			return ps, 0, locate(err, of, id, m.section, 0)
		}
		pages += uint64(len(p.pages))
	}
	werr := k.wait()
	for _, p := range ps.all {
		// What could not be read may be of any section: each looks for it in its own.
		if err := p.verify(ctx, of, id, chunk.Unreadable(werr)); err != nil {
			return ps, 0, err
		}
	}
	if werr != nil {
		return ps, 0, locate(werr, of, id, Section{}, 0)
	}
	return ps, pages, nil
}

// fits says whether a lent section has room for what is to be loaded.
func (m *Memory) fits(root SectionRoot) error {
	if limit := uint64(m.lent.tm.Limit()); root.Size > limit {
		return fmt.Errorf("%s of %d bytes, and it is lent with a limit of %d: %w", m.section, root.Size, limit, ErrInvalid)
	}
	return nil
}

// plan finds the pages: where the trees differ, what is dirty, and what was cut
// off since the base.
func (p *patch) plan(ctx context.Context, k *keeper, differ *differing) error {
	m := p.m
	l := m.lent
	l.taken.Union(&l.dirty)
	l.dirty.Clear()
	m.collected(l.tm.Look(&l.taken))
	end := pagesOf(p.root.Size)
	var d trackmem.DirtySet
	d.Union(&l.taken)
	d.AddRange(min(m.low, end), min(pagesOf(m.base.Size), end))
	d.RemoveFrom(end)
	pages := slices.AppendSeq(make([]uint64, 0, d.Len()), d.Pages())
	ids := make([]chunk.ID, len(pages))
	if err := manifest.Leaves(ctx, p.from, p.root, pages, ids); err != nil {
		return err
	}
	var known trackmem.DirtySet
	if differ != nil {
		for i, en := range differ.pages {
			if en.Index >= end {
				break
			}
			known.Add(en.Index)
			p.add(en.Index, en.ID, differ.kept[i])
		}
	}
	for i, page := range pages {
		if !known.Has(page) {
			p.add(page, ids[i], k.add(ids[i]))
		}
	}
	return nil
}

func (p *patch) add(page uint64, id chunk.ID, kept []byte) {
	p.pages, p.ids, p.kept = append(p.pages, page), append(p.ids, id), append(p.kept, kept)
}

// verify reads what is not kept, or all of it, and names what can not be read.
func (p *patch) verify(ctx context.Context, of CanisterID, id SnapshotID, all bool) error {
	v := verifier{store: p.from, ctx: ctx, of: of, id: id}
	for i := range p.pages {
		if p.kept[i] != nil && !all {
			continue
		}
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
	p.applyKept()
	refs := make([]chunk.PageRef, 0, fillWindow)
	for i, page := range p.pages {
		if p.kept[i] == nil && !p.ids[i].IsZero() {
			refs = append(refs, chunk.PageRef{ID: p.ids[i], Dst: tm.Page(page)})
		}
		if len(refs) == cap(refs) || i == len(p.pages)-1 {
			if err := p.from.Pages(ctx, refs); err != nil {
				return m.s.located(err, m.section, page)
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

// keptShare is how many pages are worth another goroutine to write them. Most of
// the time goes to the faults of memory that is tracked.
const keptShare = 256

// applyKept writes the pages that were kept, and zeros.
func (p *patch) applyKept() {
	n := len(p.pages)
	share := max((n+runtime.GOMAXPROCS(0)-1)/runtime.GOMAXPROCS(0), keptShare)
	var wg sync.WaitGroup
	for from := 0; from < n; from += share {
		wg.Go(func() {
			for i := from; i < min(from+share, n); i++ {
				dst := p.m.lent.tm.Page(p.pages[i])
				switch {
				case p.kept[i] != nil:
					copy(dst, p.kept[i])
				case p.ids[i].IsZero():
					zeroPages(dst)
				}
			}
		})
	}
	wg.Wait()
}

// rearm is for patches that were applied, when the guest may run again. Pages of
// which no copy was kept are taken for dirty, and named as well: what nobody names is
// taken for zeros. Nobody uses ps afterwards.
func (ps *patches) rearm() {
	var zeros pageBytes
	for _, p := range ps.all {
		p.m.rearm(func(yield func(uint64, []byte) bool) {
			for i, page := range p.pages {
				was := p.kept[i]
				if p.ids[i].IsZero() {
					was = zeros[:]
				}
				if !yield(page, was) {
					return
				}
			}
		})
	}
	ps.k.release()
}

// cancel gives back what was dirty.
func (ps *patches) cancel() {
	for _, p := range ps.all {
		p.m.lent.giveBack()
	}
	ps.k.release()
}

// apply is for after the commit. What fails now leaves memory that is nothing: it
// is closed, and opening the canister again gives what is durable.
func (c *Canister) apply(ps *patches) error {
	for _, p := range ps.all {
		// Not the caller's context: what is durable is brought to its end.
		if err := p.apply(context.Background()); err != nil {
			ps.k.release()
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
