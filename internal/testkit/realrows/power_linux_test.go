package realrows

import (
	"context"
	"os"
	"testing"
)

// TestPowerFindsAMissingSync: a worker whose syncs do nothing loses what it
// acknowledged. It boots a machine, so it runs only in full runs.
func TestPowerFindsAMissingSync(t *testing.T) {
	if os.Getenv("SNAPSTORE_FULL") == "" {
		t.Skip("SKIPPED: only in full runs")
	}
	if err := needsPower(); err != nil {
		t.Skipf("SKIPPED: %v", err)
	}
	for i := range int64(4) {
		if tally, err := power(context.Background(), env(t), i, neverSynced); err != nil && tally.Lost > 0 {
			t.Logf("found in case %d: %+v: %v", i, tally, err)
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
	t.Error("a worker that never syncs is taken for right")
}
