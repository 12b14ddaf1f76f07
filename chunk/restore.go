package chunk

import (
	"context"
	"errors"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/snapstore/snapstore/internal/failpoint"
	"github.com/snapstore/snapstore/internal/seglog"
)

// A PageRef asks for a page in Dst, of PageSize bytes.
type PageRef struct {
	ID  ID
	Dst []byte
	// Same, where it is given, is memory that may hold the page: if that has the ID, it
	// is copied from there. Nobody writes to it meanwhile.
	Same *[PageSize]byte
}

const (
	// restoreWindow bounds what is planned at a time: 128 MiB of pages, for some
	// 80 bytes each.
	restoreWindow = 32 << 10
	// restoreSpan is how many neighbours one worker takes at a time. Neighbours
	// lie in the same groups, mostly, and these one behind the other. With 512 a
	// window of 4 MiB, a third of it zeros, had two spans, one twice the other.
	restoreSpan = 8 * GroupPages
	// cachedRead is up to how many pages a read goes through the page cache.
	// Larger ones would only push out what others read.
	cachedRead = 16 * GroupPages
)

// Pages reads many pages, best in the order of an image. Each is verified before
// it is copied to its Dst, and nothing is written beyond that.
//
// It works in windows. Within one, each group is read and decoded once, whoever
// of the window needs it: the IDs in its header say which pages it serves, so
// that there is about one question to the index for each group, not for each
// page.
//
// It goes on past pages that can not be read, so that OnLost is told of all of them, and
// returns the error of the first of refs. Their Dst stay as they were. Other errors end
// it at once.
func (s *Store) Pages(ctx context.Context, refs []PageRef) error {
	return s.readPages(ctx, refs, planOptions{keep: s.keeps(refs)})
}

// PagesOnce is Pages for pages that nobody will read again soon: they do not go
// through the page cache, however few they are.
func (s *Store) PagesOnce(ctx context.Context, refs []PageRef) error {
	return s.readPages(ctx, refs, planOptions{})
}

// PagesOwn is Pages for memory that is the caller's alone until it returns: pages that
// are wanted side by side are decoded where they are wanted and verified there, which
// saves a copy. After an error any Dst may have anything.
func (s *Store) PagesOwn(ctx context.Context, refs []PageRef) error {
	return s.readPages(ctx, refs, planOptions{keep: s.keeps(refs), own: true})
}

// keeps says whether a read goes through the page cache.
func (s *Store) keeps(refs []PageRef) bool { return len(refs) <= cachedRead && s.pages.limit > 0 }

type planOptions struct {
	keep  bool // what is decoded in the page cache
	whole bool // read frames as a whole, and verify all of them
	own   bool // decode to Dst: see PagesOwn
}

func (s *Store) readPages(ctx context.Context, refs []PageRef, o planOptions) error {
	for i := range refs {
		if err := checkPage(refs[i].Dst); err != nil {
			return err
		}
	}
	var first error
	for len(refs) > 0 {
		n := min(len(refs), restoreWindow)
		p := s.newPlan(refs[:n], o)
		err := p.run(ctx)
		p.done()
		switch {
		case err == nil:
		case Unreadable(err):
			if first == nil {
				first = err
			}
		default:
			return err
		}
		refs = refs[n:]
	}
	return first
}

// A plan is one window of a restore. What is needed once stands for all that
// have its ID: the head is the first of them, next leads to the others. Plans are
// used again, since most of what they cost is memory.
type plan struct {
	s *Store
	planOptions
	refs   []PageRef
	heads  heads
	next   []int32
	wanted int // refs that are neither zeros nor cached
	// state of heads.
	state []atomic.Uint32

	mu    sync.Mutex
	taken map[seglog.Loc]struct{} // groups that a worker reads or has read
	ahead *ahead

	span   atomic.Int64 // the next to be worked on
	broken atomic.Bool  // an error that is not about one page: stop early
}

const (
	wanted uint32 = iota
	taken         // a worker has its group decoded
	filled
)

