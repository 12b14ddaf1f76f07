package management

import (
	"context"
	"fmt"
	"io"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/manifest"
)

// What a state holds beside its sections, by the names of the store.
type (
	// Global is the value of a Wasm global, as bits.
	Global = manifest.Global
	// GlobalKind is the type of a Wasm global.
	GlobalKind = manifest.GlobalKind
	// Timer is the global timer.
	Timer = manifest.Timer
	// HookStatus is the state of the low-wasm-memory hook.
	HookStatus = manifest.HookStatus
)

// SubnetType decides what is free.
type SubnetType uint8

// The types of subnets. On a system subnet nothing costs and nothing is rate
// limited.
const (
	ApplicationSubnet SubnetType = 0
	SystemSubnet      SubnetType = 1
)

func (t SubnetType) String() string {
	switch t {
	case ApplicationSubnet:
		return "application"
	case SystemSubnet:
		return "system"
	}
	return fmt.Sprintf("subnet-type-%d", uint8(t))
}

// Subnet is what the Host says of the subnet.
type Subnet struct {
	Type SubnetType
	// Nodes is the subnet's size, by which fees scale.
	Nodes uint64
	// MemoryCapacity and MemoryThreshold are bytes: what there is in all, and
	// from where on storage is paid ahead.
	MemoryCapacity, MemoryThreshold uint64
	// MemoryElsewhere is what is allocated on the subnet and not to canisters
	// of this Service, in bytes.
	MemoryElsewhere uint64
}

// GlobalType is a Wasm global of a module.
type GlobalType struct {
	Kind              GlobalKind
	Mutable, Exported bool
}

// Captured tells whether snapshots have it: what can change, or be seen, and is
// no reference.
func (g GlobalType) Captured() bool { return g.Kind != 0 && (g.Mutable || g.Exported) }

// Module is what compiling one tells. Immutable.
type Module struct {
	Wasm64 bool
	// Instructions is what compiling costs.
	Instructions uint64
	// Globals are those that the module defines, in order.
	Globals []GlobalType
	// CustomSections is the size of the sections that metadata is read from,
	// in bytes.
	CustomSections uint64
	// InitialMemory is what an instance starts with, in bytes.
	InitialMemory uint64
	// LowMemoryHook tells whether it exports canister_on_low_wasm_memory.
	LowMemoryHook bool
}

// captured lists the globals that snapshots have.
func (m *Module) captured() []GlobalType {
	var out []GlobalType
	for _, g := range m.Globals {
		if g.Captured() {
			out = append(out, g)
		}
	}
	return out
}

// InstallKind is what install_code does.
type InstallKind uint8

// The kinds of installation.
const (
	Install   InstallKind = 1
	Reinstall InstallKind = 2
	Upgrade   InstallKind = 3
)

func (k InstallKind) String() string {
	switch k {
	case Install:
		return "install"
	case Reinstall:
		return "reinstall"
	case Upgrade:
		return "upgrade"
	}
	return fmt.Sprintf("install-kind-%d", uint8(k))
}

// Installation is a module about to be installed.
type Installation struct {
	Canister engine.CanisterID
	Kind     InstallKind
	Caller   Caller
	Wasm     []byte
	Module   *Module
	Arg      []byte
	// SkipPreUpgrade and KeepMemory are the flags of an upgrade.
	SkipPreUpgrade, KeepMemory bool
	// Live is the state so far. It is only to be read.
	Live *engine.Canister
}

// Image is the content of a memory. At may be nil for zeros.
type Image struct {
	Size uint64
	At   io.ReaderAt
}

// Installed is what the code of an installation left behind.
type Installed struct {
	// WasmMemory and StableMemory replace the memories; nil leaves what the
	// kind of installation leaves.
	WasmMemory, StableMemory *Image
	// Globals are the values of all globals the module defines, in order.
	Globals       []Global
	CertifiedData []byte
	Timer         Timer
	// Instructions were executed, beside those of compiling.
	Instructions uint64
}

// EventKind says what happened to a canister.
type EventKind uint8

// The kinds of events.
const (
	EventInstalled   EventKind = 1 // make a new instance
	EventUninstalled EventKind = 2 // drop the instance; call contexts were closed
	EventLoaded      EventKind = 3 // memories and globals were replaced: make a new instance
	EventDeleted     EventKind = 4
	EventStarted     EventKind = 5
	EventStopped     EventKind = 6
)

// QueryStats counts queries.
type QueryStats struct {
	Calls, Instructions, RequestBytes, ResponseBytes uint64
}

// Host is what only a replica knows. DefaultHost is a complete one, to embed
// and override. Every method may be called from any goroutine, and must not
// call the Service back, but for Stopped.
type Host interface {
	// Time is nanoseconds since 1970, and never falls.
	Time() uint64
	// Subnet describes where the canisters live.
	Subnet() Subnet
	// NewCanisterID names the next canister; it never repeats itself.
	NewCanisterID(ctx context.Context) (engine.CanisterID, error)
	// Compile checks a module and describes it. An error refuses it as invalid.
	Compile(ctx context.Context, wasm []byte) (*Module, error)
	// RunInstall runs what an installation runs (canister_pre_upgrade, start,
	// canister_init, canister_post_upgrade) on a copy of the state. An error
	// refuses the installation; a *Reject is handed to the caller as it is.
	RunInstall(ctx context.Context, in Installation) (Installed, error)
	// LongExecution tells whether an execution of the canister is paused.
	LongExecution(id engine.CanisterID) bool
	// OpenCallContexts counts calls the canister has not answered.
	OpenCallContexts(id engine.CanisterID) int
	// CloseCallContexts answers all of them with the reject, refunds what came
	// with them and forgets them.
	CloseCallContexts(ctx context.Context, id engine.CanisterID, with *Reject)
	// Stopped waits until a stopping canister has no call context left.
	Stopped(ctx context.Context, id engine.CanisterID) error
	// Happened is called when a change is durable, before the caller is
	// answered.
	Happened(ctx context.Context, id engine.CanisterID, what EventKind)
	// Loadable tells whether a snapshot can be loaded onto another canister
	// yet; it is asked only with Config.FlushedSnapshotsOnly.
	Loadable(id engine.SnapshotID) bool
	// LogBytes is what the canister's log takes; ClearLog empties it.
	LogBytes(id engine.CanisterID) uint64
	ClearLog(ctx context.Context, id engine.CanisterID)
	// QueryStats counts the canister's queries.
	QueryStats(id engine.CanisterID) QueryStats
	// ReadyForMigration says so in canister_status.
	ReadyForMigration(id engine.CanisterID) bool
}
