package management

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/testkit"
	"github.com/snapstore/snapstore/management/candid"
	"github.com/snapstore/snapstore/manifest"
)

// row is one row of the conformance table: what is there, what is called, what
// must come of it. Its test is a subtest of the row's id.
type row struct {
	id, setup, call, want string
	// mark says how the expectation is known: T an upstream test, S the
	// specification, C read in source, I inferred.
	mark string
	// chose says what was chosen where the table leaves a choice, or what
	// stands in for a replica.
	chose string
	// cannot is why the row can not hold; there is no test then.
	cannot string
	run    func(w *world)
}

// conformanceRows are all rows, in the order of the document.
func conformanceRows() []row {
	return slices.Concat(takeRows(), loadRows(), listDeleteRows(), readRows(), uploadRows(), idRows())
}

func TestConformance(t *testing.T) {
	t.Parallel()
	for _, r := range conformanceRows() {
		t.Run(r.id, func(t *testing.T) {
			t.Parallel()
			if r.cannot != "" {
				t.Skip(r.cannot)
			}
			w := newWorld(t, nil)
			r.run(w)
			w.check()
		})
	}
}

var update = flag.Bool("update", false, "write docs/conformance.md anew")

// The document lists the rows that there are, and no row is missing or twice.
func TestConformanceDoc(t *testing.T) {
	t.Parallel()
	rows := conformanceRows()
	seen := map[string]bool{}
	for _, r := range rows {
		if seen[r.id] {
			t.Errorf("row %s is there twice", r.id)
		}
		seen[r.id] = true
		if (r.run == nil) != (r.cannot != "") {
			t.Errorf("row %s has a test and a reason not to have one, or neither", r.id)
		}
	}
	for _, n := range []struct {
		prefix string
		count  int
	}{{"TK", 51}, {"LD", 36}, {"LS", 9}, {"DL", 9}, {"LC", 10}, {"RD", 19}, {"UP", 32}, {"ID", 5}} {
		for i := 1; i <= n.count; i++ {
			if id := fmt.Sprintf("%s%02d", n.prefix, i); !seen[id] {
				t.Errorf("row %s is missing", id)
			}
		}
	}
	for i := 101; i <= 104; i++ {
		if id := fmt.Sprintf("L%d", i); !seen[id] {
			t.Errorf("row %s is missing", id)
		}
	}
	const path = "../docs/conformance.md"
	want := conformanceDoc(rows)
	if *update {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("docs/conformance.md is not what the rows say (%v): go test ./management -run TestConformanceDoc -update", err)
	}
}

func conformanceDoc(rows []row) []byte {
	var b bytes.Buffer
	pass := 0
	for _, r := range rows {
		if r.cannot == "" {
			pass++
		}
	}
	fmt.Fprintf(&b, `# Conformance

What package management does, row by row, held against the interface of the Internet Computer's management canister.
Each row is a subtest: `+"`go test ./management -run 'TestConformance/TK01$'`"+`. It is driven through Candid bytes, and after
every call the ledgers of memory and cycles are checked. A call that is expected to fail must leave everything as it was.
This page is written by `+"`go test ./management -run TestConformanceDoc -update`"+`; the test fails when it is not up to date.

%d rows, %d pass.

How a row is known: T an upstream test asserts it, S the specification says it, C it was read in the replica's source, I
it is inferred. U is a canister with code that the caller controls, E one without code, L the limit on snapshots; numbers
are error codes. A note says what was chosen where there is a choice, and what stands in for a replica.

| row | given | call | expected | known by | result | note |
|---|---|---|---|---|---|---|
`, len(rows), pass)
	for _, r := range rows {
		result, note := "pass", r.chose
		if r.cannot != "" {
			result, note = "can not hold", r.cannot
		}
		cells := []string{r.id, r.setup, r.call, r.want, r.mark, result, note}
		for i := range cells {
			cells[i] = strings.ReplaceAll(cells[i], "|", "\\|")
		}
		fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | "))
	}
	return b.Bytes()
}

// double is a Host that does what a test says.
type double struct {
	DefaultHost
	mu         sync.Mutex
	now        uint64
	subnet     Subnet
	long       map[engine.CanisterID]bool
	open       map[engine.CanisterID]int
	closed     map[engine.CanisterID]*Reject
	logs       map[engine.CanisterID]uint64
	unflushed  map[engine.SnapshotID]bool
	events     []string
	compiled   int
	runInstall func(Installation) (Installed, error)
	stopErr    error
	onStop     func()
}

