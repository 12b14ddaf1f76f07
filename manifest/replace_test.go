package manifest

import (
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/snapstore/snapstore/chunk"
)

// The model below knows the definition only: it lists every place of every
// version from the content, and counts introductions from nothing.

// modelVersion is a version of a run.
type modelVersion struct {
	id     chunk.ID
	state  state
	places []held // in order
}

// modelRun is a canister's versions, the head last.
type modelRun struct {
	versions []*modelVersion
	dropping int // -1: none
	cursor   Place
}

func (c *modelRun) head() *modelVersion { return c.versions[len(c.versions)-1] }

// introduced adds to counts what version i of c introduces in the spliced view.
func (c *modelRun) introduced(i int, counts map[chunk.ID]int64) {
	at := func(j int) []held {
		if j < 0 {
			return nil
		}
		return c.versions[j].places
	}
	pred, spliced := at(i-1), []held(nil)
	var cursor Place
	switch {
	case c.dropping >= 0 && i == c.dropping+1:
		pred, spliced, cursor = at(i-1), at(i-2), c.cursor
	case c.dropping >= 0 && i == c.dropping:
		cursor = c.cursor // gone before it
	}
	find := func(list *[]held, p Place) chunk.ID {
		for len(*list) > 0 && (*list)[0].place.Compare(p) < 0 {
			*list = (*list)[1:]
		}
		if len(*list) > 0 && (*list)[0].place == p {
			return (*list)[0].id
		}
		return chunk.ID{}
	}
	for _, h := range c.versions[i].places {
		before := h.place.Compare(cursor) < 0
		if i == c.dropping && before {
			continue
		}
		q := find(&pred, h.place)
		if i == c.dropping+1 && c.dropping >= 0 && before {
			q = find(&spliced, h.place)
		}
		if h.id != q {
			counts[h.id]++
		}
	}
}

// world is a store of several canisters.
type world struct {
	t      *testing.T
	r      *rand.Rand
	g      *nodes
	counts map[chunk.ID]int64
	isNode map[chunk.ID]bool
	runs   []*modelRun
	fresh  uint64
}

func (w *world) put(id chunk.ID, b []byte) { w.g.at[id] = b }

// make builds a version's trees from those of base, as an engine would.
func (w *world) make(base *modelVersion, s state) *modelVersion {
	v := &modelVersion{state: s}
	m := Manifest{Meta: s.meta}
	old := must(Load(w.t.Context(), w.g, base.id))
	for sec, c := range s.sections {
		from, _ := old.Section(sec)
		set := map[uint64]chunk.ID{}
		for p, id := range c.pages {
			if base.state.sections[sec].pages[p] != id {
				set[p] = id
			}
		}
		for p := range base.state.sections[sec].pages {
			if _, ok := c.pages[p]; !ok && p < pageCount(c.size) {
				set[p] = chunk.ID{}
			}
		}
		root, err := build(w.t.Context(), w.g, from, c.size, set, w.g.emit)
		if err != nil {
			w.t.Fatal(err)
		}
		m.Sections = append(m.Sections, root)
	}
	slices.SortFunc(m.Sections, func(a, b SectionRoot) int { return a.Section.Compare(b.Section) })
	b := must(m.Encode())
	v.id = must(NodeID(b))
	w.put(v.id, b)
	var want chunk.ID
	if want, v.places = scratch(s, func(chunk.ID, []byte) {}); want != v.id {
		w.t.Fatalf("built %v, want %v", v.id, want)
	}
	return v
}

func (w *world) emit(id chunk.ID, delta int64, node bool) error {
	if delta == 0 || id.IsZero() {
		w.t.Fatalf("emitted %v %+d", id, delta)
	}
	if is, ok := w.isNode[id]; ok && is != node {
		w.t.Fatalf("%v is a node: %v, and %v", id, is, node)
	}
	w.isNode[id] = node
	w.counts[id] += delta
	return nil
}

