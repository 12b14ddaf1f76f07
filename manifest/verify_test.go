package manifest

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/snapstore/snapstore/chunk"
)

func TestWalkVisitsEveryPlaceOnce(t *testing.T) {
	seeds(t, 300, func(t *testing.T, r *rand.Rand) {
		g, fresh := newNodes(), uint64(0)
		put := func(id chunk.ID, b []byte) { g.at[id] = b }
		s := randomState(r, &fresh)
		id, want := scratch(s, put)
		var got []held
		collect := func(p Place, id chunk.ID) error { got = append(got, held{p, id}); return nil }
		if err := Walk(t.Context(), g, id, WalkOptions{Visit: collect}); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%d places, want %d", len(got), len(want))
		}

		// Introduced from nothing is the same.
		counts := map[chunk.ID]int{}
		err := Introduced(t.Context(), g, chunk.ID{}, id, func(id chunk.ID, node bool) error { counts[id]++; return nil }, nil)
		for _, h := range want {
			counts[h.id]--
		}
		maps.DeleteFunc(counts, func(_ chunk.ID, n int) bool { return n == 0 })
		if err != nil || len(counts) > 0 {
			t.Fatalf("introduced: %v, %v", counts, err)
		}

		// A second version, with shared pruning, reads nothing twice and still
		// meets every ID.
		s2 := mutateState(r, s, &fresh)
		for sec, c := range s2.sections { // whole nodes only, so that all of them are shared
			c.size = Fanout * Fanout * Fanout * chunk.PageSize
			maps.DeleteFunc(c.pages, func(p uint64, _ chunk.ID) bool { return p >= pageCount(c.size) })
			s2.sections[sec] = c
		}
		s3 := mutateState(r, s2, &fresh)
		for sec, c := range s3.sections {
			if c.size != Fanout*Fanout*Fanout*chunk.PageSize {
				delete(s3.sections, sec)
			}
		}
		ids := map[chunk.ID]bool{}
		g.forget()
		seen := NewSeen(1 << 20)
		all := map[chunk.ID]bool{}
		for _, s := range []state{s2, s3} {
			id, places := scratch(s, put)
			for _, h := range places {
				all[h.id] = true
			}
			if err := Walk(t.Context(), g, id, WalkOptions{Seen: seen, Visit: func(_ Place, id chunk.ID) error { ids[id] = true; return nil }}); err != nil {
				t.Fatal(err)
			}
		}
		if !maps.Equal(ids, all) {
			t.Fatalf("met %d IDs of %d", len(ids), len(all))
		}
		for id, n := range g.reads {
			if _, err := Decode(g.at[id]); n > 1 && err != nil {
				t.Fatalf("node %v read %d times", id, n)
			}
		}
	})
}

func TestWalkNamesEveryBadNode(t *testing.T) {
	seeds(t, 200, func(t *testing.T, r *rand.Rand) {
		g, fresh := newNodes(), uint64(0)
		id, places := scratch(randomState(r, &fresh), func(id chunk.ID, b []byte) { g.at[id] = b })
		var lost []held
		for _, h := range places {
			if !h.place.IsPage() && r.IntN(8) == 0 {
				g.lost[h.id] = true
			}
		}
		// Due is what stands below no other lost node.
		var want []held
		for i := len(places) - 1; i >= 0; i-- {
			h := places[i]
			if g.lost[h.id] && !slices.ContainsFunc(lost, func(a held) bool {
				return a.place.first().Compare(h.place) <= 0 && h.place.Compare(a.place) < 0
			}) {
				want = append(want, h)
			}
			if g.lost[h.id] {
				lost = append(lost, h)
			}
		}
		slices.Reverse(want)
		var got []held
		err := Walk(t.Context(), g, id, WalkOptions{Bad: func(p Place, id chunk.ID, err error) {
			if !errors.Is(err, errGone) {
				t.Errorf("%v: %v", p, err)
			}
			got = append(got, held{p, id})
		}})
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("%v: got %v, want %v", err, got, want)
		}
		if err := Walk(t.Context(), g, id, WalkOptions{}); (err != nil) != (len(want) > 0) {
			t.Fatalf("without Bad: %v", err)
		}
	})
}