func newDouble() *double {
	h := &double{
		now: 1_700_000_000_000_000_000, long: map[engine.CanisterID]bool{}, open: map[engine.CanisterID]int{},
		closed: map[engine.CanisterID]*Reject{}, logs: map[engine.CanisterID]uint64{}, unflushed: map[engine.SnapshotID]bool{},
	}
	h.subnet = h.DefaultHost.Subnet()
	return h
}

func (h *double) Time() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now
}

func (h *double) Subnet() Subnet {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.subnet
}

func (h *double) Compile(ctx context.Context, wasm []byte) (*Module, error) {
	h.mu.Lock()
	h.compiled++
	h.mu.Unlock()
	return h.DefaultHost.Compile(ctx, wasm)
}

func (h *double) RunInstall(ctx context.Context, in Installation) (Installed, error) {
	if h.runInstall != nil {
		return h.runInstall(in)
	}
	return h.DefaultHost.RunInstall(ctx, in)
}

func (h *double) LongExecution(id engine.CanisterID) bool { return h.long[id] }

func (h *double) OpenCallContexts(id engine.CanisterID) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.open[id]
}

func (h *double) CloseCallContexts(_ context.Context, id engine.CanisterID, with *Reject) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.open[id] = 0
	h.closed[id] = with
}

func (h *double) Stopped(_ context.Context, id engine.CanisterID) error {
	if h.onStop != nil {
		h.onStop()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stopErr == nil {
		h.open[id] = 0
	}
	return h.stopErr
}

func (h *double) Happened(_ context.Context, id engine.CanisterID, what EventKind) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, fmt.Sprintf("%s %d", id, what))
}

func (h *double) Loadable(id engine.SnapshotID) bool { return !h.unflushed[id] }

func (h *double) LogBytes(id engine.CanisterID) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.logs[id]
}

func (h *double) ClearLog(_ context.Context, id engine.CanisterID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.logs[id] = 0
}

// world is a store on a disk in memory, with a Service over a double.
type world struct {
	testing.TB
	ctx  context.Context
	disk *testkit.Disk
	fs   *testkit.FS
	e    *engine.Engine
	h    *double
	s    *Service
	cfg  Config
}

// The people: alice controls what the kit makes, bob something else.
var (
	alice = Caller{Principal: []byte("alice user principal .......\x02")}
	bob   = Caller{Principal: []byte("bob user principal .........\x02")}
)

// as is a call of a canister.
func as(id engine.CanisterID, version uint64) Caller {
	return Caller{Principal: id.Bytes(), Canister: true, Version: version}
}

// viaCanister makes a caller one that calls from a canister of that name, so
// that no admission of ingress stands before the call.
func viaCanister(c Caller) Caller {
	c.Canister = true
	return c
}

func newWorld(t testing.TB, change func(*Config)) *world {
	t.Helper()
	w := &world{TB: t, ctx: context.Background(), disk: testkit.NewDisk(), h: newDouble(), cfg: Config{Provisional: true}}
	if change != nil {
		change(&w.cfg)
	}
	w.fs = w.disk.Mount()
	if err := engine.Create("store", w.options()); err != nil {
		t.Fatal(err)
	}
	w.open()
	t.Cleanup(func() { w.e.Close() })
	return w
}

func (w *world) options() *engine.Options {
	return &engine.Options{
		FS: w.fs, NoBackground: true, Ballast: -1, SnapshotLimit: 1024, SegmentSize: 8 << 20, MemTable: 1 << 20,
		PageCache: 1 << 20, NodeCache: 1 << 20, IndexCache: 1 << 20, IdleSync: time.Hour,
	}
}

func (w *world) open() {
	w.Helper()
	var err error
	if w.e, err = engine.Open("store", w.options()); err != nil {
		w.Fatal(err)
	}
	if w.s, err = New(w.ctx, w.e, w.h, &w.cfg); err != nil {
		w.Fatal(err)
	}
}

// with changes the configuration, for rows that need another one.
func (w *world) with(change func(*Config)) {
	w.Helper()
	change(&w.cfg)
	w.reopen()
}

