package management

import (
	"context"
	"slices"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/management/candid"
)

// CanisterStatus describes a canister to those who control it, to itself, and
// to whom status_visibility lets look.
func (s *Service) CanisterStatus(ctx context.Context, by Caller, a CanisterIDArgs) (out CanisterStatusResult, err error) {
	err = s.with(ctx, a.CanisterID, func(c *canister, st *state) error {
		if string(by.Principal) != principalOf(c.id) {
			if err := viewer(c, st, st.set.stat, by); err != nil {
				return err
			}
		}
		u, err := s.usageOf(c, st)
		if err != nil {
			return storage(err)
		}
		q := s.host.QueryStats(c.id)
		out = CanisterStatusResult{
			Status: statusVariant(st.status), ReadyForMigration: s.host.ReadyForMigration(c.id), Version: st.version,
			Settings: definite(&st.set), ModuleHash: moduleHash(st), MemorySize: nat(u.total()),
			MemoryMetrics: MemoryMetrics{
				WasmMemorySize: nat(u.wasm), StableMemorySize: nat(u.stable), GlobalMemorySize: nat(u.globals),
				WasmBinarySize: nat(u.module), CustomSectionsSize: nat(u.custom), CanisterHistorySize: nat(u.history),
				WasmChunkStoreSize: nat(u.chunks), SnapshotsSize: nat(u.snapshots), LogMemoryStoreSize: nat(u.log),
			},
			Cycles: natOf(st.balance), ReservedCycles: natOf(st.reserved),
			IdleCyclesBurnedPerDay: natOf(s.prices().idle(&st.set, u.total(), day)),
			QueryStats: QueryStatsRecord{
				NumCallsTotal: nat(q.Calls), NumInstructionsTotal: nat(q.Instructions),
				RequestPayloadBytesTotal: nat(q.RequestBytes), ResponsePayloadBytesTotal: nat(q.ResponseBytes),
			},
		}
		return nil
	})
	return out, err
}

func statusVariant(s CanisterStatus) StatusVariant {
	switch s {
	case Stopping:
		return StatusVariant{Stopping: &candid.Null{}}
	case Stopped:
		return StatusVariant{Stopped: &candid.Null{}}
	}
	return StatusVariant{Running: &candid.Null{}}
}

func moduleHash(st *state) *[]byte {
	if !st.hasModule {
		return nil
	}
	b := slices.Clone(st.moduleHash[:])
	return &b
}

func definite(set *settings) DefiniteCanisterSettings {
	out := DefiniteCanisterSettings{
		Controllers: principals(set.controllers), ComputeAllocation: nat(uint64(set.compute)), MemoryAllocation: nat(set.memoryAllocation),
		FreezingThreshold: nat(set.freezingThreshold), ReservedCyclesLimit: natOf(set.reservedLimit),
		MinimumIncomingCallCycles: natOf(set.minimumIncoming), LogVisibility: visibilityVariant(set.log), LogMemoryLimit: nat(set.logMemoryLimit),
		SnapshotVisibility: visibilityVariant(set.snapshot), StatusVisibility: visibilityVariant(set.stat),
		WasmMemoryLimit: nat(set.wasmMemoryLimit), WasmMemoryThreshold: nat(set.wasmMemoryThreshold),
		EnvironmentVariables: []EnvironmentVariable{},
	}
	for _, v := range set.environment {
		out.EnvironmentVariables = append(out.EnvironmentVariables, EnvironmentVariable{Name: v.name, Value: v.value})
	}
	return out
}

// CanisterInfo tells canisters about a canister: who controls it, what runs on
// it, and how that changed.
func (s *Service) CanisterInfo(ctx context.Context, by Caller, a CanisterInfoArgs) (out CanisterInfoResult, err error) {
	if !by.Canister {
		return out, reject(CodeCanisterRejectedMessage, "Only canisters can call ic00 method canister_info")
	}
	err = s.with(ctx, a.CanisterID, func(_ *canister, st *state) error {
		n := uint64(0)
		if a.NumRequestedChanges != nil {
			n = min(*a.NumRequestedChanges, uint64(len(st.history)))
		}
		out = CanisterInfoResult{
			TotalNumChanges: st.totalChanges, RecentChanges: []Change{}, ModuleHash: moduleHash(st), Controllers: principals(st.set.controllers),
		}
		for _, e := range st.history[uint64(len(st.history))-n:] {
			out.RecentChanges = append(out.RecentChanges, e.candid())
		}
		return nil
	})
	return out, err
}

