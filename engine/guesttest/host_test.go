// Package guesttest runs real Wasm on memory that the engine lends, and takes,
// loads and compares it.
package guesttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/wasmrewrite"
	"github.com/snapstore/snapstore/manifest"
)

var bg = context.Background()

const (
	wasmPage = 64 << 10
	limit    = 1 << 30
)

func store(t testing.TB, mode engine.TrackingMode) *engine.Engine {
	t.Helper()
	o := &engine.Options{FS: vfs.NewMem(), Ballast: -1, Tracking: mode, SnapshotLimit: 1000}
	if err := engine.Create("store", o); err != nil {
		t.Fatal(err)
	}
	e, err := engine.Open("store", o)
	if err != nil {
		t.Skipf("this machine: %v", err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// program is a module, ready to be run by several guests.
type program struct {
	rt       wazero.Runtime
	compiled wazero.CompiledModule
	globals  []wasmrewrite.Global
	start    string
	config   wazero.ModuleConfig
}

// compile exports what a module hides and compiles it. host adds what it
// imports.
func compile(t testing.TB, module []byte, host func(wazero.Runtime) error) *program {
	t.Helper()
	out, err := wasmrewrite.Rewrite(module, wasmrewrite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	rt := wazero.NewRuntime(bg)
	t.Cleanup(func() { rt.Close(bg) })
	if host != nil {
		if err := host(rt); err != nil {
			t.Fatal(err)
		}
	}
	compiled, err := rt.CompileModule(bg, out.Module)
	if err != nil {
		t.Fatal(err)
	}
	return &program{rt: rt, compiled: compiled, globals: out.Globals, start: out.Start, config: wazero.NewModuleConfig().WithStartFunctions()}
}

// guest is an instance whose memory is a section of a canister.
type guest struct {
	mu     sync.Mutex // held while it runs
	c      *engine.Canister
	m      *engine.Memory
	stable *engine.Memory
	borrow *engine.Borrow
	mod    api.Module
	p      *program
}

// linear is the engine's memory as wazero wants it.
type linear struct {
	m *engine.Memory
	b *engine.Borrow
}

// Reallocate implements experimental.LinearMemory. The memory may be longer
// than the instance knows, after a load.
func (l *linear) Reallocate(size uint64) []byte {
	if size > l.m.Size() {
		if err := l.m.Resize(size); err != nil {
			return nil
		}
	}
	all := l.b.Bytes()
	return all[:size:cap(all)]
}

func (l *linear) Free() {}

// run makes an instance on a canister's memory. What its data segments write
// is written into that memory.
func (p *program) run(t testing.TB, c *engine.Canister) *guest {
	t.Helper()
	g := &guest{c: c, p: p}
	var err error
	if g.m, err = c.Memory(engine.WasmMemory); err != nil {
		t.Fatal(err)
	}
	if g.stable, err = c.Memory(engine.StableMemory); err != nil {
		t.Fatal(err)
	}
	if g.borrow, err = g.m.Bytes(bg, limit); err != nil {
		t.Fatal(err)
	}
	ctx := experimental.WithMemoryAllocator(bg, experimental.MemoryAllocatorFunc(func(_, _ uint64) experimental.LinearMemory {
		return &linear{g.m, g.borrow}
	}))
	if g.mod, err = p.rt.InstantiateModule(ctx, p.compiled, p.config.WithName("")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(g.mod.Close(bg), g.borrow.Release()); err != nil {
			t.Error(err)
		}
	})
	c.SetGuest(g)
	return g
}

type guestKey struct{}

// call runs an export to its end.
func (g *guest) call(name string, args ...uint64) ([]uint64, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f := g.mod.ExportedFunction(name)
	if f == nil {
		return nil, fmt.Errorf("no export %q", name)
	}
	return f.Call(context.WithValue(bg, guestKey{}, g), args...)
}

func (g *guest) must(t testing.TB, name string, args ...uint64) []uint64 {
	t.Helper()
	out, err := g.call(name, args...)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return out
}

func (g *guest) globals() []manifest.Global {
	out := make([]manifest.Global, len(g.p.globals))
	for i, x := range g.p.globals {
		kind := map[wasmrewrite.Type]manifest.GlobalKind{
			wasmrewrite.I32: manifest.GlobalI32, wasmrewrite.I64: manifest.GlobalI64,
			wasmrewrite.F32: manifest.GlobalF32, wasmrewrite.F64: manifest.GlobalF64,
		}[x.Type]
		v := g.mod.ExportedGlobal(x.Name).Get()
		if kind == manifest.GlobalI32 || kind == manifest.GlobalF32 {
			v = uint64(uint32(v))
		}
		out[i] = manifest.Global{Kind: kind, Lo: v}
	}
	return out
}

// Quiesce implements engine.Guest: between two messages.
func (g *guest) Quiesce(_ context.Context, pause func() error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	meta := g.c.Metadata()
	meta.Globals = g.globals()
	if err := g.c.SetMetadata(meta); err != nil {
		return err
	}
	return pause()
}

// load makes a snapshot the guest's state; without globals it leaves those as
// they are, which is wrong.
func (g *guest) load(t testing.TB, id engine.SnapshotID, globals bool) {
	t.Helper()
	at := &g.borrow.Bytes()[0]
	if _, err := g.c.Load(bg, id, engine.LoadOptions{FromOtherCanister: true}); err != nil {
		t.Fatal(err)
	}
	if &g.borrow.Bytes()[0] != at {
		t.Fatal("the memory moved")
	}
	mem := g.mod.Memory()
	if more := int64(g.m.Size()) - int64(mem.Size()); more > 0 {
		if _, ok := mem.Grow(uint32(more / wasmPage)); !ok {
			t.Fatal("the instance does not grow")
		}
	}
	if !globals {
		return
	}
	for i, v := range g.c.Metadata().Globals {
		x, ok := g.mod.ExportedGlobal(g.p.globals[i].Name).(api.MutableGlobal)
		if !ok {
			t.Fatalf("%s can not be set", g.p.globals[i].Name)
		}
		x.Set(v.Lo)
	}
}

// state is all that must come back.
type state struct {
	memory, stable []byte
	globals        []manifest.Global
}

func (g *guest) state(t testing.TB) state {
	t.Helper()
	s := state{memory: slices.Clone(g.borrow.Bytes()), globals: g.globals(), stable: make([]byte, g.stable.Size())}
	if _, err := g.stable.ReadAt(s.stable, 0); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return s
}

func (s state) differs(o state) string {
	switch {
	case !slices.Equal(s.globals, o.globals):
		return "globals"
	case !bytes.Equal(s.memory, o.memory):
		return fmt.Sprintf("memory, of %d and %d bytes", len(s.memory), len(o.memory))
	case !bytes.Equal(s.stable, o.stable):
		return "stable memory"
	}
	return ""
}

func canister(t testing.TB, e *engine.Engine, n byte) *engine.Canister {
	t.Helper()
	id, err := engine.CanisterIDFromBytes([]byte{n, 1, 1})
	if err != nil {
		t.Fatal(err)
	}
	c, err := e.CreateCanister(bg, id)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// inModes runs a test in each mode that sees what a guest writes.
func inModes(t *testing.T, f func(t *testing.T, mode engine.TrackingMode)) {
	for _, m := range []engine.TrackingMode{engine.TrackKernel, engine.TrackHash} {
		t.Run(m.String(), func(t *testing.T) {
			t.Parallel()
			f(t, m)
		})
	}
}

// restores runs a program to the middle, takes it, and compares its end with
// that of runs that were loaded from the snapshot: into a new instance, and
// into the one that went on. Without the globals it must not be the same.
func restores(t *testing.T, mode engine.TrackingMode, p *program, begin func(g *guest), step func(g *guest, i int) error, middle, end int) {
	t.Helper()
	e := store(t, mode)
	a := p.run(t, canister(t, e, 1))
	begin(a)
	var id engine.SnapshotID
	var at state
	for i := range end {
		if i == middle {
			res, err := a.c.Take(bg, engine.TakeOptions{})
			if err != nil {
				t.Fatal(err)
			}
			id, at = res.ID, a.state(t)
		} else if i%3 == 0 {
			if _, err := a.c.Take(bg, engine.TakeOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		if err := step(a, i); err != nil {
			t.Fatal(err)
		}
	}
	want := a.state(t)
	if want.differs(at) == "" {
		t.Fatal("nothing happened after the take")
	}
	goOn := func(g *guest) (state, error) {
		for i := middle; i < end; i++ {
			if err := step(g, i); err != nil {
				return state{}, err
			}
		}
		return g.state(t), nil
	}
	b := p.run(t, canister(t, e, 2))
	b.load(t, id, true)
	if d := b.state(t).differs(at); d != "" {
		t.Fatalf("loaded into a new instance: other %s", d)
	}
	if got, err := goOn(b); err != nil || got.differs(want) != "" {
		t.Errorf("a new instance ends with other %s, %v", got.differs(want), err)
	}
	a.load(t, id, true)
	// Wasm memory never shrinks while an instance lives, so the one that went
	// on may see more of it than the snapshot has.
	if d := a.state(t).differs(at); d != "" {
		t.Fatalf("loaded into the instance that went on: other %s", d)
	}
	if len(p.globals) == 0 {
		return
	}
	c := p.run(t, canister(t, e, 3))
	c.load(t, id, false)
	got, err := goOn(c)
	got.globals = want.globals // that they differ is no news
	if err == nil && got.differs(want) == "" {
		t.Error("without its globals the guest ends the same: the comparison sees nothing")
	}
	t.Logf("without its globals the guest ends with other %s, error %v", got.differs(want), err)
}