// replace applies a change in steps of a random budget.
func (w *world) replace(c Change, from Place, steps int) Place {
	budget := 0
	if steps > 0 || w.r.IntN(2) == 0 {
		budget = 1 + w.r.IntN(12)
	}
	for i := 0; !from.IsEnd() && (steps == 0 || i < steps); i++ {
		calls := 0
		next, err := Replace(w.t.Context(), w.g, c, from, budget, func(id chunk.ID, d int64, node bool) error {
			calls++
			return w.emit(id, d, node)
		}, nil)
		if err != nil {
			w.t.Fatalf("replace: %v", err)
		}
		if next.Compare(from) <= 0 {
			w.t.Fatalf("from %v to %v: no way forward", from, next)
		}
		if budget > 0 && calls > budget+3 {
			w.t.Fatalf("budget %d, %d deltas", budget, calls)
		}
		if back, err := DecodePlace(next.Encode()); err != nil || back != next {
			w.t.Fatalf("%v encodes to %v, %v", next, back, err)
		}
		from = next
	}
	return from
}

func (c *modelRun) pred(i int) (chunk.ID, Splice) {
	at := func(j int) chunk.ID {
		if j < 0 {
			return chunk.ID{}
		}
		return c.versions[j].id
	}
	if c.dropping >= 0 && c.dropping == i-1 {
		return at(i - 2), Splice{D: at(i - 1), Cursor: c.cursor}
	}
	return at(i - 1), Splice{}
}

func (w *world) replaceHead(c *modelRun, v *modelVersion) {
	i := len(c.versions) - 1
	p, splice := c.pred(i)
	w.replace(Change{P: p, V: c.versions[i].id, V2: v.id, Splice: splice}, Place{}, 0)
	c.versions[i] = v
}

func (w *world) dropStep(c *modelRun, steps int) {
	i := c.dropping
	ch := Change{V: c.versions[i].id, N: c.versions[i+1].id}
	if i > 0 {
		ch.P, ch.V2 = c.versions[i-1].id, c.versions[i-1].id
	}
	if c.cursor = w.replace(ch, c.cursor, steps); c.cursor.IsEnd() {
		c.versions = slices.Delete(c.versions, i, i+1)
		c.dropping, c.cursor = -1, Place{}
	}
}

// check compares the counts kept with those counted from nothing, and destroys
// at once what has none: whatever is still needed must have a count.
func (w *world) check(step int, op string) {
	want := map[chunk.ID]int64{}
	live := map[chunk.ID]bool{}
	for _, c := range w.runs {
		for i, v := range c.versions {
			c.introduced(i, want)
			for _, h := range v.places {
				if i != c.dropping || h.place.Compare(c.cursor) >= 0 {
					live[h.id] = true
				}
			}
		}
	}
	maps.DeleteFunc(w.counts, func(_ chunk.ID, n int64) bool { return n == 0 })
	if !maps.Equal(w.counts, want) {
		for id := range maps.Keys(want) {
			if w.counts[id] != want[id] {
				w.t.Errorf("%v: kept %d, want %d", id, w.counts[id], want[id])
			}
		}
		w.t.Fatalf("step %d, %s: counts differ (%d kept, %d recomputed)", step, op, len(w.counts), len(want))
	}
	if len(live) != len(want) {
		w.t.Fatalf("step %d, %s: %d counted, %d reachable", step, op, len(want), len(live))
	}
	for id := range w.g.at {
		if w.counts[id] == 0 {
			delete(w.g.at, id)
		}
	}
}

// alive gives the versions that a load may name.
func (c *modelRun) alive() []*modelVersion {
	var out []*modelVersion
	for i, v := range c.versions[:len(c.versions)-1] {
		if i != c.dropping {
			out = append(out, v)
		}
	}
	return out
}

