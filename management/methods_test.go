package management

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/seglog"
	"github.com/snapstore/snapstore/internal/testkit"
	"github.com/snapstore/snapstore/management/candid"
	"github.com/snapstore/snapstore/manifest"
)

// Every method answers something to bytes that are no argument, and there is a
// typed method behind every name.
func TestMethods(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	for _, m := range Methods() {
		for _, arg := range [][]byte{nil, []byte("DIDL"), []byte("DIDL\x00\x00"), {0x44, 0x49, 0x44, 0x4c, 1, 0x6c, 1, 0, 0, 1, 0}} {
			_, r := w.raw(alice, m, arg)
			w.rejected(r, CodeInvalidManagementPayload, m, "Error decoding candid")
		}
	}
	_, r := w.raw(alice, "install_chunked_code", []byte("DIDL\x00\x00"))
	w.rejected(r, CodeUnknownManagementMessage, "an unknown method")
	w.with(func(c *Config) { c.Limits.MessageBytes = 1000 })
	_, r = w.raw(alice, "upload_chunk", make([]byte, 1001))
	w.rejected(r, CodeInvalidManagementPayload, "a long message")
}

func TestCreateCanister(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	boss := w.user()
	caller := as(boss, 4)
	w.fails(CodeInsufficientCyclesForCreateCanister, caller, "create_canister", CreateCanisterArgs{})
	caller.Cycles = NewCycles(500_000_000_000 - 1)
	w.fails(CodeInsufficientCyclesForCreateCanister, caller, "create_canister", CreateCanisterArgs{})
	caller.Cycles = NewCycles(2 * trillion)
	said := uint64(5)
	w.fails(CodeCanisterContractViolation, caller, "create_canister", CreateCanisterArgs{SenderCanisterVersion: &said})
	percent := nat(101)
	w.fails(CodeCanisterContractViolation, caller, "create_canister", CreateCanisterArgs{Settings: &CanisterSettings{ComputeAllocation: &percent}})
	big := nat(1 << 47)
	w.fails(CodeSubnetOversubscribed, caller, "create_canister", CreateCanisterArgs{Settings: &CanisterSettings{MemoryAllocation: &big}})
	big = nat(500 << 30)
	w.fails(CodeInsufficientCyclesMemoryAllocation, caller, "create_canister", CreateCanisterArgs{Settings: &CanisterSettings{MemoryAllocation: &big}})

	vars := []EnvironmentVariable{{"B", "2"}, {"A", "1"}}
	reply := w.do(caller, "create_canister", CreateCanisterArgs{Settings: &CanisterSettings{EnvironmentVariables: &vars}})
	id, err := engine.CanisterIDFromBytes(decode[CreateCanisterResult](w, reply).CanisterID)
	if err != nil {
		t.Fatal(err)
	}
	v := w.refresh(id)
	equal(w, "balance", v.Cycles, NewCycles(2*trillion-500_000_000_000))
	equal(w, "controllers", string(v.Controllers[0]), string(boss.Bytes()))
	equal(w, "environment", fmt.Sprint(v.Environment), fmt.Sprint(map[string]string{"A": "1", "B": "2"}))
	h := w.history(id)
	equal(w, "changes", h.TotalNumChanges, 1)
	if d := h.RecentChanges[0].Details.Creation; d == nil || d.EnvironmentVariablesHash == nil || len(*d.EnvironmentVariablesHash) != 32 {
		t.Errorf("creation %+v", h.RecentChanges[0])
	}
	equal(w, "origin", string(h.RecentChanges[0].Origin.FromCanister.CanisterID), string(boss.Bytes()))

	// Names: a chosen one, one that is taken, and one that was used before.
	at := candid.Principal{1, 2, 3, 4, 5, 6, 7, 8, 1, 1}
	w.do(alice, "provisional_create_canister_with_cycles", ProvisionalCreateArgs{SpecifiedID: &at})
	w.fails(CodeCanisterIDAlreadyExists, alice, "provisional_create_canister_with_cycles", ProvisionalCreateArgs{SpecifiedID: &at})
	amount := nat(77)
	w.do(alice, "provisional_top_up_canister", ProvisionalTopUpArgs{CanisterID: at, Amount: amount})
	w.reopen()
	w.h.DefaultHost.next.Store(0) // a host that begins to count anew
	w.user()
	w.with(func(c *Config) { c.Provisional, c.Limits.CanistersPerSubnet = false, 4 })
	w.fails(CodeCanisterContractViolation, alice, "provisional_create_canister_with_cycles", ProvisionalCreateArgs{})
	w.fails(CodeCanisterContractViolation, alice, "provisional_top_up_canister", ProvisionalTopUpArgs{CanisterID: at, Amount: amount})
	w.fails(CodeMaxNumberOfCanistersReached, caller, "create_canister", CreateCanisterArgs{})
}

