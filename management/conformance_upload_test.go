package management

import (
	"bytes"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"strings"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/management/candid"
	"github.com/snapstore/snapstore/manifest"
)

// E. Upload.
func uploadRows() []row {
	return []row{
		{
			id: "UP01", setup: "module size 0", call: "upload metadata", want: "408", mark: "T", run: up01,
		},
		{
			id: "UP02", setup: "module > 100 MiB", call: "upload metadata", want: "408", mark: "C", run: up02,
		},
		{
			id: "UP03", setup: "wasm_memory_size 123", call: "upload metadata", want: "408", mark: "T", run: up03,
		},
		{
			id: "UP04", setup: "stable_memory_size 123", call: "upload metadata", want: "408", mark: "T", run: up04,
		},
		{
			id: "UP05", setup: "certified_data 33 bytes", call: "upload metadata", want: "408", mark: "T", run: up05,
		},
		{
			id: "UP06", setup: "1000 globals / 1001 globals", call: "upload metadata", want: "ok / 408", mark: "T", run: up06,
		},
		{
			id: "UP07", setup: "wasm memory > 4 GiB, target Wasm32 or empty", call: "upload metadata", want: "408", mark: "C", run: up07,
		},
		{
			id: "UP08", setup: "wasm memory 6 GiB, target Wasm64", call: "upload metadata", want: "ok", mark: "C", run: up08,
		},
		{
			id: "UP09", setup: "stable > 500 GiB", call: "upload metadata", want: "408", mark: "C", run: up09,
		},
		{
			id: "UP10", setup: "at limit, replace=null / replace=existing", call: "upload metadata", want: "406 / ok, old deleted immediately (before data)", mark: "S", run: up10,
		},
		{
			id: "UP11", setup: "replace not found / other canister's", call: "upload metadata", want: "305 / 406", mark: "C", run: up11,
		},
		{
			id: "UP12", setup: "fresh", call: "upload metadata", want: "memory usage += declared size at once; cost execution_cost(2e9+size)", mark: "T", run: up12,
		},
		{
			id: "UP13", setup: "fresh, no data yet", call: "read data", want: "zeros everywhere; chunk list empty", mark: "S", chose: "the declared sections read as zeros from the start", run: up13,
		},
		{
			id: "UP14", setup: "write module at size-5, 10 bytes", call: "upload data", want: "408 Invalid subslice", mark: "T", run: up14,
		},
		{
			id: "UP15", setup: "write wasm/stable past end", call: "upload data", want: "408", mark: "C", run: up15,
		},
		{
			id: "UP16", setup: "snapshot taken from canister", call: "upload data", want: "409 Immutable", mark: "S", run: up16,
		},
		{
			id: "UP17", setup: "uploaded snapshot already loaded once", call: "upload data", want: "409 Immutable (since 2026-08)", mark: "S", run: up17,
		},
		{
			id: "UP18", setup: "loaded once, load again on same/other canister", call: "load", want: "ok", mark: "S", run: up18,
		},
		{
			id: "UP19", setup: "unknown id / other canister's / non controller", call: "upload data", want: "305 / 406 / 512", mark: "C", run: up19,
		},
		{
			id: "UP20", setup: "heap debit >= limit", call: "upload data", want: "504 (WasmChunkStoreError text), upload metadata: 210", mark: "C", chose: "the text is that of the rate limit, in the words of the chunk store", run: up20,
		},
		{
			id: "UP21", setup: "write module / memories", call: "upload data", want: "memory usage unchanged", mark: "T", run: up21,
		},
		{
			id: "UP22", setup: "upload new wasm_chunk", call: "upload data", want: "usage += 1 MiB whatever its length", mark: "T", run: up22,
		},
		{
			id: "UP23", setup: "same wasm_chunk again", call: "upload data", want: "ok, no growth (still charged)", mark: "C", chose: "a chunk that is there is charged like a new one", run: up23,
		},
		{
			id: "UP24", setup: "chunk of 1 MiB + 1", call: "upload data", want: "504", mark: "C", chose: "an empty chunk is refused too: the store has no section of no bytes", run: up24,
		},
		{
			id: "UP25", setup: "101st distinct chunk", call: "upload data", want: "504; re-upload of an existing one still ok", mark: "C", run: up25,
		},
		{
			id: "UP26", setup: "overlapping rewrites, arbitrary order", call: "upload data", want: "last write wins", mark: "S", run: up26,
		},
		{
			id: "UP27", setup: "checkpoint every third slice", call: "upload data", want: "content exact", mark: "T", chose: "Service.Flush is the checkpoint", run: up27,
		},
		{
			id: "UP28", setup: "memory and chunk upload spanning a checkpoint, then load", call: "-", want: "state equal, next checkpoint fine", mark: "T", chose: "the store is closed and opened in the middle", run: up28,
		},
		{
			id: "UP29", setup: "full roundtrip download -> upload -> load -> take", call: "-", want: "globals, sizes, chunks, timer, hook, cert equal; history source = metadata_upload", mark: "T", run: up29,
		},
		{
			id: "UP30", setup: "uploaded snapshot metadata", call: "read metadata", want: "canister_version/time = those at upload, not original", mark: "S", run: up30,
		},
		{
			id: "UP31", setup: "canister below freezing after declared size", call: "upload metadata", want: "InsufficientCyclesInMemoryGrow", mark: "T", run: up31,
		},
		{
			id: "UP32", setup: "cross-canister load of an upload whose last chunk is newer than the last checkpoint", call: "load", want: "406 NotLoadable", mark: "S", chose: "as LD20", run: up32,
		},
	}
}

