package management

import (
	"context"
	"errors"
	"fmt"
	"math/big"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/management/candid"
	"github.com/snapstore/snapstore/manifest"
)

// A. Take.
func takeRows() []row {
	return []row{
		{
			id: "TK01", setup: "arbitrary bytes as args", call: "take", want: "reject, Error decoding candid", mark: "T", run: tk01,
		},
		{
			id: "TK02", setup: "replace id = 4 bytes [4,5,6,6]", call: "take", want: "408 (decode)", mark: "T", run: tk02,
		},
		{
			id: "TK03", setup: "canister absent", call: "take", want: "301 / reject 3", mark: "T", run: tk03,
		},
		{
			id: "TK04", setup: "caller not controller (inter-canister)", call: "take", want: "512 / reject 5, no state change", mark: "T", run: tk04,
		},
		{
			id: "TK05", setup: "caller not controller (ingress)", call: "take", want: "refused at admission, 512", mark: "S", chose: "the ingress filter is Service.Admit; Call asks it again", run: tk05,
		},
		{
			id: "TK06", setup: "no snapshot, replace = never-issued id of own canister", call: "take", want: "305", mark: "T", run: tk06,
		},
		{
			id: "TK07", setup: "replace = id owned by another canister", call: "take", want: "406 ownership; both canisters intact", mark: "T", chose: "a snapshot that exists nowhere is 305 whatever canister its id names", run: tk07,
		},
		{
			id: "TK08", setup: "replace = id deleted before", call: "take", want: "305", mark: "S", run: tk08,
		},
		{
			id: "TK09", setup: "E (no module)", call: "take", want: "406 empty canister; subnet memory unchanged", mark: "T", run: tk09,
		},
		{
			id: "TK10", setup: "E, balance check fails too", call: "take", want: "resource error wins over \"empty\" (empty is tested last)", mark: "C", chose: "532 from the balance check; the empty canister is noticed after all resources", run: tk10,
		},
		{
			id: "TK11", setup: "U with chunk", call: "take", want: "reply id/time/size; snapshot module = current module, chunk store equal", mark: "T", run: tk11,
		},
		{
			id: "TK12", setup: "U", call: "take", want: "canister_version, history, status, balance(except fee) unchanged", mark: "S", run: tk12,
		},
		{
			id: "TK13", setup: "U running, with open call contexts", call: "take", want: "succeeds", mark: "S", chose: "RefuseRunning and RefuseOpenCallContexts, off by default, answer 510", run: tk13,
		},
		{
			id: "TK14", setup: "U stopped / stopping", call: "take", want: "succeeds", mark: "S", chose: "stopping: the host double keeps a call context open", run: tk14,
		},
		{
			id: "TK15", setup: "L=1, one snapshot, replace=null", call: "take", want: "406 limit; existing snapshot kept", mark: "S", run: tk15,
		},
		{
			id: "TK16", setup: "L=5, 5 snapshots, replace=null", call: "take", want: "406 ...allowed: 5.", mark: "T", run: tk16,
		},
		{
			id: "TK17", setup: "L=10 default, 9 snapshots", call: "take", want: "succeeds (10th)", mark: "T", run: tk17,
		},
		{
			id: "TK18", setup: "at limit, replace=existing", call: "take", want: "succeeds, count stays L", mark: "S", run: tk18,
		},
		{
			id: "TK19", setup: "below limit, replace=existing", call: "take", want: "succeeds, count unchanged, old id gone", mark: "T", run: tk19,
		},
		{
			id: "TK20", setup: "replace succeeded", call: "-", want: "new id != old id; old id -> 305 for load/delete/read", mark: "T", run: tk20,
		},
		{
			id: "TK21", setup: "replace given, take fails (any reason)", call: "take", want: "old snapshot still present and loadable", mark: "S", run: tk21,
		},
		{
			id: "TK22", setup: "memory 20 MiB grown after snap 1", call: "take replace=snap1", want: "snapshots_memory_usage = size(new) exactly", mark: "T", run: tk22,
		},
		{
			id: "TK23", setup: "heap_delta_debit >= limit", call: "take", want: "210; subnet memory and delta estimate unchanged", mark: "T", chose: "the debit is of the round; Service.Round begins the next one", run: tk23,
		},
		{
			id: "TK24", setup: "debit just below limit, large delta", call: "take", want: "succeeds and pushes debit over limit (soft limit)", mark: "T", run: tk24,
		},
		{
			id: "TK25", setup: "7,500 stable pages grown", call: "take", want: "subnet heap_delta_estimate increases", mark: "T", chose: "the delta is the pages written since the live state was last durable in the engine", run: tk25,
		},
		{
			id: "TK26", setup: "clean canister (all pages flushed)", call: "take", want: "debit + 0 pages although total_size is large", mark: "C", run: tk26,
		},
		{
			id: "TK27", setup: "U, known size", call: "take", want: "balance decreases by exactly execution_cost(2e9+size)", mark: "T", run: tk27,
		},
		{
			id: "TK28", setup: "system subnet", call: "take", want: "zero cost, no rate limit", mark: "C", chose: "the host double says that the subnet is a system subnet", run: tk28,
		},
		{
			id: "TK29", setup: "subnet memory: second canister's snapshot does not fit", call: "take", want: "101", mark: "T", run: tk29,
		},
		{
			id: "TK30", setup: "subnet nearly full; replace with bigger (only the difference fits)", call: "take replace", want: "succeeds", mark: "T", run: tk30,
		},
		{
			id: "TK31", setup: "balance just above threshold + fee, snapshot raises threshold", call: "take", want: "InsufficientCyclesInMemoryGrow, \"additional cycles are required\"; subnet memory unchanged", mark: "T", run: tk31,
		},
		{
			id: "TK32", setup: "balance covers threshold, not the fee", call: "take", want: "207 CanisterSnapshotNotEnoughCycles", mark: "C", run: tk32,
		},
		{
			id: "TK33", setup: "above memory threshold T", call: "take", want: "reserved balance += reserve(size) exactly, main -= same + fee", mark: "T", run: tk33,
		},
		{
			id: "TK34", setup: "reserve would pass reserved_cycles_limit", call: "take", want: "ReservedCyclesLimitExceededInMemoryGrow", mark: "T", run: tk34,
		},
		{
			id: "TK35", setup: "not enough main balance to reserve", call: "take", want: "InsufficientCyclesInMemoryGrow", mark: "T", run: tk35,
		},
		{
			id: "TK36", setup: "replace same-size above T", call: "take replace", want: "reserved balance unchanged", mark: "T", run: tk36,
		},
		{
			id: "TK37", setup: "delete then take again above T", call: "delete, take", want: "delete refunds no reserved cycles; new take reserves again", mark: "T", chose: "I in detail: the second reservation is of the usage at that time", run: tk37,
		},
		{
			id: "TK38", setup: "replace with smaller", call: "take replace", want: "memory usage decreases, no reservation", mark: "T", run: tk38,
		},
		{
			id: "TK39", setup: "memory_allocation >= usage + size", call: "take", want: "no allocated bytes, no reservation, subnet memory unchanged", mark: "T", run: tk39,
		},
		{
			id: "TK40", setup: "allocation crossed by the take", call: "take", want: "only bytes above the allocation are counted", mark: "T", run: tk40,
		},
		{
			id: "TK41", setup: "many canisters with 100 GiB allocation, each 40 GiB + snapshot", call: "take", want: "all succeed (no double counting)", mark: "T", run: tk41,
		},
		{
			id: "TK42", setup: "uninstall_code=true", call: "take", want: "snapshot = pre-state; canister empty; memory does not double", mark: "T", run: tk42,
		},
		{
			id: "TK43", setup: "uninstall_code=true", call: "take", want: "version+1, history CodeUninstall, snapshot.canister_version = pre value", mark: "S", run: tk43,
		},
		{
			id: "TK44", setup: "uninstall_code=true, open call contexts", call: "take", want: "callers get reject 4, contexts deleted, cycles refunded", mark: "S", chose: "the host double holds the call contexts, is told to close them with this reject, and refunds", run: tk44,
		},
		{
			id: "TK45", setup: "uninstall_code=true", call: "take", want: "certified data \"\", timer inactive, chunk store and logs empty", mark: "S", chose: "the log is the host double's", run: tk45,
		},
		{
			id: "TK46", setup: "uninstall_code=false/null", call: "take", want: "identical to plain take", mark: "S", run: tk46,
		},
		{
			id: "TK47", setup: "sender_canister_version wrong (inter-canister)", call: "take", want: "reject", mark: "S", chose: "504, as replicas word it where the calling canister sends the payload; users have no version, what they say is ignored", run: tk47,
		},
		{
			id: "TK48", setup: "100 chunks in store (full)", call: "take", want: "metadata lists exactly those 100 hashes", mark: "T", run: tk48,
		},
		{
			id: "TK49", setup: "exported mutable global = 1", call: "take, load", want: "global still 1", mark: "T", run: tk49,
		},
		{
			id: "TK50", setup: "take twice without change", call: "take x2", want: "two ids, ascending local ids; each with full total_size", mark: "C", run: tk50,
		},
		{
			id: "TK51", setup: "failing take between two good ones", call: "take", want: "failed take consumes no id", mark: "C", run: tk51,
		},
	}
}

