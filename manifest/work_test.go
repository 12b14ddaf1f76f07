package manifest

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/snapstore/snapstore/chunk"
)

const (
	gibPages  = 1 << 18 // 1 GiB
	dirtyOnce = 2621    // 1 %
)

// counterID is a page ID that is cheap to make.
func counterID(n uint64) chunk.ID {
	var id chunk.ID
	binary.LittleEndian.PutUint64(id[:], n*0x9e3779b97f4a7c15+1)
	binary.LittleEndian.PutUint64(id[8:], n)
	return id
}

// gib is a full GiB and the version after 1 % of it changed.
type gib struct {
	g          *nodes
	root, next SectionRoot
	a, b       chunk.ID
	dirty      []uint64
	emitted    int
}

func newGiB(ctx context.Context) *gib {
	w := &gib{g: newNodes()}
	b := NewBuilder(ctx, w.g, SectionRoot{Section: testHeap}, gibPages*chunk.PageSize, w.g.emit)
	for p := range uint64(gibPages) {
		if err := b.Set(p, counterID(p)); err != nil {
			panic(err)
		}
	}
	w.root = must(b.Finish())
	w.dirty = scattered(rand.New(rand.NewPCG(7, 7)))
	w.next = w.change(ctx, func(id chunk.ID, node []byte) error { w.emitted++; return w.g.emit(id, node) })
	w.a, w.b = w.version(w.root), w.version(w.next)
	return w
}

func scattered(r *rand.Rand) []uint64 {
	set := map[uint64]bool{}
	var out []uint64
	for len(out) < dirtyOnce {
		if p := r.Uint64N(gibPages); !set[p] {
			set[p] = true
			out = append(out, p)
		}
	}
	slices.Sort(out)
	return out
}

func (w *gib) change(ctx context.Context, emit func(chunk.ID, []byte) error) SectionRoot {
	b := NewBuilder(ctx, w.g, w.root, w.root.Size, emit)
	for i, p := range w.dirty {
		if err := b.Set(p, counterID(gibPages+uint64(i))); err != nil {
			panic(err)
		}
	}
	return must(b.Finish())
}

func (w *gib) version(root SectionRoot) chunk.ID {
	b := must((&Manifest{Sections: []SectionRoot{root}}).Encode())
	id := must(NodeID(b))
	w.g.at[id] = b
	return id
}

func sink(chunk.ID, int64, bool) error { return nil }

// 1 % of scattered pages: building, comparing, counting and dropping read each
// changed node once in each version that has it, and nothing else.
func TestWorkFollowsWhatChanged(t *testing.T) {
	w := newGiB(t.Context())
	t.Logf("%d dirty pages, %d nodes changed of %d", dirtyOnce, w.emitted, len(w.g.at))

	w.g.forget()
	if got := w.change(t.Context(), func(chunk.ID, []byte) error { return nil }); got != w.next || w.g.total != w.emitted {
		t.Errorf("build: %d nodes read, %d changed", w.g.total, w.emitted)
	}
	w.g.forget()
	diffs := 0
	for _, err := range Diff(t.Context(), w.g, w.a, w.b) {
		if err != nil {
			t.Fatal(err)
		}
		diffs++
	}
	if diffs != dirtyOnce || w.g.total != 2*(w.emitted+1) {
		t.Errorf("diff: %d pages, %d nodes read", diffs, w.g.total)
	}
	for _, c := range []struct {
		name           string
		c              Change
		deltas, atMost int
	}{
		// The snapshot before equals the old head.
		{"take", Change{P: w.a, V: w.a, V2: w.b}, dirtyOnce + w.emitted + 1, 2 * (w.emitted + 1)},
		// The head changes back over a snapshot.
		{"checkpoint", Change{P: w.a, V: w.b, V2: w.a}, dirtyOnce + w.emitted + 1, 2 * (w.emitted + 1)},
		{"drop of the last", Change{P: w.a, V: w.b, V2: w.a, N: w.a}, 2 * (dirtyOnce + w.emitted + 1), 2 * (w.emitted + 1)},
		{"drop of an equal one", Change{P: w.a, V: w.a, V2: w.a, N: w.b}, 0, 0},
		{"drop before an equal one", Change{P: w.a, V: w.b, V2: w.a, N: w.b}, 0, 0},
		{"drop of the first, all kept", Change{V: w.a, N: w.a}, 0, 0},
	} {
		w.g.forget()
		deltas := 0
		emit := func(chunk.ID, int64, bool) error { deltas++; return nil }
		if _, err := Replace(t.Context(), w.g, c.c, Place{}, 0, emit, nil); err != nil {
			t.Fatal(err)
		}
		if deltas != c.deltas || w.g.total > c.atMost {
			t.Errorf("%s: %d deltas, want %d; %d nodes read, want at most %d", c.name, deltas, c.deltas, w.g.total, c.atMost)
		}
		// In steps, each step reads one path of each version more.
		w.g.forget()
		steps := 0
		for at := (Place{}); !at.IsEnd(); steps++ {
			var err error
			if at, err = Replace(t.Context(), w.g, c.c, at, 500, sink, nil); err != nil {
				t.Fatal(err)
			}
		}
		if limit := c.atMost + steps*2*(Depth(w.root.Size)+1); w.g.total > limit {
			t.Errorf("%s in %d steps: %d nodes read, want at most %d", c.name, steps, w.g.total, limit)
		}
	}
}

func BenchmarkBuildGiB(b *testing.B) {
	g := newNodes()
	for b.Loop() {
		t := NewBuilder(b.Context(), g, SectionRoot{Section: testHeap}, gibPages*chunk.PageSize, nil)
		for p := range uint64(gibPages) {
			if err := t.Set(p, counterID(p)); err != nil {
				b.Fatal(err)
			}
		}
		must(t.Finish())
	}
}

func BenchmarkBuildOnePercent(b *testing.B) {
	w := newGiB(b.Context())
	for b.Loop() {
		w.change(b.Context(), func(chunk.ID, []byte) error { return nil })
	}
}

func BenchmarkDiffOnePercent(b *testing.B) {
	w := newGiB(b.Context())
	for b.Loop() {
		for _, err := range Diff(b.Context(), w.g, w.a, w.b) {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
}

func BenchmarkReplaceOnePercent(b *testing.B) {
	w := newGiB(b.Context())
	for b.Loop() {
		if _, err := Replace(b.Context(), w.g, Change{P: w.a, V: w.a, V2: w.b}, Place{}, 0, sink, nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkNodeID(b *testing.B) {
	n := fullNode(0)
	b.ReportAllocs()
	for b.Loop() {
		must(NodeID(n))
	}
}