// refusedUpload wants an upload to be refused for what it declares.
func (w *world) refusedUpload(a UploadCanisterSnapshotMetadataArgs) {
	w.Helper()
	w.fails(CodeInvalidManagementPayload, alice, "upload_canister_snapshot_metadata", a, "Snapshot Metadata contains invalid data")
}

func up01(w *world) { w.refusedUpload(declare(w.user(), 0, 1<<16, 0)) }

func up02(w *world) {
	id := w.user()
	w.refusedUpload(declare(id, 100<<20+1, 0, 0))
	w.begin(declare(id, 100<<20, 0, 0))
}

func up03(w *world) { w.refusedUpload(declare(w.user(), 10, 123, 0)) }

func up04(w *world) { w.refusedUpload(declare(w.user(), 10, 0, 123)) }

func up05(w *world) {
	a := declare(w.user(), 10, 0, 0)
	a.CertifiedData = make([]byte, 33)
	w.refusedUpload(a)
	a.CertifiedData = a.CertifiedData[:32]
	w.begin(a)
}

func up06(w *world) {
	a := declare(w.user(), 10, 0, 0)
	n := int64(7)
	for range 1000 {
		a.Globals = append(a.Globals, GlobalVariant{I64: &n})
	}
	w.begin(a)
	a.Globals = append(a.Globals, GlobalVariant{I64: &n})
	w.refusedUpload(a)
	wide := natOf(MaxCycles())
	a.Globals = []GlobalVariant{{V128: &wide}}
	w.begin(a)
	wider, err := candid.NewNat(new(big.Int).Lsh(big.NewInt(1), 128))
	if err != nil {
		w.Fatal(err)
	}
	a.Globals = []GlobalVariant{{V128: &wider}}
	w.refusedUpload(a)
}

func up07(w *world) {
	id := w.user()
	w.refusedUpload(declare(id, 10, 4<<30+1<<16, 0))
	w.begin(declare(id, 10, 4<<30, 0))
	w.refusedUpload(declare(w.empty(), 10, 4<<30+1<<16, 0))
}