func TestInstallCode(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	id := w.empty()
	args := func(mode InstallMode, wasm []byte) InstallCodeArgs {
		return InstallCodeArgs{Mode: mode, CanisterID: id.Bytes(), WasmModule: wasm, Arg: []byte("arg")}
	}
	install, none := InstallMode{Install: &candid.Null{}}, (*UpgradeFlags)(nil)
	upgrade := InstallMode{Upgrade: &none}
	yes := true
	flags := &UpgradeFlags{SkipPreUpgrade: &yes, WasmMemoryPersistence: &PersistenceVariant{Keep: &candid.Null{}}}
	keep := InstallMode{Upgrade: &flags}
	wasm := simple().wasm("one")

	w.fails(CodeCanisterInvalidController, viaCanister(bob), "install_code", args(install, wasm))
	w.fails(CodeCanisterInvalidWasm, alice, "install_code", args(install, nil))
	w.fails(CodeCanisterInvalidWasm, alice, "install_code", args(install, []byte("no module")))
	w.fails(CodeCanisterInvalidWasm, alice, "install_code", args(install, module{pages: 65537}.wasm("too large")))
	w.fails(CodeCanisterWasmModuleNotFound, alice, "install_code", args(upgrade, wasm))
	before := w.balance(id)
	w.do(alice, "install_code", args(install, wasm))
	equal(w, "fee", before.Sub(w.balance(id)), execution(uint64(len(wasm))*instructionsPerByte))
	w.fails(CodeCanisterNonEmpty, alice, "install_code", args(install, wasm))
	equal(w, "memory", w.mem(id, engine.WasmMemory).Size(), 1<<16)

	// An upgrade keeps stable memory and certified data, and the heap if asked.
	w.grow(id, engine.StableMemory, 1<<16)
	w.write(id, engine.StableMemory, 0, "stable")
	w.write(id, engine.WasmMemory, 0, "heap")
	w.run(id, func(x *Execution) { x.CertifiedData, x.Timer = []byte("certified"), Timer{Active: true, Deadline: 4} })
	seen := []string{}
	w.h.runInstall = func(in Installation) (Installed, error) {
		seen = append(seen, fmt.Sprintf("%v %v %v %s", in.Kind, in.SkipPreUpgrade, in.KeepMemory, in.Arg))
		return w.h.DefaultHost.RunInstall(context.Background(), in)
	}
	w.do(alice, "install_code", args(keep, simple().wasm("two")))
	w.holds(id, engine.WasmMemory, 0, "heap")
	w.holds(id, engine.StableMemory, 0, "stable")
	equal(w, "certified data", string(w.s.lookup(id).live.Metadata().CertifiedData), "certified")
	equal(w, "timer", w.refresh(id).Timer, Timer{Present: true})
	w.do(alice, "install_code", args(upgrade, simple().wasm("three")))
	w.holds(id, engine.WasmMemory, 0, "\x00\x00\x00\x00")
	w.holds(id, engine.StableMemory, 0, "stable")
	w.do(alice, "install_code", args(reinstallMode(), simple().wasm("four")))
	equal(w, "stable memory", w.mem(id, engine.StableMemory).Size(), 0)
	equal(w, "certified data", len(w.s.lookup(id).live.Metadata().CertifiedData), 0)
	equal(w, "what ran", strings.Join(seen, ", "), "upgrade true true arg, upgrade false false arg, reinstall false false arg")
	equal(w, "version", w.status(id).Version, 4)
	h := w.history(id)
	equal(w, "last change", h.RecentChanges[len(h.RecentChanges)-1].Details.CodeDeployment.Mode.Reinstall != nil, true)

	// What the code left behind becomes the state, and an error nothing.
	w.h.runInstall = func(Installation) (Installed, error) { return Installed{}, errors.New("trapped") }
	w.fails(CodeCanisterTrapped, alice, "install_code", args(upgrade, wasm), "trapped")
	own := reject(CodeCanisterOutOfCycles, "of its own")
	w.h.runInstall = func(Installation) (Installed, error) { return Installed{}, own }
	w.fails(CodeCanisterOutOfCycles, alice, "install_code", args(upgrade, wasm), "of its own")
	w.h.runInstall = func(Installation) (Installed, error) {
		return Installed{Globals: make([]Global, 3)}, nil
	}
	w.fails(CodeCanisterInvalidWasm, alice, "install_code", args(upgrade, wasm))
	left := Installed{
		WasmMemory: &Image{Size: 1 << 16, At: strings.NewReader("heap" + strings.Repeat("\x00", 1<<16-4))}, StableMemory: &Image{Size: 2 << 16},
		Globals:       []Global{{Kind: manifest.GlobalI32, Lo: 5}, {Kind: manifest.GlobalI64, Lo: 6}},
		CertifiedData: []byte("left"), Timer: Timer{Present: true, Active: true, Deadline: 9}, Instructions: 1000,
	}
	w.h.runInstall = func(Installation) (Installed, error) { return left, nil }
	before = w.balance(id)
	w.do(alice, "install_code", args(upgrade, wasm))
	equal(w, "fee", before.Sub(w.balance(id)), execution(uint64(len(wasm))*instructionsPerByte+1000))
	w.holds(id, engine.WasmMemory, 0, "heap")
	equal(w, "stable memory", w.mem(id, engine.StableMemory).Size(), 2<<16)
	equal(w, "certified data", string(w.s.lookup(id).live.Metadata().CertifiedData), "left")
	equal(w, "timer", w.refresh(id).Timer.Deadline, 9)
	left.CertifiedData = make([]byte, 33)
	w.fails(CodeCanisterContractViolation, alice, "install_code", args(upgrade, wasm))
	left.CertifiedData, left.StableMemory = nil, &Image{Size: 501 << 30}
	w.fails(CodeCanisterInvalidWasm, alice, "install_code", args(upgrade, wasm))
	w.full(id)
	w.fails(CodeCanisterHeapDeltaRateLimited, alice, "install_code", args(upgrade, wasm))
}

