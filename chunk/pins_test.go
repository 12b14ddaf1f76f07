package chunk

import (
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/snapstore/snapstore/internal/index"
)

func TestMeet(t *testing.T) {
	k := newKit(t, func(o *StoreOptions) { o.Alive = func(seg uint64) bool { return seg != 9 } })
	at := func(seg uint64) index.Location { return index.Location{Segment: seg, Slots: 1} }
	k.x.set(ID{1}, index.Entry{Location: at(1), Count: 1})
	k.x.set(ID{2}, index.Entry{Location: at(1)}) // in limbo
	k.x.set(ID{3}, index.Entry{Location: at(1), Count: 1, Lost: true})
	k.x.set(ID{4}, index.Entry{Location: at(9), Count: 1}) // its segment is gone
	k.s.Publish([]Placement{{Key: Key{5}, Loc: at(2)}})
	ids := []ID{{1}, {2}, {3}, {4}, {5}, {6}, {}, {1}}
	want := []bool{true, true, false, false, true, false, true, true}

	p := k.s.NewPins()
	met := make([]bool, len(ids))
	if err := k.s.Meet(p, ids, met); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(met, want) {
		t.Fatalf("met %v, want %v", met, want)
	}
	var got []Key
	remove := func(ids []Key) error { got = append(got, ids...); return nil }
	if err := k.s.Destroy(Domain{}.keys(ids[:6]), remove); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, []Key{{3}, {4}, {6}}) {
		t.Fatalf("may be destroyed: %v", got)
	}
	p.Release()
	p.Release()
	got = nil
	if err := k.s.Destroy(Domain{}.keys(ids[:6]), remove); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, []Key{{1}, {2}, {3}, {4}, {6}}) { // 5 is published
		t.Fatalf("may be destroyed after release: %v", got)
	}
	if err := k.s.Meet(p, ids[:1], met[:1]); !errors.Is(err, ErrReleased) || met[0] {
		t.Fatalf("released pins meet: %v", err)
	}
	if n := len(k.s.stripe(Key{1}).pinned); n != 0 {
		t.Fatalf("%d pinned by released pins", n)
	}
}

// Many IDs are asked for in parallel; the answers are the same.
func TestMeetMany(t *testing.T) {
	k := newKit(t, nil)
	r := newRand(t)
	ids := make([]ID, 5000)
	want := make([]bool, len(ids))
	for i := range ids {
		for b := range ids[i] {
			ids[i][b] = byte(r.Uint32())
		}
		if want[i] = r.IntN(3) > 0; want[i] {
			k.x.set(ids[i], index.Entry{Location: index.Location{Segment: 1, Slots: 1}})
		}
	}
	met := make([]bool, len(ids))
	p := k.s.NewPins()
	if err := k.s.Meet(p, ids, met); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(met, want) {
		t.Fatal("answers differ")
	}
	p.Release()

	k.x.getErr = errors.New("index trouble")
	p = k.s.NewPins()
	if err := k.s.Meet(p, ids, met); err == nil || slices.Contains(met, true) {
		t.Fatalf("met in trouble: %v", err)
	}
	for i := range k.s.stripes {
		if n := len(k.s.stripes[i].pinned); n != 0 {
			t.Fatalf("%d pinned after an error", n)
		}
	}
}

// A failing removal leaves nothing dying.
func TestDestroyFails(t *testing.T) {
	k := newKit(t, nil)
	k.x.set(ID{1}, index.Entry{Location: index.Location{Segment: 1, Slots: 1}})
	boom := errors.New("boom")
	met := []bool{true}
	err := k.s.Destroy([]Key{{1}, {1}}, func(ids []Key) error {
		if len(ids) != 1 {
			t.Errorf("removes %v", ids)
		}
		if err := k.s.Meet(k.s.NewPins(), []ID{{1}}, met); err != nil || met[0] {
			t.Errorf("met while dying: %v", err)
		}
		// Another destroyer leaves alone what this one is at.
		return errors.Join(boom, k.s.Destroy([]Key{{1}}, func([]Key) error { t.Error("dies twice"); return nil }))
	})
	if !errors.Is(err, boom) {
		t.Fatal(err)
	}
	p := k.s.NewPins()
	defer p.Release()
	if err := k.s.Meet(p, []ID{{1}}, met); err != nil || !met[0] {
		t.Fatalf("not met after a failed removal: %v", err)
	}
}

