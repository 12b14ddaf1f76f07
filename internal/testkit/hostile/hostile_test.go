package hostile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/snapstore/snapstore/engine"
)

const (
	// atLeast is how many cases there must be.
	atLeast = 350
	// growth is how much a case may allocate in all, freed or not.
	growth = 16 << 20
)

// attempt is one crafted input. run feeds it to the code and returns what that
// says; want are the errors that count as a refusal.
type attempt struct {
	name string
	run  func() error
	want []error
}

// target is the store that is attacked.
type target struct {
	t    *testing.T
	fs   *vfs.MemFS
	e    *engine.Engine
	c    *engine.Canister // with live state, two snapshots and an upload
	id   engine.SnapshotID
	up   *engine.Upload
	evil *engine.Canister // another tenant's
	all  int
	// reopened: what an open changes of itself is no change.
	reopened bool
}

func options(fs vfs.FS) *engine.Options {
	return &engine.Options{
		// Without IdleSync, whose batch is no change by any of the cases.
		FS: fs, NoBackground: true, IdleSync: -1, Ballast: -1, SegmentSize: 64 << 10, MemTable: 256 << 10,
		DedupDomain: engine.DedupCanister, CanisterQuota: 4 << 30,
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func canister(n byte) engine.CanisterID {
	return must(engine.CanisterIDFromBytes([]byte{0, 0, 0, 0, 0, 0, 0, n, 1, 1}))
}

func content(seed uint64, n int) []byte {
	rng := rand.New(rand.NewPCG(seed, 0xbad))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

func newTarget(t *testing.T) *target {
	ctx := t.Context()
	a := &target{t: t, fs: vfs.NewMem()}
	if err := engine.Create("store", options(a.fs)); err != nil {
		t.Fatal(err)
	}
	a.e = must(engine.Open("store", options(a.fs)))
	t.Cleanup(func() { a.e.Close() })
	a.c = must(a.e.CreateCanister(ctx, canister(1)))
	m := must(a.c.Memory(engine.WasmMemory))
	data := content(1, 40*engine.PageSize)
	for range 2 {
		if err := m.Resize(uint64(len(data))); err != nil {
			t.Fatal(err)
		}
		must(m.WriteAt(data, 0))
		a.id = must(a.c.Take(ctx, engine.TakeOptions{})).ID
		data = data[:30*engine.PageSize]
	}
	a.up = must(a.c.Upload(ctx, engine.Metadata{}, []engine.UploadSection{{Section: engine.WasmMemory, Size: 5 * engine.PageSize}}, engine.UploadOptions{}))
	must(a.up.WriteAt(engine.WasmMemory, data[:9000], 77))
	must(a.up.Flush(ctx))
	a.evil = must(a.e.CreateCanister(ctx, canister(2)))
	must(a.evil.Memory(engine.StableMemory))
	for a.e.Stats().WaitingBatches > 0 { // what is applied later is no change by any of the cases
		time.Sleep(time.Millisecond)
	}
	return a
}

// state is everything of the store that can be seen: index, canisters, snapshots,
// live memory byte by byte, what is charged, and how far the log is.
func (a *target) state() string {
	var b bytes.Buffer
	s := a.e.Stats()
	if a.reopened {
		s.Sequence, s.BytesWritten = 0, 0
	} else if err := a.e.DumpIndex(&b); err != nil {
		a.t.Fatal(err)
	}
	fmt.Fprintln(&b, s.Sequence, s.BytesWritten, s.ChargedBytes, s.ReservedBytes, s.Snapshots, s.DirtyPages)
	for c, err := range a.e.Canisters() {
		fmt.Fprintln(&b, c, err)
		for s, err := range a.e.Snapshots(c.ID) {
			fmt.Fprintln(&b, s, err)
		}
		live, err := a.e.Canister(c.ID)
		if err != nil {
			a.t.Fatal(err)
		}
		meta := live.Metadata()
		meta.Source, meta.TakenAt = 0, 0 // of the next take, not of the state
		fmt.Fprintln(&b, meta)
		for _, sec := range live.Sections() {
			m := must(live.Memory(sec))
			if m.Size() == 0 {
				continue
			}
			fmt.Fprintln(&b, sec, m.Size())
			p := make([]byte, m.Size())
			if _, err := m.ReadAt(p, 0); err != nil && !errors.Is(err, io.EOF) {
				a.t.Fatal(err)
			}
			b.Write(p)
		}
	}
	for _, sec := range a.up.Sections() {
		p := make([]byte, 5*engine.PageSize)
		must(a.up.ReadAt(sec, p, 0))
		b.Write(p)
	}
	return b.String()
}

// difference shows where two states part.
func difference(a, b string) string {
	i := 0
	for i < min(len(a), len(b)) && a[i] == b[i] {
		i++
	}
	around := func(s string) string { return s[max(0, min(i, len(s))-120):min(len(s), i+120)] }
	return fmt.Sprintf("%q\nwas %q", around(b), around(a))
}

// try runs cases one after the other.
func (a *target) try(kind string, cases []attempt) {
	a.t.Helper()
	names := map[string]bool{}
	before := a.state()
	for _, c := range cases {
		if names[c.name] {
			a.t.Errorf("%s: %q twice", kind, c.name)
		}
		names[c.name] = true
		a.all++
		var m0, m1 runtime.MemStats
		runtime.ReadMemStats(&m0)
		err := c.run()
		runtime.ReadMemStats(&m1)
		if err == nil || !slices.ContainsFunc(c.want, func(w error) bool { return errors.Is(err, w) }) {
			a.t.Errorf("%s, %s: got %v, want %v", kind, c.name, err, c.want)
		}
		if err != nil && len(err.Error()) > 2000 {
			a.t.Errorf("%s, %s: an error of %d characters", kind, c.name, len(err.Error()))
		}
		if n := m1.TotalAlloc - m0.TotalAlloc; n > growth {
			a.t.Errorf("%s, %s: %d bytes allocated", kind, c.name, n)
		}
		if after := a.state(); after != before {
			a.t.Errorf("%s, %s: the store has changed: %s", kind, c.name, difference(before, after))
			before = after
		}
	}
	for p, err := range a.e.Verify(context.Background(), engine.VerifyOptions{}) {
		a.t.Errorf("after %s: verify: %+v, %v", kind, p, err)
	}
}

// Every crafted input is refused with a typed error and within bounded memory,
// and leaves everything as it was.
func TestHostile(t *testing.T) {
	a := newTarget(t)
	for _, k := range []struct {
		kind  string
		cases []attempt
	}{
		{"manifest", manifests()},
		{"tree node", nodes()},
		{"place", places()},
		{"group", groups()},
		{"node frame", nodeFrames()},
		{"canister record", records()},
		{"move frame", moves()},
		{"id", ids()},
		{"metadata", metadata(a)},
		{"upload", uploads(a)},
		{"memory", memories(a)},
		{"operation", operations(a)},
		{"message", messages()},
		{"directory", directories(t)},
		{"ROOT", roots(a)},
	} {
		before := a.all
		a.reopened = k.kind == "ROOT"
		a.try(k.kind, k.cases)
		t.Logf("%-16s %d", k.kind, a.all-before)
	}
	t.Logf("%-16s %d", "in all", a.all)
	if a.all < atLeast {
		t.Errorf("%d cases, want %d", a.all, atLeast)
	}
}
