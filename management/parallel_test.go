package management

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/snapstore/snapstore/engine"
)

// meddler is a double that does something once, when a module was compiled or
// when prices are asked for.
type meddler struct {
	*double
	compiled, asked func()
}

func (h *meddler) Compile(ctx context.Context, wasm []byte) (*Module, error) {
	m, err := h.double.Compile(ctx, wasm)
	if f := h.compiled; f != nil {
		h.compiled = nil
		f()
	}
	return m, err
}

func (h *meddler) Subnet() Subnet {
	if f := h.asked; f != nil {
		h.asked = nil
		f()
	}
	return h.double.Subnet()
}

// meddle gives the world a Service over a meddler.
func (w *world) meddle() *meddler {
	w.Helper()
	h := &meddler{double: w.h}
	var err error
	if w.s, err = New(w.ctx, w.e, h, &w.cfg); err != nil {
		w.Fatal(err)
	}
	return h
}

// try calls, for calls that may change something while another is under way.
func (w *world) try(method string, arg any) *Reject {
	w.Helper()
	_, err := w.s.Call(w.ctx, alice, method, w.arg(arg))
	var r *Reject
	if err != nil && !errors.As(err, &r) {
		w.Fatal(err)
	}
	return r
}

// during makes a call while another is under way, and goes on when it is done
// or waits for that other.
func (w *world) during(method string, arg any) <-chan *Reject {
	w.Helper()
	b := w.arg(arg)
	done := make(chan *Reject, 1)
	over := make(chan struct{})
	go func() {
		defer close(over)
		_, err := w.s.Call(w.ctx, alice, method, b)
		var r *Reject
		if err != nil && !errors.As(err, &r) {
			w.Errorf("%s: error %v is no reject", method, err)
		}
		done <- r
	}()
	select {
	case <-over:
	case <-time.After(200 * time.Millisecond):
	}
	return done
}

// uploaded begins the upload of a module to a canister, and writes the module.
func (w *world) uploaded(id engine.CanisterID, wasm []byte) []byte {
	w.Helper()
	a := declare(id, uint64(len(wasm)), 1<<16, 0)
	a.Globals = []GlobalVariant{{I32: new(int32)}, {I64: new(int64)}}
	snap := w.begin(a)
	w.upload(id, snap, toModule(0), wasm)
	return snap
}

// bothOrders runs a test with two canisters, from the lower id to the higher
// and the other way.
func bothOrders(t *testing.T, f func(w *world, from, to engine.CanisterID)) {
	t.Parallel()
	for _, name := range []string{"up", "down"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			from, to := w.user(), w.user()
			if name == "down" {
				from, to = to, from
			}
			f(w, from, to)
			w.check()
		})
	}
}

// What is loaded from an upload of another canister is what was checked, though
// somebody writes to the upload meanwhile.
func TestUploadWrittenWhileLoaded(t *testing.T) {
	bothOrders(t, func(w *world, from, to engine.CanisterID) {
		h := w.meddle()
		wasm := simple().wasm("one")
		snap := w.uploaded(from, wasm)
		var wrote <-chan *Reject
		h.compiled = func() {
			wrote = w.during("upload_canister_snapshot_data", writeArgs(from, snap, toModule(0), simple().wasm("two")))
		}
		if r := w.try("load_canister_snapshot", loadArgs(to, snap)); r != nil {
			w.Fatal(r)
		}
		w.rejected(<-wrote, CodeCanisterSnapshotImmutable, "a write behind the load")
		got, err := w.s.liveModule(w.s.lookup(to).live)
		if err != nil {
			w.Fatal(err)
		}
		sum, loaded := hashOf(wasm), hashOf(got)
		equal(w, "module", loaded, sum)
		equal(w, "hash of the module", string(*w.status(to).ModuleHash), string(sum[:]))
	})
}