func TestStartAndStop(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	id := w.user()
	version := w.status(id).Version
	w.fails(CodeCanisterInvalidController, viaCanister(bob), "stop_canister", only(id))
	w.fails(CodeCanisterInvalidController, viaCanister(bob), "start_canister", only(id))
	w.do(alice, "start_canister", only(id))
	equal(w, "version", w.status(id).Version, version)
	w.h.open[id] = 1
	w.do(alice, "stop_canister", only(id))
	equal(w, "stopped", w.status(id).Status.Stopped != nil, true)
	equal(w, "version", w.status(id).Version, version+2)
	w.do(alice, "stop_canister", only(id))
	w.reopen()
	equal(w, "stopped after a restart", w.status(id).Status.Stopped != nil, true)
	w.do(alice, "start_canister", only(id))
	equal(w, "running", w.status(id).Status.Running != nil, true)
	// A canister that is started while it stops is not stopped.
	w.h.open[id] = 1
	w.h.onStop = func() {
		equal(w, "stopping", w.status(id).Status.Stopping != nil, true)
		w.do(alice, "start_canister", only(id))
	}
	_, err := w.s.Call(w.ctx, alice, "stop_canister", w.arg(only(id)))
	var r *Reject
	if !errors.As(err, &r) || r.ErrorCode != CodeCanisterStoppingCancelled {
		t.Errorf("stopped while it was started: %v", err)
	}
	// Nor is one that does not stop in time, which goes on stopping.
	w.h.onStop, w.h.stopErr, w.h.open[id] = nil, context.DeadlineExceeded, 1
	_, err = w.s.Call(w.ctx, alice, "stop_canister", w.arg(only(id)))
	if !errors.As(err, &r) || r.ErrorCode != CodeStopCanisterRequestTimeout {
		t.Errorf("stopped out of time: %v", err)
	}
	w.reopen()
	equal(w, "stopping after a restart", w.status(id).Status.Stopping != nil, true)
	w.h.open[id] = 0
	w.do(alice, "stop_canister", only(id))
	w.do(alice, "start_canister", only(id))
	equal(w, "events", strings.Join(w.h.events[len(w.h.events)-2:], ", "), fmt.Sprintf("%s %d, %s %d", id, EventStopped, id, EventStarted))
}

