package chunk

import (
	"fmt"
	"testing"
	"time"

	"github.com/snapstore/snapstore/internal/index"
)

// The tests here run the protocol of pins.go in every order. Actors are
// goroutines of which one runs at a time, from one yield to its next; a schedule
// says which. All schedules are tried, by going back to the last choice that
// had another way on.

type actor struct {
	name   string
	resume chan struct{}
	pause  chan bool // true: it has ended
}

type schedule struct {
	t       *testing.T
	actors  []*actor
	current *actor
	blocked func(*actor) bool // must not go on now
	choices []int
	widths  []int
	trace   []string
}

func (sc *schedule) yield() {
	a := sc.current
	a.pause <- false
	<-a.resume
}

// run starts the bodies and follows choices, taking the first way where none is
// given. It returns false if some could never go on.
func (sc *schedule) run(bodies map[string]func(), order []string, after func()) bool {
	sc.actors, sc.trace, sc.widths = nil, nil, nil
	for _, name := range order {
		a := &actor{name, make(chan struct{}), make(chan bool)}
		body := bodies[name]
		sc.actors = append(sc.actors, a)
		go func() {
			<-a.resume
			body()
			a.pause <- true
		}()
	}
	live := append([]*actor(nil), sc.actors...)
	for step := 0; len(live) > 0; step++ {
		var ready []*actor
		for _, a := range live {
			if !sc.blocked(a) {
				ready = append(ready, a)
			}
		}
		if len(ready) == 0 {
			return false
		}
		if step == len(sc.choices) {
			sc.choices = append(sc.choices, 0)
		}
		sc.widths = append(sc.widths, len(ready))
		a := ready[sc.choices[step]]
		sc.trace = append(sc.trace, a.name)
		sc.current = a
		a.resume <- struct{}{}
		if <-a.pause {
			for i := range live {
				if live[i] == a {
					live = append(live[:i], live[i+1:]...)
					break
				}
			}
		}
		after()
	}
	return true
}

// next moves to the next schedule; false when all were tried.
func (sc *schedule) next() bool {
	for i := len(sc.widths) - 1; i >= 0; i-- {
		if sc.choices[i]+1 < sc.widths[i] {
			sc.choices = append(sc.choices[:i], sc.choices[i]+1)
			return true
		}
	}
	return false
}

// world is one ID, an index that an applier and a destroyer change in single
// steps, and takes that want the ID.
type world struct {
	*kit
	t      *testing.T
	sc     *schedule
	id     ID
	old    index.Location // where it is at the start
	own    []index.Location
	synced []int // takes in the order of commit
	done   int   // how many of them are applied
	alive  int   // synced and not deleted
	fail   string
}

func (w *world) failf(format string, args ...any) {
	if w.fail == "" {
		w.fail = fmt.Sprintf(format, args...)
	}
}

// take is the body of one take, number n.
func (w *world) take(n int) func() {
	return func() {
		pins := w.s.NewPins()
		met := []bool{false}
		if err := w.s.Meet(pins, []ID{w.id}, met); err != nil {
			w.failf("meet: %v", err)
		}
		w.sc.yield()
		// Synced: the committer publishes and makes it visible.
		var places *Places
		if !met[0] {
			places = w.s.Publish([]Placement{{Key: Key(w.id), Loc: w.own[n]}})
		}
		w.synced = append(w.synced, n)
		w.alive++
		w.sc.yield()
		// Applied, in the order of commit; blocked sees to that.
		w.applied(n, 1)
		if places != nil {
			w.s.Retire(places)
		}
		w.done++
		w.sc.yield()
		pins.Release()
	}
}

// applied changes the count as the applier does.
func (w *world) applied(n int, delta int) {
	e, ok := w.x.at[index.ID(w.id)]
	if !ok && delta > 0 {
		p, found := w.s.Placed(Key(w.id))
		if !found {
			w.failf("take %d is applied, and the page is nowhere", n)
			return
		}
		e.Location = p.Loc
	}
	e.Count += uint64(delta)
	w.x.at[index.ID(w.id)] = e
}

// destroy is the body of a collector that found the ID in limbo.
func (w *world) destroy() {
	err := w.s.Destroy([]Key{Key(w.id)}, func(ids []Key) error {
		w.sc.yield()
		if len(ids) != 1 || ids[0] != Key(w.id) {
			w.failf("asked to remove %v", ids)
		}
		if e, ok := w.x.at[index.ID(w.id)]; ok && e.Count == 0 {
			delete(w.x.at, index.ID(w.id))
		}
		w.sc.yield()
		return nil
	})
	if err != nil {
		w.failf("destroy: %v", err)
	}
}

