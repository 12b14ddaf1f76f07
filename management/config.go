package management

import (
	"errors"
	"fmt"

	"github.com/snapstore/snapstore/manifest"
)

// Config of a Service. The zero value of every field is its default, which is
// what the Internet Computer has, and a nil *Config is all defaults.
type Config struct {
	// SnapshotLimit is the most snapshots a canister may have: 10. The first
	// version of the interface had 1. The engine's own limit must not be lower.
	SnapshotLimit int
	// RefuseRunning and RefuseOpenCallContexts make takes and loads refuse a
	// canister that is not stopped, or has open call contexts. The interface
	// only advises it, so they are off by default.
	RefuseRunning, RefuseOpenCallContexts bool
	// IngressVisibility admits ingress messages that list or read snapshots by
	// snapshot_visibility. By the interface only controllers are admitted.
	IngressVisibility bool
	// FlushedSnapshotsOnly asks the Host before a snapshot is loaded onto
	// another canister; replicas that load from checkpoints need it.
	FlushedSnapshotsOnly bool
	// Provisional allows the provisional_ methods, which mint cycles.
	Provisional bool

	Limits Limits
	Fees   Fees
}

// Limits bound what callers may ask for.
type Limits struct {
	WasmModule         uint64 // bytes of a module, gzip or not: 100 MiB
	WasmMemory         uint64 // bytes, 32-bit: 4 GiB
	WasmMemory64       uint64 // bytes, 64-bit: 6 GiB
	StableMemory       uint64 // bytes: 500 GiB
	Globals            int    // 1000
	CertifiedData      int    // bytes: 32
	Slice              uint64 // bytes of one read of snapshot data: 2,000,000
	Chunk              uint64 // bytes of an entry of the chunk store: 1 MiB, which is what each is charged and the most
	ChunkStore         int    // entries: 100
	Controllers        int    // 10
	Viewers            int    // of an allowed_viewers list: 10
	History            int    // changes that are kept: 20
	Environment        int    // variables: 20
	EnvironmentText    int    // bytes of a name or a value: 128
	HeapDeltaRate      uint64 // bytes a round, of an application canister: 75 MiB
	MessageBytes       int    // of an argument: 10 MiB, the most a call on one subnet carries
	CanistersPerSubnet int    // 0: no limit
}

// Fees are cycles on a subnet of ReferenceSize nodes; others scale.
type Fees struct {
	ReferenceSize         uint64 // 13
	Execution             uint64 // of any message: 5,000,000
	PerTenInstructions    uint64 // 10
	Wasm64Factor          uint64 // 2
	SnapshotBaseline      uint64 // instructions: 2,000,000,000
	SnapshotDataBaseline  uint64 // instructions: 5,000,000
	UploadChunk           uint64 // instructions: 200,000,000
	GiBSecond             uint64 // of memory: 127,000
	ComputePercentSecond  uint64 // 10,000,000
	CreateCanister        uint64 // 500,000,000,000
	ReservationSeconds    uint64 // for how long storage is paid ahead on a full subnet: 300,000,000
	ReservedCyclesLimit   uint64 // of canisters that set none: 5,000,000,000,000
	FreezingThreshold     uint64 // seconds, of canisters that set none: 2,592,000
	ProvisionalBalance    uint64 // of canisters made without an amount: 100,000,000,000,000
	DefaultLogMemory      uint64 // bytes: 4,096
	MinimumIncomingCycles uint64
}

func set[T comparable](field *T, def T) {
	var zero T
	if *field == zero {
		*field = def
	}
}

func (c *Config) withDefaults() Config {
	var o Config
	if c != nil {
		o = *c
	}
	set(&o.SnapshotLimit, 10)
	l := &o.Limits
	set(&l.WasmModule, 100<<20)
	set(&l.WasmMemory, 4<<30)
	set(&l.WasmMemory64, 6<<30)
	set(&l.StableMemory, 500<<30)
	set(&l.Globals, 1000)
	set(&l.CertifiedData, 32)
	set(&l.Slice, 2_000_000)
	set(&l.Chunk, 1<<20)
	set(&l.ChunkStore, 100)
	set(&l.Controllers, 10)
	set(&l.Viewers, 10)
	set(&l.History, 20)
	set(&l.Environment, 20)
	set(&l.EnvironmentText, 128)
	set(&l.HeapDeltaRate, 75<<20)
	set(&l.MessageBytes, 10<<20)
	f := &o.Fees
	set(&f.ReferenceSize, 13)
	set(&f.Execution, 5_000_000)
	set(&f.PerTenInstructions, 10)
	set(&f.Wasm64Factor, 2)
	set(&f.SnapshotBaseline, 2_000_000_000)
	set(&f.SnapshotDataBaseline, 5_000_000)
	set(&f.UploadChunk, 200_000_000)
	set(&f.GiBSecond, 127_000)
	set(&f.ComputePercentSecond, 10_000_000)
	set(&f.CreateCanister, 500_000_000_000)
	set(&f.ReservationSeconds, 300_000_000)
	set(&f.ReservedCyclesLimit, 5_000_000_000_000)
	set(&f.FreezingThreshold, 2_592_000)
	set(&f.ProvisionalBalance, 100_000_000_000_000)
	set(&f.DefaultLogMemory, 4096)
	return o
}

// heapLimit is how many bytes of main memory code may have.
func (s *Service) heapLimit(wasm64 bool) uint64 {
	if wasm64 {
		return s.cfg.Limits.WasmMemory64
	}
	return s.cfg.Limits.WasmMemory
}

// The most that fits the record of a canister, whatever Config asks for.
const (
	maxSnapshots   = 1024
	maxControllers = 20
	maxViewers     = 64
	maxHistory     = 40
	maxEnvironment = 64
	maxEnvText     = 128
)

// Validate says what is out of range, before anything is opened.
func (c *Config) Validate() error {
	o := c.withDefaults()
	var errs []error
	within := func(name string, v, most int) {
		if v < 1 || v > most {
			errs = append(errs, fmt.Errorf("%s is %d, want 1 to %d", name, v, most))
		}
	}
	within("SnapshotLimit", o.SnapshotLimit, maxSnapshots)
	within("Limits.Controllers", o.Limits.Controllers, maxControllers)
	within("Limits.Viewers", o.Limits.Viewers, maxViewers)
	within("Limits.History", o.Limits.History, maxHistory)
	within("Limits.Environment", o.Limits.Environment, maxEnvironment)
	within("Limits.EnvironmentText", o.Limits.EnvironmentText, maxEnvText)
	within("Limits.Globals", o.Limits.Globals, 1000)
	within("Limits.CertifiedData", o.Limits.CertifiedData, 32)
	within("Limits.ChunkStore", o.Limits.ChunkStore, manifest.MaxSections-3) // beside a module and two memories
	if o.Limits.Chunk > chunkCharge {
		errs = append(errs, fmt.Errorf("Limits.Chunk is %d, want at most %d, which is what a chunk is charged", o.Limits.Chunk, chunkCharge))
	}
	within("Limits.MessageBytes", o.Limits.MessageBytes, 1<<30)
	return errors.Join(errs...)
}

// String lists what is in force, for logs and bug reports.
func (c *Config) String() string {
	type plain Config // without this method
	return fmt.Sprintf("%+v", plain(c.withDefaults()))
}