func TestPublishedQueue(t *testing.T) {
	k := newKit(t, nil)
	id := ID{1}
	place := func(n int) Placement {
		return Placement{Key: Key(id), Loc: index.Location{Segment: uint64(n), Slots: 1}}
	}
	var queue []*Places
	for n := 1; n <= 3; n++ {
		queue = append(queue, k.s.Publish([]Placement{place(n)}))
	}
	for n := 1; n <= 3; n++ {
		if p, ok := k.s.Placed(Key(id)); !ok || p != place(n) {
			t.Fatalf("oldest is %v, want %v", p, place(n))
		}
		if n == 2 { // one comes while others go
			queue = append(queue, k.s.Publish([]Placement{place(4)}))
		}
		if p, i, ok := k.s.PlacedIn(Key(id)); !ok || p != queue[n-1] || i != 0 {
			t.Fatalf("the oldest of %d is elsewhere", n)
		}
		k.s.Retire(queue[n-1])
	}
	if p, _ := k.s.Placed(Key(id)); p != place(4) {
		t.Fatalf("oldest is %v", p)
	}
	k.s.Retire(queue[3])
	k.s.Retire(queue[3]) // there is none any more
	if _, ok := k.s.Placed(Key(id)); ok || k.s.Stats().Published != 0 {
		t.Fatalf("still published: %+v", k.s.Stats())
	}
}

// Takes and collectors, in parallel, on few IDs: what a synced take refers to is
// always found. The applier and the remover are one lock here, as the index
// makes them.
func TestPinsStress(t *testing.T) {
	k := newKit(t, nil)
	r := newRand(t)
	const ids, rounds, takers = 8, 3000, 4
	var commit sync.Mutex // commit and apply, in one order
	refs := make(map[ID]int)
	apply := func(id ID, delta int) {
		k.x.mu.Lock()
		defer k.x.mu.Unlock()
		e, ok := k.x.at[index.ID(id)]
		if !ok && delta > 0 {
			p, found := k.s.Placed(Key(id))
			if !found {
				t.Errorf("%v is applied and nowhere", id)
			}
			e.Location = p.Loc
		}
		e.Count += uint64(delta)
		k.x.at[index.ID(id)] = e
	}
	var takes, all sync.WaitGroup
	stop := make(chan struct{})
	for n := range takers {
		seed := r.Uint64()
		takes.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(n)))
			for range rounds {
				id := ID{byte(r.IntN(ids))}
				id[31] = 1
				pins := k.s.NewPins()
				met := []bool{false}
				if err := k.s.Meet(pins, []ID{id}, met); err != nil {
					t.Error(err)
				}
				commit.Lock()
				mine := new(Places)
				if !met[0] {
					mine = k.s.Publish([]Placement{{Key: Key(id), Loc: index.Location{Segment: uint64(n + 1), Slots: 1}}})
				}
				refs[id]++
				if _, err := k.s.locate(id); err != nil {
					t.Errorf("synced: %v", err)
				}
				apply(id, 1)
				k.s.Retire(mine)
				if _, err := k.s.locate(id); err != nil {
					t.Errorf("applied: %v", err)
				}
				commit.Unlock()
				pins.Release()
				commit.Lock()
				refs[id]--
				apply(id, -1)
				commit.Unlock()
			}
		})
	}
	for range 2 {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				var limbo []Key
				k.x.mu.Lock()
				for id, e := range k.x.at {
					if e.Count == 0 {
						limbo = append(limbo, id)
					}
				}
				k.x.mu.Unlock()
				err := k.s.Destroy(limbo, func(ids []Key) error {
					k.x.mu.Lock()
					defer k.x.mu.Unlock()
					for _, id := range ids {
						if e, ok := k.x.at[id]; ok && e.Count == 0 {
							delete(k.x.at, id)
						}
					}
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	takes.Wait()
	close(stop)
	all.Wait()
	for i := range k.s.stripes {
		st := &k.s.stripes[i]
		if len(st.pinned)+len(st.dying)+len(st.published) > 0 {
			t.Fatal("something is left behind")
		}
	}
}
