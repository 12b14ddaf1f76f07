package engine

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/snapstore/snapstore/chunk"
	"github.com/snapstore/snapstore/gc"
	"github.com/snapstore/snapstore/internal/index"
	"github.com/snapstore/snapstore/internal/seglog"
	"github.com/snapstore/snapstore/manifest"
)

// Where each canister has a dedup domain of its own, a snapshot of another
// canister can not just be named: what it has and the live state has not must
// be there twice. The copy is written like a take. Since trees are canonical the
// root comes out as that of the snapshot.

// bring writes what the live state of c becomes when m, of another domain, is
// loaded: everything that differs from the durable head, read from there and
// verified.
func (op *operation) bring(ctx context.Context, c *Canister, from *chunk.Store, m *manifest.Manifest, id SnapshotID) error {
	head, err := op.e.manifest(ctx, c.store, op.rec.Head)
	if errors.Is(locate(err, c.id, SnapshotID{}, Section{}, 0), ErrCorrupt) {
		head = &manifest.Manifest{} // a load is the way out of that
	} else if err != nil {
		return translate(err)
	}
	for _, want := range m.Sections {
		base, ok := head.Section(want.Section)
		if !ok {
			base = SectionRoot{Section: want.Section}
		}
		err := op.bringSection(ctx, c, from, base, want)
		if base.Size > 0 && errors.Is(err, chunk.ErrCorrupt) && ctx.Err() == nil {
			// It may be the head that can not be read.
			return op.bringWhole(ctx, c, from, m, id)
		}
		if err != nil {
			return locate(err, id.Canister, id, want.Section, 0)
		}
	}
	return op.bringManifest(c, m)
}

// bringWhole is bring where the durable head can not be used: with a new writer,
// since the first one has failed.
func (op *operation) bringWhole(ctx context.Context, c *Canister, from *chunk.Store, m *manifest.Manifest, id SnapshotID) error {
	if err := op.writer.Close(); err != nil {
		return translate(err)
	}
	op.writer = op.e.newWriter(op.ent, op.pins)
	for _, want := range m.Sections {
		if err := op.bringSection(ctx, c, from, SectionRoot{Section: want.Section}, want); err != nil {
			return locate(err, id.Canister, id, want.Section, 0)
		}
	}
	return op.bringManifest(c, m)
}

func (op *operation) bringManifest(c *Canister, m *manifest.Manifest) error {
	enc, err := m.Encode()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	root, err := manifest.NodeID(enc)
	if err != nil {
		return err
	}
	return translate(op.writer.KeepNode(root, enc))
}

func (op *operation) bringSection(ctx context.Context, c *Canister, from *chunk.Store, base, want SectionRoot) error {
	nodes := either(c.store, from)
	b := manifest.NewBuilder(ctx, nodes, base, want.Size, op.writer.KeepNode)
	pages := &copied{ctx: ctx, from: from, diff: manifest.DiffSection(ctx, nodes, base, want), end: pagesOf(want.Size)}
	if _, err := op.writer.Ingest(ctx, pages.all(), leavesOf(ctx, nodes, base), b.Set); err != nil || pages.err != nil {
		return errors.Join(pages.err, err)
	}
	got, err := b.Finish()
	if err == nil && got.Root != want.Root {
		err = &CorruptionError{ID: want.Root, Node: true, Err: fmt.Errorf("a copy of %s has the root %s", want.Section, got.Root)}
	}
	return err
}

// copied reads what differs in windows.
type copied struct {
	ctx  context.Context
	from *chunk.Store
	diff iter.Seq2[PageDiff, error]
	end  uint64
	err  error // why all ended early
}

func (p *copied) all() iter.Seq2[uint64, []byte] {
	return func(yield func(uint64, []byte) bool) {
		var bufs pageWindow
		var index []uint64
		var refs []chunk.PageRef
		flush := func() bool {
			if p.err = p.from.Pages(p.ctx, refs); p.err != nil {
				return false
			}
			for i := range refs {
				if !yield(index[i], refs[i].Dst) {
					return false
				}
			}
			index, refs = index[:0], refs[:0]
			return true
		}
		for d, err := range p.diff {
			if err != nil {
				p.err = err
				return
			}
			if d.Page >= p.end {
				continue // cut off by the new size
			}
			index = append(index, d.Page)
			refs = append(refs, chunk.PageRef{ID: d.B, Dst: bufs.page(len(refs))})
			if len(refs) == verifyWindow && !flush() {
				return
			}
		}
		flush()
	}
}

// pair reads nodes of two domains.
type pair struct{ a, b *chunk.Store }

// either gives what reads the nodes of both stores.
func either(a, b *chunk.Store) manifest.Getter {
	if a.Domain() == b.Domain() {
		return a
	}
	return pair{a, b}
}

// Node implements manifest.Getter. What both have is the same.
func (p pair) Node(ctx context.Context, id chunk.ID) ([]byte, error) {
	n, err := p.a.Node(ctx, id)
	if chunk.Unreadable(err) {
		if other, berr := p.b.Node(ctx, id); berr == nil || errors.Is(err, chunk.ErrNotStored) {
			return other, berr
		}
	}
	return n, err
}

// named gives the ID of what a comparison of counts found. Where each canister
// has its own domain only the frame tells, and where that can not be read the
// key has to do.
func (e *Engine) named(m index.CountMismatch) chunk.ID {
	if e.dedup == DedupStore || m.Stored.Location == (index.Location{}) {
		return chunk.ID(m.ID)
	}
	at := seglog.Loc{Segment: seglog.SegmentID(m.Stored.Segment), Offset: m.Stored.Offset, Length: m.Stored.Length}
	kind, payload, err := e.log.ReadFrame(at, nil)
	if err != nil {
		return chunk.ID(m.ID)
	}
	d, err := gc.FrameDomain(kind, payload)
	if err != nil {
		return chunk.ID(m.ID)
	}
	return d.ID(m.ID)
}
