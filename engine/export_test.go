package engine

import (
	"github.com/snapstore/snapstore/gc"
	"github.com/snapstore/snapstore/internal/index"
)

// IndexID is the index's name for an ID.
type IndexID = index.ID

// ForgetInFilter makes the filter deny what is there.
func (e *Engine) ForgetInFilter(forget func(IndexID) bool) { e.idx.ForgetInFilter(forget) }

// SetStep changes how many changes of counts one atomic step of the index has.
// Nothing may go on meanwhile.
func (e *Engine) SetStep(n int) { e.counter.SetStep(n) }

// HoldApplier keeps the applier between two batches until release is called.
func (e *Engine) HoldApplier() (release func()) {
	held, done := make(chan struct{}), make(chan struct{})
	seq, hash := e.log.Last()
	e.applier.Enqueue(&gc.Batch{Seq: seq, Hash: hash, Done: func() { close(held); <-done }})
	<-held
	return func() { close(done) }
}

// Lossy tells whether takes look up what their head already names.
func (e *Engine) Lossy() bool { return e.counter.Lossy() }

// Lookups is how often the index was asked for content.
func (e *Engine) Lookups() uint64 { return e.store.Stats().Lookups }

// ChargeForTest charges for what is not there.
func (e *Engine) ChargeForTest(n uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.accounts.used.add(n)
}