// reopen closes and opens the store, as a restart does.
func (w *world) reopen() {
	w.Helper()
	if err := w.e.Close(); err != nil {
		w.Fatal(err)
	}
	w.fs = w.disk.Mount()
	w.open()
}

// raw calls with bytes, and holds what came of it to the promises: a reject
// leaves everything as it was, but for a fee that some methods charge.
func (w *world) raw(by Caller, method string, arg []byte) ([]byte, *Reject) {
	w.Helper()
	before := w.print()
	reply, err := w.s.Call(w.ctx, by, method, arg)
	w.check()
	if err == nil {
		return reply, nil
	}
	var r *Reject
	if !errors.As(err, &r) {
		w.Fatalf("%s: error %v is no reject", method, err)
	}
	if r.Code != r.ErrorCode.Reject() || r.Message == "" {
		w.Fatalf("%s: reject code %d with error code %d: %q", method, r.Code, r.ErrorCode, r.Message)
	}
	after := w.print()
	if method == "read_canister_snapshot_data" || method == "upload_canister_snapshot_data" {
		before.paid, after.paid = "", ""
	}
	if before != after {
		w.Fatalf("%s was rejected (%v) and changed something:\n%s", method, r, changed(before, after))
	}
	return nil, r
}

// arg encodes an argument.
func (w *world) arg(args ...any) []byte {
	w.Helper()
	b, err := candid.Marshal(args...)
	if err != nil {
		w.Fatal(err)
	}
	return b
}

// do calls and wants a reply.
func (w *world) do(by Caller, method string, arg any) []byte {
	w.Helper()
	reply, r := w.raw(by, method, w.arg(arg))
	if r != nil {
		w.Fatalf("%s: %v %v", method, r.ErrorCode, r)
	}
	return reply
}

// fails calls and wants a reject with the code, and what is in its message.
func (w *world) fails(code ErrorCode, by Caller, method string, arg any, words ...string) *Reject {
	w.Helper()
	_, r := w.raw(by, method, w.arg(arg))
	return w.rejected(r, code, method, words...)
}

func (w *world) rejected(r *Reject, code ErrorCode, what string, words ...string) *Reject {
	w.Helper()
	if r == nil {
		w.Fatalf("%s went through, want %v", what, code)
	}
	if r.ErrorCode != code {
		w.Fatalf("%s: %v %v, want %v", what, r.ErrorCode, r, code)
	}
	for _, word := range words {
		if !strings.Contains(r.Message, word) {
			w.Fatalf("%s: %q does not say %q", what, r.Message, word)
		}
	}
	return r
}

// decode reads a reply.
func decode[T any](w *world, reply []byte) (out T) {
	w.Helper()
	if err := candid.Unmarshal(reply, candid.Limits{}, &out); err != nil {
		w.Fatal(err)
	}
	return out
}

// fingerprint is all that a rejected call must not change; paid is what the
// canisters have in cycles.
type fingerprint struct{ rest, paid string }

// changed shows the lines in which two fingerprints differ.
func changed(a, b fingerprint) string {
	var out strings.Builder
	x, y := strings.Split(a.rest+"\n"+a.paid, "\n"), strings.Split(b.rest+"\n"+b.paid, "\n")
	for i := range min(len(x), len(y)) {
		if x[i] != y[i] {
			fmt.Fprintf(&out, "- %s\n+ %s\n", x[i], y[i])
		}
	}
	fmt.Fprintf(&out, "%d lines before, %d after", len(x), len(y))
	return out.String()
}

func (w *world) print() fingerprint {
	w.Helper()
	var rest, paid strings.Builder
	for _, id := range w.ids() {
		c := w.s.lookup(id)
		st := c.state().clone()
		fmt.Fprintf(&paid, " %v/%v", st.balance, st.reserved)
		st.balance, st.reserved = Cycles{}, Cycles{}
		info, err := w.e.Canister(id)
		if err != nil {
			w.Fatal(err)
		}
		in, err := info.Info()
		if err != nil {
			w.Fatal(err)
		}
		fmt.Fprintf(&rest, "%s %+v\n  %d %v %+v %v\n", id, *st, c.debit, in.HeadRoot, in.Sequence, c.live.Metadata())
		for _, sec := range c.live.Sections() {
			if mem := w.mem(id, sec); mem.Size() > 0 {
				fmt.Fprintf(&rest, "  %v %d bytes %d dirty\n", sec, mem.Size(), mem.DirtyPages())
			}
		}
		for s, err := range w.e.Snapshots(id) {
			fmt.Fprintf(&rest, "  %+v %v\n", s, err)
		}
	}
	l := w.s.Ledger()
	fmt.Fprintf(&paid, " burned %v", l.Burned)
	fmt.Fprintf(&rest, "allocated %d, delta %d, minted %v, sequence %d", l.Allocated, l.HeapDelta, l.Minted, w.e.Sequence())
	return fingerprint{rest.String(), paid.String()}
}

