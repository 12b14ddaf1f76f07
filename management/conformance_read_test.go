package management

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/management/candid"
	"github.com/snapstore/snapstore/manifest"
)

// D. Read.
func readRows() []row {
	return []row{
		{
			id: "RD01", setup: "13 stable pages, cert [42], timer 43, one chunk", call: "read metadata", want: "stable 13*65536, module size, 1 chunk, cert, Active(43), hook ConditionNotSatisfied, version 4, source taken", mark: "T", run: rd01,
		},
		{
			id: "RD02", setup: "wrong canister id for the snapshot", call: "read metadata / data", want: "406", mark: "T", chose: "406 while the snapshot exists", run: rd02,
		},
		{
			id: "RD03", setup: "local id 42 unknown", call: "read metadata / data", want: "305", mark: "T", run: rd03,
		},
		{
			id: "RD04", setup: "not controller", call: "read metadata / data", want: "512", mark: "T", run: rd04,
		},
		{
			id: "RD05", setup: "whole module in one slice", call: "read data", want: "equals installed bytes", mark: "T", run: rd05,
		},
		{
			id: "RD06", setup: "heap in slices of 2,000,000", call: "read data", want: "lengths exact, last partial", mark: "T", run: rd06,
		},
		{
			id: "RD07", setup: "size 2,000,001", call: "read data", want: "408 too large", mark: "T", run: rd07,
		},
		{
			id: "RD08", setup: "module size + 1", call: "read data", want: "408", mark: "T", run: rd08,
		},
		{
			id: "RD09", setup: "last page + 1000 bytes over", call: "read wasm/stable", want: "408", mark: "T", run: rd09,
		},
		{
			id: "RD10", setup: "offset = 2^64-1, size 1", call: "read", want: "408 (saturating add)", mark: "C", chose: "2^64-1 as an end is out of bounds too", run: rd10,
		},
		{
			id: "RD11", setup: "size 0 within bounds", call: "read", want: "empty blob", mark: "C", run: rd11,
		},
		{
			id: "RD12", setup: "both chunks by hash", call: "read wasm_chunk", want: "original bytes (true length, not padded)", mark: "T", run: rd12,
		},
		{
			id: "RD13", setup: "hash of 31 bytes", call: "read wasm_chunk", want: "504", mark: "C", run: rd13,
		},
		{
			id: "RD14", setup: "unknown hash", call: "read wasm_chunk", want: "504", mark: "C", run: rd14,
		},
		{
			id: "RD15", setup: "read data", call: "-", want: "target canister charged execution_cost(5e6+size); out-of-bounds slices are charged too, oversize ones not", mark: "C", run: rd15,
		},
		{
			id: "RD16", setup: "immutable non-exported global", call: "read metadata", want: "not listed; exported or mutable ones are; instruction counter never", mark: "T", chose: "a host keeps the instruction counter to itself: it is no global of the module that was installed", run: rd16,
		},
		{
			id: "RD17", setup: "snapshot from before Apr 2025", call: "read metadata", want: "timer/hook null", mark: "S", chose: "a snapshot taken through the engine, which knows neither", run: rd17,
		},
		{
			id: "RD18", setup: "page never written", call: "read", want: "zeros", mark: "C", run: rd18,
		},
		{
			id: "RD19", setup: "32- and 64-bit memory canisters", call: "take, download, upload, load", want: "equal modulo source/time/version", mark: "T", run: rd19,
		},
	}
}

func rd01(w *world) {
	id := w.user()
	w.grow(id, engine.StableMemory, 13*65536)
	hash := w.chunk(id, []byte("one chunk"))
	w.run(id, func(x *Execution) {
		x.CertifiedData, x.Timer, x.Version = []byte{42}, Timer{Active: true, Deadline: 43}, 4
	})
	w.h.now++
	snap := w.take(id)
	m := w.metadata(id, snap.ID)
	equal(w, "source", m.Source.TakenFromCanister != nil && m.Source.MetadataUpload == nil, true)
	equal(w, "time", m.TakenAtTimestamp, w.h.now)
	equal(w, "stable memory", m.StableMemorySize, 13*65536)
	equal(w, "memory", m.WasmMemorySize, 65536)
	equal(w, "module", m.WasmModuleSize, uint64(len(simple().wasm("first"))))
	equal(w, "chunks", len(m.WasmChunkStore), 1)
	equal(w, "chunk", string(m.WasmChunkStore[0].Hash), string(hash))
	equal(w, "certified data", string(m.CertifiedData), string([]byte{42}))
	equal(w, "timer", *m.GlobalTimer.Active, 43)
	equal(w, "hook", m.OnLowWasmMemoryHookStatus.ConditionNotSatisfied != nil, true)
	equal(w, "version", m.CanisterVersion, 4)
}

