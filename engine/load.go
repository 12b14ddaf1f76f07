package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/snapstore/snapstore/chunk"
	"github.com/snapstore/snapstore/internal/record"
	"github.com/snapstore/snapstore/manifest"
)

// Load makes a snapshot the live state. Every page that differs from the
// durable state, or is dirty, is read and verified first: damage there refuses
// the load and nothing has changed. On return the new state is durable; what
// was written since the last commit is gone. The snapshot stays; an uploaded
// one can not be changed any more.
func (c *Canister) Load(ctx context.Context, id SnapshotID, o LoadOptions) (LoadResult, error) {
	began := time.Now()
	res, err := c.load(ctx, id, o)
	res.Duration = time.Since(began)
	c.e.counters.observe(opLoad, began, err)
	return res, opError("load", c.id, id, err)
}

func (c *Canister) load(ctx context.Context, id SnapshotID, o LoadOptions) (LoadResult, error) {
	var res LoadResult
	if id.Canister != c.id && !o.FromOtherCanister {
		return res, fmt.Errorf("%w: allow loading from another canister if you mean it", ErrOtherCanister)
	}
	if err := c.ask(ctx, id); err != nil {
		return res, err
	}
	if id.Canister != c.id {
		// Its own step first, so that no operation ever holds two canisters.
		if err := c.e.freeze(ctx, id); err != nil {
			return res, err
		}
		src, err := c.e.pin(ctx, id)
		if err != nil {
			return res, err
		}
		defer src.Close()
	} else if err := c.flushUpload(ctx, id.Local); err != nil {
		return res, err
	}
	op, err := c.begin(ctx)
	if err != nil {
		return res, err
	}
	end := op.end
	defer func() { end() }()

	_, from, err := c.e.lookup(id.Canister)
	if err != nil {
		return res, err
	}
	if id.Canister == c.id {
		from = op.rec
	}
	snap, err := find(from, id)
	if err != nil {
		return res, err
	}
	next := op.rec.Clone()
	next.Head, next.HeadLogical = snap.Root, snap.Logical
	if o.Host != nil {
		next.Host = slices.Clone(o.Host)
	}
	if id.Canister == c.id {
		i := slices.IndexFunc(next.Snapshots, func(s record.Snapshot) bool { return s.Local == id.Local })
		next.Snapshots[i].Mutable = false
	}
	store := c.e.in(id.Canister)
	if err := op.reserve(next); err != nil {
		return res, err
	}
	m, err := c.e.manifest(ctx, store, snap.Root)
	if err != nil {
		return res, locate(err, id.Canister, id, Section{}, 0)
	}
	if store.Domain() != c.store.Domain() {
		if err := op.bring(ctx, c, store, m, id); err != nil {
			return res, err
		}
	}

	var ps *patches
	err = c.paused(ctx, func() (err error) {
		res, ps, err = c.loadPaused(ctx, op, next, store, m, id)
		return err
	})
	if err != nil {
		return res, err
	}
	if id.Canister == c.id {
		if u := c.uploads[id.Local]; u != nil {
			delete(c.uploads, id.Local)
			u.shut(ErrImmutable)
		}
	}
	if len(ps.all) > 0 {
		// The guest need not wait for this, only the canister's next operation.
		end = func() {
			go func() {
				ps.rearm()
				op.end()
			}()
		}
	}
	return res, nil
}

// ask asks the quota for what the load of an upload would add, before steps of
// their own flush or freeze the upload: a load that is refused leaves it one
// that can be written.
func (c *Canister) ask(ctx context.Context, id SnapshotID) error {
	_, from, err := c.e.lookup(id.Canister)
	if err != nil {
		return err
	}
	snap, err := find(from, id)
	if err != nil || !snap.Mutable {
		return err
	}
	op, err := c.begin(ctx)
	if err != nil {
		return err
	}
	defer op.end()
	next := op.rec.Clone()
	next.HeadLogical = snap.Logical
	return op.reserve(next)
}