func tk01(w *world) {
	id := w.user()
	for _, arg := range [][]byte{nil, []byte("garbage"), []byte("DIDL"), {0x44, 0x49, 0x44, 0x4c, 0x01, 0x6c, 0x01, 0x00, 0x00, 0x01, 0x00}} {
		_, r := w.raw(alice, "take_canister_snapshot", arg)
		w.rejected(r, CodeInvalidManagementPayload, "take", "Error decoding candid")
	}
	equal(w, "snapshots", len(w.list(id)), 0)
}

func tk02(w *world) {
	id := w.user()
	w.fails(CodeInvalidManagementPayload, alice, "take_canister_snapshot", takeArgs(id, []byte{4, 5, 6, 6}), "Error decoding candid")
}

func tk03(w *world) {
	for _, by := range []Caller{alice, viaCanister(alice)} {
		r := w.fails(CodeCanisterNotFound, by, "take_canister_snapshot", takeArgs(absent(w)), "not found")
		equal(w, "reject code", r.Code, DestinationInvalid)
	}
	// The management canister itself is none either.
	w.fails(CodeCanisterNotFound, alice, "take_canister_snapshot", TakeCanisterSnapshotArgs{})
}

func tk04(w *world) {
	id := w.user()
	r := w.fails(CodeCanisterInvalidController, viaCanister(bob), "take_canister_snapshot", takeArgs(id), "Only the controllers of the canister "+id.String())
	equal(w, "reject code", r.Code, CanisterError)
}

