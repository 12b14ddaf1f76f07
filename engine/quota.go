package engine

import (
	"fmt"
	"math"
	"math/bits"

	"github.com/snapstore/snapstore/internal/record"
)

// What counts against a quota is what a tenant is charged: the logical size of
// the durable live state and of every snapshot, as total_size of the interface
// has it. Uploads count with the sizes they declare, from the start. Sharing
// lowers nothing, and what waits for gc counts no more. Memory that was written
// since the last take or checkpoint counts with the next one.
//
// An operation asks before it writes anything, for what it would add; what
// leaves in the same step is taken off first. One that adds nothing is never
// refused, also above the limit. What is asked for is held until the operation
// becomes visible or has failed, so that two at once can not both have the last
// byte, and one that failed is charged nothing.

// QuotaScope says whose quota it is.
type QuotaScope string

// The scopes.
const (
	ScopeCanister QuotaScope = "canister"
	ScopeStore    QuotaScope = "store"
)

// QuotaError is a refusal because of Options.CanisterQuota or StoreQuota. It is
// ErrQuota. Amounts are logical bytes.
type QuotaError struct {
	Scope QuotaScope
	Limit uint64
	// Used is what is charged already, and what other operations under way have
	// asked for. Wanted is how much more the operation would need.
	Used, Wanted uint64
}

func (e *QuotaError) Error() string {
	return fmt.Sprintf("%v: the %s may have %d bytes, has %d, and %d more are wanted", ErrQuota, e.Scope, e.Limit, e.Used, e.Wanted)
}

// Unwrap makes the error ErrQuota.
func (e *QuotaError) Unwrap() error { return ErrQuota }

// charged is what a canister is charged for.
func charged(r *record.Record) uint64 {
	if r == nil {
		return 0
	}
	return addCapped(r.HeadLogical, r.Logical())
}

func addCapped(a, b uint64) uint64 {
	sum, carry := bits.Add64(a, b, 0)
	if carry != 0 {
		return math.MaxUint64
	}
	return sum
}

// wide is a sum that does not overflow: any number of canisters may declare any
// number of bytes.
type wide struct{ hi, lo uint64 }

func (w *wide) add(n uint64) {
	var carry uint64
	w.lo, carry = bits.Add64(w.lo, n, 0)
	w.hi += carry
}

func (w *wide) sub(n uint64) {
	var borrow uint64
	w.lo, borrow = bits.Sub64(w.lo, n, 0)
	w.hi -= borrow
}

func (w wide) capped() uint64 {
	if w.hi != 0 {
		return math.MaxUint64
	}
	return w.lo
}

// accounts are guarded by Engine.mu.
type accounts struct {
	used     wide // of what is visible
	reserved wide // of operations under way
}

// reservation is what one operation under way has asked for.
type reservation struct{ n uint64 } // guarded by Engine.mu; 0 once it is settled

// reserve asks for what next has more than the record it replaces.
func (op *operation) reserve(next *record.Record) error {
	e := op.e
	have, want := charged(op.rec), charged(next)
	if want <= have {
		return nil
	}
	more := want - have
	if limit := e.o.CanisterQuota; limit > 0 && want > limit {
		return &QuotaError{Scope: ScopeCanister, Limit: limit, Used: have, Wanted: more}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	all := e.accounts.used
	all.add(e.accounts.reserved.lo)
	all.hi += e.accounts.reserved.hi
	if limit := e.o.StoreQuota; limit > 0 && addCapped(all.capped(), more) > limit {
		return &QuotaError{Scope: ScopeStore, Limit: limit, Used: all.capped(), Wanted: more}
	}
	e.accounts.reserved.add(more)
	op.reserved = &reservation{more}
	return nil
}

// settle ends a reservation, whether the operation is visible now or has failed.
// The caller holds Engine.mu.
func (a *accounts) settle(r *reservation) {
	if r != nil {
		a.reserved.sub(r.n)
		r.n = 0
	}
}

// become charges what a record has in place of another. The caller holds
// Engine.mu.
func (a *accounts) become(old, rec *record.Record) {
	a.used.add(charged(rec))
	a.used.sub(charged(old))
}

// account sums up once what is charged.
func (e *Engine) account() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, ent := range e.table {
		e.accounts.become(nil, ent.rec)
	}
}
