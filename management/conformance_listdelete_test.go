package management

import (
	"fmt"
	"math/rand/v2"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/management/candid"
)

// C. List, delete, lifecycle.
func listDeleteRows() []row {
	return []row{
		{
			id: "LS01", setup: "canister absent", call: "list", want: "301", mark: "T", run: ls01,
		},
		{
			id: "LS02", setup: "not controller, visibility controllers", call: "list", want: "512, unchanged", mark: "T", run: ls02,
		},
		{
			id: "LS03", setup: "one snapshot", call: "list", want: "exactly it: id,time,size", mark: "T", run: ls03,
		},
		{
			id: "LS04", setup: "no snapshot", call: "list", want: "empty vec", mark: "S", run: ls04,
		},
		{
			id: "LS05", setup: "taken + uploaded", call: "list", want: "both, ordered by id (creation order)", mark: "T", run: ls05,
		},
		{
			id: "LS06", setup: "visibility public", call: "list by stranger canister", want: "succeeds", mark: "S", chose: "ingress admission asks for a controller, as the specification says; Config.IngressVisibility follows the setting instead", run: ls06,
		},
		{
			id: "LS07", setup: "allowed_viewers [v]", call: "list by v / by controller / by other", want: "ok / ok / reject", mark: "S", run: ls07,
		},
		{
			id: "LS08", setup: "allowed_viewers with 11 entries", call: "update_settings", want: "decode failure", mark: "S", chose: "refused with the words of a decoding error", run: ls08,
		},
		{
			id: "LS09", setup: "uploaded snapshot + 2 chunks", call: "list", want: "total_size = declared + 2 MiB", mark: "C", run: ls09,
		},
		{
			id: "DL01", setup: "canister absent", call: "delete", want: "301", mark: "T", run: dl01,
		},
		{
			id: "DL02", setup: "unknown id", call: "delete", want: "305, canister intact", mark: "T", run: dl02,
		},
		{
			id: "DL03", setup: "id of other canister", call: "delete", want: "406 ownership, state equal", mark: "T", run: dl03,
		},
		{
			id: "DL04", setup: "ok", call: "delete", want: "id gone, snapshots usage 0, subnet memory increases", mark: "T", run: dl04,
		},
		{
			id: "DL05", setup: "deleted twice", call: "delete", want: "second: 305", mark: "S", run: dl05,
		},
		{
			id: "DL06", setup: "above T", call: "delete", want: "reserved balance unchanged", mark: "T", run: dl06,
		},
		{
			id: "DL07", setup: "canister below freezing threshold even after the delete", call: "delete", want: "InsufficientCyclesInMemoryGrow (resource check runs)", mark: "C", chose: "the whole check runs, with no fee", run: dl07,
		},
		{
			id: "DL08", setup: "delete middle of 3", call: "delete", want: "other two still load byte-exact", mark: "S", run: dl08,
		},
		{
			id: "DL09", setup: "delete a snapshot already loaded", call: "delete", want: "canister state unaffected (copy semantics)", mark: "S", run: dl09,
		},
		{
			id: "LC01", setup: "stop + delete canister", call: "-", want: "snapshots gone", mark: "T", run: lc01,
		},
		{
			id: "LC02", setup: "out of cycles", call: "-", want: "snapshots gone, code uninstalled, history emptied, count kept", mark: "T", chose: "Service.ChargeIdle is how the host charges; what is lost goes in one step, and is finished after a crash", run: lc02,
		},
		{
			id: "LC03", setup: "uninstalled, then out of cycles", call: "-", want: "snapshots gone", mark: "T", run: lc03,
		},
		{
			id: "LC04", setup: "uninstall_code", call: "-", want: "snapshots kept", mark: "T", run: lc04,
		},
		{
			id: "LC05", setup: "reinstall, then take replace=old id", call: "take", want: "works", mark: "T", run: lc05,
		},
		{
			id: "LC06", setup: "rename with snapshot", call: "rename", want: "514 RenameCanisterHasSnapshot", mark: "C", chose: "rename_canister; a canister without snapshots is not renamed here either (407), since the engine names states by canister", run: lc06,
		},
		{
			id: "LC07", setup: "subnet split", call: "-", want: "only snapshots of hosted canisters remain; memory sum consistent", mark: "C", chose: "Service.Keep", run: lc07,
		},
		{
			id: "LC08", setup: "invariant after every op", call: "-", want: "snapshots_memory_usage == sum of sizes", mark: "T", chose: "120 random calls; the same check runs after every call of every row", run: lc08,
		},
		{
			id: "LC09", setup: "take twice, restart/recover from checkpoint", call: "-", want: "both present, same content", mark: "T", chose: "after a clean close and after the process is killed", run: lc09,
		},
		{
			id: "LC10", setup: "canister_status", call: "-", want: "snapshots_size = sum(total_size); memory_usage includes it", mark: "S", run: lc10,
		},
	}
}