func tk05(w *world) {
	id := w.user()
	w.fails(CodeCanisterInvalidController, bob, "take_canister_snapshot", takeArgs(id), "can call ic00 method take_canister_snapshot")
	var r *Reject
	if err := w.s.Admit(bob, "take_canister_snapshot", w.arg(takeArgs(id))); !errors.As(err, &r) || r.ErrorCode != CodeCanisterInvalidController {
		w.Fatalf("admission of a stranger: %v", err)
	}
	if err := w.s.Admit(alice, "take_canister_snapshot", w.arg(takeArgs(id))); err != nil {
		w.Fatalf("admission of a controller: %v", err)
	}
}

func tk06(w *world) {
	id := w.user()
	w.fails(CodeCanisterSnapshotNotFound, alice, "take_canister_snapshot", takeArgs(id, wireID(id, 7)), "Could not find the snapshot ID "+id.String()+"-7")
}

func tk07(w *world) {
	one, two := w.user(), w.user()
	snap := w.take(one)
	w.fails(CodeCanisterRejectedMessage, alice, "take_canister_snapshot", takeArgs(two, snap.ID), "does not belong to canister "+two.String())
	equal(w, "snapshots of the owner", len(w.list(one)), 1)
	equal(w, "snapshots of the other", len(w.list(two)), 0)
}

func tk08(w *world) {
	id := w.user()
	snap := w.take(id)
	w.delete(id, snap.ID)
	w.fails(CodeCanisterSnapshotNotFound, alice, "take_canister_snapshot", takeArgs(id, snap.ID))
}

func tk09(w *world) {
	id := w.empty()
	before := w.s.Ledger()
	w.fails(CodeCanisterRejectedMessage, alice, "take_canister_snapshot", takeArgs(id), "Failed to create snapshot for empty canister")
	equal(w, "ledger", w.s.Ledger(), before)
}

func tk10(w *world) {
	id := w.empty()
	w.fund(id, Cycles{})
	w.fails(CodeInsufficientCyclesMemoryGrow, alice, "take_canister_snapshot", takeArgs(id))
}

func tk11(w *world) {
	id := w.user()
	hash := w.chunk(id, []byte("a chunk"))
	want := w.snapshotSize(id)
	snap := w.take(id)
	equal(w, "id", string(snap.ID), string(wireID(id, 0)))
	equal(w, "time", snap.TakenAtTimestamp, w.h.now)
	equal(w, "size", snap.TotalSize, want)
	wasm := simple().wasm("first")
	equal(w, "module", string(w.read(id, snap.ID, moduleAt(0, uint64(len(wasm))))), string(wasm))
	m := w.metadata(id, snap.ID)
	if len(m.WasmChunkStore) != 1 || string(m.WasmChunkStore[0].Hash) != string(hash) {
		w.Fatalf("chunk store %x, want %x", m.WasmChunkStore, hash)
	}
}

