package chunk

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/snapstore/snapstore/internal/failpoint"
	"github.com/snapstore/snapstore/internal/index"
	"github.com/snapstore/snapstore/internal/seglog"
)

// goneTries is how often an ID is looked up again because its segment is gone.
// Cleaning repoints before it drops, so the second look-up finds the new place;
// only a read that is overtaken by cleaning again and again needs more.
const goneTries = 8

// find runs try on where id is until it succeeds. Damage is looked at twice, the
// second time with a new look-up and a new read, and then reported as lost.
// Callers have asked their cache before.
func (s *Store) find(id ID, node bool, try func(index.Location) error) error {
	gone, second := 0, false
	for {
		failpoint.At(failpoint.Locate, "")
		p, err := s.place(id)
		if err != nil {
			return err
		}
		at := p.Loc
		failpoint.At(failpoint.Located, "")
		switch err = try(at); {
		case err == nil:
			return nil
		case errors.Is(err, errKind) && p.Node != node:
			// The question was wrong, and what is stored is whole.
			return &NotStoredError{id}
		case errors.Is(err, seglog.ErrSegmentGone):
			if gone++; gone < goneTries {
				continue
			}
		case isDamage(err):
			if !second {
				second = true
				s.stats.secondLooks.Add(1)
				continue
			}
		default:
			return fmt.Errorf("chunk %v: %w", id, err)
		}
		lost := &CorruptionError{ID: id, Node: node, Segment: at.Segment, Offset: at.Offset, Err: err}
		s.stats.lost.Add(1)
		s.onLost(s.domain.Key(id), lost)
		return lost
	}
}

func isDamage(err error) bool {
	var d damage
	return errors.As(err, &d) || errors.Is(err, seglog.ErrDamaged)
}

// errKind: the frame holds something else than was asked for.
var errKind = errors.New("frame of another kind")

// readFrame returns the payload of a frame of the wanted kind, in buf if it fits.
func (s *Store) readFrame(loc seglog.Loc, want seglog.Kind, buf []byte) ([]byte, error) {
	s.stats.frames.Add(1)
	kind, payload, err := s.log.ReadFrame(loc, buf)
	if err != nil {
		return nil, err
	}
	return payload, checkKind(kind, want)
}

// readGroup reads and parses a group; buf as in readFrame.
func (s *Store) readGroup(loc seglog.Loc, buf []byte) (group, error) {
	payload, err := s.readFrame(loc, seglog.KindGroup, buf)
	if err != nil {
		return group{}, err
	}
	return s.parseGroup(payload)
}

// readRow is readGroup for who verifies all pages that it takes from the group, by
// their IDs. It tells as well what group stands behind, in next, if it saw one.
func (s *Store) readRow(loc seglog.Loc, buf []byte, next *behind) (group, error) {
	s.stats.frames.Add(1)
	kind, payload, seen, err := s.log.ReadOn(loc, buf, headSize)
	if err == nil {
		err = checkKind(kind, seglog.KindGroup)
	}
	if err != nil {
		return group{}, err
	}
	next.see(seen, s.domain)
	return s.parseGroup(payload)
}

// behind is a group that stands behind another, and which pages it says it has:
// nothing of it is verified.
type behind struct {
	loc seglog.Loc
	ids [GroupPages]ID
	n   int
}

// see takes down what was seen, if it is a group of the domain.
func (b *behind) see(seen seglog.Behind, d Domain) {
	b.n = 0
	if seen.Kind != seglog.KindGroup {
		return
	}
	g, err := readHead(seen.Head, seen.Loc.PayloadSize())
	if err != nil || g.domain != d {
		return
	}
	for b.n < g.n {
		b.ids[b.n] = g.id(b.n)
		b.n++
	}
	b.loc = seen.Loc
}

func (b *behind) has(id *ID) bool { return slices.Contains(b.ids[:b.n], *id) }

func checkKind(kind, want seglog.Kind) error {
	if kind != want {
		return damaged("%w: %v where %v is expected", errKind, kind, want)
	}
	return nil
}

// parseGroup parses a group of this domain.
func (s *Store) parseGroup(payload []byte) (group, error) {
	g, err := parseGroup(payload)
	if err != nil {
		return group{}, damage{err}
	}
	if g.domain != s.domain {
		return group{}, damaged("group of another dedup domain")
	}
	return g, nil
}

// readGroupHead reads what is in front of a group's data, unverified; buf has room.
func (s *Store) readGroupHead(loc seglog.Loc, buf []byte) (group, error) {
	size := loc.PayloadSize()
	head := buf[:min(headSize, max(size, 0))]
	if err := s.log.ReadPart(loc, 0, head); err != nil {
		return group{}, err
	}
	g, err := readHead(head, size)
	if err == nil && g.domain != s.domain {
		err = damaged("group of another dedup domain")
	}
	return g, err
}