func up08(w *world) {
	id := w.empty()
	w.install(id, module{pages: 1, wasm64: true}.wasm("wide"))
	w.begin(declare(id, 10, 6<<30, 0))
	w.refusedUpload(declare(id, 10, 6<<30+1<<16, 0))
}

func up09(w *world) {
	id := w.user()
	w.refusedUpload(declare(id, 10, 0, 500<<30+1<<16))
	w.begin(declare(id, 10, 0, 500<<30))
}

func up10(w *world) {
	w.limit(2)
	id := w.user()
	one, two := w.take(id).ID, w.begin(declare(id, 10, 0, 0))
	a := declare(id, 20, 0, 0)
	w.fails(CodeCanisterRejectedMessage, alice, "upload_canister_snapshot_metadata", a, "allowed: 2.")
	a.ReplaceSnapshot = &one
	three := w.begin(a)
	list := w.list(id)
	equal(w, "snapshots", len(list), 2)
	equal(w, "first", string(list[0].ID), string(two))
	equal(w, "second", string(list[1].ID), string(three))
	// An upload that is under way can be replaced as well.
	a.ReplaceSnapshot = &two
	w.begin(a)
	w.fails(CodeCanisterSnapshotNotFound, alice, "upload_canister_snapshot_data", writeArgs(id, two, toModule(0), []byte("x")))
}

func up11(w *world) {
	one, two := w.user(), w.user()
	snap := w.take(one).ID
	a := declare(two, 10, 0, 0)
	a.ReplaceSnapshot = &snap
	w.fails(CodeCanisterRejectedMessage, alice, "upload_canister_snapshot_metadata", a, "does not belong to canister")
	never := wireID(two, 3)
	a.ReplaceSnapshot = &never
	w.fails(CodeCanisterSnapshotNotFound, alice, "upload_canister_snapshot_metadata", a)
	short := []byte{1}
	a.ReplaceSnapshot = &short
	w.fails(CodeInvalidManagementPayload, alice, "upload_canister_snapshot_metadata", a, "Error decoding candid")
}

func up12(w *world) {
	id := w.user()
	n, f := int32(-1), math.NaN()
	a := declare(id, 1000, 2<<16, 3<<16)
	a.CertifiedData, a.Globals = []byte("sixteen and more"), []GlobalVariant{{I32: &n}, {F64: &f}}
	size := uint64(1000 + 5<<16 + 16 + 16)
	before := w.refresh(id)
	w.begin(a)
	after := w.refresh(id)
	equal(w, "memory usage", after.MemoryUsage-before.MemoryUsage, size)
	equal(w, "fee", before.Cycles.Sub(after.Cycles), execution(2e9+size))
	equal(w, "debit", after.HeapDeltaDebit, before.HeapDeltaDebit)
	equal(w, "size", w.list(id)[0].TotalSize, size)
}

func up13(w *world) {
	id := w.user()
	snap := w.begin(declare(id, 100, 1<<16, 1<<16))
	for _, kind := range []ReadKind{moduleAt(0, 100), wasmAt(0, 1<<16), stableAt(0, 1<<16)} {
		if got := w.read(id, snap, kind); len(bytes.Trim(got, "\x00")) != 0 || len(got) < 100 {
			w.Fatalf("%d bytes that are not all zero", len(got))
		}
	}
	equal(w, "chunks", len(w.metadata(id, snap).WasmChunkStore), 0)
}

func up14(w *world) {
	id := w.user()
	snap := w.begin(declare(id, 100, 0, 0))
	w.fails(CodeInvalidManagementPayload, alice, "upload_canister_snapshot_data", writeArgs(id, snap, toModule(95), make([]byte, 10)), "Invalid subslice into wasm module")
	w.upload(id, snap, toModule(90), []byte("ten bytes!"))
	equal(w, "content", string(w.read(id, snap, moduleAt(88, 12))), "\x00\x00ten bytes!")
}