func ls01(w *world) {
	w.fails(CodeCanisterNotFound, viaCanister(alice), "list_canister_snapshots", only(absent(w)))
}

func ls02(w *world) {
	id := w.user()
	w.take(id)
	w.fails(CodeCanisterInvalidController, viaCanister(bob), "list_canister_snapshots", only(id))
	w.fails(CodeCanisterInvalidController, bob, "list_canister_snapshots", only(id))
}

func ls03(w *world) {
	id := w.user()
	snap := w.take(id)
	list := w.list(id)
	equal(w, "snapshots", len(list), 1)
	equal(w, "snapshot", fmt.Sprint(list[0]), fmt.Sprint(snap))
}

func ls04(w *world) { equal(w, "snapshots", len(w.list(w.user())), 0) }

func ls05(w *world) {
	id := w.user()
	want := [][]byte{w.take(id).ID, w.begin(declare(id, 10, 0, 0)), w.take(id).ID}
	for i, s := range w.list(id) {
		equal(w, "snapshot", string(s.ID), string(want[i]))
	}
	equal(w, "snapshots", len(w.list(id)), 3)
}

// show sets who may look at snapshots.
func (w *world) show(id engine.CanisterID, v VisibilityVariant) {
	w.Helper()
	w.set(id, CanisterSettings{SnapshotVisibility: &v})
}

func ls06(w *world) {
	id := w.user()
	snap := w.take(id)
	w.show(id, VisibilityVariant{Public: &candid.Null{}})
	w.do(viaCanister(bob), "list_canister_snapshots", only(id))
	w.do(viaCanister(bob), "read_canister_snapshot_metadata", snapArgs(id, snap.ID))
	w.do(viaCanister(bob), "read_canister_snapshot_data", readArgs(id, snap.ID, moduleAt(0, 1)))
	w.fails(CodeCanisterInvalidController, viaCanister(bob), "delete_canister_snapshot", snapArgs(id, snap.ID))
	w.fails(CodeCanisterInvalidController, bob, "list_canister_snapshots", only(id), "can call ic00 method")
	w.with(func(c *Config) { c.IngressVisibility = true })
	w.do(bob, "list_canister_snapshots", only(id))
}

func ls07(w *world) {
	id := w.user()
	w.take(id)
	viewers := []candid.Principal{bob.Principal}
	w.show(id, VisibilityVariant{AllowedViewers: &viewers})
	w.do(viaCanister(bob), "list_canister_snapshots", only(id))
	w.do(viaCanister(alice), "list_canister_snapshots", only(id))
	w.fails(CodeCanisterInvalidController, as(absent(w), 0), "list_canister_snapshots", only(id))
	equal(w, "setting", len(*w.status(id).Settings.SnapshotVisibility.AllowedViewers), 1)
}

func ls08(w *world) {
	id := w.user()
	viewers := make([]candid.Principal, 11)
	for i := range viewers {
		viewers[i] = candid.Principal{byte(i)}
	}
	v := VisibilityVariant{AllowedViewers: &viewers}
	a := UpdateSettingsArgs{CanisterID: id.Bytes(), Settings: CanisterSettings{SnapshotVisibility: &v}}
	w.fails(CodeInvalidManagementPayload, alice, "update_settings", a, "Error decoding candid")
	viewers = viewers[:10]
	w.do(alice, "update_settings", a)
}

func ls09(w *world) {
	id := w.user()
	snap := w.begin(declare(id, 10, 1<<16, 2<<16))
	w.upload(id, snap, toChunks(), []byte("one"))
	w.upload(id, snap, toChunks(), []byte("two"))
	equal(w, "size", w.list(id)[0].TotalSize, 10+3<<16+2<<20)
}

func dl01(w *world) {
	id := w.user()
	snap := w.take(id)
	w.fails(CodeCanisterNotFound, viaCanister(alice), "delete_canister_snapshot", snapArgs(absent(w), snap.ID))
}

func dl02(w *world) {
	id := w.user()
	w.fails(CodeCanisterSnapshotNotFound, alice, "delete_canister_snapshot", snapArgs(id, wireID(id, 5)))
}

func dl03(w *world) {
	one, two := w.user(), w.user()
	snap := w.take(one)
	w.fails(CodeCanisterRejectedMessage, alice, "delete_canister_snapshot", snapArgs(two, snap.ID), "does not belong to canister")
	equal(w, "snapshots", len(w.list(one)), 1)
}

func dl04(w *world) {
	id := w.user()
	snap := w.take(id)
	before := w.s.Ledger().Allocated
	w.delete(id, snap.ID)
	equal(w, "snapshots", len(w.list(id)), 0)
	equal(w, "snapshots' bytes", w.refresh(id).Snapshots, 0)
	equal(w, "subnet's memory", w.s.Ledger().Allocated, before-snap.TotalSize)
}