// check holds after every step: while a synced take refers to the ID, it is
// found.
func (w *world) check() {
	if w.alive > 0 {
		if _, err := w.s.locate(w.id); err != nil {
			w.failf("a synced take refers to it: %v", err)
		}
	}
}

// explore tries the schedules of bodies from a fresh start each.
func explore(t *testing.T, count int, bodies func(*world) (map[string]func(), []string)) {
	k := newKit(t, func(o *StoreOptions) { o.Workers = 1 })
	sc := &schedule{t: t}
	w := &world{kit: k, t: t, sc: sc, id: ID{7}, old: index.Location{Segment: 1, Slots: 1}}
	for n := range 4 {
		w.own = append(w.own, index.Location{Segment: 2, Offset: uint32(n * 64), Slots: 1})
	}
	k.x.onMay = func(ID) { sc.yield() }
	k.x.onGet = func(ID) { sc.yield() }
	tried := 0
	began := time.Now()
	for {
		clear(k.x.at)
		k.x.at[index.ID(w.id)] = index.Entry{Location: w.old, Count: uint64(count)}
		w.synced, w.done, w.alive = nil, 0, count
		var b map[string]func()
		var order []string
		b, order = bodies(w)
		// A take that is synced goes on only when those before it are applied.
		sc.blocked = func(a *actor) bool {
			for i, n := range w.synced {
				if a.name == fmt.Sprint("take", n) {
					return i > w.done
				}
			}
			return false
		}
		check := func() {
			// What is looked up here must not yield.
			on, may := k.x.onGet, k.x.onMay
			k.x.onGet, k.x.onMay = nil, nil
			w.check()
			k.x.onGet, k.x.onMay = on, may
		}
		if !sc.run(b, order, check) {
			t.Fatalf("nobody can go on: %v", sc.trace)
		}
		tried++
		e, ok := k.x.at[index.ID(w.id)]
		if ok && int(e.Count) != w.alive || !ok && w.alive > 0 {
			w.failf("count %d of %v, want %d", e.Count, ok, w.alive)
		}
		st := k.s.stripe(Key(w.id))
		if len(st.pinned)+len(st.dying)+len(st.published) > 0 {
			w.failf("left behind: %v pinned, %v dying, %v published", st.pinned, st.dying, st.published)
		}
		if w.fail != "" {
			t.Fatalf("%s\nin the order %v", w.fail, sc.trace)
		}
		if !sc.next() {
			break
		}
	}
	t.Logf("%d orders in %v", tried, time.Since(began).Round(time.Millisecond))
}

// An ID is in limbo; one take wants it while it is destroyed, twice.
func TestOrdersOneTake(t *testing.T) {
	explore(t, 0, func(w *world) (map[string]func(), []string) {
		return map[string]func(){"take0": w.take(0), "destroy": w.destroy, "destroy again": w.destroy},
			[]string{"take0", "destroy", "destroy again"}
	})
}

// Two takes want it; each may store it, unaware of the other.
func TestOrdersTwoTakes(t *testing.T) {
	explore(t, 0, func(w *world) (map[string]func(), []string) {
		return map[string]func(){"take0": w.take(0), "take1": w.take(1), "destroy": w.destroy},
			[]string{"take0", "take1", "destroy"}
	})
}

// It is referred to, the last reference is dropped, and then it is destroyed,
// while a take wants it.
func TestOrdersDrop(t *testing.T) {
	explore(t, 1, func(w *world) (map[string]func(), []string) {
		return map[string]func(){
			"take0": w.take(0),
			"drop": func() {
				w.alive--
				w.sc.yield()
				w.applied(-1, -1)
				w.sc.yield()
				w.destroy()
			},
		}, []string{"take0", "drop"}
	})
}

// A take brings it, its snapshot is deleted and collected; another take stores
// it too, or meets it in any of these states.
func TestOrdersWholeLife(t *testing.T) {
	explore(t, 0, func(w *world) (map[string]func(), []string) {
		delete(w.x.at, index.ID(w.id))
		first := w.take(0)
		return map[string]func(){
			"take0": func() {
				first()
				w.alive--
				w.applied(-1, -1)
				w.sc.yield()
				w.destroy()
			},
			"take1": w.take(1),
		}, []string{"take0", "take1"}
	})
}
