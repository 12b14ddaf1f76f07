package manifest

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"slices"

	"github.com/snapstore/snapstore/chunk"
)

// maxSlots is how many versions one walk compares.
const maxSlots = 5

// slots is what each version of a walk has at a place; unused ones are zero.
type slots [maxSlots]ref

// slotSet is a set of slots.
type slotSet uint8

// rule is what a walk is for.
type rule interface {
	// prune tells whether nothing at or below p matters. It may rewrite v
	// where that changes no answer, so that less is read.
	prune(p Place, v *slots) bool
	// visit is called for each place left, children before parents.
	visit(p Place, v *slots) error
	// bad is told of a node at p that can not be read. After nil the walk goes
	// on with everything below it unreadable in the slots that had it.
	bad(p Place, v *slots, unread *NodeError) error
}

// errStop ends a walk that is not finished and not wrong.
var errStop = errors.New("stop")

// walker walks several versions at once, place by place. A node that several
// of them have at one place is read once.
type walker struct {
	ctx  context.Context
	g    Getter
	from Place // places before it are not visited; nodes there are read only on the way to it
	rule rule
	// equal are two slots, as bits: where they hold the same, the rule prunes.
	// Most children are of this kind, and need not be shown to it.
	equal slotSet
	// below has what the versions have at the place of each height that the
	// walk is in; in one piece, so that a step down allocates nothing.
	below [MaxDepth + 1]slots
}

// outcome is the end of a walk.
type outcome struct{ err error }

// finish hands a real error on and swallows errStop.
func (o outcome) finish(report func(error)) {
	if o.err != nil && !errors.Is(o.err, errStop) {
		report(o.err)
	}
}

// versions walks whole versions, given by their manifests' IDs.
func (w *walker) versions(ids [maxSlots]chunk.ID) error {
	p := manifestPlace()
	var v slots
	for i, id := range ids {
		if !id.IsZero() {
			v[i] = ref{id: id}
		}
	}
	if p.Compare(w.from) < 0 || w.rule.prune(p, &v) {
		return nil
	}
	if w.from.Compare(p) < 0 {
		if err := w.sections(p, v); err != nil {
			return err
		}
	}
	return w.rule.visit(p, &v)
}

// sections walks what is below the manifests.
func (w *walker) sections(p Place, v slots) error {
	var manifests [maxSlots]*Manifest
	below := v
	for i, r := range v {
		if r.isZero() {
			continue
		}
		if j := slices.Index(v[:i], r); j >= 0 {
			manifests[i], below[i] = manifests[j], below[j]
			continue
		}
		m, err := Load(w.ctx, w.g, r.id)
		if err != nil {
			if err := w.unread(p, &below, r, err); err != nil {
				return err
			}
			continue
		}
		manifests[i] = m
	}
	var all []Section
	for _, m := range manifests {
		if m != nil {
			for _, s := range m.Sections {
				all = append(all, s.Section)
			}
		}
	}
	slices.SortFunc(all, Section.Compare)
	for _, s := range slices.Compact(all) {
		var roots slots
		for i, m := range manifests {
			if m != nil {
				root, _ := m.Section(s)
				roots[i] = rootRef(root)
			} else if below[i].unknown() {
				roots[i] = below[i]
			}
		}
		if err := w.trees(s, roots).err; err != nil {
			return err
		}
	}
	return nil
}

// trees walks one section of each version, given by the roots.
func (w *walker) trees(s Section, roots slots) outcome {
	var top uint8
	for _, r := range roots {
		if !r.isZero() && !r.unknown() {
			top = max(top, r.height)
		}
	}
	if top == 0 {
		return outcome{}
	}
	if int(top) >= len(w.below) {
		return outcome{fmt.Errorf("manifest: %w: %v longer than %d bytes", ErrMalformed, s, uint64(MaxSectionSize))}
	}
	w.below[top] = roots
	return outcome{w.tree(treePlace(s, top, 0))}
}

// tree walks what is at and below p, whose slots are in w.below.
func (w *walker) tree(p Place) error {
	v := &w.below[p.height]
	if p.Compare(w.from) < 0 || w.rule.prune(p, v) {
		return nil
	}
	if p.height > 0 && w.from.Compare(p) < 0 {
		if err := w.children(p, v); err != nil {
			return err
		}
	}
	return w.rule.visit(p, v)
}

func (w *walker) children(p Place, v *slots) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	var f [maxSlots]family
	var first [maxSlots]int8 // the slot whose children a slot has, as both hold the same
	var used [maxSlots]int8
	n := 0
	var known uint16
	var below *slots // v with what can not be read marked, when there is any
	for i := range v {
		r := &v[i]
		if r.isZero() {
			first[i] = int8(i) // no children
			continue
		}
		used[n] = int8(i)
		n++
		first[i] = int8(slices.Index(v[:i+1], *r))
		if first[i] < int8(i) {
			continue
		}
		var err error
		if f[i], err = open(w.ctx, w.g, p, *r); err != nil {
			if below == nil {
				c := *v
				below = &c
			}
			if err := w.unread(p, below, *r, err); err != nil {
				return err
			}
			f[i] = family{whole: ref{r.id, unreadable}}
		}
		known |= f[i].known()
	}
	c := &w.below[p.height-1]
	fa, fb := w.pair(&f, &first)
	known &= w.reached(p)
	for ; known != 0; known &= known - 1 {
		i := bits.TrailingZeros16(known)
		if fa != nil && fa.sameChild(fb, i) {
			continue
		}
		*c = slots{} // the rule may have rewritten any
		for _, j := range used[:n] {
			f[first[j]].childTo(&c[j], i)
		}
		if err := w.tree(p.child(i)); err != nil {
			return err
		}
	}
	return nil
}

// pair gives what the slots in w.equal have, nil where there are none.
func (w *walker) pair(f *[maxSlots]family, first *[maxSlots]int8) (a, b *family) {
	if w.equal == 0 {
		return nil, nil
	}
	i := bits.TrailingZeros8(uint8(w.equal))
	j := bits.TrailingZeros8(uint8(w.equal & (w.equal - 1)))
	return &f[first[i]], &f[first[j]]
}

// reached are the children of p that do not lie wholly before w.from.
func (w *walker) reached(p Place) uint16 {
	if w.from.stage != stageSection || w.from.section != p.section {
		return 1<<Fanout - 1 // p itself is not before it
	}
	from, end := p.Pages()
	at, _ := w.from.Pages()
	if at < from || at >= end {
		return 1<<Fanout - 1
	}
	return ^uint16(0) << ((at - from) >> (fanoutBits * (p.height - 1)))
}

// unread asks the rule whether to go on without what is below r at p. It is
// shown slots in which all that can not be read here is marked.
func (w *walker) unread(p Place, below *slots, r ref, err error) error {
	if halts(w.ctx, err) {
		return err
	}
	var e *NodeError
	if !errors.As(err, &e) {
		e = &NodeError{Place: p, ID: r.id, Err: err}
	}
	for i := range below {
		if below[i] == r {
			below[i].height = unreadable
		}
	}
	return w.rule.bad(p, below, e)
}