// Random histories of checkpoints, takes, loads, loads across canisters and
// drops in steps, with the head changing while the drop before it runs: after
// every operation the counts are those recomputed from nothing, an ID has one
// exactly while a version reaches it, and every node that a walk needs to go
// on is counted still (nodes without a count are destroyed at once).
func TestCountsEqualRecount(t *testing.T) {
	seeds(t, 2500, func(t *testing.T, r *rand.Rand) {
		w := &world{t: t, r: r, g: newNodes(), counts: map[chunk.ID]int64{}, isNode: map[chunk.ID]bool{}}
		for range 2 {
			c := &modelRun{dropping: -1, versions: []*modelVersion{{}}}
			w.runs = append(w.runs, c)
			w.replaceHead(c, w.make(&modelVersion{}, randomState(r, &w.fresh)))
		}
		w.check(-1, "start")
		for step := range 25 {
			c := w.runs[r.IntN(len(w.runs))]
			op := "checkpoint"
			switch k := r.IntN(10); {
			case k < 2:
				w.replaceHead(c, w.make(c.head(), mutateState(r, c.head().state, &w.fresh)))
			case k < 5:
				op = "take"
				v := w.make(c.head(), mutateState(r, c.head().state, &w.fresh))
				w.replaceHead(c, v)
				c.versions = append(c.versions, v)
			case k < 6:
				op = "load"
				src := w.runs[r.IntN(len(w.runs))]
				if from := src.alive(); len(from) > 0 {
					w.replaceHead(c, from[r.IntN(len(from))])
				}
			case c.dropping >= 0:
				op = "drop step"
				w.dropStep(c, 1+r.IntN(5))
			case len(c.versions) > 1:
				op = "drop"
				c.dropping = r.IntN(len(c.versions) - 1)
				w.dropStep(c, 1+r.IntN(3))
			}
			w.check(step, op)
		}
		for _, c := range w.runs {
			for len(c.versions) > 1 {
				if c.dropping < 0 {
					c.dropping = r.IntN(len(c.versions) - 1)
				}
				w.dropStep(c, 0)
				w.check(1000, "last drops")
			}
			w.replace(Change{V: c.head().id}, Place{}, 0)
			c.versions = nil
			w.check(2000, "removal")
		}
		if len(w.counts) != 0 || len(w.g.at) != 0 {
			t.Fatalf("everything is dropped, %d counted, %d nodes left", len(w.counts), len(w.g.at))
		}
	})
}

// quintuple is a change between arbitrary versions, with the model of each.
type quintuple struct {
	c      Change
	places [maxSlots][]held
	g      *nodes
}

func randomQuintuple(r *rand.Rand, sameSizes bool) quintuple {
	q := quintuple{g: newNodes()}
	var fresh uint64
	var ids [maxSlots]chunk.ID
	var states [maxSlots]state
	for i := range ids {
		if i > 0 && r.IntN(3) > 0 {
			j := r.IntN(i)
			states[i], ids[i], q.places[i] = states[j], ids[j], q.places[j]
			if ids[i].IsZero() || r.IntN(3) == 0 {
				continue
			}
		}
		switch {
		case i > 0 && states[0].sections != nil:
			states[i] = mutateState(r, states[r.IntN(i)], &fresh)
		default:
			states[i] = randomState(r, &fresh)
		}
		if states[i].sections == nil {
			states[i] = randomState(r, &fresh)
		}
		if sameSizes {
			for s, c := range states[i].sections {
				c.size = 5000 * chunk.PageSize
				maps.DeleteFunc(c.pages, func(p uint64, _ chunk.ID) bool { return p >= 5000 })
				states[i].sections[s] = c
			}
		}
		if r.IntN(12) == 0 {
			states[i], ids[i], q.places[i] = state{}, chunk.ID{}, nil
			continue
		}
		ids[i], q.places[i] = scratch(states[i], func(id chunk.ID, b []byte) { q.g.at[id] = b })
	}
	q.c = Change{P: ids[slotP], V: ids[slotV], V2: ids[slotV2], N: ids[slotN]}
	if r.IntN(2) == 0 && !ids[slotD].IsZero() {
		q.c.Splice = Splice{D: ids[slotD]}
		all := slices.Concat(q.places[:]...)
		switch r.IntN(6) {
		case 0:
		case 1:
			q.c.Splice.Cursor = endPlace()
		default:
			if len(all) > 0 {
				q.c.Splice.Cursor = all[r.IntN(len(all))].place
			}
		}
	} else {
		q.places[slotD] = q.places[slotP]
	}
	return q
}