// The walk is the one place that judges trees: an honest hash over a page
// beyond the end is told.
func TestWalkJudgesTheEnd(t *testing.T) {
	g := newNodes()
	for _, n := range []uint64{1, 5, 15} {
		root := must(build(t.Context(), g, SectionRoot{Section: testHeap}, 16*chunk.PageSize, map[uint64]chunk.ID{0: pageID(1), n: pageID(2)}, g.emit))
		for _, pages := range []uint64{n, n + 1} {
			root.Size = pages * chunk.PageSize
			b := must((&Manifest{Sections: []SectionRoot{root}}).Encode())
			id := must(NodeID(b))
			g.at[id] = b
			// The first walk over the whole node must not hide it from the second.
			seen := NewSeen(10)
			seen.add(root.Root)
			var bad []Place
			err := Walk(t.Context(), g, id, WalkOptions{Seen: seen, Bad: func(p Place, _ chunk.ID, err error) {
				if !errors.Is(err, ErrMalformed) {
					t.Error(err)
				}
				bad = append(bad, p)
			}})
			want := []Place{PagePlace(testHeap, n)}
			if pages == n+1 {
				want = nil
			}
			if err != nil || !slices.Equal(bad, want) {
				t.Errorf("%d pages, page %d set: bad %v, %v", pages, n, bad, err)
			}
		}
	}
}

func TestWalksRunInParallel(t *testing.T) {
	g := newNodes()
	r := rand.New(rand.NewPCG(3, 3))
	var fresh uint64
	var ids []chunk.ID
	want := map[chunk.ID]bool{}
	s := randomState(r, &fresh)
	for range 8 {
		s = mutateState(r, s, &fresh)
		id, places := scratch(s, func(id chunk.ID, b []byte) { g.at[id] = b })
		ids = append(ids, id)
		for _, h := range places {
			want[h.id] = true
		}
	}
	for _, limit := range []int{0, 1 << 20} {
		seen := NewSeen(limit)
		var mu sync.Mutex
		var wg sync.WaitGroup
		got := map[chunk.ID]bool{}
		for _, id := range ids {
			wg.Go(func() {
				err := Walk(t.Context(), frozen(g.at), id, WalkOptions{Seen: seen, Visit: func(_ Place, id chunk.ID) error {
					mu.Lock()
					defer mu.Unlock()
					got[id] = true
					return nil
				}})
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if !maps.Equal(got, want) {
			t.Errorf("limit %d: met %d IDs, want %d", limit, len(got), len(want))
		}
	}
}

// frozen is a Getter that many may read.
type frozen map[chunk.ID][]byte

func (f frozen) Node(_ context.Context, id chunk.ID) ([]byte, error) {
	if b, ok := f[id]; ok {
		return b, nil
	}
	return nil, errGone
}

func TestWalksStop(t *testing.T) {
	g, fresh := newNodes(), uint64(0)
	s := randomState(rand.New(rand.NewPCG(1, 9)), &fresh)
	id, places := scratch(s, func(id chunk.ID, b []byte) { g.at[id] = b })
	stop := errors.New("enough")
	if err := Walk(t.Context(), g, id, WalkOptions{Visit: func(Place, chunk.ID) error { return stop }}); !errors.Is(err, stop) {
		t.Errorf("Visit's error: %v", err)
	}
	add := func(chunk.ID, int64, bool) error { return stop }
	if at, err := Replace(t.Context(), g, Change{V2: id}, places[0].place, 0, add, nil); !errors.Is(err, stop) || at != places[0].place {
		t.Errorf("emit's error: %v at %v", err, at)
	}
	if at, err := Replace(t.Context(), g, Change{V2: id}, endPlace(), 0, add, nil); err != nil || !at.IsEnd() {
		t.Errorf("from the end: %v at %v", err, at)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	onBad := func(p Place, _ chunk.ID, err error) { t.Errorf("%v: %v", p, err) }
	if err := Walk(ctx, g, id, WalkOptions{Bad: onBad}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled walk: %v", err)
	}
	if _, err := Replace(ctx, g, Change{V2: id}, Place{}, 0, func(chunk.ID, int64, bool) error { return nil }, onBad); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled count: %v", err)
	}
	// A store that closes says so through the context's error.
	closed := closedGetter{}
	if err := Walk(t.Context(), closed, id, WalkOptions{Bad: onBad}); !errors.Is(err, context.Canceled) {
		t.Errorf("closed store: %v", err)
	}
	if _, err := Replace(t.Context(), closed, Change{V2: id}, Place{}, 0, add, onBad); !errors.Is(err, context.Canceled) {
		t.Errorf("closed store: %v", err)
	}
	var last error
	for _, last = range Diff(t.Context(), closed, chunk.ID{}, id) {
	}
	if !errors.Is(last, context.Canceled) {
		t.Errorf("diff of a closed store: %v", last)
	}
	if err := Walk(t.Context(), g, chunk.ID{}, WalkOptions{}); err != nil {
		t.Errorf("nothing: %v", err)
	}
}

type closedGetter struct{}

func (closedGetter) Node(context.Context, chunk.ID) ([]byte, error) { return nil, context.Canceled }
