package testkit

import (
	"math/rand/v2"
	"slices"
	"syscall"
)

// Generator draws operations that make sense for a model. One seed gives one
// history, as long as the same models are shown to it. Not safe for concurrent
// use.
type Generator struct {
	rng     *rand.Rand
	weights []weight
	sum     int
	fresh   Content // contents never used before
	pool    int     // contents that come again and again
	pages   uint64  // of a section, at the most
	clock   int64
	version uint64
}

type weight struct {
	name OpName
	n    int
}

// everything lists what can happen and how often by default.
var everything = []weight{
	{Create, 4},
	{Destroy, 1},
	{Write, 34},
	{Resize, 7},
	{SetVersion, 2},
	{Checkpoint, 7},
	{Take, 22},
	{Load, 7},
	{Delete, 8},
	{BeginUpload, 3},
	{WriteUpload, 6},
	{FlushUpload, 3},
	{Copy, 2},
	{OpenReader, 3},
	{CloseReaders, 2},
	{ReadLive, 2},
	{GC, 2},
	{Verify, 1},
	{Compare, 1},
	{Reopen, 1},
	{Kill, 1},
	{KillSoon, 3},
	{PowerLoss, 1},
	{DropIndex, 1},
	{FlushIndex, 3},
	{Break, 5},
	{Mend, 5},
}

// NewGenerator makes a generator. Each seed has a character of its own: which
// operations are frequent and which never come, how large sections are and how
// often contents come again. Operations left out never come.
func NewGenerator(seed uint64, without ...OpName) *Generator {
	rng := rand.New(rand.NewPCG(seed, 0xfeed))
	g := &Generator{rng: rng, fresh: 1 << 32, clock: 1_700_000_000_000_000_000}
	for _, w := range everything {
		if slices.Contains(without, w.name) {
			continue
		}
		switch w.name {
		case Create, Write, Take, Delete:
		default:
			switch rng.IntN(5) {
			case 0:
				w.n = 0
			case 1:
				w.n *= 4
			}
		}
		g.weights = append(g.weights, w)
		g.sum += w.n
	}
	g.pool = []int{3, 20, 60, 300}[rng.IntN(4)]
	g.pages = []uint64{6, 20, 40, 70}[rng.IntN(4)]
	return g
}

func (g *Generator) pick() OpName {
	n := g.rng.IntN(g.sum)
	for _, w := range g.weights {
		if n -= w.n; n < 0 {
			return w.name
		}
	}
	return Write
}

// chance is true once in n times.
func (g *Generator) chance(n int) bool { return g.rng.IntN(n) == 0 }

// Next draws an operation for the model.
func (g *Generator) Next(m *Model) Op {
	if !slices.ContainsFunc(m.Canisters, func(c *Canister) bool { return c.Exists }) {
		return g.finish(m, Op{Name: Create, C: g.rng.IntN(len(m.Canisters))})
	}
	for {
		if o, ok := g.draw(m, g.pick()); ok {
			return g.finish(m, o)
		}
	}
}

func (g *Generator) finish(_ *Model, o Op) Op {
	g.clock += int64(1 + g.rng.IntN(1000))
	o.At, o.Seed = g.clock, g.rng.Uint64()
	if o.Name != Take && o.Name != BeginUpload && o.Name != Copy {
		o.Replace = NoSnapshot
	}
	return o
}

func (g *Generator) draw(m *Model, name OpName) (Op, bool) {
	o := Op{Name: name, C: g.rng.IntN(len(m.Canisters)), Replace: NoSnapshot}
	c := m.Canisters[o.C]
	switch name {
	case KillSoon:
		o.Size = 1 + g.rng.Uint64N(60)
		return o, true
	case GC, Verify, Compare, Reopen, Kill, PowerLoss, DropIndex, CloseReaders, FlushIndex, Mend:
		return o, true
	case Break:
		o.Fault = g.fault()
		return o, true
	case Create:
		return o, !c.Exists || g.chance(20)
	}
	if !c.Exists {
		return o, g.chance(200)
	}
	switch name {
	case Write:
		return g.write(o, c)
	case Resize:
		o.Section = g.section(c)
		o.Size = g.size(c.Live.Sections[o.Section])
	case SetVersion:
		g.version++
		o.Version = g.version
	case Checkpoint:
		o.Host = g.host()
	case Take:
		o.Host = g.host()
		o.Replace = g.replaced(m, c)
	case Delete, OpenReader:
		var ok bool
		if o.Local, ok = g.snapshot(c); !ok {
			return o, false
		}
	case Load:
		o.From = o.C
		if g.chance(3) {
			o.From = g.rng.IntN(len(m.Canisters))
		}
		var ok bool
		if o.Local, ok = g.snapshot(m.Canisters[o.From]); !ok {
			return o, false
		}
		o.Host = g.host()
	case Copy:
		o.From = g.rng.IntN(len(m.Canisters))
		o.Replace = g.replaced(m, c)
		var ok bool
		if o.Local, ok = g.snapshot(m.Canisters[o.From]); !ok {
			return o, false
		}
		if at := m.Canisters[o.From].Find(o.Local); at >= 0 && m.Canisters[o.From].Snapshots[at].State.Logical() > 16<<20 {
			return o, false // zeros, most of it
		}
	case BeginUpload:
		o.Replace = g.replaced(m, c)
		o.Host = g.host()
		g.version++
		o.Version, o.Sizes = g.version, map[Section]uint64{}
		for range 1 + g.rng.IntN(3) {
			o.Sizes[g.anySection()] = 1 + g.rng.Uint64N(g.pages*PageSize)
		}
	case WriteUpload, FlushUpload:
		return g.upload(o, c)
	}
	return o, true
}

