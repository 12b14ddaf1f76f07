package management

import (
	"fmt"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/management/candid"
	"github.com/snapstore/snapstore/manifest"
)

// B. Load.
func loadRows() []row {
	return []row{
		{
			id: "LD01", setup: "canister absent", call: "load", want: "301", mark: "T", run: ld01,
		},
		{
			id: "LD02", setup: "not controller", call: "load", want: "512, state equal", mark: "T", run: ld02,
		},
		{
			id: "LD03", setup: "id never issued", call: "load", want: "305", mark: "T", run: ld03,
		},
		{
			id: "LD04", setup: "chunk uploaded, snap, chunk store cleared", call: "load", want: "chunk store restored", mark: "T", run: ld04,
		},
		{
			id: "LD05", setup: "version 1 at take", call: "load", want: "version 2; history last = load_snapshot{version 1, id, taken_at, TakenFromCanister, from=null}", mark: "T", run: ld05,
		},
		{
			id: "LD06", setup: "load after checkpoint queue inspected", call: "take, load", want: "ordered ops [take, load]", mark: "T", chose: "the engine has one log and no queue of checkpoint operations: the sequences of its batches ascend", run: ld06,
		},
		{
			id: "LD07", setup: "same snapshot loaded twice", call: "load x2", want: "both succeed; version +2; snapshot remains", mark: "S", run: ld07,
		},
		{
			id: "LD08", setup: "canister changed a lot after snap", call: "load", want: "memories, globals, module exactly as at take", mark: "T", run: ld08,
		},
		{
			id: "LD09", setup: "after uninstall_code", call: "load", want: "canister works again", mark: "T", run: ld09,
		},
		{
			id: "LD10", setup: "canister grew, load small snapshot", call: "load", want: "memory usage decreases, subnet memory returned", mark: "T", run: ld10,
		},
		{
			id: "LD11", setup: "load grows usage beyond subnet memory / cycles / reserved limit", call: "load", want: "101 / InsufficientCycles.. / ReservedCyclesLimit..", mark: "T", run: ld11,
		},
		{
			id: "LD12", setup: "heap debit >= limit", call: "load", want: "210, delta estimate unchanged", mark: "T", run: ld12,
		},
		{
			id: "LD13", setup: "load ok", call: "load", want: "delta estimate increases", mark: "T", chose: "the delta is the pages in which the new state differs from the one before", run: ld13,
		},
		{
			id: "LD14", setup: "long (paused) execution in progress", call: "load", want: "406 LongExecutionAlreadyInProgress", mark: "C", chose: "the host double says that an execution is paused", run: ld14,
		},
		{
			id: "LD15", setup: "canister running", call: "load", want: "succeeds (stop only recommended)", mark: "S", run: ld15,
		},
		{
			id: "LD16", setup: "cost", call: "load", want: "balance < before - execution_cost(2e9+size) (strict: compile + second base fee)", mark: "T", chose: "the price of compiling is 3,000 instructions a byte of the module, from the default host; a replica's compiler tells its own", run: ld16,
		},
		{
			id: "LD17", setup: "Wasm64 module in snapshot", call: "load", want: "second part charged at the Wasm64 rate (x2)", mark: "C", chose: "the first part of the fee is at the 32-bit rate, the second at that of the module", run: ld17,
		},
		{
			id: "LD18", setup: "sender_canister_version 444 wrong", call: "load via canister", want: "reject; history unchanged", mark: "T", chose: "504", run: ld18,
		},
		{
			id: "LD19", setup: "snapshot of canister 1, caller controls 2 only", call: "load on 2", want: "406 NotController, canister 2 equal to before", mark: "T", run: ld19,
		},
		{
			id: "LD20", setup: "caller controls both, unflushed delta in snapshot", call: "load on 2", want: "406 NotLoadable", mark: "T", chose: "content addressing lifts this limit, so Config.FlushedSnapshotsOnly is off by default; the row runs with it on, and the host double says what is not flushed", run: ld20,
		},
		{
			id: "LD21", setup: "same after checkpoint", call: "load on 2", want: "succeeds; states equal; history from_canister_id = 1 with version/time of 1", mark: "T", chose: "a checkpoint is what the host double says", run: ld21,
		},
		{
			id: "LD22", setup: "cross load onto empty canister", call: "load", want: "succeeds", mark: "S", run: ld22,
		},
		{
			id: "LD23", setup: "cross load, other subnet", call: "load", want: "fails (snapshot not found there)", mark: "S", chose: "a canister that is not in this store has no snapshot here", run: ld23,
		},
		{
			id: "LD24", setup: "taken snapshot, timer active at take, now inactive", call: "load", want: "timer stays inactive", mark: "T", run: ld24,
		},
		{
			id: "LD25", setup: "taken snapshot, hook Executed at take", call: "load", want: "hook re-armed and runs again when condition holds", mark: "T", chose: "the hook is ready again after any load of a taken snapshot, whatever it was before", run: ld25,
		},
		{
			id: "LD26", setup: "snapshot with high memory, now low", call: "load", want: "hook status becomes Ready", mark: "T", run: ld26,
		},
		{
			id: "LD27", setup: "uploaded snapshot with timer/hook", call: "load", want: "both restored, hook not rerun", mark: "T", run: ld27,
		},
		{
			id: "LD28", setup: "uploaded, timer/hook null", call: "load", want: "current values kept", mark: "S", run: ld28,
		},
		{
			id: "LD29", setup: "uploaded, module = 42 zero bytes", call: "load", want: "505 CanisterInvalidWasm", mark: "T", run: ld29,
		},
		{
			id: "LD30", setup: "uploaded, globals count/type mismatch", call: "load", want: "408 Inconsistent", mark: "T", run: ld30,
		},
		{
			id: "LD31", setup: "uploaded, hook Ready/Executed but condition false", call: "load", want: "408 Inconsistent", mark: "T", run: ld31,
		},
		{
			id: "LD32", setup: "uploaded, hook ConditionNotSatisfied but condition true", call: "load", want: "408 Inconsistent", mark: "S", run: ld32,
		},
		{
			id: "LD33", setup: "any failed load", call: "load", want: "canister bit-identical, no version/history/fee change", mark: "C/T", chose: "uncharged as well; the table infers it from the clone that the replica works on", run: ld33,
		},
		{
			id: "LD34", setup: "after load", call: "read_state", want: "last_install_timestamp = time of load", mark: "S", chose: "Service.Canister has the time, for the state tree", run: ld34,
		},
		{
			id: "LD35", setup: "stable memory shrinks on load (3 pages vs 4 now)", call: "load", want: "stable size = snapshot size; old pages not visible", mark: "T", run: ld35,
		},
		{
			id: "LD36", setup: "load", call: "-", want: "settings, controllers, queues, logs, call contexts untouched", mark: "C", run: ld36,
		},
	}
}

