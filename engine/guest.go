package engine

import (
	"context"
	"fmt"
)

// Guest is what a host lets run on lent memory.
type Guest interface {
	// Quiesce stops all that writes to the canister's lent memory, calls pause
	// once, and lets it go on. Before it calls pause it may set the canister's
	// metadata, so that globals belong to the same moment. It is called by
	// Take, Checkpoint, Load and Revert, from their goroutine, and must not
	// call operations of the canister. When pause was called its error counts,
	// and not what Quiesce returns; otherwise the operation fails with that.
	Quiesce(ctx context.Context, pause func() error) error
}

// SetGuest tells how to stop what runs on lent memory; nil is nothing runs.
// With a guest, takes copy what is dirty while it runs and stop it only for
// what was written meanwhile.
func (c *Canister) SetGuest(g Guest) {
	c.gate.Lock()
	c.guest = g
	c.gate.Unlock()
}

// paused calls f while the guest stands still.
func (c *Canister) paused(ctx context.Context, f func() error) error {
	c.gate.RLock()
	g := c.guest
	c.gate.RUnlock()
	if g == nil {
		return f()
	}
	called := false
	var err error
	other := g.Quiesce(ctx, func() error {
		if called {
			return fmt.Errorf("pause was called already: %w", ErrInvalid)
		}
		called = true
		err = f()
		return err
	})
	switch {
	case called:
		return err
	case other != nil:
		return fmt.Errorf("stop the guest: %w", other)
	}
	return fmt.Errorf("the guest's Quiesce did not call pause: %w", ErrInvalid)
}

// lentSections are those of which all of the image is in memory. They do not
// change under the operation lock.
func (s *space) lentSections() []*Memory {
	s.gate.RLock()
	defer s.gate.RUnlock()
	var out []*Memory
	for _, m := range s.sections {
		if m.lent != nil {
			out = append(out, m)
		}
	}
	return out
}

// capture seals the live state: lent sections are copied while the guest runs,
// and in one pause the rest of them is, and every other section sealed.
func (c *Canister) capture(ctx context.Context) (z *sealed, err error) {
	lent := c.lentSections()
	defer func() {
		if z == nil {
			for _, m := range lent {
				m.lent.giveBack()
			}
		}
	}()
	c.gate.RLock()
	running := c.guest != nil
	c.gate.RUnlock()
	for _, m := range lent {
		if err := m.preCopy(ctx, running); err != nil {
			return nil, err
		}
	}
	err = c.paused(ctx, func() (err error) {
		z, err = c.seal()
		return err
	})
	if err != nil {
		z = nil
		return nil, err
	}
	for _, m := range lent {
		m.rearm(m.lent.residue.All())
		z.early += m.lent.early.Len()
		z.residue += m.lent.residue.Len()
	}
	return z, nil
}