// loadPaused commits a load and makes the live state what was loaded. Nobody
// writes from the check to the end: what is checked is what changes. The
// patches it gives are applied, and wait for rearm.
func (c *Canister) loadPaused(ctx context.Context, op *operation, next *record.Record, from *chunk.Store, m *manifest.Manifest, id SnapshotID) (res LoadResult, ps *patches, err error) {
	c.gate.Lock()
	defer c.gate.Unlock()
	if err := c.openToLoad(); err != nil {
		return res, nil, err
	}
	k := c.e.newKeeper(ctx, from)
	defer func() {
		if err != nil {
			k.release()
		}
	}()
	differ := map[Section]*differing{}
	if res.Pages, err = c.checkLoad(op.rec.Head, next.Head, k, m, id, differ); errors.Is(err, ErrCorrupt) {
		// It may be the head that can not be read, and this is the way out of that.
		k.release()
		k = c.e.newKeeper(ctx, from)
		res.Pages, err = c.checkWhole(next.Head, k, m, id, differ)
	}
	if err != nil {
		return res, nil, err
	}
	ps, pages, err := c.patches(ctx, k, m, id, differ)
	if err != nil {
		return res, nil, err
	}
	res.Pages += pages
	seq, err := op.commit(ctx, next)
	if err != nil {
		ps.cancel()
		return res, nil, err
	}
	res.Sequence = uint64(seq)
	if err := c.apply(ps); err != nil {
		return res, nil, err
	}
	c.fill(m)
	c.headless.Store(nil)
	return res, ps, nil
}

// checkWhole is checkLoad where nothing is known of the head: all of the
// snapshot is read, and of lent sections every page counts as different.
func (c *Canister) checkWhole(root chunk.ID, k *keeper, m *manifest.Manifest, id SnapshotID, differ map[Section]*differing) (uint64, error) {
	clear(differ)
	pages, err := c.checkLoad(chunk.ID{}, root, k, m, id, differ)
	if err != nil {
		return 0, err
	}
	for section, mem := range c.sections {
		if mem.lent == nil {
			continue
		}
		known := differ[section]
		if known == nil {
			known = &differing{}
		}
		r, _ := m.Section(section)
		if err := mem.fits(r); err != nil { // before memory is made for each of its pages
			return 0, err
		}
		all := &differing{pages: make([]manifest.PageEntry, pagesOf(r.Size)), kept: make([][]byte, pagesOf(r.Size))}
		for i := range all.pages {
			all.pages[i].Index = uint64(i)
		}
		for i, en := range known.pages {
			if en.Index < uint64(len(all.pages)) {
				all.pages[en.Index].ID, all.kept[en.Index] = en.ID, known.kept[i]
			}
		}
		differ[section] = all
	}
	return pages, nil
}

// flushUpload makes what was uploaded durable, in a step of its own: a load
// reads all it brings before it commits, and pages can be read from the moment
// they are committed.
func (c *Canister) flushUpload(ctx context.Context, local uint64) error {
	op, err := c.begin(ctx)
	if err != nil {
		return err
	}
	u := c.uploads[local]
	op.end()
	if u == nil || !u.dirty() {
		return nil
	}
	_, err = u.flush(ctx)
	return err
}

// checkLoad reads and verifies what the load will bring: the pages that differ
// between the durable head and the snapshot, and those dirty in memory. What
// differs in lent sections is put into differ, and k begins to read it.
func (c *Canister) checkLoad(head, root chunk.ID, k *keeper, m *manifest.Manifest, id SnapshotID, differ map[Section]*differing) (uint64, error) {
	ctx, from := k.ctx, k.from
	v := verifier{store: from, ctx: ctx, of: id.Canister, id: id}
	for d, err := range manifest.Diff(ctx, either(c.store, from), head, root) {
		if err != nil {
			return 0, locate(err, id.Canister, id, d.Section, d.Page)
		}
		if mem := c.sections[d.Section]; mem != nil && mem.lent != nil {
			of := differ[d.Section]
			if of == nil {
				of = &differing{}
				differ[d.Section] = of
			}
			of.pages = append(of.pages, manifest.PageEntry{Index: d.Page, ID: d.B})
			of.kept = append(of.kept, k.add(d.B))
			continue
		}
		if err := v.add(d.Section, d.Page, d.B); err != nil {
			return 0, err
		}
	}
	for _, r := range m.Sections {
		mem := c.sections[r.Section]
		if mem == nil {
			continue
		}
		var dirty []uint64
		for page := range mem.top.all() {
			if page < pagesOf(r.Size) {
				dirty = append(dirty, page)
			}
		}
		ids := make([]chunk.ID, len(dirty))
		if err := manifest.Leaves(ctx, from, r, dirty, ids); err != nil {
			return 0, locate(err, id.Canister, id, r.Section, 0)
		}
		for i, page := range dirty {
			if err := v.add(r.Section, page, ids[i]); err != nil {
				return 0, err
			}
		}
	}
	return v.pages, v.flush()
}