func ld01(w *world) {
	id := w.user()
	snap := w.take(id)
	w.fails(CodeCanisterNotFound, viaCanister(alice), "load_canister_snapshot", loadArgs(absent(w), snap.ID))
}

func ld02(w *world) {
	id := w.user()
	snap := w.take(id)
	w.fails(CodeCanisterInvalidController, viaCanister(bob), "load_canister_snapshot", loadArgs(id, snap.ID))
	w.fails(CodeCanisterInvalidController, bob, "load_canister_snapshot", loadArgs(id, snap.ID))
}

func ld03(w *world) {
	id := w.user()
	w.fails(CodeCanisterSnapshotNotFound, alice, "load_canister_snapshot", loadArgs(id, wireID(id, 0)))
	w.fails(CodeInvalidManagementPayload, alice, "load_canister_snapshot", loadArgs(id, []byte{1, 2, 3}), "Error decoding candid")
}

func ld04(w *world) {
	id := w.user()
	hash := w.chunk(id, []byte("a chunk"))
	snap := w.take(id)
	w.do(alice, "clear_chunk_store", only(id))
	equal(w, "chunks", len(w.chunks(id)), 0)
	w.load(id, snap.ID)
	if got := w.chunks(id); len(got) != 1 || string(got[0].Hash) != string(hash) {
		w.Fatalf("chunks %x, want %x", got, hash)
	}
}