func (w *world) ids() []engine.CanisterID {
	ids := w.s.Canisters()
	slices.SortFunc(ids, engine.CanisterID.Compare)
	return ids
}

// check holds the Service to its ledgers: memory that canisters report is that
// of their sections and snapshots and what the subnet has less of, and no
// cycle came from nowhere or went there.
func (w *world) check() {
	w.Helper()
	var total uint64
	var cycles Cycles
	for _, id := range w.ids() {
		c := w.s.lookup(id)
		st := c.state()
		var snapshots, wasm uint64
		for s, err := range w.e.Snapshots(id) {
			if err != nil {
				w.Fatal(err)
			}
			snapshots += s.Size
		}
		info, err := c.live.Info()
		if err != nil {
			w.Fatal(err)
		}
		u, err := w.s.usageOf(c, st)
		if err != nil {
			w.Fatal(err)
		}
		for _, sec := range c.live.Sections() {
			n := w.mem(id, sec).Size()
			if sec.Kind == manifest.WasmChunk && n > 0 {
				n = 1 << 20
			}
			wasm += n
		}
		if u.snapshots != snapshots || info.SnapshotsLogical != snapshots {
			w.Fatalf("%s: snapshots have %d bytes, reported are %d, recorded %d", id, snapshots, u.snapshots, info.SnapshotsLogical)
		}
		if got := u.total(); got != wasm+u.globals+u.custom+u.history+u.log+snapshots {
			w.Fatalf("%s: memory usage %d is not the sum %+v", id, got, u)
		}
		if want := max(st.set.memoryAllocation, u.total()); c.counted != want || c.held != 0 {
			w.Fatalf("%s: %d bytes are counted and %d held, want %d", id, c.counted, c.held, want)
		}
		if st.pending != 0 || c.revert {
			w.Fatalf("%s: %d is pending", id, st.pending)
		}
		total += c.counted
		cycles = cycles.Add(st.balance).Add(st.reserved)
		if blob, err := st.encode(); err != nil {
			w.Fatal(err)
		} else if got, err := decodeState(blob); err != nil || fmt.Sprintf("%+v", *got) != fmt.Sprintf("%+v", *st) {
			w.Fatalf("%s: a state does not survive: %v\n%+v\n%+v", id, err, *got, *st)
		}
	}
	l := w.s.Ledger()
	if l.Allocated != total {
		w.Fatalf("the subnet has %d bytes less, canisters have %d", l.Allocated, total)
	}
	if left := l.Minted.Sub(l.Burned); left != cycles || l.Minted.Less(l.Burned) {
		w.Fatalf("%v cycles minted, %v burned, but canisters have %v", l.Minted, l.Burned, cycles)
	}
}

// mem is a section of the live state, as the host that runs code has it.
func (w *world) mem(id engine.CanisterID, sec engine.Section) *engine.Memory {
	w.Helper()
	c, err := w.e.Canister(id)
	if err != nil {
		w.Fatal(err)
	}
	m, err := c.Memory(sec)
	if err != nil {
		w.Fatal(err)
	}
	return m
}

// grow sets the size of a memory, in bytes.
func (w *world) grow(id engine.CanisterID, sec engine.Section, size uint64) {
	w.Helper()
	if err := w.mem(id, sec).Resize(size); err != nil {
		w.Fatal(err)
	}
	w.refresh(id)
}

// refresh lets the Service see what the host changed.
func (w *world) refresh(id engine.CanisterID) View {
	w.Helper()
	v, err := w.s.Canister(w.ctx, id)
	if err != nil {
		w.Fatal(err)
	}
	return v
}

// write writes to a memory, which is large enough.
func (w *world) write(id engine.CanisterID, sec engine.Section, off int64, data string) {
	w.Helper()
	if _, err := w.mem(id, sec).WriteAt([]byte(data), off); err != nil {
		w.Fatal(err)
	}
}