// refusedRead wants both ways of reading to be refused.
func (w *world) refusedRead(code ErrorCode, by Caller, id engine.CanisterID, snap []byte) {
	w.Helper()
	w.fails(code, by, "read_canister_snapshot_metadata", snapArgs(id, snap))
	w.fails(code, by, "read_canister_snapshot_data", readArgs(id, snap, moduleAt(0, 1)))
}

func rd02(w *world) {
	one, two := w.user(), w.user()
	snap := w.take(one)
	w.refusedRead(CodeCanisterRejectedMessage, alice, two, snap.ID)
	w.refusedRead(CodeCanisterNotFound, alice, absent(w), snap.ID)
}

func rd03(w *world) {
	id := w.user()
	w.take(id)
	w.refusedRead(CodeCanisterSnapshotNotFound, alice, id, wireID(id, 42))
}

func rd04(w *world) {
	id := w.user()
	snap := w.take(id)
	balance := w.balance(id)
	w.refusedRead(CodeCanisterInvalidController, viaCanister(bob), id, snap.ID)
	w.refusedRead(CodeCanisterInvalidController, bob, id, snap.ID)
	equal(w, "balance", w.balance(id), balance)
}

func rd05(w *world) {
	id := w.empty()
	wasm := simple().wasm(strings.Repeat("a module of some length ", 5000))
	w.install(id, wasm)
	snap := w.take(id)
	equal(w, "module", string(w.read(id, snap.ID, moduleAt(0, uint64(len(wasm))))), string(wasm))
}

func rd06(w *world) {
	id := w.user()
	const size = 80 * 65536 // 5,242,880: two whole slices and a rest
	w.grow(id, engine.WasmMemory, size)
	want := make([]byte, size)
	rng := rand.New(rand.NewPCG(6, 6))
	for i := range want {
		if i%4096 == 0 && rng.IntN(3) == 0 {
			clear(want[i:])
		}
		want[i] = byte(rng.Uint32())
	}
	w.write(id, engine.WasmMemory, 0, string(want))
	snap := w.take(id)
	var got []byte
	for off := uint64(0); off < size; {
		n := min(2_000_000, size-off)
		part := w.read(id, snap.ID, wasmAt(off, n))
		equal(w, "length", uint64(len(part)), n)
		got = append(got, part...)
		off += n
	}
	equal(w, "memory", bytes.Equal(got, want), true)
}

func rd07(w *world) {
	id := w.user()
	w.grow(id, engine.StableMemory, 64*65536)
	snap := w.take(id)
	balance := w.balance(id)
	for _, kind := range []ReadKind{moduleAt(0, 2_000_001), wasmAt(0, 2_000_001), stableAt(0, 2_000_001), stableAt(0, math.MaxUint64)} {
		w.fails(CodeInvalidManagementPayload, alice, "read_canister_snapshot_data", readArgs(id, snap.ID, kind), "Requested slice too large")
	}
	equal(w, "balance", w.balance(id), balance)
	equal(w, "most", len(w.read(id, snap.ID, stableAt(0, 2_000_000))), 2_000_000)
}

func rd08(w *world) {
	id := w.user()
	snap := w.take(id)
	n := uint64(len(simple().wasm("first")))
	w.fails(CodeInvalidManagementPayload, alice, "read_canister_snapshot_data", readArgs(id, snap.ID, moduleAt(0, n+1)), "Invalid subslice into wasm module")
	w.fails(CodeInvalidManagementPayload, alice, "read_canister_snapshot_data", readArgs(id, snap.ID, moduleAt(n, 1)))
}

func rd09(w *world) {
	id := w.user()
	w.grow(id, engine.StableMemory, 2<<16)
	snap := w.take(id)
	w.fails(CodeInvalidManagementPayload, alice, "read_canister_snapshot_data", readArgs(id, snap.ID, wasmAt(1<<16-4096, 4096+1000)), "Invalid subslice into main memory")
	w.fails(CodeInvalidManagementPayload, alice, "read_canister_snapshot_data", readArgs(id, snap.ID, stableAt(2<<16-4096, 4096+1000)), "Invalid subslice into stable memory")
}

func rd10(w *world) {
	id := w.user()
	snap := w.take(id)
	for _, kind := range []ReadKind{moduleAt(math.MaxUint64, 1), wasmAt(math.MaxUint64, 1), stableAt(math.MaxUint64, 1), wasmAt(math.MaxUint64, 0), wasmAt(math.MaxUint64-1, 2_000_000)} {
		w.fails(CodeInvalidManagementPayload, alice, "read_canister_snapshot_data", readArgs(id, snap.ID, kind), "Invalid subslice")
	}
}

