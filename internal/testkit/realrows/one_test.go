package realrows

import (
	"context"
	"os"
	"strconv"
	"testing"
)

// TestOneCase plays one case of a row: SNAPSTORE_ROW and SNAPSTORE_CASE say
// which.
func TestOneCase(t *testing.T) {
	name := os.Getenv("SNAPSTORE_ROW")
	if name == "" {
		t.Skip("SKIPPED: no row is asked for")
	}
	index, err := strconv.ParseInt(os.Getenv("SNAPSTORE_CASE"), 0, 64)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range Rows() {
		if row.Name != name {
			continue
		}
		if err := row.Needs(); err != nil {
			t.Skipf("SKIPPED: %v", err)
		}
		tally, err := row.Run(context.Background(), env(t), index)
		t.Logf("%+v", tally)
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatalf("no row %q", name)
}