// lastLoad is the newest change, which must be a load.
func (w *world) lastLoad(id engine.CanisterID) (Change, LoadDetails) {
	w.Helper()
	changes := w.history(id).RecentChanges
	c := changes[len(changes)-1]
	if c.Details.LoadSnapshot == nil {
		w.Fatalf("the last change is %+v", c)
	}
	return c, *c.Details.LoadSnapshot
}

func ld05(w *world) {
	id := w.user()
	w.run(id, func(x *Execution) { x.Version = 1 })
	snap := w.take(id)
	w.h.now += 1000
	w.load(id, snap.ID)
	equal(w, "version", w.status(id).Version, 2)
	c, d := w.lastLoad(id)
	equal(w, "version of the change", c.CanisterVersion, 2)
	equal(w, "time of the change", c.TimestampNanos, w.h.now)
	equal(w, "who did it", string(c.Origin.FromUser.UserID), string(alice.Principal))
	equal(w, "version in the snapshot", d.CanisterVersion, 1)
	equal(w, "snapshot", string(d.SnapshotID), string(snap.ID))
	equal(w, "time of the snapshot", d.TakenAtTimestamp, snap.TakenAtTimestamp)
	equal(w, "source", d.Source.TakenFromCanister != nil && d.Source.MetadataUpload == nil, true)
	equal(w, "from", d.FromCanisterID == nil, true)
}

func ld06(w *world) {
	id := w.user()
	before := w.e.Sequence()
	snap := w.take(id)
	taken := w.e.Sequence()
	w.load(id, snap.ID)
	if loaded := w.e.Sequence(); before >= taken || taken >= loaded {
		w.Fatalf("sequences %d, %d, %d", before, taken, loaded)
	}
}

func ld07(w *world) {
	id := w.user()
	snap := w.take(id)
	version := w.status(id).Version
	w.load(id, snap.ID)
	w.load(id, snap.ID)
	equal(w, "version", w.status(id).Version, version+2)
	equal(w, "snapshots", len(w.list(id)), 1)
}

func ld08(w *world) {
	id := w.user()
	w.grow(id, engine.StableMemory, 3<<16)
	w.write(id, engine.WasmMemory, 4090, "across two pages")
	w.write(id, engine.StableMemory, 1<<17, "stable")
	w.run(id, func(x *Execution) { x.CertifiedData = []byte("then") })
	globals := fmt.Sprint(w.s.lookup(id).live.Metadata().Globals)
	hash := *w.status(id).ModuleHash
	snap := w.take(id)

	other := module{pages: 2, globals: []GlobalType{{manifest.GlobalF64, true, true}}}
	w.reinstall(id, other.wasm("second"))
	w.write(id, engine.WasmMemory, 4090, "something else..")
	w.run(id, func(x *Execution) { x.CertifiedData = []byte("now") })
	w.load(id, snap.ID)

	w.holds(id, engine.WasmMemory, 4090, "across two pages")
	w.holds(id, engine.StableMemory, 1<<17, "stable")
	wasm := simple().wasm("first")
	w.holds(id, engine.WasmModule, 0, string(wasm))
	equal(w, "module", w.mem(id, engine.WasmModule).Size(), uint64(len(wasm)))
	equal(w, "module hash", string(*w.status(id).ModuleHash), string(hash))
	equal(w, "memory", w.mem(id, engine.WasmMemory).Size(), 1<<16)
	equal(w, "stable memory", w.mem(id, engine.StableMemory).Size(), 3<<16)
	meta := w.s.lookup(id).live.Metadata()
	equal(w, "globals", fmt.Sprint(meta.Globals), globals)
	equal(w, "certified data", string(meta.CertifiedData), "then")
}