func TestUpdateSettings(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	id := w.user()
	change := func(s CanisterSettings) UpdateSettingsArgs {
		return UpdateSettingsArgs{CanisterID: id.Bytes(), Settings: s}
	}
	n := func(v uint64) *candid.Nat { x := nat(v); return &x }

	w.fails(CodeCanisterInvalidController, viaCanister(bob), "update_settings", change(CanisterSettings{}))
	many := make([]candid.Principal, 11)
	for i := range many {
		many[i] = candid.Principal{byte(i)}
	}
	w.fails(CodeInvalidManagementPayload, alice, "update_settings", change(CanisterSettings{Controllers: &many}))
	twice := []EnvironmentVariable{{"A", "1"}, {"A", "2"}}
	w.fails(CodeInvalidManagementPayload, alice, "update_settings", change(CanisterSettings{EnvironmentVariables: &twice}))
	long := []EnvironmentVariable{{"A", strings.Repeat("x", 129)}}
	w.fails(CodeInvalidManagementPayload, alice, "update_settings", change(CanisterSettings{EnvironmentVariables: &long}))
	w.fails(CodeSubnetOversubscribed, alice, "update_settings", change(CanisterSettings{MemoryAllocation: n(3 << 40)}))
	w.fails(CodeCanisterContractViolation, alice, "update_settings", change(CanisterSettings{MemoryAllocation: n(1 << 49)}))
	rich := w.balance(id)
	w.fund(id, NewCycles(trillion))
	w.fails(CodeInsufficientCyclesMemoryAllocation, alice, "update_settings", change(CanisterSettings{MemoryAllocation: n(100 << 30)}))
	w.fails(CodeInsufficientCyclesComputeAllocation, alice, "update_settings", change(CanisterSettings{ComputeAllocation: n(100)}))
	w.fund(id, rich)

	// Raising the allocation on a full subnet reserves, and the limit holds.
	w.h.subnet.MemoryThreshold, w.h.subnet.MemoryCapacity = 1<<30, 100<<30
	want := w.reserve(w.s.Ledger().Allocated, 4<<30-w.refresh(id).Allocated)
	w.set(id, CanisterSettings{MemoryAllocation: n(4 << 30)})
	equal(w, "reserved", w.refresh(id).Reserved, want)
	w.fails(CodeReservedCyclesLimitIsTooLow, alice, "update_settings", change(CanisterSettings{ReservedCyclesLimit: n(1)}))
	exact := natOf(want)
	w.set(id, CanisterSettings{ReservedCyclesLimit: &exact})
	w.fails(CodeReservedCyclesLimitInMemoryAllocation, alice, "update_settings", change(CanisterSettings{MemoryAllocation: n(5 << 30)}))

	two := []candid.Principal{alice.Principal, bob.Principal, alice.Principal}
	public := VisibilityVariant{Public: &candid.Null{}}
	w.set(id, CanisterSettings{
		Controllers: &two, ComputeAllocation: n(1), FreezingThreshold: n(100), MinimumIncomingCallCycles: n(9), LogVisibility: &public,
		LogMemoryLimit: n(10), StatusVisibility: &public, WasmMemoryLimit: n(1 << 30), WasmMemoryThreshold: n(5),
	})
	got := w.status(id).Settings
	equal(w, "settings", fmt.Sprint(len(got.Controllers), got.ComputeAllocation, got.MemoryAllocation, got.FreezingThreshold, got.MinimumIncomingCallCycles,
		got.LogMemoryLimit, got.WasmMemoryLimit, got.WasmMemoryThreshold, got.LogVisibility.Public != nil, got.SnapshotVisibility.Controllers != nil),
		fmt.Sprint(2, 1, 4<<30, 100, 9, 10, 1<<30, 5, true, true))
	w.do(as(absent(w), 0), "canister_status", only(id))
	h := w.history(id)
	equal(w, "last change", len(h.RecentChanges[len(h.RecentChanges)-1].Details.ControllersChange.Controllers), 2)
	w.reopen()
	equal(w, "settings after a restart", fmt.Sprint(w.status(id).Settings), fmt.Sprint(got))
}

func TestStatusAndInfo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	id := w.empty()
	w.install(id, module{pages: 3, custom: 1000}.wasm("custom"))
	w.chunk(id, []byte("chunk"))
	w.h.logs[id] = 77
	w.refresh(id)
	w.fails(CodeCanisterInvalidController, viaCanister(bob), "canister_status", only(id))
	w.do(as(id, 1), "canister_status", only(id)) // of itself
	st := w.status(id)
	m := st.MemoryMetrics
	sum := uint64(0)
	for _, n := range []candid.Nat{
		m.WasmMemorySize, m.StableMemorySize, m.GlobalMemorySize, m.WasmBinarySize, m.CustomSectionsSize, m.CanisterHistorySize,
		m.WasmChunkStoreSize, m.SnapshotsSize, m.LogMemoryStoreSize,
	} {
		v, _ := n.Uint64()
		sum += v
	}
	equal(w, "memory usage", st.MemorySize.Cmp(nat(sum)), 0)
	if v, _ := m.CustomSectionsSize.Uint64(); v < 1000 {
		t.Errorf("custom sections of %d bytes", v)
	}
	equal(w, "log", m.LogMemoryStoreSize.Cmp(nat(77)), 0)
	equal(w, "burned a day", CyclesFromBig(st.IdleCyclesBurnedPerDay.Big()), NewCycles(sum*127_000*86_400>>30))

	// The history keeps 20 changes and counts all.
	for range 30 {
		w.reinstall(id, module{pages: 1}.wasm("again"))
	}
	h := w.history(id)
	equal(w, "changes", h.TotalNumChanges, 32)
	equal(w, "kept", len(h.RecentChanges), 20)
	two := uint64(2)
	reply := w.do(viaCanister(bob), "canister_info", CanisterInfoArgs{CanisterID: id.Bytes(), NumRequestedChanges: &two})
	equal(w, "asked for", len(decode[CanisterInfoResult](w, reply).RecentChanges), 2)
	reply = w.do(viaCanister(bob), "canister_info", CanisterInfoArgs{CanisterID: id.Bytes()})
	equal(w, "not asked for", len(decode[CanisterInfoResult](w, reply).RecentChanges), 0)
	w.fails(CodeCanisterRejectedMessage, bob, "canister_info", CanisterInfoArgs{CanisterID: id.Bytes()})
}

