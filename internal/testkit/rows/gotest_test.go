package rows

import (
	"context"
	"errors"
	"go/format"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/testkit"
	"github.com/snapstore/snapstore/internal/testkit/drive"
)

// What is printed for a history that fails is a test that compiles and plays
// it: printed_test.go is such a one, and part of this package.
func TestPrintedHistory(t *testing.T) {
	upload := on(testkit.BeginUpload, 1)
	upload.Sizes = map[testkit.Section]uint64{stable(): 9000, wasm(): 5000}
	hosted := on(testkit.Checkpoint, 0)
	hosted.Host = []byte("a \"host\"\n")
	ops := []testkit.Op{
		on(testkit.Create, 0), on(testkit.Create, 1), resize(0, wasm(), 24), fill(0, wasm(), 0, 3, 1), on(testkit.Take, 0), replace(0, 0),
		upload, load(1, 0, 1), hosted,
		{Name: testkit.Break, Fault: testkit.Fault{Kind: testkit.OpSync, Under: "store/log", Times: 1, Torn: true, Err: syscall.EIO}},
		on(testkit.Take, 0), op(testkit.Mend), op(testkit.GC),
	}
	cfg := quietly(7, func(o *engine.Options) { o.NoCompression = true })
	cfg.Faulty, cfg.Limit = true, 5
	text := GoTest(cfg, ops, "r.Play(t.Context(), slices.Values(ops), drive.Look)", errors.New("nothing\nat all"))
	want, err := os.ReadFile("printed_test.go")
	if err != nil {
		t.Fatal(err)
	}
	_, have, _ := strings.Cut(string(want), ")\n\n")
	printed, err := format.Source([]byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if string(printed) != have {
		t.Errorf("printed\n%s\nthe file has\n%s", printed, have)
	}
}

// A history that fails is made smaller and printed.
func TestFailedHistoryIsReduced(t *testing.T) {
	bad := errors.New("a take of canister 1")
	ops := []testkit.Op{on(testkit.Create, 0), on(testkit.Create, 1), on(testkit.Take, 0), on(testkit.Take, 1), on(testkit.Take, 0)}
	f := &failedHistory{cfg: drive.Config{Seed: 3}, ops: ops, err: bad, call: "r.Play(t.Context(), slices.Values(ops), drive.Look)"}
	f.play = func(_ context.Context, ops []testkit.Op) error {
		for _, o := range ops {
			if o.Name == testkit.Take && o.C == 1 {
				return bad
			}
		}
		return nil
	}
	text := f.Reduce(t.Context())
	if strings.Count(text, "Name:") != 1 || !strings.Contains(text, `{Name: "take", C: 1`) || !strings.Contains(text, "TestHistoryOfSeed3") {
		t.Error(text)
	}
}
