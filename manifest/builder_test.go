package manifest

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"testing"

	"github.com/snapstore/snapstore/chunk"
)

// A tree depends on its pages and its length only: whatever the history of
// growth, shrinking, zeroing and rewriting, the builder's root is the one that
// the definition gives, it emits exactly the nodes that the base does not have
// at their places, and all others are there already.
func TestBuilderIsCanonical(t *testing.T) {
	seeds(t, 400, func(t *testing.T, r *rand.Rand) {
		g, fresh := newNodes(), uint64(0)
		var c content
		base := SectionRoot{Section: testHeap}
		had := map[Place]chunk.ID{}
		for step := range 30 {
			next, set := mutate(r, c, &fresh)
			emitted := map[chunk.ID]bool{}
			got, err := build(t.Context(), g, base, next.size, set, func(id chunk.ID, node []byte) error {
				if want, err := NodeID(node); err != nil || want != id {
					t.Fatalf("step %d: emitted %v as %v, %v", step, want, id, err)
				}
				emitted[id] = true
				return g.emit(id, node)
			})
			if err != nil {
				t.Fatal(err)
			}
			root, places := scratchTree(testHeap, next, func(chunk.ID, []byte) {})
			if got != (SectionRoot{testHeap, root, next.size}) {
				t.Fatalf("step %d: %d pages from %d: got %v, want %v", step, pageCount(next.size), pageCount(c.size), got, root)
			}
			has, due := map[Place]chunk.ID{}, map[chunk.ID]bool{}
			for _, h := range places {
				has[h.place] = h.id
				if !h.place.IsPage() && had[h.place] != h.id {
					due[h.id] = true
				}
			}
			if !maps.Equal(emitted, due) {
				t.Fatalf("step %d: emitted %d nodes, %d are new at their places", step, len(emitted), len(due))
			}
			c, base, had = next, got, has
		}
	})
}

func TestBuilderShrinkAndRegrowShowsZeros(t *testing.T) {
	g := newNodes()
	set := map[uint64]chunk.ID{}
	for p := range uint64(300) {
		set[p] = pageID(p)
	}
	root := must(build(t.Context(), g, SectionRoot{Section: testHeap}, 300*chunk.PageSize, set, g.emit))
	for _, n := range []uint64{0, 1, 15, 16, 17, 255, 256, 257, 299} {
		small := must(build(t.Context(), g, root, n*chunk.PageSize, nil, g.emit))
		again := must(build(t.Context(), g, small, 300*chunk.PageSize, nil, g.emit))
		for p := range uint64(300) {
			want := set[p]
			if p >= n {
				want = chunk.ID{}
			}
			if got := must(Leaf(t.Context(), g, again, p)); got != want {
				t.Fatalf("shrunk to %d pages and grown: page %d is %v, want %v", n, p, got, want)
			}
		}
	}
}

// One dirty page costs a path, however large the section.
func TestBuilderReadsOnlyThePath(t *testing.T) {
	const size = 500 << 30
	g := newNodes()
	set := map[uint64]chunk.ID{}
	r := rand.New(rand.NewPCG(5, 5))
	for range 1000 {
		set[r.Uint64N(size/chunk.PageSize)] = pageID(r.Uint64())
	}
	base := must(build(t.Context(), g, SectionRoot{Section: testStable}, size, set, g.emit))
	if Depth(size) != 7 {
		t.Fatalf("depth %d", Depth(size))
	}
	g.forget()
	emitted := 0
	page := map[uint64]chunk.ID{size/chunk.PageSize - 12345: pageID(1)}
	if _, err := build(t.Context(), g, base, size, page, func(chunk.ID, []byte) error { emitted++; return nil }); err != nil {
		t.Fatal(err)
	}
	if g.total > 7 || emitted != 7 {
		t.Fatalf("one page: %d nodes read, %d emitted, want at most 7 and 7", g.total, emitted)
	}
	g.forget()
	if got := must(build(t.Context(), g, base, size, nil, g.emit)); got != base || g.total > 1 {
		t.Fatalf("no page: %d nodes read, root equal: %v", g.total, got == base)
	}
}

func TestBuilderRefuses(t *testing.T) {
	g := newNodes()
	none := SectionRoot{Section: testHeap}
	finish := func(b *Builder) error { _, err := b.Finish(); return err }
	fresh := func() *Builder { return NewBuilder(t.Context(), g, none, 2*chunk.PageSize, g.emit) }

	b := fresh()
	if b.Set(2, pageID(1)) == nil || finish(b) == nil {
		t.Error("a page beyond the end was set")
	}
	b = fresh()
	if err := errors.Join(b.Set(0, pageID(1)), b.Set(1, pageID(1))); err != nil {
		t.Fatal(err)
	}
	if b.Set(1, pageID(2)) == nil || finish(b) == nil {
		t.Error("a page was set twice")
	}
	b = fresh()
	if err := finish(b); err != nil {
		t.Fatal(err)
	}
	if b.Set(0, pageID(1)) == nil || finish(b) == nil {
		t.Error("a finished builder went on")
	}
	for _, bad := range []SectionRoot{
		{Section: Section{Kind: 9}},
		{Section: Section{Kind: WasmMemory, Hash: [32]byte{1}}},
		{Section: testHeap, Root: pageID(1)},
		{Section: testHeap, Size: MaxSectionSize + 1},
	} {
		if err := finish(NewBuilder(t.Context(), g, bad, 10, g.emit)); !errors.Is(err, ErrMalformed) {
			t.Errorf("base %+v: %v", bad, err)
		}
	}
	if err := finish(NewBuilder(t.Context(), g, none, MaxSectionSize+1, g.emit)); !errors.Is(err, ErrMalformed) {
		t.Errorf("huge section: %v", err)
	}
	failed := errors.New("full")
	b = NewBuilder(t.Context(), g, none, 100*chunk.PageSize, func(chunk.ID, []byte) error { return failed })
	_ = b.Set(0, pageID(1))
	if err := finish(b); !errors.Is(err, failed) {
		t.Errorf("emit's error: %v", err)
	}
	missing := SectionRoot{Section: testHeap, Root: pageID(3), Size: 100 * chunk.PageSize}
	var unread *NodeError
	if err := finish(NewBuilder(t.Context(), g, missing, 100*chunk.PageSize, g.emit)); !errors.As(err, &unread) || unread.ID != missing.Root {
		t.Errorf("missing base: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b = NewBuilder(ctx, g, none, MaxSectionSize, g.emit)
	if err := b.Set(1, pageID(1)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