// at gives what the versions have, place by place.
func (q *quintuple) at() map[Place]*[maxSlots]chunk.ID {
	at := map[Place]*[maxSlots]chunk.ID{}
	for i, places := range q.places {
		for _, h := range places {
			if at[h.place] == nil {
				at[h.place] = new([maxSlots]chunk.ID)
			}
			at[h.place][i] = h.id
		}
	}
	return at
}

// deltas is the definition of a change, from a place on.
func (q *quintuple) deltas(from Place) map[chunk.ID]int64 {
	d := map[chunk.ID]int64{}
	intro := func(x, y chunk.ID, sign int64) {
		if !x.IsZero() && x != y {
			d[x] += sign
		}
	}
	for p, v := range q.at() {
		if p.Compare(from) < 0 {
			continue
		}
		pred := v[slotD]
		if p.Compare(q.c.Splice.Cursor) < 0 {
			pred = v[slotP]
		}
		intro(v[slotV2], pred, 1)
		intro(v[slotN], v[slotV2], 1)
		intro(v[slotV], pred, -1)
		intro(v[slotN], v[slotV], -1)
	}
	maps.DeleteFunc(d, func(_ chunk.ID, n int64) bool { return n == 0 })
	return d
}

func (q *quintuple) run(t *testing.T, from Place, budget int, onBad func(Place, chunk.ID, error)) map[chunk.ID]int64 {
	got := map[chunk.ID]int64{}
	for !from.IsEnd() {
		next, err := Replace(t.Context(), q.g, q.c, from, budget, func(id chunk.ID, d int64, node bool) error {
			got[id] += d
			return nil
		}, onBad)
		if err != nil {
			t.Fatal(err)
		}
		from = next
	}
	maps.DeleteFunc(got, func(_ chunk.ID, n int64) bool { return n == 0 })
	return got
}

// Replace is its formula, for any five versions, from any place.
func TestReplaceIsItsFormula(t *testing.T) {
	seeds(t, 6000, func(t *testing.T, r *rand.Rand) {
		q := randomQuintuple(r, false)
		var from Place
		if all := slices.Concat(q.places[:]...); len(all) > 0 && r.IntN(2) == 0 {
			from = all[r.IntN(len(all))].place
		}
		got := q.run(t, from, r.IntN(6), nil)
		if want := q.deltas(from); !maps.Equal(got, want) {
			t.Fatalf("from %v: got %d changes, want %d\n%+v", from, len(got), len(want), q.c)
		}
	})
}

// A subtree is read only where the change needs it, and once.
func TestReplaceReadsOnlyWhatChanges(t *testing.T) {
	seeds(t, 3000, func(t *testing.T, r *rand.Rand) {
		q := randomQuintuple(r, true)
		q.g.forget()
		q.run(t, Place{}, 0, nil)
		allowed := map[chunk.ID]int{}
		for p, v := range q.at() {
			if p.IsPage() || v[slotV] == v[slotV2] {
				continue
			}
			cursor := q.c.Splice.Cursor
			through := v[slotP] != v[slotD] && cursor.Compare(p.first()) > 0 && cursor.Compare(p) <= 0
			pred := v[slotD]
			if cursor.Compare(p) > 0 {
				pred = v[slotP]
			}
			if !through && v[slotV] == v[slotN] && v[slotV2] == pred {
				continue
			}
			need := map[chunk.ID]bool{pred: true, v[slotV]: true, v[slotV2]: true, v[slotN]: true}
			if through {
				need[v[slotP]] = true
			}
			for id := range need {
				allowed[id]++
			}
		}
		for id, n := range q.g.reads {
			if n > allowed[id] {
				t.Fatalf("%v read %d times, needed %d times", id, n, allowed[id])
			}
		}
	})
}