func rd11(w *world) {
	id := w.user()
	snap := w.take(id)
	for _, kind := range []ReadKind{moduleAt(0, 0), wasmAt(100, 0), wasmAt(1<<16, 0), stableAt(0, 0)} {
		equal(w, "length", len(w.read(id, snap.ID, kind)), 0)
	}
}

func rd12(w *world) {
	id := w.user()
	one, two := []byte("short"), bytes.Repeat([]byte("long "), 1<<20/5)
	hashes := [][]byte{w.chunk(id, one), w.chunk(id, two)}
	snap := w.take(id)
	w.do(alice, "clear_chunk_store", only(id))
	for i, want := range [][]byte{one, two} {
		equal(w, "chunk", bytes.Equal(w.read(id, snap.ID, chunkOf(hashes[i])), want), true)
	}
}

func rd13(w *world) {
	id := w.user()
	w.chunk(id, []byte("a chunk"))
	snap := w.take(id)
	w.fails(CodeCanisterContractViolation, alice, "read_canister_snapshot_data", readArgs(id, snap.ID, chunkOf(make([]byte, 31))), "Error from Wasm chunk store")
	w.fails(CodeCanisterContractViolation, alice, "read_canister_snapshot_data", readArgs(id, snap.ID, chunkOf(nil)))
}

func rd14(w *world) {
	id := w.user()
	w.chunk(id, []byte("a chunk"))
	snap := w.take(id)
	w.fails(CodeCanisterContractViolation, alice, "read_canister_snapshot_data", readArgs(id, snap.ID, chunkOf(make([]byte, 32))), "Error from Wasm chunk store")
}

func rd15(w *world) {
	id := w.user()
	hash := w.chunk(id, []byte("a chunk"))
	snap := w.take(id)
	paid := func(f func()) Cycles {
		before := w.balance(id)
		f()
		return before.Sub(w.balance(id))
	}
	equal(w, "fee", paid(func() { w.read(id, snap.ID, wasmAt(10, 1000)) }), execution(5_000_000+1000))
	equal(w, "fee of nothing", paid(func() { w.read(id, snap.ID, wasmAt(10, 0)) }), execution(5_000_000))
	equal(w, "fee of a chunk", paid(func() { w.read(id, snap.ID, chunkOf(hash)) }), execution(5_000_000+1<<20))
	equal(w, "fee out of bounds", paid(func() {
		w.fails(CodeInvalidManagementPayload, alice, "read_canister_snapshot_data", readArgs(id, snap.ID, wasmAt(1<<30, 1000)))
	}), execution(5_000_000+1000))
	equal(w, "fee of too much", paid(func() {
		w.fails(CodeInvalidManagementPayload, alice, "read_canister_snapshot_data", readArgs(id, snap.ID, wasmAt(0, 2_000_001)))
	}), Cycles{})
	equal(w, "fee of metadata", paid(func() { w.metadata(id, snap.ID) }), Cycles{})
	equal(w, "fee of a list", paid(func() { w.list(id) }), Cycles{})
	w.fund(id, w.freezing(id, 0).Add(execution(5_000_000+10)).Sub(NewCycles(1)))
	w.fails(CodeCanisterOutOfCycles, alice, "read_canister_snapshot_data", readArgs(id, snap.ID, wasmAt(0, 10)))
	// A canister that is looked at by others pays, not they.
	w.fund(id, NewCycles(trillion))
	w.show(id, VisibilityVariant{Public: &candid.Null{}})
	equal(w, "fee when a stranger reads", paid(func() {
		w.do(viaCanister(bob), "read_canister_snapshot_data", readArgs(id, snap.ID, wasmAt(0, 10)))
	}), execution(5_000_000+10))
}

func rd16(w *world) {
	id := w.empty()
	m := module{pages: 1}
	var all []Global
	kinds := []GlobalKind{manifest.GlobalI32, manifest.GlobalI64, manifest.GlobalF32, manifest.GlobalF64, manifest.GlobalV128}
	for i, kind := range kinds {
		for n := range 4 {
			m.globals = append(m.globals, GlobalType{Kind: kind, Mutable: n&1 != 0, Exported: n&2 != 0})
			all = append(all, Global{Kind: kind, Lo: uint64(10*i + n)})
		}
	}
	w.install(id, m.wasm("globals"))
	w.run(id, func(x *Execution) {
		if err := x.SetGlobals(all); err != nil {
			w.Fatal(err)
		}
	})
	got := w.metadata(id, w.take(id).ID).Globals
	equal(w, "globals", len(got), 3*len(kinds))
	for i := range kinds {
		for n := 1; n < 4; n++ {
			g, ok := globalOf(got[3*i+n-1])
			equal(w, "global", fmt.Sprint(g, ok), fmt.Sprint(all[4*i+n], true))
		}
	}
}

