package engine_test

import (
	"errors"
	"testing"
	"time"

	"github.com/snapstore/snapstore/engine"
)

func scrubbed(t *testing.T, s *damagedStore, until func(engine.ScrubStats) bool) engine.ScrubStats {
	t.Helper()
	o := *s.o
	o.ScrubEvery, o.ScrubRate = time.Millisecond, 1<<40
	e := must(engine.Open("store", &o))
	defer func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}()
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		st := e.Stats().Scrub
		if st.Failed != "" {
			t.Fatal(st.Failed)
		}
		if until(st) {
			return st
		}
		if time.Since(began) > time.Minute {
			t.Fatalf("no end to it: %+v", st)
		}
	}
}

// TestScrubberFindsRot: damage that nobody reads is found, what it hit is
// marked lost, so that it heals when it is written again, and the rest of the
// store does not feel it.
func TestScrubberFindsRot(t *testing.T) {
	s := newDamagedStore(t)
	if st := scrubbed(t, s, func(st engine.ScrubStats) bool { return st.Passes > 0 }); st.Problems != 0 || st.Bytes == 0 || st.OldestSeconds <= 0 {
		t.Fatalf("a whole store: %+v", st)
	}
	must0(s.disk.Edit(s.segments()[1], func(p []byte) { p[len(p)/2] ^= 4 }))
	if st := scrubbed(t, s, func(st engine.ScrubStats) bool { return st.Passes > 1 }); st.Problems == 0 {
		t.Fatalf("not found: %+v", st)
	}
	e := must(engine.Open("store", s.o))
	if u := must(e.Usage(bg)); u.Lost == 0 || u.Lost > 16 {
		t.Errorf("%d chunks are lost", u.Lost)
	}
	must0(e.Close())
	if lost := s.read(); len(lost) == 0 || len(lost) > 16*10 {
		t.Errorf("%d pages are lost", len(lost))
	}
}

// TestScrubberGoesOn: an Open in the middle of a pass goes on where the last
// one was, and Close does not wait for the pass.
func TestScrubberGoesOn(t *testing.T) {
	s := newDamagedStore(t)
	o := *s.o
	o.ScrubEvery, o.ScrubRate = time.Millisecond, 2<<20 // late at once, so at the rate
	reach := func(least uint64) uint64 {
		t.Helper()
		e := must(engine.Open("store", &o))
		first := e.Stats().Scrub.Segment
		for began := time.Now(); e.Stats().Scrub.Segment < least; time.Sleep(time.Millisecond) {
			if time.Since(began) > time.Minute {
				t.Fatalf("%+v", e.Stats().Scrub)
			}
		}
		must0(e.FlushIndex())
		must0(e.Close())
		return first
	}
	if first := reach(2); first != 0 {
		t.Errorf("it begins at segment %d", first)
	}
	// No pass has come to its end, and how long that takes is told from its
	// beginning on, not from the open.
	between := time.Now()
	e := must(engine.Open("store", &o))
	least := time.Since(between).Seconds()
	st := e.Stats().Scrub
	must0(e.Close())
	if st.Passes != 0 || st.OldestSeconds < least {
		t.Errorf("%+v, want at least %v", st, least)
	}
	if first := reach(4); first < 2 {
		t.Errorf("it begins at segment %d again", first)
	}
}

func TestScrubOptions(t *testing.T) {
	for _, o := range []engine.Options{{ScrubEvery: -1}, {ScrubRate: -1}} {
		if err := o.Validate(); !errors.Is(err, engine.ErrInvalid) {
			t.Errorf("%+v: %v", o, err)
		}
	}
}