func tk12(w *world) {
	id := w.user()
	status, history, size := w.status(id), w.history(id), w.snapshotSize(id)
	w.take(id)
	after := w.status(id)
	equal(w, "version", after.Version, status.Version)
	equal(w, "changes", w.history(id).TotalNumChanges, history.TotalNumChanges)
	equal(w, "running", after.Status.Running != nil, true)
	equal(w, "reserved", after.ReservedCycles.Cmp(status.ReservedCycles), 0)
	equal(w, "balance", CyclesFromBig(after.Cycles.Big()), CyclesFromBig(status.Cycles.Big()).Sub(execution(2e9+size)))
}

func tk13(w *world) {
	id := w.user()
	w.h.open[id] = 3
	w.take(id)
	equal(w, "open call contexts", w.h.open[id], 3)
	w.with(func(c *Config) { c.RefuseRunning = true })
	w.fails(CodeCanisterNotStopped, alice, "take_canister_snapshot", takeArgs(id))
	w.with(func(c *Config) { c.RefuseRunning, c.RefuseOpenCallContexts = false, true })
	w.fails(CodeCanisterNotStopped, alice, "take_canister_snapshot", takeArgs(id), "3 open call contexts")
	w.h.open[id] = 0
	w.take(id)
}

func tk14(w *world) {
	id := w.user()
	w.h.open[id], w.h.stopErr = 1, context.DeadlineExceeded
	if _, err := w.s.Call(w.ctx, alice, "stop_canister", w.arg(only(id))); err == nil {
		w.Fatal("a canister with an open call context stopped")
	}
	equal(w, "stopping", w.status(id).Status.Stopping != nil, true)
	w.take(id)
	w.h.stopErr = nil
	w.do(alice, "stop_canister", only(id))
	equal(w, "stopped", w.status(id).Status.Stopped != nil, true)
	w.take(id)
}

// limit makes canisters have so many snapshots at most.
func (w *world) limit(n int) { w.with(func(c *Config) { c.SnapshotLimit = n }) }

func tk15(w *world) {
	w.limit(1)
	id := w.user()
	snap := w.take(id)
	w.fails(CodeCanisterRejectedMessage, alice, "take_canister_snapshot", takeArgs(id), "allowed: 1.")
	equal(w, "what is left", string(w.list(id)[0].ID), string(snap.ID))
}

func tk16(w *world) {
	w.limit(5)
	id := w.user()
	for range 5 {
		w.take(id)
	}
	w.fails(CodeCanisterRejectedMessage, alice, "take_canister_snapshot", takeArgs(id), "has reached the maximum number of snapshots allowed: 5.")
}

func tk17(w *world) {
	id := w.user()
	for range 10 {
		w.take(id)
	}
	equal(w, "snapshots", len(w.list(id)), 10)
	w.fails(CodeCanisterRejectedMessage, alice, "take_canister_snapshot", takeArgs(id), "allowed: 10.")
}

func tk18(w *world) {
	w.limit(2)
	id := w.user()
	first := w.take(id)
	w.take(id)
	w.take(id, first.ID)
	equal(w, "snapshots", len(w.list(id)), 2)
}

func tk19(w *world) {
	id := w.user()
	first := w.take(id)
	second := w.take(id, first.ID)
	list := w.list(id)
	equal(w, "snapshots", len(list), 1)
	equal(w, "what is left", string(list[0].ID), string(second.ID))
}

func tk20(w *world) {
	id := w.user()
	first := w.take(id)
	second := w.take(id, first.ID)
	if string(first.ID) == string(second.ID) {
		w.Fatal("the id was used again")
	}
	w.fails(CodeCanisterSnapshotNotFound, alice, "load_canister_snapshot", loadArgs(id, first.ID))
	w.fails(CodeCanisterSnapshotNotFound, alice, "delete_canister_snapshot", snapArgs(id, first.ID))
	w.fails(CodeCanisterSnapshotNotFound, alice, "read_canister_snapshot_metadata", snapArgs(id, first.ID))
	w.fails(CodeCanisterSnapshotNotFound, alice, "read_canister_snapshot_data", readArgs(id, first.ID, moduleAt(0, 1)))
}

