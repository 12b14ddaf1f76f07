package engine_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/manifest"
)

var bg = context.Background()

// memStore opens a store in memory; reopen closes it and opens it again.
func memStore(t *testing.T, o engine.Options) (e *engine.Engine, reopen func() *engine.Engine) {
	t.Helper()
	if o.FS == nil {
		o.FS = vfs.NewMem()
	}
	o.Ballast = -1
	if err := engine.Create("store", &o); err != nil {
		t.Fatal(err)
	}
	e, err := engine.Open("store", &o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e, func() *engine.Engine {
		t.Helper()
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		if e, err = engine.Open("store", &o); err != nil {
			t.Fatal(err)
		}
		return e
	}
}

func write(t *testing.T, c *engine.Canister, s engine.Section, size uint64, off int64, data []byte) {
	t.Helper()
	m, err := c.Memory(s)
	if err != nil {
		t.Fatal(err)
	}
	if m.Size() != size {
		if err := m.Resize(size); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.WriteAt(data, off); err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, e *engine.Engine, id engine.SnapshotID, s engine.Section) []byte {
	t.Helper()
	snap, err := e.Snapshot(bg, id)
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	r, err := snap.Section(s)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := r.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func list(t *testing.T, e *engine.Engine, c engine.CanisterID) (ids []engine.SnapshotID) {
	t.Helper()
	for s, err := range e.Snapshots(c) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, s.ID)
	}
	return ids
}

// sound fails the test for every problem that Verify finds.
func sound(t *testing.T, e *engine.Engine) {
	t.Helper()
	for p, err := range e.Verify(bg, engine.VerifyOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		t.Errorf("verify: %+v", p)
	}
}

func TestLimitAndReplace(t *testing.T) {
	for _, limit := range []int{1, 3} {
		e, reopen := memStore(t, engine.Options{SnapshotLimit: limit})
		id := canisterID(t, 1)
		c := must(e.CreateCanister(bg, id))
		var ids []engine.SnapshotID
		for i := range limit {
			write(t, c, engine.WasmMemory, 8192, 0, []byte{byte(i + 1)})
			ids = append(ids, must(c.Take(bg, engine.TakeOptions{})).ID)
		}
		write(t, c, engine.WasmMemory, 8192, 0, []byte{99})
		_, err := c.Take(bg, engine.TakeOptions{})
		var ee *engine.Error
		if !errors.Is(err, engine.ErrSnapshotLimit) || !errors.As(err, &ee) || ee.Canister != id {
			t.Fatalf("over the limit: %v", err)
		}
		if got := list(t, e, id); !slices.Equal(got, ids) {
			t.Fatalf("a refused take left %v", got)
		}
		// The refused take has lost no dirty page.
		r := must(c.Take(bg, engine.TakeOptions{Replace: ids[0]}))
		if r.ID.Local != uint64(limit) {
			t.Fatalf("id %v: an id was used by a refused take, or used twice", r.ID)
		}
		if b := content(t, e, r.ID, engine.WasmMemory); b[0] != 99 {
			t.Fatalf("content %d", b[0])
		}
		want := append(slices.Clone(ids[1:]), r.ID)
		if got := list(t, e, id); !slices.Equal(got, want) {
			t.Fatalf("after replace %v, want %v", got, want)
		}
		if _, err := c.Take(bg, engine.TakeOptions{Replace: ids[0]}); !errors.Is(err, engine.ErrNotFound) {
			t.Fatalf("replace of what is gone: %v", err)
		}
		other := engine.SnapshotID{Canister: canisterID(t, 2), Local: r.ID.Local}
		if _, err := c.Take(bg, engine.TakeOptions{Replace: other}); !errors.Is(err, engine.ErrOtherCanister) {
			t.Fatalf("replace of another canister's: %v", err)
		}
		e = reopen()
		if got := list(t, e, id); !slices.Equal(got, want) {
			t.Fatalf("after reopening %v, want %v", got, want)
		}
		sound(t, e)
	}
}

func TestRefusals(t *testing.T) {
	e, _ := memStore(t, engine.Options{})
	c := must(e.CreateCanister(bg, canisterID(t, 1)))
	if _, err := e.CreateCanister(bg, c.ID()); !errors.Is(err, engine.ErrExists) {
		t.Fatalf("created twice: %v", err)
	}
	c.SetStatus(engine.Status{Running: true, OpenCallContexts: 2})
	if _, err := c.Take(bg, engine.TakeOptions{RefuseRunning: true}); !errors.Is(err, engine.ErrRunning) {
		t.Fatal(err)
	}
	if _, err := c.Take(bg, engine.TakeOptions{RefuseOpenCalls: true}); !errors.Is(err, engine.ErrOpenCalls) {
		t.Fatal(err)
	}
	if must(c.Take(bg, engine.TakeOptions{})).ID.Local != 0 {
		t.Fatal("off by default, and refusals use no id")
	}
	for name, err := range map[string]error{
		"load":      second(c.Load(bg, engine.SnapshotID{Canister: c.ID(), Local: 7}, engine.LoadOptions{})),
		"delete":    e.Delete(bg, engine.SnapshotID{Canister: c.ID(), Local: 7}),
		"snapshot":  second(e.Snapshot(bg, engine.SnapshotID{Canister: c.ID(), Local: 7})),
		"canister":  second(e.Canister(canisterID(t, 9))),
		"canister2": e.DeleteCanister(bg, canisterID(t, 9)),
	} {
		if !errors.Is(err, engine.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	m := must(c.Memory(engine.WasmMemory))
	if _, err := m.WriteAt([]byte{1}, 0); !errors.Is(err, engine.ErrInvalid) {
		t.Fatalf("write beyond the end: %v", err)
	}
	if err := m.Resize(engine.MaxSectionSize + 1); !errors.Is(err, engine.ErrInvalid) {
		t.Fatal(err)
	}
	if _, err := m.ReadAt(make([]byte, 1), 0); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if _, err := c.Memory(engine.Section{Kind: 9}); !errors.Is(err, engine.ErrInvalid) {
		t.Fatal(err)
	}
	if err := (&engine.Options{SnapshotLimit: -1}).Validate(); !errors.Is(err, engine.ErrInvalid) {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(bg)
	cancel()
	if _, err := c.Take(ctx, engine.TakeOptions{}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	e.Close()
	if _, err := c.Take(bg, engine.TakeOptions{}); !errors.Is(err, engine.ErrClosed) {
		t.Fatalf("after Close: %v", err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestStoreErrors(t *testing.T) {
	fs := vfs.NewMem()
	o := &engine.Options{FS: fs}
	if _, err := engine.Open("nothing", o); !errors.Is(err, engine.ErrNoStore) {
		t.Fatal(err)
	}
	e, _ := memStore(t, engine.Options{FS: fs})
	if err := engine.Create("store", o); !errors.Is(err, engine.ErrExists) {
		t.Fatal(err)
	}
	if _, err := engine.Open("store", o); !errors.Is(err, engine.ErrLocked) {
		t.Fatal(err)
	}
	seq := e.Sequence()
	e.Close()
	if _, err := engine.Open("store", &engine.Options{FS: fs, MinSequence: seq + 1000}); !errors.Is(err, engine.ErrRolledBack) {
		t.Fatal(err)
	}
}

func TestLoadBringsBackWhatWas(t *testing.T) {
	e, reopen := memStore(t, engine.Options{})
	c := must(e.CreateCanister(bg, canisterID(t, 1)))
	meta := engine.Metadata{CanisterVersion: 4, CertifiedData: []byte("certified")}
	if err := c.SetMetadata(meta); err != nil {
		t.Fatal(err)
	}
	write(t, c, engine.WasmMemory, 3*4096+17, 4000, bytes.Repeat([]byte{1}, 5000))
	write(t, c, engine.StableMemory, 1<<20, 1<<19, []byte("stable"))
	first := must(c.Take(bg, engine.TakeOptions{Host: []byte("h1")}))
	old := content(t, e, first.ID, engine.WasmMemory)

	heap := must(c.Memory(engine.WasmMemory))
	write(t, c, engine.WasmMemory, 5*4096, 0, bytes.Repeat([]byte{2}, 5*4096))
	if err := c.RemoveSection(engine.StableMemory); err != nil {
		t.Fatal(err)
	}
	write(t, c, engine.WasmModule, 10, 0, []byte("0123456789"))
	must(c.Checkpoint(bg))
	write(t, c, engine.WasmMemory, 5*4096, 4096, []byte("dirty"))

	r := must(c.Load(bg, first.ID, engine.LoadOptions{}))
	if r.Pages == 0 {
		t.Fatal("nothing loaded")
	}
	check := func(c *engine.Canister, heap *engine.Memory) {
		t.Helper()
		got := make([]byte, heap.Size())
		if _, err := heap.ReadAt(got, 0); err != nil || !bytes.Equal(got, old) {
			t.Fatalf("heap of %d bytes differs (%v)", len(got), err)
		}
		if m := c.Metadata(); m.CanisterVersion != 4 || string(m.CertifiedData) != "certified" {
			t.Fatalf("%+v", m)
		}
		if m := must(c.Memory(engine.WasmModule)); m.Size() != 0 {
			t.Fatalf("module of %d bytes", m.Size())
		}
		b := make([]byte, 6)
		if _, err := must(c.Memory(engine.StableMemory)).ReadAt(b, 1<<19); err != nil || string(b) != "stable" {
			t.Fatalf("%q %v", b, err)
		}
		if h := must(c.Host()); string(h) != "h1" {
			t.Fatalf("host %q", h)
		}
	}
	check(c, heap)
	e = reopen()
	c = must(e.Canister(canisterID(t, 1)))
	check(c, must(c.Memory(engine.WasmMemory)))

	// Onto another canister, when asked for.
	d := must(e.CreateCanister(bg, canisterID(t, 2)))
	if _, err := d.Load(bg, first.ID, engine.LoadOptions{}); !errors.Is(err, engine.ErrOtherCanister) {
		t.Fatal(err)
	}
	must(d.Load(bg, first.ID, engine.LoadOptions{FromOtherCanister: true}))
	if err := e.DeleteCanister(bg, c.ID()); err != nil {
		t.Fatal(err)
	}
	must(e.GC(bg, engine.GCOptions{}))
	got := make([]byte, len(old))
	if _, err := must(d.Memory(engine.WasmMemory)).ReadAt(got, 0); err != nil || !bytes.Equal(got, old) {
		t.Fatal("the copy went with its source", err)
	}
	if _, err := c.Take(bg, engine.TakeOptions{}); !errors.Is(err, engine.ErrNotFound) {
		t.Fatalf("take of a deleted canister: %v", err)
	}
	sound(t, e)
	// Created again: nothing is there, and ids go on.
	c = must(e.CreateCanister(bg, canisterID(t, 1)))
	if s := c.Sections(); len(s) != 0 {
		t.Fatal(s)
	}
	if r := must(c.Take(bg, engine.TakeOptions{})); r.ID.Local != 1 {
		t.Fatalf("id %v was used before", r.ID)
	}
	sound(t, reopen())
}

// A reader of an upload sees it as it was when it was opened, whatever is
// written and flushed since, and however much gc runs.
func TestReaderOfAnUploadKeepsWhatItWas(t *testing.T) {
	e, _ := memStore(t, engine.Options{})
	c := must(e.CreateCanister(bg, canisterID(t, 1)))
	img := make([]byte, 40*4096)
	(&mix{seed: 9}).fresh(img)
	u := must(c.Upload(bg, engine.Metadata{}, []engine.UploadSection{{engine.WasmMemory, uint64(len(img))}}, engine.UploadOptions{}))
	type held struct {
		s    *engine.Snapshot
		want []byte
	}
	var readers []held
	for i := range 4 {
		(&mix{seed: uint64(100 + i)}).fresh(img[i*4096 : (i+20)*4096])
		must(u.WriteAt(engine.WasmMemory, img, 0))
		must(u.Flush(bg))
		readers = append(readers, held{must(e.Snapshot(bg, u.ID())), bytes.Clone(img)})
	}
	must(e.GC(bg, engine.GCOptions{}))
	for i, r := range readers {
		got := make([]byte, len(img))
		if _, err := must(r.s.Section(engine.WasmMemory)).ReadAt(got, 0); err != nil || !bytes.Equal(got, r.want) {
			t.Errorf("reader %d: %v", i, err)
		}
		must0(r.s.Close())
	}
	must(e.GC(bg, engine.GCOptions{}))
	if st := e.Stats(); st.PendingDrops != 0 {
		t.Errorf("%d versions are left", st.PendingDrops)
	}
	if b := content(t, e, u.ID(), engine.WasmMemory); !bytes.Equal(b, img) {
		t.Error("the upload is something else")
	}
	for p, err := range e.Verify(bg, engine.VerifyOptions{}) {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestUpload(t *testing.T) {
	e, reopen := memStore(t, engine.Options{SnapshotLimit: 2})
	c := must(e.CreateCanister(bg, canisterID(t, 1)))
	want := make([]byte, 70_001)
	(&mix{seed: 9}).fresh(want[:69_632])
	u := must(c.Upload(bg, engine.Metadata{CanisterVersion: 3}, []engine.UploadSection{{engine.WasmMemory, uint64(len(want))}, {engine.WasmModule, 12}}, engine.UploadOptions{}))
	for off := 66_000; off >= 0; off -= 2000 { // backwards, unaligned, overlapping
		end := min(off+5001, len(want))
		if _, err := u.WriteAt(engine.WasmMemory, want[off:end], int64(off)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := u.WriteAt(engine.StableMemory, []byte{1}, 0); !errors.Is(err, engine.ErrNotFound) {
		t.Fatal(err)
	}
	if _, err := u.WriteAt(engine.WasmModule, make([]byte, 13), 0); !errors.Is(err, engine.ErrInvalid) {
		t.Fatal(err)
	}
	// The canister's own commit makes it durable too.
	must(c.Checkpoint(bg))
	id := u.ID()
	e = reopen()
	c = must(e.Canister(canisterID(t, 1)))
	if b := content(t, e, id, engine.WasmMemory); !bytes.Equal(b, want) {
		t.Fatal("upload differs")
	}
	u = must(c.OpenUpload(bg, id))
	if _, err := u.WriteAt(engine.WasmModule, []byte("hello world!"), 0); err != nil {
		t.Fatal(err)
	}
	must(u.Flush(bg))
	must(c.Load(bg, id, engine.LoadOptions{}))
	if _, err := u.WriteAt(engine.WasmModule, []byte("x"), 0); !errors.Is(err, engine.ErrImmutable) {
		t.Fatalf("write after load: %v", err)
	}
	if _, err := c.OpenUpload(bg, id); !errors.Is(err, engine.ErrImmutable) {
		t.Fatal(err)
	}
	b := make([]byte, 12)
	if _, err := must(c.Memory(engine.WasmModule)).ReadAt(b, 0); err != nil || string(b) != "hello world!" {
		t.Fatalf("%q %v", b, err)
	}
	// It counts against the limit, can be replaced, and is gone when deleted.
	must(c.Take(bg, engine.TakeOptions{}))
	if _, err := c.Upload(bg, engine.Metadata{}, nil, engine.UploadOptions{}); !errors.Is(err, engine.ErrSnapshotLimit) {
		t.Fatal(err)
	}
	u = must(c.Upload(bg, engine.Metadata{}, []engine.UploadSection{{engine.WasmMemory, 4096}}, engine.UploadOptions{Replace: id}))
	if err := e.Delete(bg, u.ID()); err != nil {
		t.Fatal(err)
	}
	if _, err := u.Flush(bg); !errors.Is(err, engine.ErrNotFound) {
		t.Fatal(err)
	}
	must(e.GC(bg, engine.GCOptions{}))
	sound(t, reopen())
}

func TestEqualStatesHaveEqualRoots(t *testing.T) {
	e, _ := memStore(t, engine.Options{})
	a, b := must(e.CreateCanister(bg, canisterID(t, 1))), must(e.CreateCanister(bg, canisterID(t, 2)))
	data := bytes.Repeat([]byte("state"), 5000)
	write(t, a, engine.WasmMemory, 1<<20, 300, data)
	// By another way: larger, with other content, checkpointed in between.
	write(t, b, engine.WasmMemory, 4<<20, 0, bytes.Repeat([]byte{7}, 2<<20))
	must(b.Checkpoint(bg))
	if err := must(b.Memory(engine.WasmMemory)).Resize(100); err != nil {
		t.Fatal(err)
	}
	write(t, b, engine.WasmMemory, 1<<20, 0, make([]byte, 100))
	write(t, b, engine.WasmMemory, 1<<20, 300, data)
	ra, rb := must(a.Checkpoint(bg)), must(b.Checkpoint(bg))
	if ra.Root != rb.Root {
		t.Fatalf("%v and %v", ra.Root, rb.Root)
	}
}

func TestDiffAndInspection(t *testing.T) {
	e, _ := memStore(t, engine.Options{})
	c := must(e.CreateCanister(bg, canisterID(t, 1)))
	write(t, c, engine.WasmMemory, 1<<20, 0, []byte{1})
	a := must(c.Take(bg, engine.TakeOptions{}))
	write(t, c, engine.WasmMemory, 1<<20, 5*4096, []byte{1})
	b := must(c.Take(bg, engine.TakeOptions{}))
	sound(t, e) // and everything is applied
	var got []uint64
	for d, err := range e.Diff(bg, a.ID, b.ID) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, d.Page)
		if !d.A.IsZero() || d.B.IsZero() {
			t.Fatalf("%+v", d)
		}
		if en, ok, err := e.Entry(d.B); err != nil || !ok || en.Count != 2 { // page 0 is the same
			t.Fatal(en, ok, err)
		}
	}
	if !slices.Equal(got, []uint64{5}) {
		t.Fatal(got)
	}
	enc, err := e.Node(bg, b.Root)
	if err != nil {
		t.Fatal(err)
	}
	if m, err := manifest.Decode(enc); err != nil || m.LogicalSize() != b.Size {
		t.Fatal(m, err)
	}
}

func TestReaderKeepsWhatIsDeleted(t *testing.T) {
	e, reopen := memStore(t, engine.Options{SegmentSize: 64 << 10})
	c := must(e.CreateCanister(bg, canisterID(t, 1)))
	img := make([]byte, 1<<20)
	(&mix{seed: 11}).image(img)
	write(t, c, engine.WasmMemory, 1<<20, 0, img)
	a := must(c.Take(bg, engine.TakeOptions{}))
	snap := must(e.Snapshot(bg, a.ID))
	write(t, c, engine.WasmMemory, 1<<20, 0, make([]byte, 1<<20))
	must(c.Checkpoint(bg))
	if err := e.Delete(bg, a.ID); err != nil {
		t.Fatal(err)
	}
	if r := must(e.GC(bg, engine.GCOptions{})); r.Held != 1 {
		t.Fatalf("%+v", r)
	}
	var b bytes.Buffer
	if _, err := must(snap.Section(engine.WasmMemory)).WriteTo(&b); err != nil || !bytes.Equal(b.Bytes(), img) {
		t.Fatal("a reader lost its snapshot", err)
	}
	snap.Close()
	r := must(e.GC(bg, engine.GCOptions{}))
	if u := must(e.Usage(bg)); u.Pages != 0 || u.Limbo != 0 || r.LogBytes > 64<<10 {
		t.Fatalf("%+v %+v", u, r)
	}
	sound(t, reopen())
}

func TestCollector(t *testing.T) {
	e, _ := memStore(t, engine.Options{})
	c := must(e.CreateCanister(bg, canisterID(t, 1)))
	write(t, c, engine.WasmMemory, 1<<20, 0, []byte{1})
	must(c.Take(bg, engine.TakeOptions{}))
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(e.Collector())
	if problems, err := testutil.GatherAndLint(r); err != nil || len(problems) > 0 {
		t.Fatal(problems, err)
	}
	got := map[string]bool{}
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		got[f.GetName()] = true
	}
	for _, name := range []string{"snapstore_snapshots", "snapstore_log_bytes", "snapstore_take_pause_seconds", "snapstore_operations_total", "snapstore_gc_halted"} {
		if !got[name] {
			t.Errorf("no metric %s", name)
		}
	}
	e.Close()
	if _, err := r.Gather(); err != nil {
		t.Fatal(err)
	}
}

func TestIDsAsText(t *testing.T) {
	id := must(engine.ParseCanisterID("rrkah-fqaaa-aaaaa-aaaaq-cai"))
	if id.String() != "rrkah-fqaaa-aaaaa-aaaaq-cai" {
		t.Fatal(id)
	}
	if _, err := engine.ParseCanisterID("rrkah-fqaaa-aaaaa-aaaaq-caj"); !errors.Is(err, engine.ErrInvalid) {
		t.Fatal(err)
	}
	s := engine.SnapshotID{Canister: id, Local: 258}
	if s.String() != "0000000000000102"+"00000000000000010101" {
		t.Fatal(s)
	}
	if got := must(engine.ParseSnapshotID(s.String())); got != s {
		t.Fatal(got)
	}
	for _, bad := range []string{"", "00", "0000000000000102", "000000000000010200000000000000010101XY", "0000000000000102" + "0000000000000001010A"} {
		if _, err := engine.ParseSnapshotID(bad); !errors.Is(err, engine.ErrInvalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func FuzzParseSnapshotID(f *testing.F) {
	f.Add("000000000000010200000000000000010101")
	f.Fuzz(func(t *testing.T, text string) {
		if id, err := engine.ParseSnapshotID(text); err == nil && id.String() != text {
			t.Fatalf("%q reads as %q", text, id)
		}
	})
}

// TestCloseFlushesNothing: a command on a small store must not write a table.
func TestCloseFlushesNothing(t *testing.T) {
	dir := t.TempDir() + "/store"
	o := &engine.Options{}
	if err := engine.Create(dir, o); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		e, err := engine.Open(dir, o)
		if err != nil {
			t.Fatal(err)
		}
		must(e.CreateCanister(bg, canisterID(t, byte(i))))
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
	tables := 0
	for _, f := range must(os.ReadDir(dir + "/index/pebble")) {
		if len(f.Name()) > 4 && f.Name()[len(f.Name())-4:] == ".sst" {
			tables++
		}
	}
	if tables > 1 { // the one that the first open built
		t.Fatalf("%d tables after five small commands", tables)
	}
}