// verifier reads pages in windows, from the log and not from the page cache, and
// keeps none of them. What it can not read it names as of a snapshot, or of the live
// state of a canister.
type verifier struct {
	store *chunk.Store
	ctx   context.Context
	of    CanisterID
	id    SnapshotID
	refs  []chunk.PageRef
	where []PageDiff
	bufs  pageWindow
	pages uint64
}

// verifyWindow is how many pages are planned and read at a time: 4 MiB.
const verifyWindow = 1024

// pageWindow is memory for pages that are read at a time. It grows with what is
// asked, as small stores should not cost the memory of large ones.
type pageWindow [][]byte

// page is the i-th page; those before it were asked for.
func (w *pageWindow) page(i int) []byte {
	if i == len(*w) {
		*w = append(*w, make([]byte, PageSize))
	}
	return (*w)[i]
}

func (v *verifier) add(s Section, page uint64, id chunk.ID) error {
	v.pages++
	if id.IsZero() {
		return nil
	}
	v.refs = append(v.refs, chunk.PageRef{ID: id, Dst: v.bufs.page(len(v.refs))})
	v.where = append(v.where, PageDiff{Section: s, Page: page, B: id})
	if len(v.refs) == verifyWindow {
		return v.flush()
	}
	return nil
}

func (v *verifier) flush() error {
	err := v.store.PagesOnce(v.ctx, v.refs)
	if err != nil {
		if i, perr := firstUnread(v.ctx, v.store, v.refs, err); perr != nil {
			err = locate(perr, v.of, v.id, v.where[i].Section, v.where[i].Page)
		}
	}
	v.refs, v.where = v.refs[:0], v.where[:0]
	return err
}

// firstUnread is for naming the place of what Pages said: where that is damage, it
// looks for the first page that can not be read.
func firstUnread(ctx context.Context, store *chunk.Store, refs []chunk.PageRef, said error) (int, error) {
	if !chunk.Unreadable(said) {
		return 0, nil
	}
	for i := range refs {
		if ctx.Err() != nil {
			break
		}
		if err := store.PagesOnce(ctx, refs[i:i+1]); chunk.Unreadable(err) {
			return i, err
		}
	}
	return 0, nil
}

// freeze makes an uploaded snapshot unchangeable; others are so already.
func (e *Engine) freeze(ctx context.Context, id SnapshotID) error {
	_, rec, err := e.lookup(id.Canister)
	if err != nil {
		return err
	}
	if s, err := find(rec, id); err != nil || !s.Mutable {
		return err
	}
	src, err := e.canister(id.Canister)
	if err != nil {
		return err
	}
	op, err := src.begin(ctx)
	if err != nil {
		return err
	}
	defer op.end()
	next := op.rec.Clone()
	i := slices.IndexFunc(next.Snapshots, func(s record.Snapshot) bool { return s.Local == id.Local })
	if i < 0 {
		return fmt.Errorf("snapshot %s: %w", id, ErrNotFound)
	}
	u := src.uploads[id.Local]
	if u != nil && u.dirty() {
		b, err := op.addUpload(ctx, u)
		if err != nil {
			return err
		}
		next.Snapshots[i].Root = b.root
	}
	next.Snapshots[i].Mutable = false
	if _, err := op.commit(ctx, next); err != nil {
		return err
	}
	if u != nil {
		delete(src.uploads, id.Local)
		u.shut(ErrImmutable)
	}
	return nil
}