// holds wants bytes in a memory of the live state.
func (w *world) holds(id engine.CanisterID, sec engine.Section, off int64, data string) {
	w.Helper()
	got := make([]byte, len(data))
	if _, err := w.mem(id, sec).ReadAt(got, off); err != nil || string(got) != data {
		w.Fatalf("%s %v at %d: %q (%v), want %q", id, sec, off, got, err, data)
	}
}

// run changes what running code changes.
func (w *world) run(id engine.CanisterID, f func(*Execution)) {
	w.Helper()
	if err := w.s.Execute(w.ctx, id, func(x *Execution) error { f(x); return nil }); err != nil {
		w.Fatal(err)
	}
}

// fund sets the balance.
func (w *world) fund(id engine.CanisterID, balance Cycles) {
	w.Helper()
	w.run(id, func(x *Execution) { x.Cycles = balance })
}

func (w *world) balance(id engine.CanisterID) Cycles {
	w.Helper()
	return w.refresh(id).Cycles
}

// module describes a Wasm module for tests.
type module struct {
	globals []GlobalType
	pages   uint32
	wasm64  bool
	hook    bool
	custom  int // bytes
}

// wasm builds it; tag makes it another one.
func (m module) wasm(tag string) []byte {
	leb := func(n uint32) []byte {
		var b []byte
		for n >= 0x80 {
			b = append(b, byte(n)|0x80)
			n >>= 7
		}
		return append(b, byte(n))
	}
	b := []byte("\x00asm\x01\x00\x00\x00")
	section := func(id byte, body []byte) { b = append(append(append(b, id), leb(uint32(len(body)))...), body...) }
	name := func(s string) []byte { return append(leb(uint32(len(s))), s...) }
	flags := byte(0)
	if m.wasm64 {
		flags = 4
	}
	section(5, append([]byte{1, flags}, leb(m.pages)...))
	var globals, exports []byte
	n := 0
	for i, g := range m.globals {
		kind := map[GlobalKind][]byte{
			manifest.GlobalI32: {0x7f}, manifest.GlobalI64: {0x7e}, manifest.GlobalF32: {0x7d}, manifest.GlobalF64: {0x7c}, manifest.GlobalV128: {0x7b},
		}[g.Kind]
		init := map[GlobalKind][]byte{
			manifest.GlobalI32: {0x41, 0}, manifest.GlobalI64: {0x42, 0}, manifest.GlobalF32: append([]byte{0x43}, make([]byte, 4)...),
			manifest.GlobalF64: append([]byte{0x44}, make([]byte, 8)...), manifest.GlobalV128: append([]byte{0xfd, 12}, make([]byte, 16)...),
		}[g.Kind]
		mut := byte(0)
		if g.Mutable {
			mut = 1
		}
		globals = slices.Concat(globals, kind, []byte{mut}, init, []byte{0x0b})
		if g.Exported {
			exports = slices.Concat(exports, name(fmt.Sprintf("g%d", i)), []byte{3}, leb(uint32(i)))
			n++
		}
	}
	if len(m.globals) > 0 {
		section(6, append(leb(uint32(len(m.globals))), globals...))
	}
	if m.hook {
		exports = slices.Concat(exports, name("canister_on_low_wasm_memory"), []byte{0, 0})
		n++
	}
	if n > 0 {
		section(7, append(leb(uint32(n)), exports...))
	}
	if m.custom > 0 {
		section(0, append(name("icp:public test"), make([]byte, m.custom)...))
	}
	section(0, append(name("tag"), tag...))
	return b
}

// simple is a module with one page and two mutable globals, one exported.
func simple() module {
	return module{pages: 1, globals: []GlobalType{{manifest.GlobalI32, true, true}, {manifest.GlobalI64, true, false}}}
}

const trillion = 1_000_000_000_000

// empty makes a canister without code, of alice, with 1,000 trillion cycles.
func (w *world) empty() engine.CanisterID {
	w.Helper()
	amount := nat(1000 * trillion)
	limit := natOf(NewCycles(1000 * trillion).Mul(1000))
	reply := w.do(alice, "provisional_create_canister_with_cycles", ProvisionalCreateArgs{
		Amount: &amount, Settings: &CanisterSettings{ReservedCyclesLimit: &limit},
	})
	id, err := engine.CanisterIDFromBytes(decode[CreateCanisterResult](w, reply).CanisterID)
	if err != nil {
		w.Fatal(err)
	}
	return id
}

