package manifest

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/snapstore/snapstore/chunk"
)

func TestDepth(t *testing.T) {
	for _, c := range []struct {
		pages uint64
		depth int
	}{{0, 1}, {1, 1}, {16, 1}, {17, 2}, {256, 2}, {257, 3}, {1 << 18, 5}, {500 << 18, 7}, {MaxSectionSize / chunk.PageSize, MaxDepth}} {
		if got := Depth(c.pages * chunk.PageSize); got != c.depth {
			t.Errorf("%d pages: depth %d, want %d", c.pages, got, c.depth)
		}
	}
	if Depth(16*chunk.PageSize+1) != 2 {
		t.Error("a byte on page 16 needs a second level")
	}
	if d := Depth(1<<64 - 1); d != 13 {
		t.Errorf("the largest length: depth %d", d)
	}
}

// randomTree stores a section and returns it with its model.
func randomTree(r *rand.Rand, g *nodes, s Section, fresh *uint64) (SectionRoot, content) {
	c := content{size: randomSize(r)}
	for range 1 + r.IntN(5) {
		size := c.size
		c, _ = mutate(r, c, fresh)
		if r.IntN(3) > 0 {
			c.size = max(size, c.size)
		}
	}
	root, _ := scratchTree(s, c, func(id chunk.ID, b []byte) { g.at[id] = b })
	return SectionRoot{s, root, c.size}, c
}

func TestReadingAgreesWithModel(t *testing.T) {
	seeds(t, 300, func(t *testing.T, r *rand.Rand) {
		g, fresh := newNodes(), uint64(0)
		root, c := randomTree(r, g, testHeap, &fresh)
		n := pageCount(c.size)

		var ask []uint64
		for range r.IntN(60) {
			ask = append(ask, randomPage(r, n+2))
		}
		ask = append(ask, slices.Sorted(maps.Keys(c.pages))...)
		slices.Sort(ask)
		got := make([]chunk.ID, len(ask))
		if err := Leaves(t.Context(), g, root, ask, got); err != nil {
			t.Fatal(err)
		}
		for i, p := range ask {
			if got[i] != c.pages[p] {
				t.Fatalf("page %d of %d: got %v, want %v", p, n, got[i], c.pages[p])
			}
			if one := must(Leaf(t.Context(), g, root, p)); one != got[i] {
				t.Fatalf("page %d: Leaf says %v, Leaves %v", p, one, got[i])
			}
		}

		from := r.Uint64N(n + 2)
		to := from + r.Uint64N(n+2)
		if r.IntN(3) == 0 {
			from, to = 0, 1<<63
		}
		var want, pages []PageEntry
		for _, p := range slices.Sorted(maps.Keys(c.pages)) {
			if p >= from && p < to {
				want = append(want, PageEntry{p, c.pages[p]})
			}
		}
		for e, err := range Pages(t.Context(), g, root, from, to) {
			if err != nil {
				t.Fatal(err)
			}
			pages = append(pages, e)
		}
		if !slices.Equal(pages, want) {
			t.Fatalf("pages %d to %d of %d: got %d, want %d", from, to, n, len(pages), len(want))
		}

		st, err := StatSection(t.Context(), g, root)
		_, places := scratchTree(testHeap, c, func(chunk.ID, []byte) {})
		if err != nil || st.Pages != uint64(len(c.pages)) || st.Nodes != uint64(len(places)-len(c.pages)) {
			t.Fatalf("stat %+v, %v; want %d pages, %d nodes", st, err, len(c.pages), len(places)-len(c.pages))
		}
	})
}

func TestLeavesReadsEachNodeOnce(t *testing.T) {
	g := newNodes()
	set := map[uint64]chunk.ID{}
	var ask []uint64
	for p := range uint64(5000) {
		set[p] = pageID(p)
		ask = append(ask, p, p)
	}
	root := must(build(t.Context(), g, SectionRoot{Section: testHeap}, 5000*chunk.PageSize, set, g.emit))
	g.forget()
	out := make([]chunk.ID, len(ask))
	if err := Leaves(t.Context(), g, root, ask, out); err != nil {
		t.Fatal(err)
	}
	if g.total != len(g.at) {
		t.Fatalf("%d reads of %d nodes", g.total, len(g.at))
	}
	if err := Leaves(t.Context(), g, root, []uint64{2, 1}, out[:2]); err == nil {
		t.Error("pages out of order accepted")
	}
	if err := Leaves(t.Context(), g, root, []uint64{2}, nil); err == nil {
		t.Error("no room accepted")
	}
}

