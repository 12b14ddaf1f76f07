package management

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"math/rand/v2"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/snapstore/snapstore/manifest"
)

// rich is a state with something in every field.
func rich() *state {
	return &state{
		status: Stopping, pending: pendingPurge, version: 0x1112131415161718,
		balance: Cycles{1, 2}, reserved: Cycles{3, 4},
		set: settings{
			controllers: []string{"alice", "", "bob"}, compute: 7, memoryAllocation: 0x21, freezingThreshold: 0x22,
			reservedLimit: Cycles{5, 6}, minimumIncoming: Cycles{7, 8}, wasmMemoryLimit: 0x23, wasmMemoryThreshold: 0x24, logMemoryLimit: 0x25,
			log: visibility{kind: visibleToAll}, snapshot: visibility{kind: visibleToViewers, viewers: []string{"v"}}, stat: visibility{},
			environment: []variable{{"name", "value"}, {"empty", ""}},
		},
		hasModule: true, wasm64: true, lowHook: true, moduleHash: [32]byte{9, 8, 7}, custom: 0x26, lastInstall: 0x27, totalChanges: 0x28,
		timer: Timer{Present: true, Active: true, Deadline: 0x29}, hook: manifest.HookExecuted,
		history: []change{
			{at: 1, version: 2, origin: origin{principal: "user"}, kind: changeCreation, controllers: []string{"c"}, environment: [32]byte{1}},
			{at: 3, version: 4, origin: origin{canister: true, principal: "canister", version: 5, hasVersion: true}, kind: changeUninstall},
			{at: 6, version: 7, origin: origin{principal: "user"}, kind: changeDeployment, mode: Upgrade, module: [32]byte{2}},
			{at: 8, version: 9, origin: origin{principal: "user"}, kind: changeLoad, from: "other", snapshot: []byte("id"), taken: 10, snapVer: 11, uploaded: true},
			{at: 12, version: 13, origin: origin{principal: "user"}, kind: changeControllers, controllers: []string{"x", "y"}},
		},
	}
}

// Every field of a state survives: a field that is added and forgotten in the
// encoding is found here, since rich must set it.
func TestStateSurvives(t *testing.T) {
	t.Parallel()
	s := rich()
	var zero func(v reflect.Value, path string)
	zero = func(v reflect.Value, path string) {
		if v.Kind() == reflect.Struct {
			for i := range v.NumField() {
				zero(v.Field(i), path+"."+v.Type().Field(i).Name)
			}
			return
		}
		// The kinds of entries of lists share fields; each is in one of them.
		if v.IsZero() && path != "state.set.stat.kind" && !strings.HasSuffix(path, "viewers") {
			t.Errorf("%s is not set: give it a value in rich, and encode it", path)
		}
	}
	zero(reflect.ValueOf(*s), "state")
	b, err := s.encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeState(b)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, s) {
		t.Errorf("got  %+v\nwant %+v", got, s)
	}
	again, err := got.encode()
	if err != nil || !bytes.Equal(again, b) {
		t.Errorf("encoded anew it differs: %v", err)
	}
}

// The largest state that the limits let be fits what the engine keeps.
func TestLargestStateFits(t *testing.T) {
	t.Parallel()
	p := strings.Repeat("p", 29)
	list := func(n int) []string {
		out := make([]string, n)
		for i := range out {
			out[i] = p
		}
		return out
	}
	s := rich()
	s.set.controllers = list(maxControllers)
	for _, v := range []*visibility{&s.set.log, &s.set.snapshot, &s.set.stat} {
		*v = visibility{visibleToViewers, list(maxViewers)}
	}
	s.set.environment = nil
	for range maxEnvironment {
		s.set.environment = append(s.set.environment, variable{strings.Repeat("n", maxEnvText), strings.Repeat("v", maxEnvText)})
	}
	s.history = nil
	for range maxHistory {
		s.record(change{origin: origin{principal: p}, kind: changeCreation, controllers: list(maxControllers)}, maxHistory)
	}
	if b, err := s.encode(); err != nil || len(b) > maxState {
		t.Fatalf("%d bytes: %v", len(b), err)
	}
}