func TestChunkStore(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	id := w.empty()
	before := w.refresh(id)
	w.chunk(id, []byte("one"))
	after := w.refresh(id)
	equal(w, "memory usage", after.MemoryUsage-before.MemoryUsage, 1<<20)
	equal(w, "fee", before.Cycles.Sub(after.Cycles), execution(200_000_000))
	w.chunk(id, []byte("one"))
	equal(w, "balance", w.refresh(id).Cycles, after.Cycles)
	w.do(as(id, 0), "upload_chunk", UploadChunkArgs{CanisterID: id.Bytes(), Chunk: []byte("of its own")})
	equal(w, "chunks", len(w.chunks(id)), 2)
	for _, m := range []string{"stored_chunks", "clear_chunk_store"} {
		w.fails(CodeCanisterInvalidController, viaCanister(bob), m, only(id))
	}
	w.fails(CodeCanisterContractViolation, alice, "upload_chunk", UploadChunkArgs{CanisterID: id.Bytes()})
	w.fails(CodeCanisterContractViolation, alice, "upload_chunk", UploadChunkArgs{CanisterID: id.Bytes(), Chunk: make([]byte, 1<<20+1)})
	w.do(as(id, 0), "clear_chunk_store", only(id))
	equal(w, "memory usage", w.refresh(id).MemoryUsage, before.MemoryUsage)
}

// madeElsewhere makes a canister with code as another program does.
func madeElsewhere(w *world) (id engine.CanisterID, wasm []byte) {
	w.Helper()
	id = absent(w)
	c, err := w.e.CreateCanister(w.ctx, id)
	if err != nil {
		w.Fatal(err)
	}
	mem, err := c.Memory(engine.WasmModule)
	wasm = simple().wasm("adopted")
	if err != nil || mem.Resize(uint64(len(wasm))) != nil {
		w.Fatal(err)
	}
	if _, err := mem.WriteAt(wasm, 0); err != nil {
		w.Fatal(err)
	}
	return id, wasm
}

// A canister that another program made is taken in once.
func TestAdopt(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	id, wasm := madeElsewhere(w)
	w.fails(CodeCanisterNotFound, alice, "canister_status", only(id))
	if err := w.s.Adopt(w.ctx, id, alice.Principal); err != nil {
		t.Fatal(err)
	}
	w.check()
	sum := hashOf(wasm)
	equal(w, "module", string(*w.status(id).ModuleHash), string(sum[:]))
	if err := w.s.Adopt(w.ctx, id, bob.Principal); !errors.Is(err, engine.ErrExists) {
		t.Errorf("adopted twice: %v", err)
	}
	w.reopen()
	w.do(alice, "provisional_top_up_canister", ProvisionalTopUpArgs{CanisterID: id.Bytes(), Amount: nat(10 * trillion)})
	w.take(id)
	other, err := engine.CanisterIDFromBytes([]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.e.CreateCanisterHost(w.ctx, other, []byte("not ours")); err != nil {
		t.Fatal(err)
	}
	if err := w.s.Adopt(w.ctx, other); !errors.Is(err, engine.ErrExists) {
		t.Errorf("adopted from another program: %v", err)
	}
	if _, err := New(w.ctx, w.e, nil, nil); !errors.Is(err, errState) {
		t.Errorf("a Service over a blob of another program: %v", err)
	}
}

// Calls on many canisters at once, and on one, leave ledgers that balance. The
// subnet's memory is never given out twice.
func TestParallelCalls(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	ids := []engine.CanisterID{w.user(), w.user(), w.user(), w.user()}
	size := w.snapshotSize(ids[0])
	capacity := w.s.Ledger().Allocated + 6*size
	w.h.subnet.MemoryCapacity = capacity
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			id, other := ids[i%4], ids[(i+1)%4]
			for range 15 {
				reply, err := w.s.Call(w.ctx, alice, "take_canister_snapshot", w.arg(takeArgs(id)))
				if n := w.s.Ledger().Allocated; n > capacity {
					t.Errorf("%d bytes of %d are given out", n, capacity)
				}
				if err != nil {
					continue
				}
				snap := decode[SnapshotRecord](w, reply).ID
				for _, c := range []struct {
					method string
					arg    any
				}{
					{"load_canister_snapshot", loadArgs(other, snap)},
					{"list_canister_snapshots", only(other)},
					{"read_canister_snapshot_data", readArgs(id, snap, wasmAt(0, 100))},
					{"delete_canister_snapshot", snapArgs(id, snap)},
				} {
					var r *Reject
					if _, err := w.s.Call(w.ctx, alice, c.method, w.arg(c.arg)); err != nil && (!errors.As(err, &r) || r.ErrorCode == CodeStorage) {
						t.Errorf("%s: %v", c.method, errors.Unwrap(err))
					}
				}
			}
		})
	}
	wg.Wait()
	w.check()
	w.reopen()
	w.check()
}