func TestReadingNamesTheBadNode(t *testing.T) {
	g := newNodes()
	root := must(build(t.Context(), g, SectionRoot{Section: testHeap}, 300*chunk.PageSize, map[uint64]chunk.ID{20: pageID(1), 280: pageID(2)}, g.emit))
	_, places := scratchTree(testHeap, content{root.Size, map[uint64]chunk.ID{20: pageID(1), 280: pageID(2)}}, func(chunk.ID, []byte) {})
	for _, h := range places {
		if h.place.IsPage() {
			continue
		}
		g.lost = map[chunk.ID]bool{h.id: true}
		from, to := h.place.Pages()
		for _, p := range []uint64{20, 280} {
			_, err := Leaf(t.Context(), g, root, p)
			var unread *NodeError
			if p < from || p >= to {
				if err != nil {
					t.Errorf("%v lost: page %d: %v", h.place, p, err)
				}
			} else if !errors.As(err, &unread) || unread.Place != h.place || unread.ID != h.id || !errors.Is(err, errGone) {
				t.Errorf("%v lost: page %d: %v", h.place, p, err)
			}
		}
		var last error
		for _, last = range Pages(t.Context(), g, root, 0, 300) {
		}
		if !errors.Is(last, errGone) {
			t.Errorf("%v lost: Pages ended with %v", h.place, last)
		}
		for _, r := range [][2]uint64{{20, 21}, {280, 281}, {20, 36}, {250, 262}, {299, 310}} {
			last = nil
			for _, last = range Pages(t.Context(), g, root, r[0], r[1]) {
			}
			if touched := from < min(r[1], root.PageCount()) && r[0] < to; touched != errors.Is(last, errGone) || !touched && last != nil {
				t.Errorf("%v lost: Pages from %d to %d ended with %v", h.place, r[0], r[1], last)
			}
		}
		last = nil
		for _, last = range DiffSection(t.Context(), g, root, SectionRoot{Section: testHeap}) {
		}
		if !errors.Is(last, errGone) {
			t.Errorf("%v lost: DiffSection ended with %v", h.place, last)
		}
		if _, err := StatSection(t.Context(), g, root); !errors.Is(err, errGone) {
			t.Errorf("%v lost: StatSection: %v", h.place, err)
		}
	}
	// A node of the wrong level, or a manifest, where a tree node is due.
	g.lost = nil
	leaf := must(build(t.Context(), g, SectionRoot{Section: testHeap}, chunk.PageSize, map[uint64]chunk.ID{0: pageID(1)}, g.emit))
	if _, err := Leaf(t.Context(), g, SectionRoot{testHeap, leaf.Root, root.Size}, 0); !errors.Is(err, ErrMalformed) {
		t.Errorf("wrong level: %v", err)
	}
	b := must((&Manifest{}).Encode())
	id := must(NodeID(b))
	g.at[id] = b
	if _, err := Leaf(t.Context(), g, SectionRoot{testHeap, id, root.Size}, 0); !errors.Is(err, ErrMalformed) {
		t.Errorf("manifest as node: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var last error
	for _, last = range Pages(ctx, g, root, 0, 300) {
	}
	if !errors.Is(last, context.Canceled) {
		t.Errorf("cancelled: %v", last)
	}
	last = nil
	for _, last = range Pages(ctx, g, root, 20, 21) {
	}
	if !errors.Is(last, context.Canceled) {
		t.Errorf("cancelled, one page: %v", last)
	}
	for n, to := range []uint64{30, 300} {
		for p, err := range Pages(t.Context(), g, root, 20, to) {
			if p.Index < 20 || err != nil {
				t.Errorf("%d: page %d: %v", n, p.Index, err)
			}
			break
		}
	}
}

func randomState(r *rand.Rand, fresh *uint64) state {
	s := state{sections: map[Section]content{}}
	for _, sec := range []Section{testModule, testHeap, testStable, testChunk} {
		if r.IntN(3) > 0 {
			c := content{size: randomSize(r)}
			s.sections[sec], _ = mutate(r, c, fresh)
		}
	}
	s.meta.TakenAt = r.Uint64N(3)
	return s
}

func mutateState(r *rand.Rand, s state, fresh *uint64) state {
	s = s.clone()
	for _, sec := range []Section{testModule, testHeap, testStable, testChunk} {
		switch r.IntN(8) {
		case 0:
			delete(s.sections, sec)
		case 1, 2, 3:
			s.sections[sec], _ = mutate(r, s.sections[sec], fresh)
		}
	}
	if r.IntN(2) == 0 {
		s.meta.TakenAt = r.Uint64N(3)
	}
	return s
}

func TestDiffAgreesWithModel(t *testing.T) {
	seeds(t, 500, func(t *testing.T, r *rand.Rand) {
		g, fresh := newNodes(), uint64(0)
		put := func(id chunk.ID, b []byte) { g.at[id] = b }
		sa := randomState(r, &fresh)
		sb := mutateState(r, sa, &fresh)
		a, pa := scratch(sa, put)
		b, pb := scratch(sb, put)
		if r.IntN(10) == 0 {
			a, pa = chunk.ID{}, nil
		}
		if r.IntN(10) == 0 {
			a, pa, b, pb = b, pb, a, pa
		}
		at := map[Place][2]chunk.ID{}
		for i, places := range [][]held{pa, pb} {
			for _, h := range places {
				if h.place.IsPage() {
					v := at[h.place]
					v[i] = h.id
					at[h.place] = v
				}
			}
		}
		var want, got []PageDiff
		for _, p := range slices.SortedFunc(maps.Keys(at), Place.Compare) {
			if v := at[p]; v[0] != v[1] {
				want = append(want, PageDiff{p.Section(), p.Index(), v[0], v[1]})
			}
		}
		for d, err := range Diff(t.Context(), g, a, b) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, d)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("got %d pages, want %d", len(got), len(want))
		}
		// One section, and a consumer that stops early.
		ma, mb := must(Load(t.Context(), g, a)), must(Load(t.Context(), g, b))
		ra, _ := ma.Section(testHeap)
		rb, _ := mb.Section(testHeap)
		want = slices.DeleteFunc(want, func(d PageDiff) bool { return d.Section != testHeap })
		got = nil
		for d, err := range DiffSection(t.Context(), g, ra, rb) {
			if err != nil {
				t.Fatal(err)
			}
			if got = append(got, d); len(got) == 3 {
				break
			}
		}
		if !slices.Equal(got, want[:min(3, len(want))]) {
			t.Fatalf("section: got %v, want the start of %v", got, want)
		}
	})
}
