package realrows

import (
	"context"
	"os"
	"strconv"
	"testing"

	"go.uber.org/goleak"

	"github.com/snapstore/snapstore/internal/testkit/matrix"
)

// The test's program is the worker's too.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "worker" {
		os.Exit(Worker(os.Args[2:]))
	}
	goleak.VerifyTestMain(m)
}

// env is what a case of a test may use. SNAPSTORE_SEED replays.
func env(t *testing.T) *matrix.Env {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	seed := uint64(1)
	if s := os.Getenv("SNAPSTORE_SEED"); s != "" {
		if seed, err = strconv.ParseUint(s, 0, 64); err != nil {
			t.Fatal(err)
		}
	}
	return &matrix.Env{Seed: seed, Dir: t.TempDir(), Self: self, Logf: t.Logf}
}

// TestRows plays each row's fast share; SNAPSTORE_FULL=1 its full one.
func TestRows(t *testing.T) {
	for _, row := range Rows() {
		t.Run(row.Name, func(t *testing.T) {
			t.Parallel()
			n := row.Fast
			if os.Getenv("SNAPSTORE_FULL") != "" {
				n = row.Full
			}
			if n == 0 {
				t.Skip("SKIPPED: only in full runs")
			}
			if err := row.Needs(); err != nil {
				t.Skipf("SKIPPED: %v", err)
			}
			var sum matrix.Tally
			for i := range n {
				e := env(t)
				tally, err := row.Run(context.Background(), e, i)
				sum.Add(tally)
				if err != nil {
					t.Fatalf("seed %d, case %d: %+v: %v", e.Seed, i, tally, err)
				}
			}
			if sum.Lost+sum.Silent+sum.Leaked+sum.FreedEarly > 0 || sum.Cases != n {
				t.Errorf("%+v", sum)
			}
			t.Logf("%+v", sum)
		})
	}
}

// TestKillFindsAnEarlyAcknowledgement: the row finds a worker that is wrong on
// purpose.
func TestKillFindsAnEarlyAcknowledgement(t *testing.T) {
	for i := range int64(20) {
		if tally, err := kills(context.Background(), env(t), i, early); err != nil {
			t.Logf("found in case %d: %+v: %v", i, tally, err)
			return
		}
	}
	t.Error("a worker that acknowledges before it acts is taken for right")
}