func ld09(w *world) {
	id := w.user()
	w.write(id, engine.WasmMemory, 7, "alive")
	snap := w.take(id)
	w.do(alice, "uninstall_code", UninstallCodeArgs{CanisterID: id.Bytes()})
	equal(w, "module", w.status(id).ModuleHash == nil, true)
	equal(w, "memory", w.mem(id, engine.WasmMemory).Size(), 0)
	w.load(id, snap.ID)
	equal(w, "module", w.status(id).ModuleHash != nil, true)
	w.holds(id, engine.WasmMemory, 7, "alive")
}

func ld10(w *world) {
	id := w.user()
	snap := w.take(id)
	w.grow(id, engine.StableMemory, 1<<30)
	before := w.refresh(id)
	w.load(id, snap.ID)
	after := w.refresh(id)
	if after.MemoryUsage > before.MemoryUsage-1<<30+1000 {
		w.Fatalf("memory usage fell from %d to %d", before.MemoryUsage, after.MemoryUsage)
	}
	equal(w, "subnet's memory", w.s.Ledger().Allocated, after.MemoryUsage)
}

func ld11(w *world) {
	id := w.user()
	w.grow(id, engine.StableMemory, 2<<30)
	snap := w.take(id)
	w.reinstall(id, simple().wasm("small"))

	capacity := w.h.subnet.MemoryCapacity
	w.h.subnet.MemoryCapacity = w.s.Ledger().Allocated + 1<<30
	w.fails(CodeSubnetOversubscribed, alice, "load_canister_snapshot", loadArgs(id, snap.ID))
	w.h.subnet.MemoryCapacity = capacity

	rich := w.balance(id)
	w.fund(id, w.freezing(id, 1<<30))
	w.fails(CodeInsufficientCyclesMemoryGrow, alice, "load_canister_snapshot", loadArgs(id, snap.ID))
	w.fund(id, rich)

	w.h.subnet.MemoryThreshold, w.h.subnet.MemoryCapacity = 1<<30, 100<<30
	limit := nat(1)
	w.set(id, CanisterSettings{ReservedCyclesLimit: &limit})
	w.fails(CodeReservedCyclesLimitInMemoryGrow, alice, "load_canister_snapshot", loadArgs(id, snap.ID))
	limit = natOf(NewCycles(1000 * trillion))
	w.set(id, CanisterSettings{ReservedCyclesLimit: &limit})
	w.load(id, snap.ID)
	if w.refresh(id).Reserved.IsZero() {
		w.Fatal("nothing was reserved")
	}
}

func ld12(w *world) {
	id := w.user()
	snap := w.take(id)
	w.full(id)
	before := w.s.Ledger().HeapDelta
	w.fails(CodeCanisterHeapDeltaRateLimited, alice, "load_canister_snapshot", loadArgs(id, snap.ID))
	equal(w, "heap delta", w.s.Ledger().HeapDelta, before)
}

func ld13(w *world) {
	id := w.user()
	w.write(id, engine.WasmMemory, 0, "then")
	snap := w.take(id)
	w.write(id, engine.WasmMemory, 0, "now!")
	before := w.s.Ledger().HeapDelta
	w.load(id, snap.ID)
	if after := w.s.Ledger().HeapDelta; after < before+4096 {
		w.Fatalf("heap delta went from %d to %d", before, after)
	}
}

func ld14(w *world) {
	id := w.user()
	snap := w.take(id)
	w.h.long[id] = true
	w.fails(CodeCanisterRejectedMessage, alice, "load_canister_snapshot", loadArgs(id, snap.ID), "is currently executing a long-running message")
}

func ld15(w *world) {
	id := w.user()
	snap := w.take(id)
	equal(w, "running", w.status(id).Status.Running != nil, true)
	w.load(id, snap.ID)
	w.with(func(c *Config) { c.RefuseRunning = true })
	w.fails(CodeCanisterNotStopped, alice, "load_canister_snapshot", loadArgs(id, snap.ID))
}

func ld16(w *world) {
	id := w.user()
	snap := w.take(id)
	before := w.balance(id)
	w.load(id, snap.ID)
	paid := before.Sub(w.balance(id))
	if !execution(2e9 + snap.TotalSize).Less(paid) {
		w.Fatalf("the load cost %v", paid)
	}
	compile := uint64(len(simple().wasm("first"))) * instructionsPerByte
	equal(w, "fee", paid, execution(2e9).Add(execution(compile+snap.TotalSize)))
}

