package seglog

import (
	"sync"
	"time"
)

// syncTimes knows how long syncs take that commits may wait for, to tell a slow
// disk while it is slow. Safe for concurrent use; the zero value is ready.
type syncTimes struct {
	mu      sync.Mutex
	next    uint64
	under   map[uint64]time.Time // when those under way began
	slowest time.Duration
}

// begin notes a sync; the returned function ends it.
func (t *syncTimes) begin() (end func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.under == nil {
		t.under = map[uint64]time.Time{}
	}
	began := time.Now()
	t.next++
	mine := t.next
	t.under[mine] = began
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.under, mine)
		t.slowest = max(t.slowest, time.Since(began))
	}
}

// look gives how long the oldest sync under way has taken so far, and the
// longest that any took, with those.
func (t *syncTimes) look() (waiting, slowest time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, began := range t.under {
		waiting = max(waiting, time.Since(began))
	}
	return waiting, max(waiting, t.slowest)
}
