package gc

import "sync"

// Ticket is an operation's place in the order of beginnings.
type Ticket uint64

// Tickets knows which operations are under way. What entered limbo while an
// operation was under way is not destroyed before that operation has ended.
// Safe for concurrent use; the zero value is ready.
type Tickets struct {
	mu     sync.Mutex
	next   Ticket
	active map[Ticket]struct{}
	ended  func()
}

// OnEnd sets what is called after each end, from the goroutine that ends.
func (t *Tickets) OnEnd(f func()) { t.ended = f }

// Begin notes an operation; call the returned function once it is applied, or
// has failed, and reads nothing of the state it began with any more.
func (t *Tickets) Begin() (end func()) {
	t.mu.Lock()
	if t.active == nil {
		t.active = map[Ticket]struct{}{}
	}
	t.next++
	mine := t.next
	t.active[mine] = struct{}{}
	t.mu.Unlock()
	var once sync.Once
	return func() {
		once.Do(func() {
			t.mu.Lock()
			delete(t.active, mine)
			t.mu.Unlock()
			if t.ended != nil {
				t.ended()
			}
		})
	}
}

// Now gives a ticket such that every operation under way has a lower or equal
// one, and every later one a higher.
func (t *Tickets) Now() Ticket {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.next
}

// Passed tells whether every operation up to ticket has ended.
func (t *Tickets) Passed(ticket Ticket) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for a := range t.active {
		if a <= ticket {
			return false
		}
	}
	return true
}

// Active returns how many operations are under way.
func (t *Tickets) Active() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.active)
}