// fault draws something that goes wrong with writing.
func (g *Generator) fault() Fault {
	kinds := []OpKind{Mutating, OpWrite, OpWrite, OpSync, OpSync, OpCreate, OpRename, OpRemove, OpTruncate, OpReserve}
	f := Fault{
		Kind: kinds[g.rng.IntN(len(kinds))], Under: []string{"", "store/log", "store/index", "store/quarantine"}[g.rng.IntN(4)],
		After: g.rng.IntN(12), Times: []int{0, 1, 1, 3}[g.rng.IntN(4)], Torn: g.chance(3),
		Err: []error{syscall.EIO, syscall.ENOSPC}[g.rng.IntN(2)],
	}
	if f.Kind == OpSync {
		f.Torn = false
	}
	return f
}

func (g *Generator) host() []byte {
	if !g.chance(6) {
		return nil
	}
	return g.content().Bytes(1 + g.rng.IntN(200))
}

// replaced draws what a take or upload replaces: more often when the limit is
// reached, and now and then an id that is not there.
func (g *Generator) replaced(m *Model, c *Canister) uint64 {
	full := len(c.Snapshots) >= m.Limit
	if full && g.chance(8) || !full && !g.chance(5) {
		return NoSnapshot
	}
	local, ok := g.snapshot(c)
	if !ok {
		return NoSnapshot
	}
	return local
}

// snapshot draws one that is there, or rarely one that is not.
func (g *Generator) snapshot(c *Canister) (uint64, bool) {
	if g.chance(40) {
		return g.rng.Uint64N(c.Next + 2), true
	}
	if len(c.Snapshots) == 0 {
		return 0, false
	}
	return c.Snapshots[g.rng.IntN(len(c.Snapshots))].Local, true
}

func (g *Generator) anySection() Section {
	switch n := g.rng.IntN(10); {
	case n < 1:
		return Section{Kind: 1}
	case n < 5:
		return Section{Kind: 2}
	case n < 9:
		return Section{Kind: 3}
	}
	return Section{Kind: 4, Chunk: uint8(g.rng.IntN(3))}
}

// section draws one of the live state, or one that is not there yet.
func (g *Generator) section(c *Canister) Section {
	names := c.Live.Names()
	if len(names) == 0 || g.chance(12) {
		return g.anySection()
	}
	return names[g.rng.IntN(len(names))]
}

// size draws a new size for a section: a little more or less, nothing, the same
// pages with another end, or, rarely, far beyond.
func (g *Generator) size(im *Image) uint64 {
	var have uint64
	if im != nil {
		have = im.Size
	}
	switch n := g.rng.IntN(12); {
	case n == 0:
		return 0
	case n == 1 && g.chance(3):
		return 1<<20 + g.rng.Uint64N(1<<32)
	case n < 5:
		return g.rng.Uint64N(g.pages*PageSize + 1)
	case n < 8:
		return g.rng.Uint64N(g.pages+1) * PageSize
	case n < 10:
		return min(have, g.pages*PageSize) + g.rng.Uint64N(3*PageSize)
	}
	return g.rng.Uint64N(min(have, g.pages*PageSize) + 1)
}

func (g *Generator) content() Content {
	switch n := g.rng.IntN(10); {
	case n == 0:
		return 0
	case n < 3:
		g.fresh++
		return g.fresh
	}
	return Content(1 + g.rng.IntN(g.pool))
}

// write draws a run, scattered pages, or bytes at odd places. A canister with
// nothing to write to gets room first.
func (g *Generator) write(o Op, c *Canister) (Op, bool) {
	names := c.Live.Names()
	if len(names) == 0 || g.chance(30) {
		o.Name, o.Section = Resize, g.anySection()
		o.Size = (1 + g.rng.Uint64N(g.pages)) * PageSize
		return o, true
	}
	o.Section = names[g.rng.IntN(len(names))]
	o.Spans = g.spans(c.Live.Sections[o.Section].Size)
	return o, true
}

func (g *Generator) spans(size uint64) []Span {
	pages := size / PageSize
	if pages == 0 || g.chance(5) {
		off := g.rng.Uint64N(size)
		return []Span{{Off: off, Len: int(min(size-off, 1+g.rng.Uint64N(3*PageSize))), Content: g.content()}}
	}
	near := func() uint64 {
		if pages > g.pages && !g.chance(10) {
			return g.rng.Uint64N(g.pages)
		}
		return g.rng.Uint64N(pages)
	}
	var out []Span
	page := func(i uint64) {
		if i < pages {
			out = append(out, Span{Off: i * PageSize, Len: PageSize, Content: g.content()})
		}
	}
	if g.chance(2) {
		from := near()
		for i := range 1 + g.rng.Uint64N(min(pages, 24)) {
			page(from + i)
		}
	} else {
		for range 1 + g.rng.IntN(8) {
			page(near())
		}
	}
	return out
}

func (g *Generator) upload(o Op, c *Canister) (Op, bool) {
	var open []Snapshot
	for _, s := range c.Snapshots {
		if s.Upload && (s.Mutable || g.chance(10)) {
			open = append(open, s)
		}
	}
	if len(open) == 0 {
		return o, false
	}
	s := open[g.rng.IntN(len(open))]
	o.Local = s.Local
	if o.Name == FlushUpload {
		return o, true
	}
	names := s.Pending.Names()
	if len(names) == 0 {
		return o, false
	}
	o.Section = names[g.rng.IntN(len(names))]
	o.Spans = g.spans(s.Pending.Sections[o.Section].Size)
	g.rng.Shuffle(len(o.Spans), func(i, j int) { o.Spans[i], o.Spans[j] = o.Spans[j], o.Spans[i] })
	return o, true
}