func dl05(w *world) {
	id := w.user()
	snap := w.take(id)
	balance := w.balance(id)
	w.delete(id, snap.ID)
	equal(w, "balance", w.balance(id), balance)
	w.fails(CodeCanisterSnapshotNotFound, alice, "delete_canister_snapshot", snapArgs(id, snap.ID))
}

func dl06(w *world) {
	id := w.crowded()
	snap := w.take(id)
	reserved := w.refresh(id).Reserved
	if reserved.IsZero() {
		w.Fatal("nothing was reserved")
	}
	w.delete(id, snap.ID)
	equal(w, "reserved", w.refresh(id).Reserved, reserved)
}

func dl07(w *world) {
	id := w.user()
	snap := w.take(id)
	// Once the snapshot is gone the canister must keep this much.
	keep := w.freezing(id, 0).Sub(w.freezing(id, snap.TotalSize).Sub(w.freezing(id, 0)))
	w.fund(id, keep.Sub(NewCycles(10)))
	w.fails(CodeInsufficientCyclesMemoryGrow, alice, "delete_canister_snapshot", snapArgs(id, snap.ID))
	w.fund(id, keep.Add(NewCycles(10)))
	w.delete(id, snap.ID)
}

func dl08(w *world) {
	id := w.user()
	var snaps []SnapshotRecord
	for i := range 3 {
		w.write(id, engine.WasmMemory, 0, fmt.Sprintf("state %d", i))
		snaps = append(snaps, w.take(id))
	}
	w.delete(id, snaps[1].ID)
	for _, i := range []int{2, 0, 2} {
		w.load(id, snaps[i].ID)
		w.holds(id, engine.WasmMemory, 0, fmt.Sprintf("state %d", i))
	}
}

func dl09(w *world) {
	id := w.user()
	w.write(id, engine.WasmMemory, 0, "loaded")
	snap := w.take(id)
	w.write(id, engine.WasmMemory, 0, "......")
	w.load(id, snap.ID)
	w.delete(id, snap.ID)
	w.holds(id, engine.WasmMemory, 0, "loaded")
	w.reopen()
	w.holds(id, engine.WasmMemory, 0, "loaded")
}

func lc01(w *world) {
	id := w.user()
	snap := w.take(id)
	w.fails(CodeCanisterNotStopped, alice, "delete_canister", only(id))
	w.do(alice, "stop_canister", only(id))
	w.do(alice, "delete_canister", only(id))
	equal(w, "subnet's memory", w.s.Ledger().Allocated, 0)
	w.fails(CodeCanisterNotFound, alice, "list_canister_snapshots", only(id))
	other := w.user()
	w.fails(CodeCanisterSnapshotNotFound, alice, "load_canister_snapshot", loadArgs(other, snap.ID))
}

// bankrupt lets a canister run out of cycles.
func (w *world) bankrupt(id engine.CanisterID) {
	w.Helper()
	w.fund(id, NewCycles(5))
	out, err := w.s.ChargeIdle(w.ctx, id, 86_400)
	if err != nil || !out {
		w.Fatalf("out of cycles: %v, %v", out, err)
	}
	w.check()
}

func lc02(w *world) {
	id := w.user()
	w.take(id)
	w.begin(declare(id, 10, 0, 0))
	before := w.history(id)
	w.bankrupt(id)
	equal(w, "snapshots", len(w.list(id)), 0)
	after := w.history(id)
	equal(w, "module", after.ModuleHash == nil, true)
	equal(w, "changes", len(after.RecentChanges), 0)
	if after.TotalNumChanges < before.TotalNumChanges {
		w.Fatalf("%d changes became %d", before.TotalNumChanges, after.TotalNumChanges)
	}
	equal(w, "balance", w.balance(id), Cycles{})
	w.reopen()
	equal(w, "snapshots after a restart", len(w.list(id)), 0)
}

func lc03(w *world) {
	id := w.user()
	w.take(id)
	w.do(alice, "uninstall_code", UninstallCodeArgs{CanisterID: id.Bytes()})
	equal(w, "snapshots", len(w.list(id)), 1)
	w.bankrupt(id)
	equal(w, "snapshots", len(w.list(id)), 0)
}

func lc04(w *world) {
	id := w.user()
	snap := w.take(id)
	w.do(alice, "uninstall_code", UninstallCodeArgs{CanisterID: id.Bytes()})
	w.load(id, snap.ID)
	w.do(alice, "stop_canister", only(id))
	equal(w, "snapshots", len(w.list(id)), 1)
	upgrade := (*UpgradeFlags)(nil)
	w.do(alice, "install_code", InstallCodeArgs{Mode: InstallMode{Upgrade: &upgrade}, CanisterID: id.Bytes(), WasmModule: simple().wasm("next")})
	equal(w, "snapshots", len(w.list(id)), 1)
}