func ld17(w *world) {
	id := w.empty()
	m := module{pages: 1, wasm64: true}
	w.install(id, m.wasm("wide"))
	snap := w.take(id)
	before := w.balance(id)
	w.load(id, snap.ID)
	compile := uint64(len(m.wasm("wide"))) * instructionsPerByte
	want := execution(2e9).Add(NewCycles(5_000_000 + 2*(compile+snap.TotalSize)))
	equal(w, "fee", before.Sub(w.balance(id)), want)
}

func ld18(w *world) {
	id, boss := w.user(), w.user()
	controllers := []candid.Principal{alice.Principal, boss.Bytes()}
	w.set(id, CanisterSettings{Controllers: &controllers})
	snap := w.take(id)
	a, said := loadArgs(id, snap.ID), uint64(444)
	a.SenderCanisterVersion = &said
	before := w.history(id).TotalNumChanges
	w.fails(CodeCanisterContractViolation, as(boss, 9), "load_canister_snapshot", a)
	equal(w, "changes", w.history(id).TotalNumChanges, before)
	said = 9
	w.do(as(boss, 9), "load_canister_snapshot", a)
	c, _ := w.lastLoad(id)
	equal(w, "who did it", string(c.Origin.FromCanister.CanisterID), string(boss.Bytes()))
	equal(w, "their version", *c.Origin.FromCanister.CanisterVersion, 9)
}

func ld19(w *world) {
	one, two := w.user(), w.user()
	snap := w.take(one)
	controllers := []candid.Principal{alice.Principal, bob.Principal}
	w.set(two, CanisterSettings{Controllers: &controllers})
	w.fails(CodeCanisterRejectedMessage, bob, "load_canister_snapshot", loadArgs(two, snap.ID), "Only a controller of the canister that snapshot")
}

func ld20(w *world) {
	w.with(func(c *Config) { c.FlushedSnapshotsOnly = true })
	one, two := w.user(), w.user()
	snap := w.take(one)
	id, _ := engine.SnapshotIDFromBytes(snap.ID)
	w.h.unflushed[id] = true
	w.fails(CodeCanisterRejectedMessage, alice, "load_canister_snapshot", loadArgs(two, snap.ID), "is not currently loadable on the specified canister")
	w.load(one, snap.ID)
	w.h.unflushed[id] = false
	w.load(two, snap.ID)
}

func ld21(w *world) {
	one, two := w.user(), w.user()
	w.write(one, engine.WasmMemory, 100, "of the first")
	w.run(one, func(x *Execution) { x.Version = 17 })
	snap := w.take(one)
	w.h.now++
	w.load(two, snap.ID)
	w.holds(two, engine.WasmMemory, 100, "of the first")
	_, d := w.lastLoad(two)
	equal(w, "from", string(*d.FromCanisterID), string(one.Bytes()))
	equal(w, "version", d.CanisterVersion, 17)
	equal(w, "time", d.TakenAtTimestamp, snap.TakenAtTimestamp)
	equal(w, "snapshots of the target", len(w.list(two)), 0)
	equal(w, "state", w.snapshotSize(two), w.snapshotSize(one))
}

func ld22(w *world) {
	one, two := w.user(), w.empty()
	snap := w.take(one)
	w.load(two, snap.ID)
	equal(w, "module", string(*w.status(two).ModuleHash), string(*w.status(one).ModuleHash))
}

func ld23(w *world) {
	id := w.user()
	w.fails(CodeCanisterSnapshotNotFound, alice, "load_canister_snapshot", loadArgs(id, wireID(absent(w), 0)))
}

func ld24(w *world) {
	id := w.user()
	w.run(id, func(x *Execution) { x.Timer = Timer{Active: true, Deadline: 99} })
	snap := w.take(id)
	equal(w, "timer in the snapshot", *w.metadata(id, snap.ID).GlobalTimer.Active, 99)
	w.run(id, func(x *Execution) { x.Timer = Timer{} })
	w.load(id, snap.ID)
	equal(w, "timer", w.refresh(id).Timer, Timer{Present: true})
	w.reopen()
	equal(w, "timer after a restart", w.refresh(id).Timer, Timer{Present: true})
}