// ParseModule does no harm, whatever it is given.
func FuzzParseModule(f *testing.F) {
	m := simple()
	m.hook, m.custom = true, 3
	f.Add(m.wasm("seed"))
	f.Add([]byte("\x00asm\x01\x00\x00\x00\x06\x04\xff\xff\xff\x7f"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseModule(b)
		if (m == nil) == (err == nil) {
			t.Fatal(m, err)
		}
	})
}

func TestParseModule(t *testing.T) {
	t.Parallel()
	want := module{
		pages: 7, wasm64: true, hook: true, custom: 10,
		globals: []GlobalType{{manifest.GlobalI32, true, true}, {manifest.GlobalI64, false, true}, {manifest.GlobalF32, true, false}, {manifest.GlobalF64, false, false}, {manifest.GlobalV128, true, true}},
	}
	plain := want.wasm("x")
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write(plain); err != nil || z.Close() != nil {
		t.Fatal(err)
	}
	for _, wasm := range [][]byte{plain, packed.Bytes()} {
		m, err := ParseModule(wasm)
		if err != nil {
			t.Fatal(err)
		}
		if m.InitialMemory != 7<<16 || !m.Wasm64 || !m.LowMemoryHook || m.CustomSections < 10 || fmt.Sprint(m.Globals) != fmt.Sprint(want.globals) || len(m.captured()) != 4 {
			t.Errorf("%+v", m)
		}
	}
	// A module of a real compiler: 33 pages, 28 of 33 globals mutable.
	real, err := os.ReadFile("../testdata/motoko-register/register.wasm")
	if err != nil {
		t.Fatal(err)
	}
	if m, err := ParseModule(real); err != nil || m.InitialMemory != 33<<16 || len(m.Globals) != 33 || len(m.captured()) != 28 || m.CustomSections == 0 || m.Wasm64 {
		t.Errorf("%+v: %v", m, err)
	}
	for n := range plain {
		if m, err := ParseModule(plain[:n]); err == nil && n < 8 {
			t.Errorf("%d bytes are a module: %+v", n, m)
		}
	}
}

// Imports come first in the numbering of globals, and may bring the memory.
func TestParseImports(t *testing.T) {
	t.Parallel()
	body := []byte{
		5,
		3, 'i', 'c', '0', 1, 'f', 0, 7, // a function of type 7
		1, 'm', 1, 't', 1, 0x70, 1, 2, 9, // a table of 2 to 9 references
		1, 'm', 1, 'm', 2, 4, 3, // a 64-bit memory of 3 pages
		1, 'm', 1, 'g', 3, 0x7e, 0, // a global
		1, 'm', 1, 'e', 4, 0, 2, // a tag
	}
	wasm := slices.Concat([]byte("\x00asm\x01\x00\x00\x00"),
		[]byte{2, byte(len(body))}, body,
		[]byte{6, 14, 2, 0x7f, 1, 0x23, 0, 0x0b, 0x7f, 0, 0x41, 1, 0x41, 2, 0x6a, 0x0b}, // global.get, 1 + 2
		[]byte{7, 9, 2, 1, 'a', 3, 0, 1, 'b', 3, 2})                                     // the imported one, and the second of its own
	m, err := ParseModule(wasm)
	if err != nil {
		t.Fatal(err)
	}
	want := []GlobalType{{manifest.GlobalI32, true, false}, {manifest.GlobalI32, false, true}}
	if fmt.Sprint(m.Globals) != fmt.Sprint(want) || !m.Wasm64 || m.InitialMemory != 3<<16 {
		t.Errorf("%+v", m)
	}
	for i := range wasm {
		if m, err := ParseModule(wasm[:i]); i > 8 && m == nil && err == nil {
			t.Fatal("neither a module nor an error")
		}
	}
}

// A chunk that is refused leaves nothing behind, whatever it says.
func TestRefusedChunksLeaveNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	id := w.empty()
	w.chunk(id, []byte("kept"))
	for i := range 5 {
		big := append(make([]byte, 1<<20), byte(i))
		w.fails(CodeCanisterContractViolation, alice, "upload_chunk", UploadChunkArgs{CanisterID: id.Bytes(), Chunk: big})
	}
	w.fund(id, Cycles{})
	for i := range 5 {
		w.fails(CodeInsufficientCyclesMemoryGrow, alice, "upload_chunk", UploadChunkArgs{CanisterID: id.Bytes(), Chunk: []byte{byte(i)}})
	}
	equal(w, "sections", len(w.s.lookup(id).live.Sections()), 1)
}