func tk21(w *world) {
	id := w.user()
	w.write(id, engine.WasmMemory, 0, "kept")
	snap := w.take(id)
	w.write(id, engine.WasmMemory, 0, "lost")
	rich := w.balance(id)
	w.fund(id, NewCycles(1))
	w.fails(CodeInsufficientCyclesMemoryGrow, alice, "take_canister_snapshot", takeArgs(id, snap.ID))
	w.fund(id, rich)
	w.full(id)
	w.fails(CodeCanisterHeapDeltaRateLimited, alice, "take_canister_snapshot", takeArgs(id, snap.ID))
	w.s.Round()
	w.load(id, snap.ID)
	w.holds(id, engine.WasmMemory, 0, "kept")
}

func tk22(w *world) {
	id := w.user()
	first := w.take(id)
	w.grow(id, engine.WasmMemory, 21<<20)
	want := w.snapshotSize(id)
	second := w.take(id, first.ID)
	equal(w, "size", second.TotalSize, want)
	equal(w, "snapshots' bytes", w.refresh(id).Snapshots, want)
}

func tk23(w *world) {
	id := w.user()
	w.full(id)
	before := w.s.Ledger()
	w.fails(CodeCanisterHeapDeltaRateLimited, alice, "take_canister_snapshot", takeArgs(id), "is heap delta rate limited: current delta debit is 78643200, but limit is 78643200")
	equal(w, "ledger", w.s.Ledger(), before)
}

func tk24(w *world) {
	id := w.user()
	w.full(id)
	w.s.lookup(id).debit--
	w.write(id, engine.WasmMemory, 0, "changed")
	w.take(id)
	if v := w.refresh(id); v.HeapDeltaDebit <= w.s.cfg.Limits.HeapDeltaRate {
		w.Fatalf("the debit is %d", v.HeapDeltaDebit)
	}
}

func tk25(w *world) {
	id := w.user()
	const pages = 7500
	w.grow(id, engine.StableMemory, (pages*4096+65535)/65536*65536)
	for i := range int64(pages) {
		w.write(id, engine.StableMemory, i*4096, "x")
	}
	before := w.s.Ledger().HeapDelta
	w.take(id)
	if grown := w.s.Ledger().HeapDelta - before; grown < pages*4096 {
		w.Fatalf("the heap delta grew by %d", grown)
	}
	w.s.Checkpointed()
	equal(w, "heap delta after a checkpoint", w.s.Ledger().HeapDelta, 0)
}

func tk26(w *world) {
	id := w.user()
	w.grow(id, engine.StableMemory, 1<<30)
	w.write(id, engine.StableMemory, 1<<29, "x")
	w.take(id)
	before := w.refresh(id).HeapDeltaDebit
	snap := w.take(id)
	equal(w, "debit", w.refresh(id).HeapDeltaDebit, before)
	if snap.TotalSize < 1<<30 {
		w.Fatalf("the snapshot has %d bytes", snap.TotalSize)
	}
}

func tk27(w *world) {
	id := w.user()
	w.run(id, func(x *Execution) { x.CertifiedData = []byte("certified") })
	w.grow(id, engine.StableMemory, 1<<30)
	size := w.snapshotSize(id)
	equal(w, "size", size, 1<<16+1<<30+uint64(len(simple().wasm("first")))+2*8+9)
	before := w.balance(id)
	w.take(id)
	equal(w, "fee", before.Sub(w.balance(id)), execution(2_000_000_000+size))
}

func tk28(w *world) {
	w.h.subnet.Type = SystemSubnet
	w.h.subnet.MemoryThreshold = 0
	id := w.user()
	w.s.lookup(id).debit = 1 << 40
	before := w.balance(id)
	w.take(id)
	equal(w, "balance", w.balance(id), before)
	equal(w, "reserved", w.refresh(id).Reserved, Cycles{})
}

func tk29(w *world) {
	one, two := w.user(), w.user()
	w.h.subnet.MemoryCapacity = w.s.Ledger().Allocated + w.snapshotSize(one)*3/2
	w.take(one)
	r := w.fails(CodeSubnetOversubscribed, alice, "take_canister_snapshot", takeArgs(two), "are available in the subnet")
	equal(w, "reject code", r.Code, SysFatal)
}

func tk30(w *world) {
	id := w.user()
	first := w.take(id)
	w.grow(id, engine.WasmMemory, 4<<16)
	w.h.subnet.MemoryCapacity = w.s.Ledger().Allocated + 3<<16
	w.fails(CodeSubnetOversubscribed, alice, "take_canister_snapshot", takeArgs(id))
	w.take(id, first.ID)
}