// tight makes the condition of the hook hold from half a MiB of memory on.
func (w *world) tight(id engine.CanisterID) {
	w.Helper()
	limit, threshold := nat(1<<20), nat(1<<19)
	w.set(id, CanisterSettings{WasmMemoryLimit: &limit, WasmMemoryThreshold: &threshold})
}

func ld25(w *world) {
	id := w.user()
	w.tight(id)
	w.grow(id, engine.WasmMemory, 1<<20)
	w.run(id, func(x *Execution) { x.Hook = manifest.HookExecuted })
	snap := w.take(id)
	equal(w, "hook in the snapshot", w.metadata(id, snap.ID).OnLowWasmMemoryHookStatus.Executed != nil, true)
	w.load(id, snap.ID)
	equal(w, "hook", w.refresh(id).Hook, manifest.HookReady)
}

func ld26(w *world) {
	id := w.user()
	w.grow(id, engine.WasmMemory, 1<<20)
	snap := w.take(id)
	w.grow(id, engine.WasmMemory, 1<<16)
	w.tight(id)
	equal(w, "hook before", w.refresh(id).Hook, manifest.HookConditionNotSatisfied)
	w.load(id, snap.ID)
	equal(w, "hook", w.refresh(id).Hook, manifest.HookReady)
}

// ready uploads a snapshot that can be loaded: a module without globals, and a
// memory of so many bytes.
func (w *world) ready(id engine.CanisterID, memory uint64, change func(*UploadCanisterSnapshotMetadataArgs)) []byte {
	w.Helper()
	wasm := module{pages: 1}.wasm("uploaded")
	a := declare(id, uint64(len(wasm)), memory, 0)
	if change != nil {
		change(&a)
	}
	snap := w.begin(a)
	w.upload(id, snap, toModule(0), wasm)
	return snap
}

func ld27(w *world) {
	id := w.user()
	w.tight(id)
	deadline := uint64(77)
	snap := w.ready(id, 1<<20, func(a *UploadCanisterSnapshotMetadataArgs) {
		a.GlobalTimer, a.OnLowWasmMemoryHookStatus = &TimerVariant{Active: &deadline}, &HookVariant{Executed: &candid.Null{}}
	})
	w.load(id, snap)
	v := w.refresh(id)
	equal(w, "timer", v.Timer, Timer{Present: true, Active: true, Deadline: 77})
	equal(w, "hook", v.Hook, manifest.HookExecuted)
	_, d := w.lastLoad(id)
	equal(w, "source", d.Source.MetadataUpload != nil, true)
}

func ld28(w *world) {
	id := w.user()
	snap := w.ready(id, 1<<16, nil)
	w.run(id, func(x *Execution) {
		x.Timer, x.Hook = Timer{Active: true, Deadline: 5}, manifest.HookExecuted
	})
	w.load(id, snap)
	v := w.refresh(id)
	equal(w, "timer", v.Timer, Timer{Present: true, Active: true, Deadline: 5})
	equal(w, "hook", v.Hook, manifest.HookExecuted)
}

func ld29(w *world) {
	id := w.user()
	snap := w.begin(declare(id, 42, 1<<16, 0))
	w.fails(CodeCanisterInvalidWasm, alice, "load_canister_snapshot", loadArgs(id, snap), "Canister's Wasm module is not valid")
}

func ld30(w *world) {
	id := w.user()
	wasm := simple().wasm("globals")
	one, wide := int32(1), int64(1)
	for _, globals := range [][]GlobalVariant{nil, {{I32: &one}}, {{I64: &wide}, {I64: &wide}}, {{I32: &one}, {I64: &wide}, {I64: &wide}}} {
		a := declare(id, uint64(len(wasm)), 1<<16, 0)
		a.Globals = globals
		snap := w.begin(a)
		w.upload(id, snap, toModule(0), wasm)
		w.fails(CodeInvalidManagementPayload, alice, "load_canister_snapshot", loadArgs(id, snap), "inconsistent")
	}
	a := declare(id, uint64(len(wasm)), 1<<16, 0)
	a.Globals = []GlobalVariant{{I32: &one}, {I64: &wide}}
	snap := w.begin(a)
	w.upload(id, snap, toModule(0), wasm)
	w.load(id, snap)
}