// No ingress message of a stranger gets in for a canister's snapshots, by no
// name of a method.
func TestAdmitByEveryName(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	id := w.user()
	for _, m := range Methods() {
		if !strings.Contains(m, "snapshot") {
			continue
		}
		arg := w.arg(only(id))
		var r *Reject
		errors.As(w.s.Admit(bob, m, arg), &r)
		w.rejected(r, CodeCanisterInvalidController, m)
		for _, by := range []Caller{alice, viaCanister(bob)} {
			if err := w.s.Admit(by, m, arg); err != nil {
				t.Errorf("%s: %v", m, err)
			}
		}
	}
}

// Who says what is kept may ask the Service, and a canister that is deleted
// meanwhile does not keep the others.
func TestKeepAsks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	ids := []engine.CanisterID{w.user(), w.user(), w.user()}
	w.do(alice, "stop_canister", only(ids[1]))
	done := make(chan error, 1)
	go func() {
		done <- w.s.Keep(w.ctx, func(id engine.CanisterID) bool {
			if id == ids[1] {
				if err := w.s.DeleteCanister(w.ctx, alice, only(id)); err != nil {
					t.Error(err)
				}
			}
			return id == ids[2]
		})
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("Keep waits for itself")
	}
	equal(w, "canisters", len(w.s.Canisters()), 1)
	w.check()
}

// What modules say of themselves is kept, so none may say much.
func TestModuleWithTooMuch(t *testing.T) {
	t.Parallel()
	many := make([]GlobalType, maxGlobals+1)
	for i := range many {
		many[i].Kind = manifest.GlobalI32
	}
	if _, err := ParseModule(module{globals: many[1:]}.wasm("x")); err != nil {
		t.Error(err)
	}
	if _, err := ParseModule(module{globals: many}.wasm("x")); err == nil {
		t.Errorf("a module has %d globals", len(many))
	}
	start := []byte("\x00asm\x01\x00\x00\x00")
	global, custom := []byte{6, 6, 1, 0x7f, 0, 0x41, 0, 0x0b}, []byte{0, 3, 1, 'x', 7}
	if _, err := ParseModule(slices.Concat(start, global, global)); err == nil {
		t.Error("a module has its globals twice")
	}
	if _, err := ParseModule(slices.Concat(start, custom, global, custom)); err != nil {
		t.Error(err)
	}
}

// A module that is small only as long as it is packed is too large.
func TestPackedModule(t *testing.T) {
	if testing.Short() {
		t.Skip("unpacks 100 MiB")
	}
	var packed bytes.Buffer
	z, err := gzip.NewWriterLevel(&packed, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	zeros := make([]byte, 1<<20)
	for range 101 {
		if _, err := z.Write(zeros); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := ParseModule(packed.Bytes()); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("%d bytes that unpack to 101 MiB: %v", packed.Len(), err)
	}
}

// 32-bit code can not have the memory that its canister could have with 64-bit
// code, for which the upload was begun.
func TestUploadTooLargeForItsModule(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	id := w.empty()
	w.install(id, module{pages: 1, wasm64: true}.wasm("64"))
	small, large := module{pages: 1}.wasm("32"), module{pages: 1, wasm64: true}.wasm("64 again")
	snap := w.begin(declare(id, uint64(len(small)), 4<<30+1<<16, 0))
	w.upload(id, snap, toModule(0), small)
	w.fails(CodeInvalidManagementPayload, alice, "load_canister_snapshot", loadArgs(id, snap), "inconsistent")
	snap = w.begin(declare(id, uint64(len(large)), 4<<30+1<<16, 0))
	w.upload(id, snap, toModule(0), large)
	w.load(id, snap)
}

// The typed methods refuse what no message can say, and the record of a
// canister would not hold.
func TestTypedSettings(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	id := w.user()
	long := []candid.Principal{alice.Principal, make([]byte, 30)}
	vars := []EnvironmentVariable{{"name", "\xff"}}
	before := w.status(id)
	for _, set := range []CanisterSettings{
		{Controllers: &long},
		{LogVisibility: &VisibilityVariant{AllowedViewers: &long}},
		{SnapshotVisibility: &VisibilityVariant{AllowedViewers: &long}},
		{StatusVisibility: &VisibilityVariant{AllowedViewers: &long}},
		{EnvironmentVariables: &vars},
	} {
		var r *Reject
		errors.As(w.s.UpdateSettings(w.ctx, alice, UpdateSettingsArgs{CanisterID: id.Bytes(), Settings: set}), &r)
		w.rejected(r, CodeInvalidManagementPayload, "update_settings")
	}
	equal(w, "version", w.status(id).Version, before.Version)
}

// A canister whose live state can not be read is served like others, as far as
// it goes: it can load a snapshot, which is the way out. Others do not notice.
func TestLiveStateThatCanNotBeRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	id, other := w.user(), w.user()
	w.write(id, engine.WasmMemory, 3, "then")
	snap := w.take(id).ID
	w.write(id, engine.WasmMemory, 3, "now!")
	if err := w.s.Flush(w.ctx, id); err != nil {
		t.Fatal(err)
	}
	info, err := w.s.lookup(id).live.Info()
	if err != nil {
		t.Fatal(err)
	}
	at, ok, err := w.e.Entry(info.HeadRoot)
	for err == nil && !ok {
		time.Sleep(time.Millisecond) // until it is applied
		at, ok, err = w.e.Entry(info.HeadRoot)
	}
	if err != nil || w.e.Close() != nil {
		t.Fatal(err)
	}
	name := "store/log/" + seglog.SegmentID(at.Segment).String() + ".seg"
	if err := w.disk.Edit(name, func(p []byte) { p[int(at.Offset)+int(at.Length)-5] ^= 8 }); err != nil {
		t.Fatal(err)
	}
	w.fs = w.disk.Mount()
	w.open()
	if r := w.try("take_canister_snapshot", takeArgs(other)); r != nil {
		t.Error(r)
	}
	r := w.try("take_canister_snapshot", takeArgs(id))
	if w.rejected(r, CodeStorage, "a take"); !errors.Is(r.Err, engine.ErrCorrupt) {
		t.Error(r.Err)
	}
	if r := w.try("load_canister_snapshot", loadArgs(id, snap)); r != nil {
		t.Fatal(r)
	}
	w.holds(id, engine.WasmMemory, 3, "then")
	w.take(id)
}