// freezing is what a canister must keep with so many bytes more, worked out
// apart from the code under test: 127,000 cycles for a GiB and second.
func (w *world) freezing(id engine.CanisterID, more uint64) Cycles {
	w.Helper()
	v := w.refresh(id)
	bytes := new(big.Int).SetUint64(v.MemoryUsage + more)
	perDay := bytes.Mul(bytes, big.NewInt(127_000*86_400))
	perDay.Rsh(perDay, 30)
	return CyclesFromBig(perDay.Mul(perDay, big.NewInt(30))).Sub(v.Reserved)
}

func tk31(w *world) {
	id := w.user()
	w.grow(id, engine.StableMemory, 1<<30)
	size := w.snapshotSize(id)
	w.fund(id, w.freezing(id, 0).Add(execution(2e9+size)).Add(NewCycles(1)))
	w.fails(CodeInsufficientCyclesMemoryGrow, alice, "take_canister_snapshot", takeArgs(id), "additional cycles are required")
	w.fund(id, w.freezing(id, size).Sub(NewCycles(1)))
	w.fails(CodeInsufficientCyclesMemoryGrow, alice, "take_canister_snapshot", takeArgs(id), "At least 1 additional cycles are required")
}

func tk32(w *world) {
	id := w.user()
	size := w.snapshotSize(id)
	enough := w.freezing(id, size).Add(execution(2e9 + size))
	w.fund(id, enough.Sub(NewCycles(1)))
	w.fails(CodeCanisterOutOfCycles, alice, "take_canister_snapshot", takeArgs(id), "Canister snapshotting failed with: `", "at least 1 additional cycles")
	w.fund(id, enough)
	w.take(id)
	equal(w, "balance", w.balance(id), w.freezing(id, 0))
}

// crowded makes the subnet one on which storage is paid ahead, with a canister
// that has a few GiB.
func (w *world) crowded() engine.CanisterID {
	w.Helper()
	id := w.user()
	w.grow(id, engine.StableMemory, 2<<30)
	w.h.subnet.MemoryThreshold, w.h.subnet.MemoryCapacity = 1<<30, 100<<30
	return id
}

// reserve works out what more bytes make a canister reserve, apart from the
// code under test.
func (w *world) reserve(used, more uint64) Cycles {
	area := func(x uint64) *big.Int {
		t, c := w.h.subnet.MemoryThreshold, w.h.subnet.MemoryCapacity
		above := new(big.Int).SetUint64(max(x, t) - t)
		seconds := new(big.Int).Mul(big.NewInt(300_000_000), above)
		seconds.Div(seconds, new(big.Int).SetUint64(c-t)).Rsh(seconds, 1)
		cost := above.Mul(above, big.NewInt(127_000))
		return cost.Mul(cost, seconds).Rsh(cost, 30)
	}
	return CyclesFromBig(new(big.Int).Sub(area(used+more), area(used)))
}

func tk33(w *world) {
	id := w.crowded()
	size := w.snapshotSize(id)
	want := w.reserve(w.s.Ledger().Allocated, size)
	if want.IsZero() {
		w.Fatal("nothing to reserve")
	}
	before := w.refresh(id)
	w.take(id)
	after := w.refresh(id)
	equal(w, "reserved", after.Reserved, before.Reserved.Add(want))
	equal(w, "main balance", after.Cycles, before.Cycles.Sub(want).Sub(execution(2e9+size)))
}

func tk34(w *world) {
	id := w.crowded()
	limit := nat(1000)
	w.set(id, CanisterSettings{ReservedCyclesLimit: &limit})
	want := w.reserve(w.s.Ledger().Allocated, w.snapshotSize(id))
	w.fails(CodeReservedCyclesLimitInMemoryGrow, alice, "take_canister_snapshot", takeArgs(id), "due to its reserved cycles limit",
		fmt.Sprintf("The current limit (1000) would be exceeded by %v", want.Sub(NewCycles(1000))))
}

func tk35(w *world) {
	id := w.crowded()
	size := w.snapshotSize(id)
	ahead := w.reserve(w.s.Ledger().Allocated, size)
	fee, keep := execution(2e9+size), w.freezing(id, size)
	if ahead.Less(keep) {
		w.Fatalf("%v to reserve are less than %v to keep", ahead, keep)
	}
	w.fund(id, ahead.Add(fee).Sub(NewCycles(1)))
	w.fails(CodeInsufficientCyclesMemoryGrow, alice, "take_canister_snapshot", takeArgs(id), "At least 1 additional cycles are required")
	w.fund(id, ahead.Add(fee))
	w.take(id)
	equal(w, "main balance", w.balance(id), Cycles{})
}

