package management

import (
	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/manifest"
)

// chunkCharge is what an entry of a chunk store is charged, in bytes.
const chunkCharge = 1 << 20

// usage is what a canister takes, in logical bytes by what they are for.
type usage struct {
	wasm, stable, globals, module, chunks, certified uint64 // what a snapshot has
	custom, history, log                             uint64 // what only the canister has
	snapshots                                        uint64
}

// state is the size of a snapshot of it.
func (u usage) state() uint64 {
	return addBytes(u.wasm, u.stable, u.globals, u.module, u.chunks, u.certified)
}

// total is what the canister is charged for.
func (u usage) total() uint64 {
	return addBytes(u.wasm, u.stable, u.globals, u.module, u.chunks, u.custom, u.history, u.log, u.snapshots)
}

// empty is u after the code is uninstalled.
func (u usage) empty() usage { return usage{history: u.history, snapshots: u.snapshots} }

func (u *usage) add(sec engine.Section, size uint64) {
	switch sec.Kind {
	case manifest.WasmModule:
		u.module = size
	case manifest.WasmMemory:
		u.wasm = size
	case manifest.StableMemory:
		u.stable = size
	case manifest.WasmChunk:
		if size > 0 {
			u.chunks += chunkCharge
		}
	}
}

func globalBytes(globals []Global) uint64 {
	var n uint64
	for _, g := range globals {
		n += 8
		if g.Kind == manifest.GlobalV128 {
			n += 8
		}
	}
	return n
}

// usageOf measures a canister with a state that it has or is to get.
func (s *Service) usageOf(c *canister, st *state) (usage, error) {
	var u usage
	for _, sec := range c.live.Sections() {
		mem, err := c.live.Memory(sec)
		if err != nil {
			return u, err
		}
		u.add(sec, mem.Size())
	}
	meta := c.live.Metadata()
	u.globals, u.certified = globalBytes(meta.Globals), uint64(len(meta.CertifiedData))
	u.custom, u.history, u.log = st.custom, st.historyBytes(), s.host.LogBytes(c.id)
	for snap, err := range s.e.Snapshots(c.id) {
		if err != nil {
			return u, err
		}
		u.snapshots = addBytes(u.snapshots, snap.Size)
	}
	if st.pending&pendingUninstall != 0 {
		u = u.empty()
	}
	if st.pending&pendingPurge != 0 {
		u.snapshots = 0
	}
	return u, nil
}

// allocated is what the subnet has less of: the memory allocation is paid for
// whether it is used or not, and what is above it is best effort.
func allocated(allocation, used uint64) uint64 { return max(allocation, used) }

// demand is what a change asks for.
type demand struct {
	was, now uint64 // memory usage before and after
	fee      Cycles
	// short words a fee that can not be paid.
	short func(need Cycles) *Reject
	// allocation says that it is not use that grows, but what is set aside, and
	// compute that it is of computing.
	allocation, compute bool
}

// codes are those of cycles and of the reserved limit that do not suffice.
func (d *demand) codes() (cycles, limit ErrorCode, what string) {
	switch {
	case d.compute:
		return CodeInsufficientCyclesComputeAllocation, CodeReservedCyclesLimitInMemoryAllocation, "allocate"
	case d.allocation:
		return CodeInsufficientCyclesMemoryAllocation, CodeReservedCyclesLimitInMemoryAllocation, "allocate"
	}
	return CodeInsufficientCyclesMemoryGrow, CodeReservedCyclesLimitInMemoryGrow, "grow memory by"
}

// afford checks resources in the order of the interface and takes the cycles
// out of next, which the change is to make the canister's state. The memory is
// held for the canister until account measures what it has come to.
func (s *Service) afford(c *canister, next *state, d demand) error {
	p := s.prices()
	st := c.state()
	before, after := allocated(st.set.memoryAllocation, d.was), allocated(next.set.memoryAllocation, d.now)
	more := subBytes(after, before)

	s.mu.Lock()
	used := addBytes(s.allocated, p.subnet.MemoryElsewhere)
	if free := subBytes(p.subnet.MemoryCapacity, used); more > free {
		s.mu.Unlock()
		return reject(CodeSubnetOversubscribed,
			"Canister requested %d bytes of memory but only %d bytes are available in the subnet.", more, free)
	}
	s.allocated += more
	c.held += more
	s.mu.Unlock()

	code, limitCode, what := d.codes()
	keep := p.freezing(next, d.now)
	if next.balance.Less(keep) {
		return reject(code,
			"Canister cannot %s %d bytes due to insufficient cycles. At least %v additional cycles are required.",
			what, more, keep.Sub(next.balance))
	}
	if need := keep.Add(d.fee); !d.fee.IsZero() && next.balance.Less(need) {
		return d.short(need.Sub(next.balance))
	}
	next.balance = next.balance.Sub(d.fee)
	ahead := p.reserve(used, more)
	if over := next.reserved.Add(ahead); next.set.reservedLimit.Less(over) && !ahead.IsZero() {
		return reject(limitCode,
			"Canister cannot %s %d bytes due to its reserved cycles limit. The current limit (%v) would be exceeded by %v.",
			what, more, next.set.reservedLimit, over.Sub(next.set.reservedLimit))
	}
	if next.balance.Less(ahead) {
		return reject(code,
			"Canister cannot %s %d bytes due to insufficient cycles. At least %v additional cycles are required.",
			what, more, ahead.Sub(next.balance))
	}
	next.balance, next.reserved = next.balance.Sub(ahead), next.reserved.Add(ahead)
	return nil
}

// outOfCycles words a fee of a snapshot method that can not be paid.
func outOfCycles(id engine.CanisterID) func(Cycles) *Reject { return broke(id, "snapshotting") }

// broke words a fee that can not be paid, by what it is for.
func broke(id engine.CanisterID, what string) func(Cycles) *Reject {
	return func(need Cycles) *Reject {
		return reject(CodeCanisterOutOfCycles,
			"Canister %s failed with: `Canister %s is out of cycles: please top up the canister with at least %v additional cycles`", what, id, need)
	}
}