// A snapshot from before timer and hook were kept: one that was taken through
// the engine, which knows nothing of them.
func rd17(w *world) {
	id := w.user()
	c, err := w.e.Canister(id)
	if err != nil {
		w.Fatal(err)
	}
	res, err := c.Take(w.ctx, engine.TakeOptions{})
	if err != nil {
		w.Fatal(err)
	}
	w.refresh(id)
	m := w.metadata(id, res.ID.Bytes())
	equal(w, "timer", m.GlobalTimer == nil, true)
	equal(w, "hook", m.OnLowWasmMemoryHookStatus == nil, true)
}

func rd18(w *world) {
	id := w.user()
	w.grow(id, engine.StableMemory, 1<<20)
	w.write(id, engine.StableMemory, 1<<19, "x")
	snap := w.take(id)
	equal(w, "zeros", string(w.read(id, snap.ID, stableAt(1<<18, 8))), strings.Repeat("\x00", 8))
	equal(w, "beside what was written", string(w.read(id, snap.ID, stableAt(1<<19-1, 3))), "\x00x\x00")
}

// copyOver downloads a snapshot and uploads it to another canister, in slices
// that fit no page.
func (w *world) copyOver(from engine.CanisterID, snap []byte, to engine.CanisterID) []byte {
	w.Helper()
	const slice = 77_777
	m := w.metadata(from, snap)
	next := w.begin(UploadCanisterSnapshotMetadataArgs{
		CanisterID: to.Bytes(), WasmModuleSize: m.WasmModuleSize, Globals: m.Globals, WasmMemorySize: m.WasmMemorySize,
		StableMemorySize: m.StableMemorySize, CertifiedData: m.CertifiedData, GlobalTimer: m.GlobalTimer,
		OnLowWasmMemoryHookStatus: m.OnLowWasmMemoryHookStatus,
	})
	for _, part := range []struct {
		size uint64
		from func(off, n uint64) ReadKind
		to   func(off uint64) WriteKind
	}{{m.WasmModuleSize, moduleAt, toModule}, {m.WasmMemorySize, wasmAt, toWasm}, {m.StableMemorySize, stableAt, toStable}} {
		for off := uint64(0); off < part.size; off += slice {
			w.upload(to, next, part.to(off), w.read(from, snap, part.from(off, min(slice, part.size-off))))
		}
	}
	for _, c := range m.WasmChunkStore {
		w.upload(to, next, toChunks(), w.read(from, snap, chunkOf(c.Hash)))
	}
	return next
}

// same wants two snapshots that differ only in where they come from and when.
func (w *world) same(one engine.CanisterID, a []byte, two engine.CanisterID, b []byte) {
	w.Helper()
	x, y := w.metadata(one, a), w.metadata(two, b)
	for _, m := range []*ReadCanisterSnapshotMetadataResult{&x, &y} {
		m.Source, m.TakenAtTimestamp, m.CanisterVersion = sourceVariant(false), 0, 0
	}
	equal(w, "metadata", string(w.arg(x)), string(w.arg(y)))
	for _, kind := range []func(off, n uint64) ReadKind{moduleAt, wasmAt, stableAt} {
		size := map[bool]uint64{true: x.WasmModuleSize}[kind(0, 0).WasmModule != nil] +
			map[bool]uint64{true: x.WasmMemorySize}[kind(0, 0).WasmMemory != nil] + map[bool]uint64{true: x.StableMemorySize}[kind(0, 0).StableMemory != nil]
		for off := uint64(0); off < size; off += 1 << 20 {
			n := min(1<<20, size-off)
			equal(w, "content", bytes.Equal(w.read(one, a, kind(off, n)), w.read(two, b, kind(off, n))), true)
		}
	}
}

func rd19(w *world) {
	for _, wide := range []bool{false, true} {
		one, two := w.empty(), w.empty()
		m := simple()
		m.wasm64 = wide
		w.install(one, m.wasm("copied"))
		w.install(two, m.wasm("there before"))
		w.grow(one, engine.StableMemory, 2<<16)
		w.write(one, engine.WasmMemory, 12345, "heap")
		w.write(one, engine.StableMemory, 1<<16-2, "stable")
		first := w.take(one)
		next := w.copyOver(one, first.ID, two)
		w.load(two, next)
		w.same(one, first.ID, two, next)
		w.same(one, first.ID, two, w.take(two).ID)
	}
}
