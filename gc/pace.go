package gc

import (
	"context"
	"time"
)

const (
	// pace is how long a pass rests for each moment it worked: the background
	// always, since what the process does besides is not ours to know, and who was
	// asked for only beside operations. With three times as much, takes beside gc
	// had a p99 of 146 ms for 163, and gc took 121 s for 76; with none, 253 to 348 ms
	// and 37 s.
	pace = 1
	// stint is how long a pass works before it rests: many of its steps are shorter
	// than what a timer can tell.
	stint = 2 * time.Millisecond
	// maxRest bounds a rest after a step that nothing could interrupt.
	maxRest = 100 * time.Millisecond
	// restStep is how soon a rest notices that there is no more reason for it.
	restStep = time.Millisecond
)

// breathe is called between the steps of a pass, and rests if it is time to. Who
// holds pass calls it, and no other lock.
func (g *Collector) breathe(ctx context.Context) {
	g.keepUp(ctx)
	worked := time.Since(g.began)
	if worked < stint {
		return
	}
	began := time.Now()
	end := began.Add(min(pace*worked, maxRest))
	for g.rests() && ctx.Err() == nil {
		left := time.Until(end)
		if left <= 0 {
			break
		}
		time.Sleep(min(left, restStep))
	}
	g.began = time.Now()
	g.rested += g.began.Sub(began)
}

// keepUp drops whatever waits for it while operations are held back for that: a pass
// that works on what there was at its beginning would hold them back to its end. It
// takes no room that is scarce, and what fails shows in the pass's own next step.
func (g *Collector) keepUp(ctx context.Context) {
	for g.waited.Load() > 0 && ctx.Err() == nil {
		if worked, _, err := g.tryDrop(ctx, nil); err != nil || !worked {
			return
		}
	}
}

// rests says whether there is reason to rest: nobody waits for what the pass will
// give back.
func (g *Collector) rests() bool {
	if g.waited.Load() > 0 || g.relief.Load() > 0 || g.log.Short() {
		return false
	}
	if g.inBackground && g.asked.Load() > 0 {
		return false
	}
	return g.inBackground || g.tickets.Active() > 0
}

// Hurry keeps passes from resting until done is called: somebody waits for them.
func (g *Collector) Hurry() (done func()) {
	g.waited.Add(1)
	return func() { g.waited.Add(-1) }
}