func tk36(w *world) {
	id := w.crowded()
	snap := w.take(id)
	before := w.refresh(id).Reserved
	w.take(id, snap.ID)
	equal(w, "reserved", w.refresh(id).Reserved, before)
}

func tk37(w *world) {
	id := w.crowded()
	snap := w.take(id)
	first := w.refresh(id).Reserved
	w.delete(id, snap.ID)
	equal(w, "reserved after the delete", w.refresh(id).Reserved, first)
	more := w.reserve(w.s.Ledger().Allocated, w.snapshotSize(id))
	w.take(id)
	equal(w, "reserved after the second take", w.refresh(id).Reserved, first.Add(more))
}

func tk38(w *world) {
	id := w.crowded()
	snap := w.take(id)
	before := w.refresh(id)
	w.grow(id, engine.StableMemory, 1<<30)
	w.take(id, snap.ID)
	after := w.refresh(id)
	equal(w, "reserved", after.Reserved, before.Reserved)
	equal(w, "memory usage", after.MemoryUsage, before.MemoryUsage-2<<30)
}

func tk39(w *world) {
	id := w.crowded()
	alloc := nat(10 << 30)
	w.set(id, CanisterSettings{MemoryAllocation: &alloc})
	before, reserved := w.s.Ledger().Allocated, w.refresh(id).Reserved
	w.take(id)
	equal(w, "allocated", w.s.Ledger().Allocated, before)
	equal(w, "reserved", w.refresh(id).Reserved, reserved)
}

func tk40(w *world) {
	id := w.crowded()
	size := w.snapshotSize(id)
	usage := w.refresh(id).MemoryUsage
	const above = 1 << 29
	alloc := nat(usage + size - above)
	w.set(id, CanisterSettings{MemoryAllocation: &alloc})
	before := w.refresh(id)
	want := w.reserve(w.s.Ledger().Allocated, above)
	w.take(id)
	after := w.refresh(id)
	equal(w, "allocated", after.Allocated-before.Allocated, above)
	equal(w, "reserved", after.Reserved.Sub(before.Reserved), want)
}

func tk41(w *world) {
	w.h.subnet.MemoryCapacity = 10 * 100 << 30
	w.h.subnet.MemoryThreshold = w.h.subnet.MemoryCapacity
	alloc := nat(100 << 30)
	for range 10 {
		id := w.user()
		w.set(id, CanisterSettings{MemoryAllocation: &alloc})
		w.grow(id, engine.StableMemory, 40<<30)
		w.take(id)
	}
	equal(w, "allocated", w.s.Ledger().Allocated, w.h.subnet.MemoryCapacity)
}

// uninstalling is a take with uninstall_code.
func uninstalling(id engine.CanisterID) TakeCanisterSnapshotArgs {
	a, yes := takeArgs(id), true
	a.UninstallCode = &yes
	return a
}

func tk42(w *world) {
	id := w.user()
	w.grow(id, engine.StableMemory, 1<<20)
	w.write(id, engine.StableMemory, 5, "before")
	size := w.snapshotSize(id)
	// Not even a page more than there is.
	w.h.subnet.MemoryCapacity = w.s.Ledger().Allocated + 1<<10
	snap := decode[SnapshotRecord](w, w.do(alice, "take_canister_snapshot", uninstalling(id)))
	equal(w, "size", snap.TotalSize, size)
	st := w.status(id)
	equal(w, "module", st.ModuleHash == nil, true)
	history, _ := st.MemoryMetrics.CanisterHistorySize.Uint64()
	equal(w, "memory usage", w.refresh(id).MemoryUsage, size+history)
	equal(w, "read", string(w.read(id, snap.ID, stableAt(5, 6))), "before")
}

func tk43(w *world) {
	id := w.user()
	version, changes := w.status(id).Version, w.history(id).TotalNumChanges
	snap := decode[SnapshotRecord](w, w.do(alice, "take_canister_snapshot", uninstalling(id)))
	equal(w, "version", w.status(id).Version, version+1)
	h := w.history(id)
	equal(w, "changes", h.TotalNumChanges, changes+1)
	equal(w, "last change", h.RecentChanges[len(h.RecentChanges)-1].Details.CodeUninstall != nil, true)
	equal(w, "version in the snapshot", w.metadata(id, snap.ID).CanisterVersion, version)
}