func up15(w *world) {
	id := w.user()
	snap := w.begin(declare(id, 100, 1<<16, 1<<16))
	for _, kind := range []WriteKind{toWasm(1<<16 - 1), toStable(1<<16 - 1), toWasm(math.MaxUint64), toStable(math.MaxUint64 - 1), toModule(math.MaxUint64)} {
		balance := w.balance(id)
		w.fails(CodeInvalidManagementPayload, alice, "upload_canister_snapshot_data", writeArgs(id, snap, kind, []byte("xy")), "Invalid subslice")
		equal(w, "fee", balance.Sub(w.balance(id)), execution(2))
	}
}

func up16(w *world) {
	id := w.user()
	snap := w.take(id).ID
	for _, kind := range []WriteKind{toModule(0), toWasm(0), toStable(0), toChunks()} {
		w.fails(CodeCanisterSnapshotImmutable, alice, "upload_canister_snapshot_data", writeArgs(id, snap, kind, []byte("x")), "Only canister snapshots created by metadata upload can be mutated.")
	}
}

func up17(w *world) {
	id, other := w.user(), w.user()
	for _, to := range []engine.CanisterID{id, other} {
		snap := w.ready(id, 1<<16, nil)
		w.upload(id, snap, toWasm(5), []byte("x"))
		w.load(to, snap)
		w.fails(CodeCanisterSnapshotImmutable, alice, "upload_canister_snapshot_data", writeArgs(id, snap, toWasm(5), []byte("y")))
		w.fails(CodeCanisterSnapshotImmutable, alice, "upload_canister_snapshot_data", writeArgs(id, snap, toChunks(), []byte("y")))
		w.holds(to, engine.WasmMemory, 5, "x")
	}
}

func up18(w *world) {
	id, other := w.user(), w.user()
	snap := w.ready(id, 1<<16, nil)
	w.upload(id, snap, toWasm(5), []byte("uploaded"))
	w.load(id, snap)
	w.write(id, engine.WasmMemory, 5, "changed.")
	w.load(id, snap)
	w.holds(id, engine.WasmMemory, 5, "uploaded")
	w.load(other, snap)
	w.holds(other, engine.WasmMemory, 5, "uploaded")
}

func up19(w *world) {
	one, two := w.user(), w.user()
	snap := w.begin(declare(one, 10, 0, 0))
	w.fails(CodeCanisterSnapshotNotFound, alice, "upload_canister_snapshot_data", writeArgs(one, wireID(one, 9), toModule(0), []byte("x")))
	w.fails(CodeCanisterRejectedMessage, alice, "upload_canister_snapshot_data", writeArgs(two, snap, toModule(0), []byte("x")))
	w.fails(CodeCanisterInvalidController, viaCanister(bob), "upload_canister_snapshot_data", writeArgs(one, snap, toModule(0), []byte("x")))
	w.fails(CodeCanisterInvalidController, bob, "upload_canister_snapshot_metadata", declare(one, 10, 0, 0))
}

func up20(w *world) {
	id := w.user()
	snap := w.begin(declare(id, 10, 0, 0))
	w.full(id)
	for _, kind := range []WriteKind{toModule(0), toChunks()} {
		w.fails(CodeCanisterContractViolation, alice, "upload_canister_snapshot_data", writeArgs(id, snap, kind, []byte("x")), "Error from Wasm chunk store")
	}
	w.fails(CodeCanisterHeapDeltaRateLimited, alice, "upload_canister_snapshot_metadata", declare(id, 10, 0, 0))
}

func up21(w *world) {
	id := w.user()
	snap := w.begin(declare(id, 100, 1<<16, 1<<16))
	before := w.refresh(id)
	w.upload(id, snap, toModule(0), make([]byte, 100))
	w.upload(id, snap, toWasm(100), []byte("heap"))
	w.upload(id, snap, toStable(1<<16-6), []byte("stable"))
	after := w.refresh(id)
	equal(w, "memory usage", after.MemoryUsage, before.MemoryUsage)
	equal(w, "debit", after.HeapDeltaDebit-before.HeapDeltaDebit, 110)
	equal(w, "fee", before.Cycles.Sub(after.Cycles), execution(100).Add(execution(4)).Add(execution(6)))
}

