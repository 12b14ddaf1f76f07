package management

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/testkit"
	"github.com/snapstore/snapstore/manifest"
)

// outside is what of a canister others can see, and must change in one step.
type outside struct {
	view      View
	total     uint64
	snapshots string
	live      string
}

func (w *world) outside(id engine.CanisterID) outside {
	w.Helper()
	o := outside{view: w.refresh(id), total: w.history(id).TotalNumChanges, snapshots: fmt.Sprint(w.list(id))}
	o.view.HeapDeltaDebit = 0 // of the round, which a restart ends
	for _, snap := range w.list(id) {
		m := w.metadata(id, snap.ID)
		o.snapshots += fmt.Sprintf(" %x %d", m.WasmChunkStore, m.CanisterVersion)
	}
	meta := w.s.lookup(id).live.Metadata()
	meta.Source, meta.TakenAt = manifest.SourceNone, 0 // the engine's, of the last commit
	o.live = fmt.Sprintf("%+v ", meta)
	for _, sec := range w.s.lookup(id).live.Sections() {
		if n := w.mem(id, sec).Size(); n > 0 {
			b := make([]byte, n)
			if _, err := w.mem(id, sec).ReadAt(b, 0); err != nil {
				w.Fatal(err)
			}
			o.live += fmt.Sprintf("%v %x ", sec, hashOf(b))
		}
	}
	return o
}

func (o outside) String() string {
	return fmt.Sprintf("%+v", [...]any{o.view, o.total, o.snapshots, o.live})
}

// A crash before any operation on the file system that a call makes: the
// canister, its snapshots, its cycles and its history are all as before the
// call, or all as after it, and the ledgers balance.
func TestCrashDuringCall(t *testing.T) {
	t.Parallel()
	seed := uint64(3)
	if v := os.Getenv("SNAPSTORE_SEED"); v != "" {
		seed, _ = strconv.ParseUint(v, 10, 64)
	}
	t.Logf("SNAPSTORE_SEED=%d", seed)
	type call struct {
		name string
		f    func(w *world, id engine.CanisterID, snaps [][]byte) error
	}
	through := func(method string, arg func(id engine.CanisterID, snaps [][]byte) any) func(*world, engine.CanisterID, [][]byte) error {
		return func(w *world, id engine.CanisterID, snaps [][]byte) error {
			_, err := w.s.Call(w.ctx, alice, method, w.arg(arg(id, snaps)))
			return err
		}
	}
	calls := []call{
		{"take", through("take_canister_snapshot", func(id engine.CanisterID, _ [][]byte) any { return takeArgs(id) })},
		{"replace", through("take_canister_snapshot", func(id engine.CanisterID, snaps [][]byte) any { return takeArgs(id, snaps[0]) })},
		{"take and uninstall", through("take_canister_snapshot", func(id engine.CanisterID, _ [][]byte) any { return uninstalling(id) })},
		{"load", through("load_canister_snapshot", func(id engine.CanisterID, snaps [][]byte) any { return loadArgs(id, snaps[0]) })},
		{"delete", through("delete_canister_snapshot", func(id engine.CanisterID, snaps [][]byte) any { return snapArgs(id, snaps[0]) })},
		{"begin an upload", through("upload_canister_snapshot_metadata", func(id engine.CanisterID, snaps [][]byte) any {
			a := declare(id, 10, 1<<16, 0)
			a.ReplaceSnapshot = &snaps[0]
			return a
		})},
		{"upload a chunk", through("upload_canister_snapshot_data", func(id engine.CanisterID, snaps [][]byte) any {
			return writeArgs(id, snaps[1], toChunks(), []byte("chunk"))
		})},
		{"reinstall", through("install_code", func(id engine.CanisterID, _ [][]byte) any {
			return InstallCodeArgs{Mode: reinstallMode(), CanisterID: id.Bytes(), WasmModule: module{pages: 2}.wasm("other")}
		})},
		{"out of cycles", func(w *world, id engine.CanisterID, _ [][]byte) error {
			_, err := w.s.ChargeIdle(w.ctx, id, 1<<60)
			return err
		}},
	}
	for _, c := range calls {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, 7))
			// The same world is made anew for every crash: before is where it
			// stands, and every run up to the crash is the same.
			prepare := func() (*world, engine.CanisterID, [][]byte) {
				w := newWorld(t, nil)
				id := w.user()
				w.write(id, engine.WasmMemory, 3, "then")
				snaps := [][]byte{w.take(id).ID, w.begin(declare(id, 10, 1<<16, 0))}
				w.write(id, engine.WasmMemory, 3, "now!")
				// Durable, so that what a crash goes back to is known.
				if err := w.s.Flush(w.ctx, id); err != nil {
					t.Fatal(err)
				}
				return w, id, snaps
			}
			w, id, snaps := prepare()
			before := w.outside(id)
			ops := w.fs.Ops()
			if err := c.f(w, id, snaps); err != nil {
				t.Fatal(err)
			}
			w.check()
			n := w.fs.Ops() - ops
			after := w.outside(id)
			if before.String() == after.String() || n < 2 {
				t.Fatalf("the call made %d operations and changed nothing", n)
			}
			was, is := 0, 0
			times := int64(2) // each keeps another part of what was not synced
			if testing.Short() {
				times = 1
			}
			for i := range times * (n + 1) {
				at := 1 + i%(n+1)
				w, id, snaps := prepare()
				w.fs.KillAt(at)
				err := c.f(w, id, snaps)
				var r *Reject
				if err != nil && (!errors.As(err, &r) || r.ErrorCode != CodeStorage) {
					t.Fatalf("killed before operation %d: %v", at, err)
				}
				w.fs.Kill()
				w.e.Close()
				keep := rng.IntN(101)
				w.disk = w.disk.Crash(keep, rng)
				w.fs = w.disk.Mount()
				w.open()
				w.check()
				got := w.outside(id).String()
				switch {
				case got == before.String() && err != nil:
					was++
				case got == after.String():
					is++
				default:
					t.Fatalf("killed before operation %d with %d%% of the unsynced kept (%v):\ngot    %v\nbefore %v\nafter  %v", at, keep, err, got, before, after)
				}
			}
			if was == 0 || is == 0 {
				t.Errorf("%d crashes left nothing of the call, %d all of it", was, is)
			}
			t.Logf("%d crashes: %d as before, %d as after", was+is, was, is)
		})
	}
}