func tk44(w *world) {
	id := w.user()
	w.h.open[id] = 2
	w.do(alice, "take_canister_snapshot", uninstalling(id))
	equal(w, "open call contexts", w.h.open[id], 0)
	if r := w.h.closed[id]; r == nil || r.Code != CanisterReject {
		w.Fatalf("they were closed with %v", r)
	}
}

func tk45(w *world) {
	id := w.user()
	w.chunk(id, []byte("chunk"))
	w.run(id, func(x *Execution) {
		x.CertifiedData, x.Timer = []byte("certified"), Timer{Active: true, Deadline: 5}
	})
	w.h.logs[id] = 99
	snap := decode[SnapshotRecord](w, w.do(alice, "take_canister_snapshot", uninstalling(id)))
	v := w.refresh(id)
	equal(w, "timer", v.Timer, Timer{Present: true})
	equal(w, "chunks", len(w.chunks(id)), 0)
	equal(w, "log", w.h.logs[id], 0)
	equal(w, "certified data", len(w.s.lookup(id).live.Metadata().CertifiedData), 0)
	m := w.metadata(id, snap.ID)
	equal(w, "certified data in the snapshot", string(m.CertifiedData), "certified")
	equal(w, "timer in the snapshot", *m.GlobalTimer.Active, 5)
}

func tk46(w *world) {
	id := w.user()
	before := w.status(id)
	a, no := takeArgs(id), false
	a.UninstallCode = &no
	w.do(alice, "take_canister_snapshot", a)
	w.take(id)
	after := w.status(id)
	equal(w, "version", after.Version, before.Version)
	equal(w, "module", string(*after.ModuleHash), string(*before.ModuleHash))
	list := w.list(id)
	equal(w, "sizes", list[0].TotalSize, list[1].TotalSize)
}

func tk47(w *world) {
	id, boss := w.user(), w.user()
	controllers := []candid.Principal{alice.Principal, boss.Bytes()}
	w.set(id, CanisterSettings{Controllers: &controllers})
	a, said := takeArgs(id), uint64(444)
	a.SenderCanisterVersion = &said
	w.fails(CodeCanisterContractViolation, as(boss, 3), "take_canister_snapshot", a, "sender canister version 444")
	said = 3
	w.do(as(boss, 3), "take_canister_snapshot", a)
}

func tk48(w *world) {
	id := w.user()
	want := map[string]bool{}
	for i := range 100 {
		w.s.Round() // each is charged to the rate of changes
		want[string(w.chunk(id, fmt.Appendf(nil, "chunk %d", i)))] = true
	}
	w.fails(CodeCanisterContractViolation, alice, "upload_chunk", UploadChunkArgs{CanisterID: id.Bytes(), Chunk: []byte("one too many")})
	m := w.metadata(id, w.take(id).ID)
	equal(w, "chunks", len(m.WasmChunkStore), 100)
	for _, c := range m.WasmChunkStore {
		delete(want, string(c.Hash))
	}
	equal(w, "missing chunks", len(want), 0)
}

func tk49(w *world) {
	id := w.user()
	globals := func(n uint64) []Global {
		return []Global{{Kind: manifest.GlobalI32, Lo: n}, {Kind: manifest.GlobalI64, Lo: n}}
	}
	set := func(n uint64) {
		w.run(id, func(x *Execution) {
			if err := x.SetGlobals(globals(n)); err != nil {
				w.Fatal(err)
			}
		})
	}
	set(1)
	snap := w.take(id)
	set(2)
	w.load(id, snap.ID)
	equal(w, "globals", fmt.Sprint(w.s.lookup(id).live.Metadata().Globals), fmt.Sprint(globals(1)))
}

func tk50(w *world) {
	id := w.user()
	one, two := w.take(id), w.take(id)
	if string(one.ID) >= string(two.ID) {
		w.Fatalf("ids %x, %x", one.ID, two.ID)
	}
	equal(w, "size", one.TotalSize, two.TotalSize)
	equal(w, "snapshots' bytes", w.refresh(id).Snapshots, 2*one.TotalSize)
}

func tk51(w *world) {
	id := w.user()
	w.take(id)
	w.fails(CodeCanisterSnapshotNotFound, alice, "take_canister_snapshot", takeArgs(id, wireID(id, 99)))
	rich := w.balance(id)
	w.fund(id, Cycles{})
	w.fails(CodeInsufficientCyclesMemoryGrow, alice, "take_canister_snapshot", takeArgs(id))
	w.fund(id, rich)
	equal(w, "id", string(w.take(id).ID), string(wireID(id, 1)))
}
