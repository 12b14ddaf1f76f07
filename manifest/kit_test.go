package manifest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/snapstore/snapstore/chunk"
)

// seeds runs f with n seeds, and names the one that fails.
func seeds(t *testing.T, n int, f func(t *testing.T, r *rand.Rand)) {
	t.Helper()
	if testing.Short() {
		n = (n + 9) / 10
	}
	for seed := range n {
		ok := t.Run("", func(t *testing.T) {
			defer func() {
				if t.Failed() {
					t.Logf("seed %d", seed)
				}
			}()
			f(t, rand.New(rand.NewPCG(uint64(seed), 1)))
		})
		if !ok {
			return
		}
	}
}

var errGone = errors.New("node is not there")

// nodes is a Getter in memory that counts what is read.
type nodes struct {
	at    map[chunk.ID][]byte
	lost  map[chunk.ID]bool
	reads map[chunk.ID]int
	total int
}

func newNodes() *nodes {
	return &nodes{at: map[chunk.ID][]byte{}, lost: map[chunk.ID]bool{}, reads: map[chunk.ID]int{}}
}

func (n *nodes) Node(_ context.Context, id chunk.ID) ([]byte, error) {
	n.reads[id]++
	n.total++
	b, ok := n.at[id]
	if !ok || n.lost[id] {
		return nil, errGone
	}
	return b, nil
}

func (n *nodes) forget() { clear(n.reads); n.total = 0 }

func (n *nodes) emit(id chunk.ID, node []byte) error {
	n.at[id] = bytes.Clone(node)
	return nil
}

// content is a section as the model knows it.
type content struct {
	size  uint64
	pages map[uint64]chunk.ID // not zero
}

// state is a version as the model knows it.
type state struct {
	sections map[Section]content
	meta     Metadata
}

func (s state) clone() state {
	c := state{sections: map[Section]content{}, meta: s.meta}
	for k, v := range s.sections {
		c.sections[k] = content{v.size, maps.Clone(v.pages)}
	}
	return c
}

// held is what a version has at a place.
type held struct {
	place Place
	id    chunk.ID
}

func pageID(n uint64) chunk.ID {
	return chunk.Sum(binary.LittleEndian.AppendUint64([]byte("page"), n))
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// scratchTree is the definition of a page tree, level by level: the root, and
// what stands at each place. Nodes go to put.
func scratchTree(s Section, c content, put func(chunk.ID, []byte)) (chunk.ID, []held) {
	var out []held
	level := map[uint64]chunk.ID{}
	for page, id := range c.pages {
		if page < pageCount(c.size) && !id.IsZero() {
			level[page] = id
			out = append(out, held{PagePlace(s, page), id})
		}
	}
	depth := 1
	for covered := uint64(16); covered < pageCount(c.size); covered *= 16 {
		depth++
	}
	for l := range depth {
		groups := map[uint64]*[Fanout]chunk.ID{}
		for i, id := range level {
			if groups[i/16] == nil {
				groups[i/16] = new([Fanout]chunk.ID)
			}
			groups[i/16][i%16] = id
		}
		level = map[uint64]chunk.ID{}
		for i, g := range groups {
			node := must(AppendNode(nil, l, g))
			id := must(NodeID(node))
			put(id, node)
			level[i] = id
			out = append(out, held{treePlace(s, uint8(l+1), i), id})
		}
	}
	return level[0], out
}

// scratch is the definition of a version: its manifest's ID and all its places
// in order.
func scratch(s state, put func(chunk.ID, []byte)) (chunk.ID, []held) {
	m := Manifest{Meta: s.meta}
	var out []held
	for sec, c := range s.sections {
		root, places := scratchTree(sec, c, put)
		m.Sections = append(m.Sections, SectionRoot{Section: sec, Root: root, Size: c.size})
		out = append(out, places...)
	}
	slices.SortFunc(m.Sections, func(a, b SectionRoot) int { return a.Section.Compare(b.Section) })
	b := must(m.Encode())
	id := must(NodeID(b))
	put(id, b)
	out = append(out, held{manifestPlace(), id})
	slices.SortFunc(out, func(a, b held) int { return a.place.Compare(b.place) })
	return id, out
}

var (
	testModule = Section{Kind: WasmModule}
	testHeap   = Section{Kind: WasmMemory}
	testStable = Section{Kind: StableMemory}
	testChunk  = Section{Kind: WasmChunk, Hash: [32]byte{7}}
)

// testPageCounts cross powers of the fan-out.
var testPageCounts = []uint64{0, 1, 3, 15, 16, 17, 40, 255, 256, 257, 1000, 4096, 4097, 70000}

func randomSize(r *rand.Rand) uint64 {
	n := testPageCounts[r.IntN(len(testPageCounts))] * chunk.PageSize
	if n > 0 && r.IntN(3) == 0 {
		n -= uint64(r.IntN(chunk.PageSize))
	}
	return n
}

// randomPage prefers the places where trees meet: starts, ends, a few hot ones.
func randomPage(r *rand.Rand, pages uint64) uint64 {
	switch r.IntN(4) {
	case 0:
		return pages - 1 - r.Uint64N(min(pages, 3))
	case 1:
		return r.Uint64N(pages)
	}
	return r.Uint64N(min(pages, 40))
}

// randomID repeats itself, is fresh, or is zero.
func randomID(r *rand.Rand, fresh *uint64) chunk.ID {
	switch r.IntN(5) {
	case 0:
		return chunk.ID{}
	case 1:
		*fresh++
		return pageID(1000 + *fresh)
	}
	return pageID(r.Uint64N(8))
}

// mutate changes a content the way a canister does, and says which pages were
// written and what they became.
func mutate(r *rand.Rand, c content, fresh *uint64) (content, map[uint64]chunk.ID) {
	c = content{c.size, maps.Clone(c.pages)}
	if c.pages == nil {
		c.pages = map[uint64]chunk.ID{}
	}
	if r.IntN(3) == 0 {
		c.size = randomSize(r)
	}
	n := pageCount(c.size)
	for p := range c.pages {
		if p >= n {
			delete(c.pages, p)
		}
	}
	set := map[uint64]chunk.ID{}
	for range r.IntN(6) {
		if n == 0 {
			break
		}
		p := randomPage(r, n)
		id := randomID(r, fresh)
		if run := r.IntN(10); run == 0 { // a run of equal pages, or a region zeroed
			for q := p; q < min(n, p+uint64(r.IntN(20))); q++ {
				set[q] = id
			}
		}
		set[p] = id
	}
	for p, id := range set {
		if id.IsZero() {
			delete(c.pages, p)
		} else {
			c.pages[p] = id
		}
	}
	return c, set
}

// build runs the Builder over a set of pages.
func build(ctx context.Context, g *nodes, base SectionRoot, size uint64, set map[uint64]chunk.ID, emit func(chunk.ID, []byte) error) (SectionRoot, error) {
	b := NewBuilder(ctx, g, base, size, emit)
	for _, p := range slices.Sorted(maps.Keys(set)) {
		if err := b.Set(p, set[p]); err != nil {
			return SectionRoot{}, err
		}
	}
	return b.Finish()
}
