package engine_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"testing"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/testkit"
)

// Everything that changes a canister's record can change the host blob with it,
// and what is reverted or fails leaves no trace.
func TestHostBlobs(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	disk := testkit.NewDisk()
	fs := disk.Mount()
	o := &engine.Options{FS: fs, NoBackground: true, Ballast: -1}
	e := created(o)
	id := canisterID(t, 1)
	c := must(e.CreateCanisterHost(ctx, id, []byte("born")))
	host := func(want string) {
		t.Helper()
		if got := must(c.Host()); string(got) != want {
			t.Fatalf("host blob %q, want %q", got, want)
		}
	}
	host("born")

	mem := must(c.Memory(engine.WasmMemory))
	stable := must(c.Memory(engine.StableMemory))
	if err := mem.Resize(8192); err != nil {
		t.Fatal(err)
	}
	if _, err := mem.WriteAt([]byte("durable"), 4090); err != nil {
		t.Fatal(err)
	}
	must(c.Checkpoint(ctx))
	if _, err := mem.WriteAt([]byte("lost"), 0); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(stable.Resize(4096), c.SetMetadata(engine.Metadata{CanisterVersion: 7}), mem.Resize(4096), c.Revert(ctx)); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 8192)
	if _, err := mem.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	want := make([]byte, 8192)
	copy(want[4090:], "durable")
	if !bytes.Equal(got, want) || stable.Size() != 0 || c.Metadata().CanisterVersion != 0 || mem.DirtyPages() != 0 {
		t.Fatal("revert left something behind")
	}

	// A chunk of an upload, and one that does not reach the disk.
	u := must(c.Upload(ctx, engine.Metadata{}, []engine.UploadSection{{Section: engine.WasmModule, Size: 100}}, engine.UploadOptions{}))
	size := func() uint64 {
		for s, err := range e.Snapshots(id) {
			if err != nil {
				t.Fatal(err)
			}
			if s.ID == u.ID() {
				return s.Size
			}
		}
		return 0
	}
	one, two := []byte("one chunk"), []byte("another")
	must(u.AddChunk(ctx, one, []byte("chunked")))
	must(u.AddChunk(ctx, one, nil))
	host("chunked")
	if got := size(); got != 100+1<<20 {
		t.Fatalf("the upload has %d bytes", got)
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := u.AddChunk(gone, two, []byte("no")); err == nil {
		t.Fatal("a cancelled upload went through")
	}
	must(u.Flush(ctx))
	host("chunked")
	if got := size(); got != 100+1<<20 {
		t.Fatalf("a chunk that failed counts: %d bytes", got)
	}
	if _, err := u.AddChunk(ctx, nil, nil); !errors.Is(err, engine.ErrInvalid) {
		t.Fatalf("empty chunk: %v", err)
	}
	must(c.Load(ctx, u.ID(), engine.LoadOptions{}))
	if _, err := u.AddChunk(ctx, two, nil); !errors.Is(err, engine.ErrImmutable) {
		t.Fatalf("chunk for a loaded upload: %v", err)
	}
	chunk := must(c.Memory(engine.WasmChunk(sha256.Sum256(one))))
	if b := make([]byte, len(one)); must(chunk.ReadAt(b, 0)) != len(one) || !bytes.Equal(b, one) {
		t.Fatalf("the chunk reads %q", b)
	}

	if err := e.DeleteHost(ctx, u.ID(), []byte("deleted")); err != nil {
		t.Fatal(err)
	}
	host("deleted")
	for p, err := range e.Verify(ctx, engine.VerifyOptions{}) {
		t.Fatal(p, err)
	}
	// The blobs are those of the record, also after a restart.
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	o.FS = disk.Mount()
	e = must(engine.Open("store", o))
	c = must(e.Canister(id))
	host("deleted")
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}