// What a crash left to do on one canister, and can not be done yet, keeps
// nobody else from being served; the next call on that canister does it.
func TestNewWithoutADisk(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	id, other := w.user(), w.user()
	c := w.s.lookup(id)
	st := c.state().clone()
	st.forget()
	st.pending = pendingUninstall
	if err := w.s.commit(w.ctx, c, st); err != nil || w.e.Close() != nil {
		t.Fatal(err)
	}
	w.fs = w.disk.Mount()
	var err error
	if w.e, err = engine.Open("store", w.options()); err != nil {
		t.Fatal(err)
	}
	w.fs.Inject(&testkit.Fault{Kind: testkit.OpWrite | testkit.OpSync, Times: 1})
	if w.s, err = New(w.ctx, w.e, w.h, &w.cfg); err != nil {
		t.Fatal(err)
	}
	w.fs.Inject()
	equal(w, "memory", w.s.Ledger().Allocated > w.refresh(other).Allocated, true)
	w.refresh(id)
	w.check()
	equal(w, "module", w.mem(id, engine.WasmModule).Size(), 0)
	w.reopen()
	w.check()
}

// What the store could not do is not the canister's to pay.
func TestFailingDiskIsFree(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	id := w.user()
	w.write(id, engine.WasmMemory, 3, "then")
	snap, up := w.take(id).ID, w.begin(declare(id, 8192, 0, 0))
	w.upload(id, up, toModule(0), []byte(strings.Repeat("x", 8192)))
	if err := w.s.Flush(w.ctx, id); err != nil {
		t.Fatal(err)
	}
	w.reopen() // so that nothing is in a cache
	before := w.balance(id)
	w.fs.Inject(&testkit.Fault{Kind: testkit.OpRead})
	for _, c := range []struct {
		method string
		arg    any
	}{
		{"read_canister_snapshot_data", readArgs(id, snap, wasmAt(0, 10))},
		{"upload_canister_snapshot_data", writeArgs(id, up, toModule(5), []byte("data"))},
	} {
		w.rejected(w.try(c.method, c.arg), CodeStorage, c.method)
		equal(w, "balance after "+c.method, w.balance(id), before)
	}
	w.fs.Inject()
	w.check()
}

// A write that the disk does not let reach its end has not begun: the pages
// that it covers in part are read before any is written.
func TestWriteOfAnUploadIsWhole(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	id := w.user()
	old, fresh := strings.Repeat("x", 3*4096), strings.Repeat("y", 2*4096+90)
	snap := w.begin(declare(id, 3*4096, 0, 0))
	w.upload(id, snap, toModule(0), []byte(old))
	// Two pages that are not written together, so that they are read apart.
	for i := range 3 {
		w.upload(id, snap, toModule(uint64(i)*4096), []byte{byte('a' + i)})
		if err := w.s.Flush(w.ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	before := w.read(id, snap, moduleAt(0, 3*4096))
	for after := 0; ; after++ {
		w.reopen() // so that nothing is in a cache
		w.fs.Inject(&testkit.Fault{Kind: testkit.OpRead, After: after})
		r := w.try("upload_canister_snapshot_data", writeArgs(id, snap, toModule(5), []byte(fresh)))
		w.fs.Inject()
		if r == nil {
			if after == 0 {
				t.Error("nothing was read")
			}
			break
		}
		w.rejected(r, CodeStorage, "a write")
		if got := w.read(id, snap, moduleAt(0, 3*4096)); !bytes.Equal(got, before) {
			t.Fatalf("a write that failed at read %d wrote something", after)
		}
	}
}