func up22(w *world) {
	id := w.user()
	snap := w.begin(declare(id, 100, 0, 0))
	before := w.refresh(id)
	w.upload(id, snap, toChunks(), []byte("x"))
	after := w.refresh(id)
	equal(w, "memory usage", after.MemoryUsage-before.MemoryUsage, 1<<20)
	equal(w, "debit", after.HeapDeltaDebit-before.HeapDeltaDebit, 1<<20)
	equal(w, "fee", before.Cycles.Sub(after.Cycles), execution(1<<20))
}

func up23(w *world) {
	id := w.user()
	snap := w.begin(declare(id, 100, 0, 0))
	w.upload(id, snap, toChunks(), []byte("x"))
	before := w.refresh(id)
	w.upload(id, snap, toChunks(), []byte("x"))
	after := w.refresh(id)
	equal(w, "memory usage", after.MemoryUsage, before.MemoryUsage)
	equal(w, "fee", before.Cycles.Sub(after.Cycles), execution(1<<20))
	equal(w, "chunks", len(w.metadata(id, snap).WasmChunkStore), 1)
}

func up24(w *world) {
	id := w.user()
	snap := w.begin(declare(id, 100, 0, 0))
	w.fails(CodeCanisterContractViolation, alice, "upload_canister_snapshot_data", writeArgs(id, snap, toChunks(), make([]byte, 1<<20+1)), "Error from Wasm chunk store")
	w.upload(id, snap, toChunks(), make([]byte, 1<<20))
}

func up25(w *world) {
	id := w.user()
	snap := w.begin(declare(id, 100, 0, 0))
	for i := range 100 {
		w.s.Round()
		w.upload(id, snap, toChunks(), fmt.Appendf(nil, "chunk %d", i))
	}
	w.fails(CodeCanisterContractViolation, alice, "upload_canister_snapshot_data", writeArgs(id, snap, toChunks(), []byte("one too many")), "Error from Wasm chunk store")
	w.upload(id, snap, toChunks(), []byte("chunk 7"))
	equal(w, "chunks", len(w.metadata(id, snap).WasmChunkStore), 100)
}

func up26(w *world) {
	id := w.user()
	const size = 4 << 16
	snap := w.begin(declare(id, 10, size, 0))
	want := make([]byte, size)
	seed := uint64(26)
	w.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	for range 60 {
		part := make([]byte, rng.IntN(30_000))
		for i := range part {
			part[i] = byte(rng.Uint32())
		}
		off := rng.IntN(size - len(part))
		copy(want[off:], part)
		w.upload(id, snap, toWasm(uint64(off)), part)
	}
	equal(w, "content", bytes.Equal(w.read(id, snap, wasmAt(0, size)), want), true)
}

func up27(w *world) {
	id := w.user()
	wasm := module{pages: 1}.wasm(strings.Repeat("long ", 20_000))
	snap := w.begin(declare(id, uint64(len(wasm)), 0, 0))
	const slice = 7_001
	for i, off := 0, 0; off < len(wasm); i, off = i+1, off+slice {
		w.upload(id, snap, toModule(uint64(off)), wasm[off:min(off+slice, len(wasm))])
		if i%3 == 2 {
			if err := w.s.Flush(w.ctx, id); err != nil {
				w.Fatal(err)
			}
		}
	}
	equal(w, "module", bytes.Equal(w.read(id, snap, moduleAt(0, uint64(len(wasm)))), wasm), true)
	w.load(id, snap)
	w.holds(id, engine.WasmModule, 0, string(wasm))
}

