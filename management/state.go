package management

import (
	"slices"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/manifest"
)

// CanisterStatus is what a canister does.
type CanisterStatus uint8

// The statuses.
const (
	Running  CanisterStatus = 1
	Stopping CanisterStatus = 2
	Stopped  CanisterStatus = 3
)

func (s CanisterStatus) String() string {
	switch s {
	case Running:
		return "running"
	case Stopping:
		return "stopping"
	case Stopped:
		return "stopped"
	}
	return "unknown"
}

// pending is what a change in more than one step has left to do.
type pending uint8

const (
	// pendingUninstall: the live state and the chunk store are to go.
	pendingUninstall pending = 1 << 0
	// pendingPurge: every snapshot is to go.
	pendingPurge pending = 1 << 1
	pendingAll           = pendingUninstall | pendingPurge
)

// visibility says who may look beside controllers.
type visibility struct {
	kind    visibilityKind
	viewers []string // principals, only with visibleToViewers
}

type visibilityKind uint8

const (
	visibleToControllers visibilityKind = 0
	visibleToAll         visibilityKind = 1
	visibleToViewers     visibilityKind = 2
)

func (v visibility) allows(p string) bool {
	return v.kind == visibleToAll || v.kind == visibleToViewers && slices.Contains(v.viewers, p)
}

// settings of a canister, in force.
type settings struct {
	controllers         []string // principals
	compute             uint8    // percent
	memoryAllocation    uint64
	freezingThreshold   uint64 // seconds
	reservedLimit       Cycles
	minimumIncoming     Cycles
	wasmMemoryLimit     uint64 // bytes; 0 is none
	wasmMemoryThreshold uint64
	logMemoryLimit      uint64
	log, snapshot, stat visibility
	environment         []variable
}

type variable struct{ name, value string }

// changeKind says what a change in the history was.
type changeKind uint8

const (
	changeCreation    changeKind = 1
	changeUninstall   changeKind = 2
	changeDeployment  changeKind = 3
	changeLoad        changeKind = 4
	changeControllers changeKind = 5
)

// origin is who made a change.
type origin struct {
	canister   bool
	principal  string
	version    uint64 // of the canister, if hasVersion
	hasVersion bool
}

// change is an entry of the history.
type change struct {
	at      uint64
	version uint64
	origin  origin
	kind    changeKind

	controllers []string    // creation, controllers
	environment [32]byte    // creation: hash, zero is none
	mode        InstallKind // deployment
	module      [32]byte    // deployment

	from     string // load: canister the snapshot is of, when another
	snapshot []byte // load: id
	taken    uint64 // load
	snapVer  uint64 // load: version of the canister in the snapshot
	uploaded bool   // load
}

// state is what of a canister must survive a restart, beside what the engine
// keeps. It is immutable once it is published: a call works on a clone.
type state struct {
	status       CanisterStatus
	pending      pending
	version      uint64
	balance      Cycles
	reserved     Cycles
	set          settings
	hasModule    bool
	wasm64       bool
	lowHook      bool
	moduleHash   [32]byte
	custom       uint64 // bytes of custom sections
	lastInstall  uint64 // nanoseconds since 1970; 0 is never
	totalChanges uint64
	history      []change // newest last
	// The timer and the hook are not restored with a snapshot that was taken,
	// so they are here and not among what the engine loads.
	timer Timer
	hook  HookStatus
}

// clone copies what a call may change; lists are replaced, never edited.
func (s *state) clone() *state {
	c := *s
	c.history = slices.Clip(s.history)
	return &c
}

func (s *state) controls(principal string) bool {
	return slices.Contains(s.set.controllers, principal)
}

// record adds to the history and keeps the newest.
func (s *state) record(c change, keep int) {
	h := append(slices.Clone(s.history), c)
	if len(h) > keep {
		h = h[len(h)-keep:]
	}
	s.history = h
	s.totalChanges++
}

// historyBytes is what the history is charged for: the encoding of its entries.
func (s *state) historyBytes() uint64 {
	var n int
	for i := range s.history {
		n += len(s.history[i].append(nil))
	}
	return uint64(n)
}

// forget makes the canister one without code.
func (s *state) forget() {
	s.hasModule, s.wasm64, s.lowHook = false, false, false
	s.moduleHash, s.custom = [32]byte{}, 0
	s.timer, s.hook = Timer{Present: true}, manifest.HookConditionNotSatisfied
}

// lowMemory tells whether the condition of the low-wasm-memory hook holds.
func (s *state) lowMemory(wasmMemory, limit uint64) bool {
	if s.set.wasmMemoryLimit != 0 {
		limit = s.set.wasmMemoryLimit
	}
	return limit < addBytes(wasmMemory, s.set.wasmMemoryThreshold)
}

// use makes the canister one with that code.
func (s *state) use(m *compiled) {
	s.hasModule, s.wasm64, s.lowHook = true, m.Wasm64, m.LowMemoryHook
	s.moduleHash, s.custom = m.hash, m.CustomSections
}

// principals of canisters and users are kept as strings of their bytes.
func principalOf(id engine.CanisterID) string { return string(id.Bytes()) }
