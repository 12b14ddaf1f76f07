package realrows

import (
	"context"
	"slices"
	"testing"
)

// TestLimitsFindLiars: the rows of limited processes and failing file systems find
// workers that are wrong on purpose.
func TestLimitsFindLiars(t *testing.T) {
	for _, c := range []struct {
		row string
		lie lie
	}{
		{"limit-fsize", early},
		{"limit-fsize", deaf},
		{"limit-fsize", vague},
		{"limit-files", early},
		{"limit-files", vague},
		{"read-only", early},
		{"read-only", vague},
		{"shutdown", neverSynced},
		{"shutdown", early},
		{"removed", vague},
	} {
		t.Run(c.row+"/"+string(c.lie), func(t *testing.T) {
			t.Parallel()
			h := hardships[slices.IndexFunc(hardships, func(h hardship) bool { return h.name == c.row })]
			if h.device != nil {
				if err := needsDevices(); err != nil {
					t.Skipf("SKIPPED: %v", err)
				}
			}
			for i := range int64(10) {
				if tally, err := h.run(context.Background(), env(t), i, c.lie); err != nil {
					t.Logf("found in case %d: %+v: %.600s", i, tally, err.Error())
					return
				}
			}
			t.Error("a worker that is wrong is taken for right")
		})
	}
}
