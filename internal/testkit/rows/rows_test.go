package rows

import (
	"context"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/snapstore/snapstore/internal/testkit"
	"github.com/snapstore/snapstore/internal/testkit/drive"
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

// Cases of long runs that failed once.
func TestKnownCases(t *testing.T) {
	for _, c := range []struct {
		row   string
		seed  uint64
		index int64
		why   string
	}{
		{"block", 7, 30, "batches behind a damaged trailer vanished, and a canister was served from an older record"},
		{"flip", 2, 22, "a damaged index was met by a read that did not say what was damaged"},
		{"misread", 12, 296, "close waited for ever for what it had moved; and what a node names that was misread while the index was built was freed"},
		{"misread", 12, 324, "an index that can not be read when it was only just built was an error of no kind"},
	} {
		i := slices.IndexFunc(InProcess(), func(r matrix.Row) bool { return r.Name == c.row })
		row := InProcess()[i]
		run := row.Run
		row.Run = func(ctx context.Context, env *matrix.Env, _ int64) (matrix.Tally, error) {
			return run(ctx, env, c.index)
		}
		r, err := matrix.NewRunner([]matrix.Row{row}, matrix.RunnerOptions{
			Seed: c.seed, ReduceFor: -1, Workers: 1,
			Count:  func(matrix.Row) int64 { return 1 },
			Failed: func(f matrix.Failure) { t.Errorf("%s %d, seed %d (%s): %s", c.row, c.index, c.seed, c.why, f.Error) },
			Logf:   t.Logf,
		})
		if err != nil {
			t.Fatal(err)
		}
		report, err := r.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !report.OK() || report.Total.Cases != 1 {
			t.Errorf("%s %d: %+v", c.row, c.index, report.Total)
		}
	}
}

// Large takes and gc write past the page cache in histories, so that crashes and
// faults come between that and the sync.
func TestHistoriesWriteDirectly(t *testing.T) {
	var taken, moved bool
	for seed := uint64(0); seed < 40 && !(taken && moved); seed++ {
		r, err := drive.New(drive.Config{Seed: seed})
		if err != nil {
			t.Fatal(err)
		}
		// Nothing that opens the store again: its figures begin anew then.
		g := testkit.NewGenerator(seed, testkit.Break, testkit.Mend, testkit.KillSoon, testkit.Kill, testkit.PowerLoss, testkit.Reopen, testkit.DropIndex)
		if err := draw(t.Context(), r, g, 60); err != nil {
			t.Fatal(err)
		}
		if err := r.Do(t.Context(), op(testkit.GC)); err != nil {
			t.Fatal(err)
		}
		st := r.E.Log().Stats()
		taken = taken || st.DirectBytes > st.MovedBytes
		moved = moved || st.DirectBytes > st.BulkBytes
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if !taken || !moved {
		t.Errorf("direct writes by takes: %t, by gc: %t", taken, moved)
	}
}
