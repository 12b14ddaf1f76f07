package manifest

import (
	"context"
	"errors"
	"fmt"

	"github.com/snapstore/snapstore/chunk"
)

// ErrUncounted is wrapped by what onBad is told when IDs of the new version
// could not be read and so were not counted. The counts may then be too low:
// nothing may be destroyed until they are recomputed.
var ErrUncounted = errors.New("references left uncounted")

// Splice is the drop of D that is under way directly before the version that
// changes: D is still there at places from Cursor on, and gone before it.
type Splice struct {
	D      chunk.ID
	Cursor Place
}

// Change says that version V, which stands between P and N in its run, becomes
// V2. All are IDs of manifests; zero is nothing there. Taking V out is V2 = P.
// With a Splice, P is what stands before Splice.D.
type Change struct {
	P, V, V2, N chunk.ID
	Splice      Splice // zero: none
}

// The slots of a counting walk.
const (
	slotP  = 0
	slotD  = 1 // equal to P without a splice
	slotV  = 2
	slotV2 = 3
	slotN  = 4
)

// Replace gives the changes of the counts that come with c. A version
// introduces, at each place, the ID it has there when the version before it
// has another; a count is the number of places that introduce an ID, over all
// versions. With intro(X|Y) = X if X is neither zero nor Y, a place contributes
//
//	intro(V2|pred) + intro(N|V2) - intro(V|pred) - intro(N|V)
//
// where pred is Splice.D from the splice's cursor on and P before it.
//
// emit is called for each ID whose count changes at a place, with node false
// for a page. The walk starts at from and ends after about budget calls (0: no
// bound) at a place; it returns the place to go on from, or one that IsEnd.
// Going on reads only the path to that place again.
//
// Work is in proportion to what changes: no subtree is read where V and V2 are
// equal, nor where V equals N and V2 equals the predecessor throughout.
//
// A node that can not be read is told to onBad (again, when a later step comes
// by), and everything below it is unknown in the versions that have it. The
// rule there: each ID is emitted the largest change that any content of the
// unknown part could mean. Counts may so come out too high, which keeps
// garbage until the next recount, never too low. The one exception is content
// of V2 that nothing readable names; then the error wraps ErrUncounted. With a
// nil onBad the error is returned.
func Replace(ctx context.Context, g Getter, c Change, from Place, budget int,
	emit func(id chunk.ID, delta int64, node bool) error, onBad func(Place, chunk.ID, error),
) (Place, error) {
	if from.IsEnd() {
		return from, nil
	}
	r := &counter{cursor: c.Splice.Cursor, from: from, budget: budget, emit: emit, onBad: onBad}
	ids := [maxSlots]chunk.ID{slotP: c.P, slotD: c.P, slotV: c.V, slotV2: c.V2, slotN: c.N}
	if !c.Splice.D.IsZero() {
		ids[slotD] = c.Splice.D
	}
	w := walker{ctx: ctx, g: g, from: from, rule: r, equal: 1<<slotV | 1<<slotV2}
	switch err := w.versions(ids); {
	case err == nil:
		return endPlace(), nil
	case errors.Is(err, errStop):
		return r.next, nil
	default:
		return from, err
	}
}

// Introduced calls fn for each ID that version v introduces over version base,
// place by place: what counting v from nothing comes to.
func Introduced(ctx context.Context, g Getter, base, v chunk.ID,
	fn func(id chunk.ID, node bool) error, onBad func(Place, chunk.ID, error),
) error {
	emit := func(id chunk.ID, _ int64, node bool) error { return fn(id, node) }
	_, err := Replace(ctx, g, Change{P: base, V2: v}, Place{}, 0, emit, onBad)
	return err
}

// counter is the rule of Replace.
type counter struct {
	cursor Place
	from   Place
	budget int
	spent  int
	next   Place
	emit   func(chunk.ID, int64, bool) error
	onBad  func(Place, chunk.ID, error)
}