func (s *Store) newPlan(refs []PageRef, o planOptions) *plan {
	p, _ := s.plans.Get().(*plan)
	if p == nil {
		p = &plan{heads: heads{seed: s.seed}, taken: map[seglog.Loc]struct{}{}, ahead: aheadOf(s.workers)}
	}
	p.s, p.planOptions, p.refs = s, o, refs
	p.heads.reset(len(refs))
	p.next = slices.Grow(p.next[:0], len(refs))[:len(refs)]
	if len(p.state) < len(refs) {
		p.state = make([]atomic.Uint32, len(refs))
	}
	clear(p.taken)
	p.ahead.reset()
	p.span.Store(0)
	p.broken.Store(false)
	p.wanted = 0
	// From the last to the first, so that the head is the first.
	for i := len(refs) - 1; i >= 0; i-- {
		r := &refs[i]
		p.state[i].Store(wanted)
		p.next[i] = -1
		if r.ID.IsZero() {
			clear(r.Dst)
			continue
		}
		if o.keep && s.pages.get(s.domain.Key(r.ID), r.Dst) {
			s.stats.pageHits.Add(1)
			continue
		}
		p.next[i] = p.heads.lead(refs, i)
		p.wanted++
	}
	return p
}

// done gives the plan's memory back.
func (p *plan) done() {
	s := p.s
	p.s, p.refs = nil, nil
	s.plans.Put(p)
}

func (p *plan) run(ctx context.Context) error {
	if p.wanted == 0 {
		return ctx.Err()
	}
	workers := min(p.s.workers, (len(p.refs)+restoreSpan-1)/restoreSpan)
	var wg sync.WaitGroup
	for range workers - 1 {
		wg.Go(func() { p.work(ctx) })
	}
	p.work(ctx)
	wg.Wait()

	// What is left was damaged, moved meanwhile, or hidden behind such an error.
	var first error
	for i := range p.refs {
		if j, ok := p.heads.find(p.refs, &p.refs[i].ID); !ok || int(j) != i || p.state[i].Load() == filled {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		err := p.s.readPage(p.refs[i].ID, p.refs[i].Dst, p.planOptions)
		switch {
		case err == nil:
			p.spread(int32(i))
		case Unreadable(err):
			if first == nil {
				first = err
			}
		default:
			return err
		}
	}
	return first
}

// A worker reads the groups of a plan.
type worker struct {
	*plan
	payload, raw []byte
	full         int    // groups in a row of which most was wanted
	behind       behind // the one that was last read as a whole
}

// work takes spans until none is left.
func (p *plan) work(ctx context.Context) {
	w := worker{plan: p, payload: p.s.frames.Get(), raw: p.s.raws.Get()}
	defer p.s.frames.Put(w.payload)
	defer p.s.raws.Put(w.raw)
	for {
		start := int(p.span.Add(1)-1) * restoreSpan
		if start >= len(p.refs) {
			return
		}
		end := min(start+restoreSpan, len(p.refs))
		if !p.whole {
			p.again(start, end)
		}
		for i := start; i < end; i++ {
			id := p.refs[i].ID
			j, ok := p.heads.find(p.refs, &id)
			if !ok || int(j) != i || p.state[j].Load() != wanted {
				continue // or comes with its head, which is in this span or in an earlier one
			}
			if ctx.Err() != nil || p.broken.Load() {
				return
			}
			if err := w.page(&id); err != nil && !isDamage(err) && !errors.Is(err, ErrNotStored) && !errors.Is(err, seglog.ErrSegmentGone) {
				p.broken.Store(true)
			}
		}
	}
}

// page reads the group that a page is in, unless another worker does. Where it stands
// behind the one before, as what was taken together does, the index is not asked: no
// place but the page's own content says that it is the right one.
func (w *worker) page(id *ID) error {
	if w.behind.has(id) {
		if !w.claim(w.behind.loc) || w.fill(w.behind.loc) == nil {
			return nil
		}
		w.behind.n = 0 // moved or damaged: the index is right
	}
	failpoint.At(failpoint.Locate, "")
	at, err := w.s.locate(*id)
	failpoint.At(failpoint.Located, "")
	if err != nil {
		return err
	}
	if loc := frameLoc(at); w.claim(loc) {
		return w.fill(loc)
	}
	return nil
}

// again serves those of a span that the caller has already.
func (p *plan) again(start, end int) {
	var at [GroupPages]int32
	var pages [GroupPages]*[PageSize]byte
	n := 0
	flush := func() {
		var ids [GroupPages]ID
		_ = sumEach(ids[:n], pages[:n]) // lengths match
		for k, i := range at[:n] {
			r := &p.refs[i]
			if ids[k] == r.ID && p.state[i].CompareAndSwap(wanted, taken) {
				copy(r.Dst, pages[k][:])
				p.spread(i)
			}
		}
		n = 0
	}
	for i := start; i < end; i++ {
		r := &p.refs[i]
		if r.Same == nil || p.state[i].Load() != wanted {
			continue
		}
		if j, ok := p.heads.find(p.refs, &r.ID); !ok || int(j) != i {
			continue
		}
		at[n], pages[n] = int32(i), r.Same
		if n++; n == GroupPages {
			flush()
		}
	}
	if n > 0 {
		flush()
	}
}

// claim says whether the caller is the one to read the group.
func (p *plan) claim(loc seglog.Loc) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.taken[loc]; ok {
		return false
	}
	p.taken[loc] = struct{}{}
	return true
}

