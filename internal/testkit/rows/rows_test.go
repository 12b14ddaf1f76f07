package rows

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/snapstore/snapstore/internal/testkit/matrix"
)

// The fast share of every row. SNAPSTORE_SEED gives other cases,
// SNAPSTORE_ROWS only some rows.
func TestRows(t *testing.T) {
	seed := uint64(1)
	if v := os.Getenv("SNAPSTORE_SEED"); v != "" {
		var err error
		if seed, err = strconv.ParseUint(v, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	rows := InProcess()
	if v := os.Getenv("SNAPSTORE_ROWS"); v != "" {
		var some []matrix.Row
		for _, r := range rows {
			if strings.Contains(","+v+",", ","+r.Name+",") {
				some = append(some, r)
			}
		}
		rows = some
	}
	run, err := matrix.NewRunner(rows, matrix.RunnerOptions{
		Seed: seed, ReduceFor: -1,
		Count:  func(r matrix.Row) int64 { return r.Fast },
		Failed: func(f matrix.Failure) { t.Errorf("%s %d, seed %d: %s", f.Row, f.Index, f.Seed, f.Error) },
		Logf:   t.Logf,
	})
	if err != nil {
		t.Fatal(err)
	}
	report, err := run.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !report.OK() {
		t.Error("what must hold did not")
	}
	for _, r := range report.Rows {
		if r.Cases == 0 && r.Skipped == "" {
			t.Errorf("%s: no case", r.Row)
		}
		t.Logf("%-12s %5d cases %6d points %4.1f s", r.Row, r.Cases, r.Points, r.BusySeconds)
	}
}