// candid is the form of an entry in replies.
func (c *change) candid() Change {
	out := Change{TimestampNanos: c.at, CanisterVersion: c.version}
	if c.origin.canister {
		from := FromCanister{CanisterID: candid.Principal(c.origin.principal)}
		if c.origin.hasVersion {
			from.CanisterVersion = &c.origin.version
		}
		out.Origin.FromCanister = &from
	} else {
		out.Origin.FromUser = &FromUser{UserID: candid.Principal(c.origin.principal)}
	}
	switch c.kind {
	case changeCreation:
		d := CreationDetails{Controllers: principals(c.controllers)}
		if c.environment != [32]byte{} {
			h := slices.Clone(c.environment[:])
			d.EnvironmentVariablesHash = &h
		}
		out.Details.Creation = &d
	case changeUninstall:
		out.Details.CodeUninstall = &candid.Null{}
	case changeDeployment:
		d := DeploymentDetails{ModuleHash: slices.Clone(c.module[:])}
		switch c.mode {
		case Reinstall:
			d.Mode.Reinstall = &candid.Null{}
		case Upgrade:
			d.Mode.Upgrade = &candid.Null{}
		default:
			d.Mode.Install = &candid.Null{}
		}
		out.Details.CodeDeployment = &d
	case changeLoad:
		d := LoadDetails{SnapshotID: c.snapshot, CanisterVersion: c.snapVer, TakenAtTimestamp: c.taken, Source: sourceVariant(c.uploaded)}
		if c.from != "" {
			p := candid.Principal(c.from)
			d.FromCanisterID = &p
		}
		out.Details.LoadSnapshot = &d
	case changeControllers:
		out.Details.ControllersChange = &ControllersDetails{Controllers: principals(c.controllers)}
	}
	return out
}

// View is what a host wants to know of a canister: for the state tree, for
// scheduling, for admission of messages.
type View struct {
	ID                engine.CanisterID
	Status            CanisterStatus
	Version           uint64
	Controllers       [][]byte
	ModuleHash        []byte // nil without a module
	LastInstall       uint64 // nanoseconds since 1970
	Cycles            Cycles
	Reserved          Cycles
	MemoryUsage       uint64
	Snapshots         uint64 // bytes of them in MemoryUsage
	Allocated         uint64 // of the subnet's memory
	HeapDeltaDebit    uint64
	Timer             Timer
	Hook              HookStatus
	LowMemoryHook     bool // the module has one
	FreezingThreshold Cycles
	MinimumIncoming   Cycles
	Environment       map[string]string
}

// Canister describes a canister.
func (s *Service) Canister(ctx context.Context, id engine.CanisterID) (v View, err error) {
	err = s.with(ctx, id.Bytes(), func(c *canister, st *state) error {
		u, err := s.usageOf(c, st)
		if err != nil {
			return storage(err)
		}
		v = View{
			ID: id, Status: st.status, Version: st.version, LastInstall: st.lastInstall, Cycles: st.balance, Reserved: st.reserved,
			MemoryUsage: u.total(), Snapshots: u.snapshots, Timer: st.timer, Hook: st.hook, LowMemoryHook: st.lowHook,
			FreezingThreshold: s.prices().freezing(st, u.total()), MinimumIncoming: st.set.minimumIncoming, Environment: map[string]string{},
		}
		if st.hasModule {
			v.ModuleHash = slices.Clone(st.moduleHash[:])
		}
		for _, p := range st.set.controllers {
			v.Controllers = append(v.Controllers, []byte(p))
		}
		for _, e := range st.set.environment {
			v.Environment[e.name] = e.value
		}
		s.mu.Lock()
		v.Allocated, v.HeapDeltaDebit = c.counted, c.debit
		s.mu.Unlock()
		return nil
	})
	return v, err
}

// Canisters lists those that have a state here, in no order.
func (s *Service) Canisters() []engine.CanisterID {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]engine.CanisterID, 0, len(s.table))
	for id := range s.table {
		out = append(out, id)
	}
	return out
}