func lc05(w *world) {
	id := w.user()
	snap := w.take(id)
	w.reinstall(id, module{pages: 1}.wasm("second"))
	next := w.take(id, snap.ID)
	equal(w, "what is left", string(w.list(id)[0].ID), string(next.ID))
}

func lc06(w *world) {
	id := w.user()
	snap := w.take(id)
	a := RenameCanisterArgs{CanisterID: id.Bytes(), RenameTo: RenameTo{CanisterID: absent(w).Bytes()}}
	w.fails(CodeCanisterNonEmpty, alice, "rename_canister", a, "must not have any snapshots before it is renamed")
	w.delete(id, snap.ID)
	w.fails(CodeUnknownManagementMessage, alice, "rename_canister", a)
}

func lc07(w *world) {
	here, there := w.user(), w.user()
	w.take(here)
	w.take(there)
	if err := w.s.Keep(w.ctx, func(id engine.CanisterID) bool { return id == here }); err != nil {
		w.Fatal(err)
	}
	w.check()
	equal(w, "canisters", len(w.ids()), 1)
	equal(w, "snapshots", len(w.list(here)), 1)
	w.fails(CodeCanisterNotFound, alice, "list_canister_snapshots", only(there))
}

func lc08(w *world) {
	id, other := w.user(), w.empty()
	seed := uint64(20241122)
	w.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	for range 120 {
		w.s.Round()
		list := w.list(id)
		var pick []byte
		if len(list) > 0 {
			pick = list[rng.IntN(len(list))].ID
		}
		var args any = takeArgs(id)
		method := "take_canister_snapshot"
		switch n := rng.IntN(10); {
		case n == 0:
			w.grow(id, engine.StableMemory, rng.Uint64N(20)<<16)
			continue
		case n == 1:
			args, method = UploadChunkArgs{CanisterID: id.Bytes(), Chunk: fmt.Append(nil, rng.IntN(50))}, "upload_chunk"
		case n == 2:
			args, method = only(id), "clear_chunk_store"
		case n == 3:
			args, method = declare(id, 1+rng.Uint64N(100), rng.Uint64N(3)<<16, 0), "upload_canister_snapshot_metadata"
		case pick == nil:
		case n == 4:
			args, method = loadArgs(id, pick), "load_canister_snapshot"
		case n == 5:
			args, method = loadArgs(other, pick), "load_canister_snapshot"
		case n == 6:
			args, method = snapArgs(id, pick), "delete_canister_snapshot"
		case n == 7:
			args = takeArgs(id, pick)
		case n == 8:
			args, method = writeArgs(id, pick, toChunks(), fmt.Append(nil, rng.IntN(50))), "upload_canister_snapshot_data"
		}
		w.raw(alice, method, w.arg(args)) // checks the ledgers, whatever comes of it
	}
	for p, err := range w.e.Verify(w.ctx, engine.VerifyOptions{}) {
		w.Fatal(p, err)
	}
	list := w.list(id)
	w.reopen()
	w.check()
	equal(w, "snapshots after a restart", fmt.Sprint(w.list(id)), fmt.Sprint(list))
}

func lc09(w *world) {
	id := w.user()
	w.write(id, engine.WasmMemory, 9, "one")
	one := w.take(id)
	w.write(id, engine.WasmMemory, 9, "two")
	two := w.take(id)
	before := w.status(id)
	w.reopen()
	after := w.status(id)
	equal(w, "status", fmt.Sprint(after.Settings, after.Version, after.Cycles, after.MemorySize), fmt.Sprint(before.Settings, before.Version, before.Cycles, before.MemorySize))
	equal(w, "first", string(w.read(id, one.ID, wasmAt(9, 3))), "one")
	equal(w, "second", string(w.read(id, two.ID, wasmAt(9, 3))), "two")
	// And when the process is killed instead.
	w.fs.Kill()
	w.e.Close()
	w.fs = w.disk.Mount()
	w.open()
	equal(w, "snapshots", len(w.list(id)), 2)
	w.load(id, one.ID)
	w.holds(id, engine.WasmMemory, 9, "one")
}

func lc10(w *world) {
	id := w.user()
	before := w.status(id)
	one := w.take(id)
	w.grow(id, engine.StableMemory, 1<<20)
	two := w.take(id)
	st := w.status(id)
	sum := one.TotalSize + two.TotalSize
	equal(w, "snapshots' bytes", st.MemoryMetrics.SnapshotsSize.Cmp(nat(sum)), 0)
	old, _ := before.MemorySize.Uint64()
	equal(w, "memory usage", st.MemorySize.Cmp(nat(old+1<<20+sum)), 0)
}