func up28(w *world) {
	id := w.user()
	wasm := module{pages: 1}.wasm("uploaded")
	snap := w.begin(declare(id, uint64(len(wasm)), 1<<16, 1<<16))
	w.upload(id, snap, toModule(0), wasm)
	w.upload(id, snap, toWasm(4000), []byte("before the restart"))
	w.upload(id, snap, toChunks(), []byte("chunk one"))
	if err := w.s.Flush(w.ctx, id); err != nil {
		w.Fatal(err)
	}
	w.reopen()
	w.upload(id, snap, toWasm(4100), []byte("after it"))
	w.upload(id, snap, toStable(9), []byte("stable"))
	w.upload(id, snap, toChunks(), []byte("chunk two"))
	w.load(id, snap)
	for range 2 {
		w.holds(id, engine.WasmMemory, 4000, "before the restart")
		w.holds(id, engine.WasmMemory, 4100, "after it")
		w.holds(id, engine.StableMemory, 9, "stable")
		equal(w, "chunks", len(w.chunks(id)), 2)
		w.reopen()
	}
}

func up29(w *world) {
	one, two := w.user(), w.user()
	w.grow(one, engine.StableMemory, 3<<16)
	w.write(one, engine.WasmMemory, 60_000, "heap")
	w.write(one, engine.StableMemory, 100_000, "stable")
	w.chunk(one, []byte("chunk one"))
	w.chunk(one, bytes.Repeat([]byte("two"), 100_000))
	w.run(one, func(x *Execution) {
		x.CertifiedData, x.Timer = []byte("certified"), Timer{Active: true, Deadline: 5}
		x.Globals = []Global{{Kind: manifest.GlobalI32, Lo: 1<<32 - 1}, {Kind: manifest.GlobalI64, Lo: 1 << 63}}
	})
	first := w.take(one)
	next := w.copyOver(one, first.ID, two)
	w.load(two, next)
	_, d := w.lastLoad(two)
	equal(w, "source", d.Source.MetadataUpload != nil, true)
	last := w.take(two)
	w.same(one, first.ID, two, last.ID)
	equal(w, "size", last.TotalSize, first.TotalSize)
}

func up30(w *world) {
	id := w.user()
	w.run(id, func(x *Execution) { x.Version = 41 })
	w.h.now += 7
	snap := w.begin(declare(id, 10, 0, 0))
	at := w.h.now
	w.h.now += 7
	w.run(id, func(x *Execution) { x.Version = 99 })
	w.upload(id, snap, toModule(0), []byte("x"))
	m := w.metadata(id, snap)
	equal(w, "version", m.CanisterVersion, 41)
	equal(w, "time", m.TakenAtTimestamp, at)
	equal(w, "source", m.Source.MetadataUpload != nil, true)
}

func up31(w *world) {
	id := w.user()
	w.fund(id, w.freezing(id, 1<<30).Sub(NewCycles(1)))
	w.fails(CodeInsufficientCyclesMemoryGrow, alice, "upload_canister_snapshot_metadata", declare(id, 1, 0, 1<<30), "additional cycles are required")
	size := uint64(1 + 1<<16)
	w.fund(id, w.freezing(id, size).Add(execution(2e9+size)).Sub(NewCycles(1)))
	w.fails(CodeCanisterOutOfCycles, alice, "upload_canister_snapshot_metadata", declare(id, 1, 0, 1<<16))
}

func up32(w *world) {
	w.with(func(c *Config) { c.FlushedSnapshotsOnly = true })
	one, two := w.user(), w.user()
	snap := w.ready(one, 1<<16, nil)
	id, _ := engine.SnapshotIDFromBytes(snap)
	w.h.unflushed[id] = true
	w.fails(CodeCanisterRejectedMessage, alice, "load_canister_snapshot", loadArgs(two, snap), "not currently loadable")
	w.h.unflushed[id] = false
	w.load(two, snap)
}