func (r *counter) prune(p Place, v *slots) bool {
	if v[slotV] == v[slotV2] {
		return true
	}
	// Where the cursor does not pass through the subtree it has one predecessor.
	if v[slotP] != v[slotD] {
		if r.cursor.Compare(p) > 0 {
			v[slotD] = v[slotP]
		} else if r.cursor.Compare(p.first()) <= 0 {
			v[slotP] = v[slotD]
		}
	}
	unknown := v.anyUnknown()
	if v[slotP] == v[slotD] && v[slotV2] == v[slotP] && (v[slotV] == v[slotN] || unknown) {
		// In a drop every ID can only lose, and what is unknown keeps it.
		return true
	}
	return unknown && v[slotV2].isZero() && v[slotN].isZero()
}

func (v *slots) anyUnknown() bool {
	for i := range v {
		if v[i].unknown() {
			return true
		}
	}
	return false
}

func (r *counter) visit(p Place, v *slots) error {
	if r.budget > 0 && r.spent >= r.budget {
		r.next = p
		return errStop
	}
	pred := v[slotD]
	if p.Compare(r.cursor) < 0 {
		pred = v[slotP]
	}
	at := [4]ref{pred, v[slotV], v[slotV2], v[slotN]}
	before := r.spent
	for i, x := range at {
		id := x.at(p.height)
		if id.IsZero() || seen(at[:i], x) {
			continue
		}
		if d := change(x, &at, p.height); d != 0 {
			r.spent++
			if err := r.emit(id, d, !p.IsPage()); err != nil {
				return err
			}
		}
	}
	if r.spent == before {
		r.spent++ // reading counts too, or a step could be long
	}
	return nil
}

func seen(refs []ref, x ref) bool {
	for _, r := range refs {
		if r == x {
			return true
		}
	}
	return false
}

// change is by how much the count of x changes at a place that has at: the
// largest change over all contents that its unknown slots may have.
func change(x ref, at *[4]ref, height uint8) int64 {
	var is, unknown uint8 // bitmaps of the slots that hold x, that may hold it
	for i, r := range at {
		switch {
		case r == x:
			is |= 1 << i
		case r.unknown():
			unknown |= 1 << i
		}
	}
	if unknown == 0 {
		return formula(is)
	}
	most := int64(-2)
	for guess := unknown; ; guess = (guess - 1) & unknown {
		if consistent(guess, unknown, at) {
			most = max(most, formula(is|guess))
		}
		if guess == 0 {
			return most
		}
	}
}

// consistent tells whether a guess treats slots below the same unreadable node
// alike.
func consistent(guess, unknown uint8, at *[4]ref) bool {
	for i := range at {
		for j := range i {
			if unknown>>i&1 != 0 && at[i] == at[j] && guess>>i&1 != guess>>j&1 {
				return false
			}
		}
	}
	return true
}

// formula is the change of the count of an ID that stands in the slots of is:
// bit 0 the predecessor, 1 the old version, 2 the new one, 3 the next.
func formula(is uint8) int64 {
	pred, old, now, next := is&1 != 0, is&2 != 0, is&4 != 0, is&8 != 0
	var d int64
	if now && !pred {
		d++
	}
	if next && !now {
		d++
	}
	if old && !pred {
		d--
	}
	if next && !old {
		d--
	}
	return d
}

// uncounted tells whether, with what is unknown in v, an ID that nothing
// readable names could gain.
func (v *slots) uncounted() bool {
	pred := v[slotP].unknown() || v[slotD].unknown()
	return v[slotV2].unknown() || pred && v[slotV].unknown() && v[slotN].unknown()
}

func (r *counter) bad(p Place, v *slots, unread *NodeError) error {
	if r.onBad == nil {
		return unread
	}
	err := unread.Err
	if v.uncounted() {
		err = fmt.Errorf("%w: %w", ErrUncounted, err)
	}
	r.onBad(p, unread.ID, err)
	return nil
}
