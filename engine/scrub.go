package engine

import (
	"context"
	"sync"
	"time"

	"github.com/snapstore/snapstore/gc"
)

// ScrubStats is what the scrubber has done since Open, and how far it is.
type ScrubStats struct {
	Bytes    uint64 `json:"bytes"`
	Problems uint64 `json:"problems"` // frames that are not whole
	Passes   uint64 `json:"passes"`
	Segment  uint64 `json:"segment"` // the last one read in the pass under way
	// OldestSeconds is since when everything older was read: since the last pass
	// that came to its end began. Before that it is since the first began, so that
	// it grows as well while nothing comes to an end. 0 is no scrubber.
	OldestSeconds float64 `json:"oldest_seconds"`
	// Failed says why scrubbing has stopped; empty if it has not.
	Failed string `json:"failed,omitempty"`
}

// scrubbing runs a scrubber beside the engine.
type scrubbing struct {
	scrubber *gc.Scrubber
	stop     context.CancelFunc
	done     sync.WaitGroup

	mu     sync.Mutex
	failed error
}

// startScrubbing begins scrubbing if the options ask for it.
func (e *Engine) startScrubbing() error {
	if e.o.ScrubEvery == 0 {
		return nil
	}
	s, err := gc.NewScrubber(e.log, e.idx, e.counter, gc.ScrubOptions{Every: e.o.ScrubEvery, Rate: e.o.ScrubRate, Logger: e.o.Logger})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	e.scrub = &scrubbing{scrubber: s, stop: stop}
	e.scrub.done.Go(func() {
		if err := s.Run(ctx); err != nil {
			e.o.Logger.Error("scrubbing stopped", "error", err)
			e.scrub.mu.Lock()
			e.scrub.failed = err
			e.scrub.mu.Unlock()
		}
	})
	return nil
}

// end stops scrubbing and waits for it.
func (s *scrubbing) end() {
	if s != nil {
		s.stop()
		s.done.Wait()
	}
}

func (s *scrubbing) stats() (out ScrubStats) {
	if s == nil {
		return out
	}
	st := s.scrubber.Stats()
	out = ScrubStats{Bytes: st.Bytes, Problems: st.Problems, Passes: st.Passes, Segment: uint64(st.Segment)}
	since := st.Whole
	if since.IsZero() {
		since = st.Began
	}
	if !since.IsZero() {
		out.OldestSeconds = max(0, time.Since(since).Seconds()) // clocks are set back
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		out.Failed = s.failed.Error()
	}
	return out
}
