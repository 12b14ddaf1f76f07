package chunk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/bits"

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
	if kind != want {
		return nil, damaged("%w: %v where %v is expected", errKind, kind, want)
	}
	return payload, nil
}

// readGroup reads and parses a group; buf as in readFrame.
func (s *Store) readGroup(loc seglog.Loc, buf []byte) (group, error) {
	payload, err := s.readFrame(loc, seglog.KindGroup, buf)
	if err != nil {
		return group{}, err
	}
	g, err := parseGroup(payload)
	if err != nil {
		return group{}, damage{err}
	}
	if g.domain != s.domain {
		return group{}, damaged("group of another dedup domain")
	}
	return g, nil
}

func (s *Store) decode(g group, dst []byte) error {
	s.stats.groups.Add(1)
	if err := g.decode(&s.coder, dst); err != nil {
		return damage{err}
	}
	return nil
}

// decodeFor decodes what is needed of a group for the pages in need, a bit for
// each slot, and says which of them are what their IDs name.
func (s *Store) decodeFor(g group, dst []byte, need uint32) (verified uint32, err error) {
	last := bits.Len32(need)
	s.stats.groups.Add(1)
	if err := g.decodePrefix(&s.coder, dst, last); err != nil {
		return 0, damage{err}
	}
	if verified = g.match(dst, need); verified == need {
		return verified, nil
	}
	// Stopped too early, or damaged.
	if err := s.decode(g, dst); err != nil {
		return 0, err
	}
	return g.match(dst, need), nil
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
	return s.readPage(id, dst, true)
}

// readPage reads past the cache, and leaves the group there if keep is set.
func (s *Store) readPage(id ID, dst []byte, keep bool) error {
	keep = keep && s.pages.limit > 0
	buf := s.frames.get()
	defer s.frames.put(buf)
	return s.find(id, false, func(at index.Location) error {
		g, err := s.readGroup(frameLoc(at), buf)
		if err != nil {
			return err
		}
		slot := int(at.Slot)
		if slot >= g.n || g.id(slot) != id {
			return damaged("group does not hold the page at slot %d", slot)
		}
		need, verified := uint32(1)<<slot, uint32(0)
		var pages []byte
		if keep {
			pages = s.pages.room(g.raw())
			if err = s.decode(g, pages); err == nil {
				verified = g.match(pages, need)
			}
			if verified != need {
				defer s.pages.giveBack(pages)
			}
		} else {
			raw := s.raws.get()
			defer s.raws.put(raw)
			pages = raw[:g.raw():g.raw()]
			verified, err = s.decodeFor(g, pages, need)
		}
		if err != nil {
			return err
		}
		if verified != need {
			return damaged("page does not match its id")
		}
		copy(dst, pages[slot*PageSize:])
		if keep {
			s.pages.add(g.domain, g.ids(), pages, verified)
		}
		return nil
	})
}

// Node returns an encoded node. It is verified, and not to be modified.
func (s *Store) Node(ctx context.Context, id ID) ([]byte, error) {
	if node := s.nodes.get(s.domain.Key(id)); node != nil {
		s.stats.nodeHits.Add(1)
		return node, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.stats.nodeMisses.Add(1)
	return s.readNode(id, true)
}

// readNode reads past the cache. With keep the whole frame goes there, since
// the nodes of one take lie side by side and a walk wants them next; each under
// the ID that its own bytes have.
func (s *Store) readNode(id ID, keep bool) (node []byte, err error) {
	if id.IsZero() {
		return nil, &NotStoredError{id}
	}
	buf := s.frames.get()
	defer s.frames.put(buf)
	err = s.find(id, true, func(at index.Location) error {
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
			if got, err := s.nodeID(n); err == nil && !s.nodes.has(d.Key(got)) {
				s.nodes.add(d.Key(got), bytes.Clone(n))
			}
		}
		return nil
	})
	return node, err
}

// CacheNode keeps a node that the caller has just built, for those who read it
// soon. The ID is trusted; node is copied.
func (s *Store) CacheNode(id ID, node []byte) {
	if key := s.domain.Key(id); !s.nodes.has(key) {
		s.nodes.add(key, bytes.Clone(node))
	}
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
	return d.s.readPage(id, dst, false)
}

// Pages is Store.Pages.
func (d Direct) Pages(ctx context.Context, refs []PageRef) error {
	return d.s.readPages(ctx, refs, false)
}

// Node is Store.Node.
func (d Direct) Node(ctx context.Context, id ID) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return d.s.readNode(id, false)
}