// fullRow is after how many groups in a row of which most was wanted a worker stops
// looking whether less is wanted of the next: it restores an image.
const fullRow = 4

// fill reads a group and serves whatever of the window is in it.
func (w *worker) fill(loc seglog.Loc) error {
	most, err := w.read(loc)
	if w.full++; !most {
		w.full = 0
	}
	return err
}

// read is fill, and says whether half of the group was wanted. At the start of a row it
// looks first whether it need read all of it.
func (w *worker) read(loc seglog.Loc) (most bool, err error) {
	var heads [GroupPages]int32
	serve := func(slot int, page []byte) {
		j := heads[slot]
		if dst := w.refs[j].Dst; &dst[0] != &page[0] { // it may have been decoded there
			copy(dst, page)
		}
		w.spread(j)
	}
	sparse := !w.whole && w.full < fullRow
	if sparse {
		if g, err := w.s.readGroupHead(loc, w.payload); err == nil {
			need := w.take(g, &heads)
			left := need
			if g.sparse(need) {
				left &^= w.s.readParts(loc, g, need, w.keep, w.payload[headSize:], w.raw, serve)
			}
			if need != 0 && left == 0 {
				return false, nil
			}
			for slot := range g.n {
				if left&(1<<slot) != 0 {
					w.state[heads[slot]].Store(wanted)
				}
			}
		}
	}
	if !sparse && len(w.refs) > cachedRead { // who wants few pages wants nothing behind them
		w.s.goOn(w.ahead, loc)
	}
	var g group
	if w.whole {
		g, err = w.s.readGroup(loc, w.payload)
	} else {
		g, err = w.s.readRow(loc, w.payload, &w.behind)
	}
	if err != nil {
		return false, err
	}
	need := w.take(g, &heads)
	most = 2*bits.OnesCount32(need) >= g.n
	if need == 0 {
		return most, nil
	}
	if w.keep {
		_, err = w.s.keepParts(g, need, serve)
		return most, err
	}
	return most, w.s.decodeParts(g, need,
		func(p part) []byte { return w.roomFor(p, need, &heads) },
		func(p part, pages []byte, verified uint32) { p.serve(pages, verified, serve) })
}

// roomFor is where to decode a part: where its pages are wanted, if all are, and side by
// side, and they may be decoded there.
func (w *worker) roomFor(p part, need uint32, heads *[GroupPages]int32) []byte {
	raw := w.raw[:p.raw():p.raw()]
	if !w.own || need&p.bits() != p.bits() {
		return raw
	}
	pages := w.refs[heads[p.first]].Dst
	if cap(pages) < p.raw() {
		return raw
	}
	pages = pages[:p.raw():p.raw()]
	for slot := p.first; slot < p.end; slot++ {
		if &w.refs[heads[slot]].Dst[0] != &p.of(pages, slot)[0] {
			return raw
		}
	}
	return pages
}

// take takes on what of the window is in a group: a bit for each slot, and which
// head it is.
func (p *plan) take(g group, heads *[GroupPages]int32) (need uint32) {
	for slot := range g.n {
		id := g.id(slot)
		if j, ok := p.heads.find(p.refs, &id); ok && p.state[j].CompareAndSwap(wanted, taken) {
			heads[slot] = j
			need |= 1 << slot
		}
	}
	return need
}

// spread copies the page at head j to the others that want it.
func (p *plan) spread(j int32) {
	for i := p.next[j]; i >= 0; i = p.next[i] {
		copy(p.refs[i].Dst, p.refs[j].Dst)
	}
	p.state[j].Store(filled)
}