func ld31(w *world) {
	id := w.user()
	w.tight(id)
	for _, hook := range []HookVariant{{Ready: &candid.Null{}}, {Executed: &candid.Null{}}} {
		snap := w.ready(id, 1<<16, func(a *UploadCanisterSnapshotMetadataArgs) { a.OnLowWasmMemoryHookStatus = &hook })
		w.fails(CodeInvalidManagementPayload, alice, "load_canister_snapshot", loadArgs(id, snap), "inconsistent")
	}
}

func ld32(w *world) {
	id := w.user()
	w.tight(id)
	snap := w.ready(id, 1<<20, func(a *UploadCanisterSnapshotMetadataArgs) {
		a.OnLowWasmMemoryHookStatus = &HookVariant{ConditionNotSatisfied: &candid.Null{}}
	})
	w.fails(CodeInvalidManagementPayload, alice, "load_canister_snapshot", loadArgs(id, snap), "inconsistent")
}

func ld33(w *world) {
	id := w.user()
	snap := w.take(id)
	w.write(id, engine.WasmMemory, 0, "not durable yet")
	rich := w.balance(id)
	for _, spoil := range []struct {
		code ErrorCode
		set  func(on bool)
	}{
		{CodeCanisterHeapDeltaRateLimited, func(on bool) {
			if w.full(id); !on {
				w.s.Round()
			}
		}},
		{CodeCanisterRejectedMessage, func(on bool) { w.h.long[id] = on }},
		{CodeCanisterOutOfCycles, func(on bool) {
			if w.fund(id, w.freezing(id, 0)); !on {
				w.fund(id, rich)
			}
		}},
	} {
		spoil.set(true)
		w.fails(spoil.code, alice, "load_canister_snapshot", loadArgs(id, snap.ID))
		w.holds(id, engine.WasmMemory, 0, "not durable yet")
		spoil.set(false)
	}
	w.load(id, snap.ID)
	w.holds(id, engine.WasmMemory, 0, "\x00\x00\x00")
}

func ld34(w *world) {
	id := w.user()
	snap := w.take(id)
	w.h.now += 12345
	w.load(id, snap.ID)
	equal(w, "last install", w.refresh(id).LastInstall, w.h.now)
	w.reopen()
	equal(w, "last install after a restart", w.refresh(id).LastInstall, w.h.now)
}

func ld35(w *world) {
	id := w.user()
	w.grow(id, engine.StableMemory, 3<<16)
	snap := w.take(id)
	w.grow(id, engine.StableMemory, 4<<16)
	w.write(id, engine.StableMemory, 3<<16, "beyond")
	w.load(id, snap.ID)
	equal(w, "stable memory", w.mem(id, engine.StableMemory).Size(), 3<<16)
	w.grow(id, engine.StableMemory, 4<<16)
	w.holds(id, engine.StableMemory, 3<<16, "\x00\x00\x00\x00\x00\x00")
}

func ld36(w *world) {
	id := w.user()
	snap := w.take(id)
	days := nat(86_400 * 60)
	w.set(id, CanisterSettings{FreezingThreshold: &days})
	w.h.open[id], w.h.logs[id] = 2, 50
	before := w.status(id)
	w.load(id, snap.ID)
	after := w.status(id)
	equal(w, "settings", fmt.Sprint(after.Settings), fmt.Sprint(before.Settings))
	equal(w, "open call contexts", w.h.open[id], 2)
	equal(w, "log", w.h.logs[id], 50)
	equal(w, "reserved", after.ReservedCycles.Cmp(before.ReservedCycles), 0)
	equal(w, "running", after.Status.Running != nil, true)
}