// With nodes that can not be read no ID is emitted less than its change, and
// when that can not be had the caller is told.
func TestReplaceNeverUndercounts(t *testing.T) {
	skipped, warned := 0, 0
	seeds(t, 6000, func(t *testing.T, r *rand.Rand) {
		q := randomQuintuple(r, false)
		want := q.deltas(Place{})
		all := slices.DeleteFunc(slices.Concat(q.places[:]...), func(h held) bool { return h.place.IsPage() })
		if len(all) == 0 {
			return
		}
		for range 1 + r.IntN(3) {
			q.g.lost[all[r.IntN(len(all))].id] = true
		}
		uncounted, bad := false, 0
		got := q.run(t, Place{}, r.IntN(6), func(p Place, id chunk.ID, err error) {
			bad++
			if !q.g.lost[id] || !errors.Is(err, errGone) {
				t.Fatalf("%v: %v: %v", p, id, err)
			}
			uncounted = uncounted || errors.Is(err, ErrUncounted)
		})
		if bad == 0 && !maps.Equal(got, want) {
			t.Fatal("no node was missed, the changes differ")
		}
		if bad > 0 {
			skipped++
		}
		if uncounted {
			warned++
			return
		}
		for id := range merged(got, want) {
			if got[id] < want[id] {
				t.Fatalf("%v: emitted %d, change is %d\n%+v", id, got[id], want[id], q.c)
			}
		}
	})
	if !t.Failed() && (skipped < 100 || warned < 10 || warned == skipped) {
		t.Fatalf("%d runs missed a node, %d of them left something uncounted: too few to mean anything", skipped, warned)
	}
}

func merged(a, b map[chunk.ID]int64) map[chunk.ID]bool {
	m := map[chunk.ID]bool{}
	for id := range a {
		m[id] = true
	}
	for id := range b {
		m[id] = true
	}
	return m
}

// The rule for unknown content, against every content it could be: three IDs,
// and zero, in each unknown slot.
func TestChangeIsTheLargestPossible(t *testing.T) {
	ids := []ref{{}, {id: pageID(1)}, {id: pageID(2)}}
	lost := []ref{{id: pageID(100), height: unreadable}, {id: pageID(101), height: unreadable}, {id: pageID(102), height: unreadable}}
	choices := slices.Concat(ids, lost)
	intro := func(x, y ref, id chunk.ID) int64 {
		if x.id == id && x != y {
			return 1
		}
		return 0
	}
	each(len(choices), 4, func(pick []int) {
		var at [4]ref
		for i, k := range pick {
			at[i] = choices[k]
		}
		emitted := map[chunk.ID]int64{}
		for i, x := range at {
			if id := x.at(0); !id.IsZero() && !seen(at[:i], x) {
				emitted[id] = change(x, &at, 0)
			}
		}
		v := slots{slotP: at[0], slotD: at[0], slotV: at[1], slotV2: at[2], slotN: at[3]}
		told := v.uncounted()
		pruned := (&counter{}).prune(PagePlace(testHeap, 0), &v)
		contents := append(slices.Clone(ids), ref{id: pageID(3)})
		each(len(contents), len(lost), func(as []int) {
			full := at
			for i := range full {
				if j := slices.Index(lost, full[i]); j >= 0 {
					full[i] = contents[as[j]]
				}
			}
			for _, x := range contents[1:] {
				want := intro(full[2], full[0], x.id) + intro(full[3], full[2], x.id) - intro(full[1], full[0], x.id) - intro(full[3], full[1], x.id)
				got := emitted[x.id]
				if pruned {
					got = 0
				}
				if got < want && (pruned || !told) {
					t.Fatalf("slots %v, contents %v: emitted %d, change %d (pruned: %v)", at, full, got, want, pruned)
				}
			}
		})
	})
}

// each calls f with every choice of k out of n, with repetition.
func each(n, k int, f func([]int)) {
	pick := make([]int, k)
	for {
		f(pick)
		i := 0
		for i < k {
			if pick[i]++; pick[i] < n {
				break
			}
			pick[i] = 0
			i++
		}
		if i == k {
			return
		}
	}
}