// readPart reads the data of one part of a group whose head was read, unverified;
// buf has room.
func (s *Store) readPart(loc seglog.Loc, g group, p part, buf []byte) (stored []byte, err error) {
	off, end, ok := g.partAt(p, loc.PayloadSize()-g.dataAt)
	if !ok || end-off > len(buf) {
		return nil, errLength
	}
	stored = buf[: end-off : end-off]
	return stored, s.log.ReadPart(loc, g.dataAt+off, stored)
}

// readParts serves pages in need, a bit for each slot, of a group whose head was
// read, without reading all of it. It returns which are what their IDs name. Of
// the others it says nothing: whoever wants them reads the whole frame. buf and
// raw have room for what is read and for what that becomes; with keep it goes to
// the page cache instead.
func (s *Store) readParts(loc seglog.Loc, g group, need uint32, keep bool, buf, raw []byte, serve func(slot int, page []byte)) (served uint32) {
	s.stats.frames.Add(1)
	for p := range g.parts(need) {
		stored, err := s.readPart(loc, g, p, buf)
		if err != nil {
			continue
		}
		if keep {
			same, _ := s.keepPart(g, p, stored, need, serve)
			served |= same
			continue
		}
		s.stats.groups.Add(1)
		pages := raw[:p.raw()]
		verified, _ := g.decodeFor(&s.coder, p, pages, stored, need)
		p.serve(pages, verified, serve)
		served |= verified
	}
	return served
}

// decodeFor decodes what is needed of a group for the pages in need, a bit for
// each slot, into their places in dst, and says which of them are what their IDs
// name.
func (s *Store) decodeFor(g group, dst []byte, need uint32) (verified uint32, err error) {
	err = s.decodeParts(g, need,
		func(p part) []byte { return dst[p.first*PageSize : p.end*PageSize] },
		func(_ part, _ []byte, same uint32) { verified |= same })
	if err != nil {
		return 0, err
	}
	return verified, nil
}

// decodeParts decodes the parts of a group that hold pages in need, a bit for each slot,
// each to the room that it is given, and tells which of its pages are what their IDs name.
// It ends at the first part that can not be decoded.
func (s *Store) decodeParts(g group, need uint32, room func(part) []byte, decoded func(p part, pages []byte, verified uint32)) error {
	s.stats.groups.Add(1)
	for p := range g.parts(need) {
		stored, err := g.stored(p)
		if err != nil {
			return damage{err}
		}
		pages := room(p)
		verified, err := g.decodeFor(&s.coder, p, pages, stored, need)
		if err != nil {
			return damage{err}
		}
		decoded(p, pages, verified)
	}
	return nil
}

// keepParts decodes the parts of a group that hold pages in need, a bit for each
// slot, gives those to serve that are what their IDs name, and keeps all of them in
// the page cache. It returns which were served.
func (s *Store) keepParts(g group, need uint32, serve func(slot int, page []byte)) (served uint32, err error) {
	for p := range g.parts(need) {
		stored, err := g.stored(p)
		var same uint32
		if err == nil {
			same, err = s.keepPart(g, p, stored, need, serve)
		}
		if err != nil {
			return served, damage{err}
		}
		served |= same
	}
	return served, nil
}

// keepPart is keepParts for one part, given its data.
func (s *Store) keepPart(g group, p part, stored []byte, need uint32, serve func(slot int, page []byte)) (served uint32, err error) {
	s.stats.groups.Add(1)
	pages := s.pages.room(p.raw())
	if err := g.decodePart(&s.coder, pages, stored); err != nil {
		s.pages.giveBack(pages)
		return 0, err
	}
	served = g.matchPart(p, pages, need)
	p.serve(pages, served, serve)
	if served != need&p.bits() {
		s.pages.giveBack(pages) // damaged: who asks next should look at the log
	} else {
		s.pages.add(g.domain, g.idsOf(p), pages, served>>p.first)
	}
	return served, nil
}

// keepSparse is keepParts for one slot of a group that need not be read as a whole.
// It says whether it served it.
func (s *Store) keepSparse(loc seglog.Loc, slot int, id ID, buf []byte, serve func(slot int, page []byte)) bool {
	g, err := s.readGroupHead(loc, buf)
	if err != nil || slot >= g.n || g.id(slot) != id || !g.sparse(1<<slot) {
		return false
	}
	return s.readParts(loc, g, 1<<slot, true, buf[headSize:], nil, serve) != 0
}

// Page reads a page into dst, of PageSize bytes. The page is verified. On an
// error dst is as it was.
func (s *Store) Page(id ID, dst []byte) error {
	if err := checkPage(dst); err != nil {
		return err
	}
	if id.IsZero() {
		clear(dst)
		return nil
	}
	if s.pages.get(s.domain.Key(id), dst) {
		s.stats.pageHits.Add(1)
		return nil
	}
	s.stats.pageMisses.Add(1)
	return s.readPage(id, dst, planOptions{keep: true})
}