// section returns a part of docs/format.md up to the next heading.
func section(t *testing.T, heading string) string {
	t.Helper()
	doc, err := os.ReadFile("../docs/format.md")
	if err != nil {
		t.Fatal(err)
	}
	_, part, ok := strings.Cut(string(doc), "\n"+heading+"\n")
	if !ok {
		t.Fatalf("docs/format.md has no %q", heading)
	}
	part, _, _ = strings.Cut(part, "\n#")
	return part
}

// The document says where every field is.
func TestStateFormatDoc(t *testing.T) {
	t.Parallel()
	s := rich()
	b, err := s.encode()
	if err != nil {
		t.Fatal(err)
	}
	le := func(n int, v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v)[:n] }
	cycles := func(c Cycles) []byte { return append(le(8, c.lo), le(8, c.hi)...) }
	want := map[string][]byte{
		"magic": []byte(stateMagic), "version": le(2, stateVersion), "body bytes": le(4, uint64(len(b)-atStatus-4)),
		"status": {byte(s.status)}, "pending": {byte(s.pending)}, "flags": {flagsAll}, "compute allocation": {s.set.compute},
		"canister version": le(8, s.version), "balance": cycles(s.balance), "reserved balance": cycles(s.reserved),
		"reserved limit": cycles(s.set.reservedLimit), "minimum incoming": cycles(s.set.minimumIncoming),
		"memory allocation": le(8, s.set.memoryAllocation), "freezing threshold": le(8, s.set.freezingThreshold),
		"wasm memory limit": le(8, s.set.wasmMemoryLimit), "wasm memory threshold": le(8, s.set.wasmMemoryThreshold),
		"log memory limit": le(8, s.set.logMemoryLimit), "last install": le(8, s.lastInstall), "custom sections": le(8, s.custom),
		"changes": le(8, s.totalChanges), "timer": le(8, s.timer.Deadline), "hook": {byte(s.hook)}, "module hash": s.moduleHash[:],
	}
	at := map[string]int{
		"version": atStateVersion, "body bytes": atBodyBytes, "status": atStatus, "pending": atPending, "flags": atFlags, "compute allocation": atCompute,
		"canister version": atVersion, "balance": atBalance, "reserved balance": atReserved, "reserved limit": atLimit, "minimum incoming": atMinimum,
		"memory allocation": atAllocation, "freezing threshold": atFreezing, "wasm memory limit": atWasmLimit, "wasm memory threshold": atWasmThresh,
		"log memory limit": atLogLimit, "last install": atInstalled, "custom sections": atCustom, "changes": atChanges, "timer": atTimer, "hook": atHook,
		"module hash": atModuleHash,
	}
	doc := section(t, "## State of a canister in the management canister")
	for line := range strings.Lines(doc) {
		cells := strings.Split(line, "|")
		if len(cells) < 5 {
			continue
		}
		field := strings.TrimSpace(cells[3])
		off, err1 := strconv.Atoi(strings.TrimSpace(cells[1]))
		size, err2 := strconv.Atoi(strings.TrimSpace(cells[2]))
		if err1 != nil || err2 != nil || field == "reserved" {
			continue
		}
		v, known := want[field]
		if !known || len(v) != size || !bytes.Equal(b[off:off+size], v) || off != at[field] {
			t.Errorf("%q: the document says %d bytes at %d, the code writes %x", field, size, off, v)
		}
		delete(want, field)
	}
	for field := range want {
		t.Errorf("the document lacks %q", field)
	}
	for _, phrase := range []string{
		fmt.Sprintf("| %d | | lists |", atLists), fmt.Sprintf("at most %d bytes", maxState),
		fmt.Sprintf("%d a load", changeLoad), fmt.Sprintf("%d that every snapshot is to go", pendingPurge),
	} {
		if !strings.Contains(doc, phrase) {
			t.Errorf("the document does not say %q", phrase)
		}
	}
	if sum := crc32.Checksum(b[:len(b)-4], castagnoli()); binary.LittleEndian.Uint32(b[len(b)-4:]) != sum {
		t.Error("the checksum is not the last field")
	}
}