// An upload does not become one that can not change in the middle of a call
// that writes or reads it.
func TestUploadLoadedWhileUsed(t *testing.T) {
	for _, c := range []struct {
		name   string
		method string
		arg    func(id engine.CanisterID, snap []byte) any
	}{
		{"module", "upload_canister_snapshot_data", func(id engine.CanisterID, snap []byte) any {
			return writeArgs(id, snap, toModule(0), simple().wasm("two"))
		}},
		{"chunk", "upload_canister_snapshot_data", func(id engine.CanisterID, snap []byte) any {
			return writeArgs(id, snap, toChunks(), []byte("chunk"))
		}},
		{"read", "read_canister_snapshot_data", func(id engine.CanisterID, snap []byte) any {
			return readArgs(id, snap, moduleAt(0, 8))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			bothOrders(t, func(w *world, from, to engine.CanisterID) {
				h := w.meddle()
				snap := w.uploaded(from, simple().wasm("one"))
				var loaded <-chan *Reject
				h.asked = func() { loaded = w.during("load_canister_snapshot", loadArgs(to, snap)) }
				if r := w.try(c.method, c.arg(from, snap)); r != nil {
					w.Errorf("%v (%v)", r, r.Err)
				}
				if r := <-loaded; r != nil {
					w.Errorf("load: %v (%v)", r, r.Err)
				}
			})
		})
	}
}

// Loads of each other's uploads do not wait for each other.
func TestUploadsLoadedCrosswise(t *testing.T) {
	bothOrders(t, func(w *world, from, to engine.CanisterID) {
		h := w.meddle()
		there, back := w.uploaded(from, simple().wasm("one")), w.uploaded(to, simple().wasm("two"))
		var other <-chan *Reject
		h.compiled = func() { other = w.during("load_canister_snapshot", loadArgs(from, back)) }
		if r := w.try("load_canister_snapshot", loadArgs(to, there)); r != nil {
			w.Error(r)
		}
		if r := <-other; r != nil {
			w.Error(r)
		}
	})
}

// A snapshot of another canister that is deleted while it is loaded was not
// found, and the load has changed nothing.
func TestSnapshotDeletedWhileLoaded(t *testing.T) {
	bothOrders(t, func(w *world, from, to engine.CanisterID) {
		h := w.meddle()
		snap := w.take(from).ID
		h.compiled = func() {
			if r := <-w.during("delete_canister_snapshot", snapArgs(from, snap)); r != nil {
				w.Error(r)
			}
		}
		w.rejected(w.try("load_canister_snapshot", loadArgs(to, snap)), CodeCanisterSnapshotNotFound, "the load")
	})
}

// Two who adopt a canister at once, or create the last one, are not both let.
func TestTwiceAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.Limits.CanistersPerSubnet = 2 })
	id, _ := madeElsewhere(w)
	h := w.meddle()
	h.compiled = func() {
		if err := w.s.Adopt(w.ctx, id, bob.Principal); !errors.Is(err, engine.ErrExists) {
			t.Errorf("adopted twice: %v", err)
		}
	}
	if err := w.s.Adopt(w.ctx, id, alice.Principal); err != nil {
		t.Fatal(err)
	}
	w.check()
	equal(w, "controller", string(w.refresh(id).Controllers[0]), string(alice.Principal))

	h.asked = func() {
		if r := <-w.during("provisional_create_canister_with_cycles", ProvisionalCreateArgs{}); r != nil {
			w.rejected(r, CodeMaxNumberOfCanistersReached, "another one")
		}
	}
	if r := w.try("provisional_create_canister_with_cycles", ProvisionalCreateArgs{}); r != nil {
		t.Error(r)
	}
	equal(w, "canisters", len(w.s.Canisters()), 2)
	w.check()
}

// A load that the store refuses leaves the upload as it was: one that can
// still be written.
func TestRefusedLoadFreezesNothing(t *testing.T) {
	bothOrders(t, func(w *world, from, to engine.CanisterID) {
		snap := w.uploaded(from, simple().wasm("one"))
		if err := w.s.Flush(w.ctx, from); err != nil || w.e.Close() != nil {
			w.Fatal(err)
		}
		w.fs = w.disk.Mount()
		o := w.options()
		o.CanisterQuota = 1
		var err error
		if w.e, err = engine.Open("store", o); err != nil {
			w.Fatal(err)
		}
		if w.s, err = New(w.ctx, w.e, w.h, &w.cfg); err != nil {
			w.Fatal(err)
		}
		w.grow(to, engine.WasmMemory, 0)
		if err := w.s.Flush(w.ctx, to); err != nil {
			w.Fatal(err)
		}
		w.fails(CodeStorageBusy, alice, "load_canister_snapshot", loadArgs(to, snap))
		w.reopen()
		w.upload(from, snap, toModule(0), simple().wasm("two"))
	})
}
