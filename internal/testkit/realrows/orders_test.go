//go:build failpoint

package realrows

import (
	"slices"
	"testing"

	"github.com/snapstore/snapstore/internal/failpoint"
)

// TestReadersAreOvertaken: the scenes of readers and cleaning reach what they are
// for. A segment is dropped after a reader has looked up that its content lies
// there, and before it reads; so it has to look up once more than where nobody
// is in its way. A reader that does not ends with an error, which fails the case.
func TestReadersAreOvertaken(t *testing.T) {
	for _, c := range casts() {
		if len(c.actors) != 2 || !slices.Equal(c.actors[0].steps, readSteps) {
			continue
		}
		locates := func(order []step) int {
			t.Helper()
			for seed := range uint64(20) {
				_, turns, err := c.play(t.Context(), 7+seed, order)
				if err != nil {
					t.Fatalf("%s, %v: %v", c.name, order, err)
				}
				if turns.bent == 0 { // a busy machine bends orders
					return turns.seen[failpoint.Locate]
				}
			}
			t.Skipf("SKIPPED: %s: the machine is too busy for any order", c.name)
			return 0
		}
		reads, cleans := c.actors[0].steps, c.actors[1].steps
		for look := 1; look < len(reads); look += 2 {
			alone, overtaken := locates(slices.Concat(reads, cleans)), locates(slices.Concat(reads[:look], cleans, reads[look:]))
			if overtaken <= alone {
				t.Errorf("%s: %d look-ups when the segment of look-up %d is dropped, %d when none is", c.name, overtaken, (look+1)/2, alone)
			}
		}
	}
}