// readPage reads past the cache.
func (s *Store) readPage(id ID, dst []byte, o planOptions) error {
	keep := o.keep && s.pages.limit > 0
	buf := s.frames.Get()
	defer s.frames.Put(buf)
	looks := 0
	return s.find(id, false, func(at index.Location) error {
		loc := frameLoc(at)
		serve := func(_ int, page []byte) { copy(dst, page) }
		if keep && !o.whole && s.keepSparse(loc, int(at.Slot), id, buf, serve) {
			return nil
		}
		slot := int(at.Slot)
		g, err := s.readGroup(loc, buf)
		if isDamage(err) && !o.whole {
			// A second look may find the frame whole; else the page may be.
			if looks++; looks > 1 {
				whole, unread := s.salvage(loc, slot, id, dst)
				if whole {
					s.onLost(s.domain.Key(id), &CorruptionError{ID: id, Segment: at.Segment, Offset: at.Offset, Err: err})
					return nil
				}
				err = cmp.Or(unread, err)
			}
		}
		if err != nil {
			return err
		}
		if slot >= g.n || g.id(slot) != id {
			return damaged("group does not hold the page at slot %d", slot)
		}
		need := uint32(1) << slot
		var served uint32
		if keep {
			served, err = s.keepParts(g, need, serve)
		} else {
			raw := s.raws.Get()
			defer s.raws.Put(raw)
			pages := raw[:g.raw():g.raw()]
			if served, err = s.decodeFor(g, pages, need); served == need {
				copy(dst, pages[slot*PageSize:])
			}
		}
		if err == nil && served != need {
			err = damaged("page does not match its id")
		}
		return err
	})
}

// Node returns an encoded node. It is verified, and not to be modified.
func (s *Store) Node(ctx context.Context, id ID) ([]byte, error) {
	return s.node(ctx, id, true, nil)
}

// node reads through the cache; with all, what else is in the frame goes there too. a may
// be nil.
func (s *Store) node(ctx context.Context, id ID, all bool, a *ahead) ([]byte, error) {
	if node := s.nodes.get(s.domain.Key(id)); node != nil {
		s.stats.nodeHits.Add(1)
		return node, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.stats.nodeMisses.Add(1)
	node, err := s.readNode(id, all, a)
	if err == nil && !all {
		s.nodes.add(s.domain.Key(id), node)
	}
	return node, err
}

// Scattered returns a reader of nodes for who wants few of each frame: of what it
// does not find in the cache only that goes there. A take that missed 1 % of the
// nodes it wanted put out sixteen times as many that the next ones would.
func (s *Store) Scattered() Scattered { return Scattered{s} }

// Scattered reads nodes as Store does; see Store.Scattered.
type Scattered struct{ s *Store }

// Node is Store.Node.
func (r Scattered) Node(ctx context.Context, id ID) ([]byte, error) {
	return r.s.node(ctx, id, false, nil)
}

// readNode reads past the cache. With keep the whole frame goes there, since
// the nodes of one take lie side by side and a walk wants them next; each under
// the ID that its own bytes have. What follows it is asked for in a, which may be nil.
func (s *Store) readNode(id ID, keep bool, a *ahead) (node []byte, err error) {
	if id.IsZero() {
		return nil, &NotStoredError{id}
	}
	buf := s.frames.Get()
	defer s.frames.Put(buf)
	err = s.find(id, true, func(at index.Location) error {
		s.goOn(a, frameLoc(at))
		payload, err := s.readFrame(frameLoc(at), seglog.KindNodes, buf)
		if err != nil {
			return err
		}
		d, nodes, err := SplitNodes(payload)
		if err != nil {
			return damage{err}
		}
		if d != s.domain {
			return damaged("nodes of another dedup domain")
		}
		slot := int(at.Slot)
		if slot >= len(nodes) {
			return damaged("frame of %d nodes has no slot %d", len(nodes), slot)
		}
		switch got, err := s.nodeID(nodes[slot]); {
		case err != nil:
			return damage{err}
		case got != id:
			return damaged("node does not match its id")
		}
		node = bytes.Clone(nodes[slot])
		if !keep {
			return nil
		}
		s.nodes.add(d.Key(id), node)
		for i, n := range nodes {
			if i == slot {
				continue
			}
			if got, err := s.nodeID(n); err == nil {
				s.nodes.keep(d.Key(got), n)
			}
		}
		return nil
	})
	return node, err
}

// Direct reads past every cache: what it returns was just read from the log and
// verified. It is for who looks for damage.
type Direct struct{ s *Store }

// Direct returns a reader past the caches.
func (s *Store) Direct() Direct { return Direct{s} }

// Page is Store.Page.
func (d Direct) Page(id ID, dst []byte) error {
	if err := checkPage(dst); err != nil {
		return err
	}
	if id.IsZero() {
		clear(dst)
		return nil
	}
	return d.s.readPage(id, dst, planOptions{whole: true})
}

// Pages is Store.Pages.
func (d Direct) Pages(ctx context.Context, refs []PageRef) error {
	return d.s.readPages(ctx, refs, planOptions{whole: true})
}

// Node is Store.Node.
func (d Direct) Node(ctx context.Context, id ID) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return d.s.readNode(id, false, nil)
}