// user makes a canister with code.
func (w *world) user() engine.CanisterID {
	w.Helper()
	id := w.empty()
	w.install(id, simple().wasm("first"))
	return id
}

func (w *world) install(id engine.CanisterID, wasm []byte) {
	w.Helper()
	w.do(alice, "install_code", InstallCodeArgs{Mode: InstallMode{Install: &candid.Null{}}, CanisterID: id.Bytes(), WasmModule: wasm})
}

func (w *world) reinstall(id engine.CanisterID, wasm []byte) {
	w.Helper()
	w.do(alice, "install_code", InstallCodeArgs{Mode: reinstallMode(), CanisterID: id.Bytes(), WasmModule: wasm})
}

// set changes settings.
func (w *world) set(id engine.CanisterID, set CanisterSettings) {
	w.Helper()
	w.do(alice, "update_settings", UpdateSettingsArgs{CanisterID: id.Bytes(), Settings: set})
}

// takeArgs is a take, in place of a snapshot where one is given.
func takeArgs(id engine.CanisterID, replace ...[]byte) TakeCanisterSnapshotArgs {
	a := TakeCanisterSnapshotArgs{CanisterID: id.Bytes()}
	if len(replace) > 0 {
		a.ReplaceSnapshot = &replace[0]
	}
	return a
}

func (w *world) take(id engine.CanisterID, replace ...[]byte) SnapshotRecord {
	w.Helper()
	return decode[SnapshotRecord](w, w.do(alice, "take_canister_snapshot", takeArgs(id, replace...)))
}

func loadArgs(id engine.CanisterID, snap []byte) LoadCanisterSnapshotArgs {
	return LoadCanisterSnapshotArgs{CanisterID: id.Bytes(), SnapshotID: snap}
}

func (w *world) load(id engine.CanisterID, snap []byte) {
	w.Helper()
	w.do(alice, "load_canister_snapshot", loadArgs(id, snap))
}

func only(id engine.CanisterID) CanisterIDArgs { return CanisterIDArgs{CanisterID: id.Bytes()} }

func (w *world) list(id engine.CanisterID) []SnapshotRecord {
	w.Helper()
	return decode[[]SnapshotRecord](w, w.do(alice, "list_canister_snapshots", only(id)))
}

func snapArgs(id engine.CanisterID, snap []byte) SnapshotArgs {
	return SnapshotArgs{CanisterID: id.Bytes(), SnapshotID: snap}
}

func (w *world) delete(id engine.CanisterID, snap []byte) {
	w.Helper()
	w.do(alice, "delete_canister_snapshot", snapArgs(id, snap))
}

func (w *world) metadata(id engine.CanisterID, snap []byte) ReadCanisterSnapshotMetadataResult {
	w.Helper()
	return decode[ReadCanisterSnapshotMetadataResult](w, w.do(alice, "read_canister_snapshot_metadata", snapArgs(id, snap)))
}

func readArgs(id engine.CanisterID, snap []byte, kind ReadKind) ReadCanisterSnapshotDataArgs {
	return ReadCanisterSnapshotDataArgs{CanisterID: id.Bytes(), SnapshotID: snap, Kind: kind}
}

func (w *world) read(id engine.CanisterID, snap []byte, kind ReadKind) []byte {
	w.Helper()
	return decode[ReadCanisterSnapshotDataResult](w, w.do(alice, "read_canister_snapshot_data", readArgs(id, snap, kind))).Chunk
}

// declare is the metadata of an upload with a module and memories of so many
// bytes.
func declare(id engine.CanisterID, wasmModule, wasmMemory, stable uint64) UploadCanisterSnapshotMetadataArgs {
	return UploadCanisterSnapshotMetadataArgs{
		CanisterID: id.Bytes(), WasmModuleSize: wasmModule, WasmMemorySize: wasmMemory, StableMemorySize: stable,
	}
}

func (w *world) begin(a UploadCanisterSnapshotMetadataArgs) []byte {
	w.Helper()
	return decode[UploadCanisterSnapshotMetadataResult](w, w.do(alice, "upload_canister_snapshot_metadata", a)).SnapshotID
}