// An engine that fails lets a call have no effect, in memory neither.
func TestFailingDisk(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		method string
		arg    func(id engine.CanisterID, snap []byte) any
	}{
		{"take", "take_canister_snapshot", func(id engine.CanisterID, _ []byte) any { return takeArgs(id) }},
		{"take and uninstall", "take_canister_snapshot", func(id engine.CanisterID, _ []byte) any { return uninstalling(id) }},
		{"load", "load_canister_snapshot", func(id engine.CanisterID, snap []byte) any { return loadArgs(id, snap) }},
		{"delete", "delete_canister_snapshot", func(id engine.CanisterID, snap []byte) any { return snapArgs(id, snap) }},
		{"chunk", "upload_chunk", func(id engine.CanisterID, _ []byte) any {
			return UploadChunkArgs{CanisterID: id.Bytes(), Chunk: []byte("chunk")}
		}},
		{"chunk of an upload", "upload_canister_snapshot_data", func(id engine.CanisterID, _ []byte) any {
			return writeArgs(id, wireID(id, 1), toChunks(), []byte("chunk"))
		}},
		{"uninstall", "uninstall_code", func(id engine.CanisterID, _ []byte) any { return UninstallCodeArgs{CanisterID: id.Bytes()} }},
		{"reinstall", "install_code", func(id engine.CanisterID, _ []byte) any {
			return InstallCodeArgs{Mode: reinstallMode(), CanisterID: id.Bytes(), WasmModule: module{pages: 2}.wasm("other")}
		}},
		{"clear the chunk store", "clear_chunk_store", func(id engine.CanisterID, _ []byte) any { return only(id) }},
		{"stop", "stop_canister", func(id engine.CanisterID, _ []byte) any { return only(id) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			// Each time the disk lets one more operation pass, until the call
			// gets through.
			failed := 0
			for after := 0; failOn(t, after, c.method, c.arg); after++ {
				failed++
			}
			if failed == 0 {
				t.Error("no operation of the call could fail")
			}
		})
	}
}

// failOn makes one operation on the disk fail during a call, and tells whether
// the call failed with it.
func failOn(t *testing.T, after int, method string, args func(engine.CanisterID, []byte) any) bool {
	t.Helper()
	w := newWorld(t, nil)
	id := w.user()
	w.chunk(id, []byte("kept"))
	w.write(id, engine.WasmMemory, 3, "then")
	snap := w.take(id).ID
	w.begin(declare(id, 10, 0, 0))
	w.write(id, engine.WasmMemory, 3, "now!")
	if err := w.s.Flush(w.ctx, id); err != nil {
		t.Fatal(err)
	}
	before := w.outside(id).String()
	arg := w.arg(args(id, snap))
	w.fs.Inject(&testkit.Fault{Kind: testkit.OpWrite | testkit.OpSync, After: after, Times: 1})
	_, err := w.s.Call(w.ctx, alice, method, arg)
	w.fs.Inject()
	if err == nil {
		w.refresh(id) // does what is left to do
		w.check()
		w.reopen()
		w.check()
		return false
	}
	var r *Reject
	if !errors.As(err, &r) || r.ErrorCode != CodeStorage || r.Err == nil {
		t.Fatalf("after %d operations: %v", after, err)
	}
	w.check()
	// What it left in memory would become durable now.
	if err := w.s.Flush(w.ctx, id); err != nil {
		t.Fatal(err)
	}
	if got := w.outside(id).String(); got != before {
		t.Fatalf("after %d operations the call failed and changed something:\n%v\n%v", after, before, got)
	}
	w.reopen()
	w.check()
	if got := w.outside(id).String(); got != before {
		t.Fatalf("after %d operations the call failed and is there after a restart:\n%v\n%v", after, before, got)
	}
	return true
}
