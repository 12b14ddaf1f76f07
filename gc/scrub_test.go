package gc

import (
	"testing"
	"time"
)

// TestScrubberAndTheClock: a pass has its time, one that is late goes as fast as
// it may, and a clock that is set back does not make it stand still.
func TestScrubberAndTheClock(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	s := &Scrubber{o: ScrubOptions{Every: 100 * time.Second, Rate: 1 << 20, Now: func() time.Time { return now }}}
	for _, c := range []struct {
		ago   time.Duration // it began
		rate  int64         // with 100,000 bytes left
		sleep time.Duration // if it is done
	}{
		{0, 1000, 100 * time.Second},
		{50 * time.Second, 2000, 50 * time.Second},
		{100 * time.Second, 1 << 20, 0},
		{time.Hour, 1 << 20, 100*time.Second - time.Hour},
		{-87_600 * time.Hour, 1000, 100 * time.Second},
	} {
		began := now.Add(-c.ago)
		if rate, sleep := s.rate(began, 100_000), s.until(began); rate != c.rate || sleep != c.sleep {
			t.Errorf("began %s ago: %d bytes a second and %s, want %d and %s", c.ago, rate, sleep, c.rate, c.sleep)
		}
	}
}
