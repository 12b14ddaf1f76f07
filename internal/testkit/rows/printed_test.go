package rows

import (
	"slices"
	"syscall"
	"testing"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/testkit"
	"github.com/snapstore/snapstore/internal/testkit/drive"
)

// It failed with: nothing
func TestHistoryOfSeed7(t *testing.T) {
	cfg := drive.Config{Seed: 7, Limit: 5, Faulty: true, Options: func(o *engine.Options) {
		o.SegmentSize, o.MemTable, o.Ballast, o.NoCompression, o.CleanBelow = 65536, 262144, 65536, true, 0.5
		o.IdleSync, o.NoBackground, o.BulkAfter, o.CountStep, o.Codec = -1, true, 1, 20, 0
		o.PageCache, o.NodeCache, o.IndexCache = 65536, 65536, 262144
		o.DirectLeast, o.NoDirectIO = 24576, false
	}}
	ops := []testkit.Op{
		{Name: "create", Replace: testkit.NoSnapshot, At: 1},
		{Name: "create", C: 1, Replace: testkit.NoSnapshot, At: 1},
		{Name: "resize", Replace: testkit.NoSnapshot, Section: testkit.Section{Kind: 2}, Size: 98304},
		{Name: "write", Replace: testkit.NoSnapshot, Section: testkit.Section{Kind: 2}, Spans: []testkit.Span{{Len: 4096, Content: 1}, {Off: 4096, Len: 4096, Content: 2}, {Off: 8192, Len: 4096, Content: 3}}},
		{Name: "take", Replace: testkit.NoSnapshot, At: 1},
		{Name: "take", At: 2},
		{Name: "begin-upload", C: 1, Replace: testkit.NoSnapshot, Sizes: map[testkit.Section]uint64{{Kind: 2}: 5000, {Kind: 3}: 9000}, At: 1},
		{Name: "load", C: 1, Local: 1, Replace: testkit.NoSnapshot},
		{Name: "checkpoint", Replace: testkit.NoSnapshot, At: 1, Host: []byte("a \"host\"\n")},
		{Name: "break", Fault: testkit.Fault{Kind: 256, Under: "store/log", Times: 1, Err: syscall.EIO, Torn: true}},
		{Name: "take", Replace: testkit.NoSnapshot, At: 1},
		{Name: "mend", Replace: testkit.NoSnapshot},
		{Name: "gc", Replace: testkit.NoSnapshot},
	}
	r, err := drive.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.Play(t.Context(), slices.Values(ops), drive.Look); err != nil {
		t.Fatal(err)
	}
}