func writeArgs(id engine.CanisterID, snap []byte, kind WriteKind, data []byte) UploadCanisterSnapshotDataArgs {
	return UploadCanisterSnapshotDataArgs{CanisterID: id.Bytes(), SnapshotID: snap, Kind: kind, Chunk: data}
}

func (w *world) upload(id engine.CanisterID, snap []byte, kind WriteKind, data []byte) {
	w.Helper()
	w.do(alice, "upload_canister_snapshot_data", writeArgs(id, snap, kind, data))
}

// The kinds of data, for short.
func moduleAt(off, n uint64) ReadKind { return ReadKind{WasmModule: &Slice{off, n}} }
func wasmAt(off, n uint64) ReadKind   { return ReadKind{WasmMemory: &Slice{off, n}} }
func stableAt(off, n uint64) ReadKind { return ReadKind{StableMemory: &Slice{off, n}} }
func chunkOf(hash []byte) ReadKind    { return ReadKind{WasmChunk: &ChunkHash{hash}} }
func toModule(off uint64) WriteKind   { return WriteKind{WasmModule: &Offset{off}} }
func toWasm(off uint64) WriteKind     { return WriteKind{WasmMemory: &Offset{off}} }
func toStable(off uint64) WriteKind   { return WriteKind{StableMemory: &Offset{off}} }
func toChunks() WriteKind             { return WriteKind{WasmChunk: &candid.Null{}} }

// chunk puts a chunk into the canister's own store.
func (w *world) chunk(id engine.CanisterID, data []byte) []byte {
	w.Helper()
	hash := decode[ChunkHash](w, w.do(alice, "upload_chunk", UploadChunkArgs{CanisterID: id.Bytes(), Chunk: data})).Hash
	if sum := sha256.Sum256(data); !bytes.Equal(hash, sum[:]) {
		w.Fatalf("chunk %x has the hash %x", sum, hash)
	}
	return hash
}

func (w *world) chunks(id engine.CanisterID) []ChunkHash {
	w.Helper()
	return decode[[]ChunkHash](w, w.do(alice, "stored_chunks", only(id)))
}

func (w *world) status(id engine.CanisterID) CanisterStatusResult {
	w.Helper()
	return decode[CanisterStatusResult](w, w.do(alice, "canister_status", only(id)))
}

// history is what canister_info has, newest last.
func (w *world) history(id engine.CanisterID) CanisterInfoResult {
	w.Helper()
	n := uint64(20)
	reply := w.do(viaCanister(bob), "canister_info", CanisterInfoArgs{CanisterID: id.Bytes(), NumRequestedChanges: &n})
	return decode[CanisterInfoResult](w, reply)
}

// execution is the price of so many instructions on 13 nodes, worked out apart
// from the code under test.
func execution(instructions uint64) Cycles { return NewCycles(5_000_000 + instructions) }

// id builds the wire form of a snapshot id.
func wireID(id engine.CanisterID, local uint64) []byte {
	return engine.SnapshotID{Canister: id, Local: local}.Bytes()
}

// absent is a canister that is not there.
func absent(w *world) engine.CanisterID {
	w.Helper()
	id, err := engine.CanisterIDFromBytes([]byte{9, 9, 9, 9, 9, 9, 9, 9, 1, 1})
	if err != nil {
		w.Fatal(err)
	}
	return id
}

// equal fails with what was got and wanted.
func equal[T comparable](w *world, what string, got, want T) {
	w.Helper()
	if got != want {
		w.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

// full makes the debit of a canister reach the limit.
func (w *world) full(id engine.CanisterID) {
	c := w.s.lookup(id)
	w.s.mu.Lock()
	c.debit = w.s.cfg.Limits.HeapDeltaRate
	w.s.mu.Unlock()
}

// snapshotSize is what a snapshot of the live state has, from its parts.
func (w *world) snapshotSize(id engine.CanisterID) uint64 {
	w.Helper()
	m := w.status(id).MemoryMetrics
	var sum uint64
	for _, n := range []candid.Nat{m.WasmMemorySize, m.StableMemorySize, m.GlobalMemorySize, m.WasmBinarySize, m.WasmChunkStoreSize} {
		v, _ := n.Uint64()
		sum += v
	}
	return sum + uint64(len(w.s.lookup(id).live.Metadata().CertifiedData))
}

func reinstallMode() InstallMode { return InstallMode{Reinstall: &candid.Null{}} }