// No bytes do harm, and what decodes encodes to the same bytes.
func FuzzDecodeState(f *testing.F) {
	b, err := rich().encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:atLists])
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, in := range [][]byte{b, reseal(b)} {
			s, err := decodeState(in)
			if err != nil {
				if !errors.Is(err, errState) {
					t.Fatal(err)
				}
				continue
			}
			again, err := s.encode()
			if err != nil || !bytes.Equal(again, in) {
				t.Fatalf("%x encodes to %x (%v)", in, again, err)
			}
		}
	})
}

// reseal makes length and checksum right, so that what lies between is looked at.
func reseal(b []byte) []byte {
	if len(b) < atStatus+4 || len(b) > maxState {
		return b
	}
	b = bytes.Clone(b)
	binary.LittleEndian.PutUint32(b[atBodyBytes:], uint32(len(b)-atStatus-4))
	binary.LittleEndian.PutUint32(b[len(b)-4:], crc32.Checksum(b[:len(b)-4], castagnoli()))
	return b
}

// Every flipped bit is noticed.
func TestStateFlips(t *testing.T) {
	t.Parallel()
	b, err := rich().encode()
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(b) * 8 {
		c := bytes.Clone(b)
		c[i/8] ^= 1 << (i % 8)
		if _, err := decodeState(c); err == nil {
			t.Fatalf("bit %d can flip", i)
		}
	}
	for n := range b {
		if _, err := decodeState(b[:n]); err == nil {
			t.Fatalf("%d of %d bytes will do", n, len(b))
		}
	}
}

// Cycles do what 128-bit arithmetic that saturates does.
func TestCycles(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 1))
	draw := func() uint64 { return rng.Uint64() >> rng.IntN(64) }
	for range 20_000 {
		a, b, n := Cycles{draw(), draw()}, Cycles{draw(), draw()}, draw()
		if rng.IntN(3) == 0 {
			a.hi = 0
		}
		x, y := a.Big(), b.Big()
		if got := CyclesFromBig(x); got != a {
			t.Fatalf("%v becomes %v", a, got)
		}
		if got, want := a.Add(b), CyclesFromBig(x.Add(x, y)); got != want {
			t.Fatalf("%v + %v = %v, want %v", a, b, got, want)
		}
		if got, want := a.Sub(b), CyclesFromBig(a.Big().Sub(a.Big(), y)); got != want {
			t.Fatalf("%v - %v = %v, want %v", a, b, got, want)
		}
		m := NewCycles(n).Big()
		if got, want := a.Mul(n), CyclesFromBig(a.Big().Mul(a.Big(), m)); got != want {
			t.Fatalf("%v * %d = %v, want %v", a, n, got, want)
		}
		if n > 0 {
			if got, want := a.Div(n), CyclesFromBig(a.Big().Div(a.Big(), m)); got != want {
				t.Fatalf("%v / %d = %v, want %v", a, n, got, want)
			}
		}
		if a.Cmp(b) != a.Big().Cmp(b.Big()) || a.Less(b) != (a.Cmp(b) < 0) {
			t.Fatalf("%v and %v", a, b)
		}
	}
	if NewCycles(1).Div(0) != MaxCycles() || mulDiv(math.MaxUint64, math.MaxUint64, 2) != math.MaxUint64 || mulDiv(1<<63, 6, 12) != 1<<62 {
		t.Error("the ends do not hold")
	}
}
