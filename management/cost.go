package management

import "math"

// day is in seconds.
const day = 24 * 60 * 60

// prices are the fees of one subnet at one moment.
type prices struct {
	f      *Fees
	subnet Subnet
}

func (s *Service) prices() prices { return prices{&s.cfg.Fees, s.host.Subnet()} }

// scale is what a fee of the reference subnet is on this one.
func (p prices) scale(c Cycles) Cycles {
	if p.subnet.Type == SystemSubnet {
		return Cycles{}
	}
	return c.Mul(p.subnet.Nodes).Div(p.f.ReferenceSize)
}

// execution is what executing so many instructions costs.
func (p prices) execution(instructions uint64, wasm64 bool) Cycles {
	per := p.f.PerTenInstructions
	if wasm64 {
		per = mulBytes(per, p.f.Wasm64Factor)
	}
	return p.scale(NewCycles(p.f.Execution).Add(NewCycles(instructions).Mul(per).Div(10)))
}

// memory is what bytes cost for so many seconds.
func (p prices) memory(bytes, seconds uint64) Cycles {
	return p.scale(NewCycles(bytes).Mul(p.f.GiBSecond).Mul(seconds).Div(1 << 30))
}

// compute is what a compute allocation costs for so many seconds.
func (p prices) compute(percent uint8, seconds uint64) Cycles {
	return p.scale(NewCycles(p.f.ComputePercentSecond).Mul(uint64(percent)).Mul(seconds))
}

// idle is what a canister burns for being there.
func (p prices) idle(set *settings, usage, seconds uint64) Cycles {
	return p.memory(max(usage, set.memoryAllocation), seconds).Add(p.compute(set.compute, seconds))
}

// freezing is the balance that a canister must keep: what it burns in its
// freezing threshold, less what is reserved.
func (p prices) freezing(st *state, usage uint64) Cycles {
	return p.idle(&st.set, usage, day).Mul(st.set.freezingThreshold).Div(day).Sub(st.reserved)
}

// reserve is what must be paid ahead for more bytes when so many are in use.
// Between the threshold and the capacity the time that is paid ahead grows
// evenly; the price is the area under it.
func (p prices) reserve(used, more uint64) Cycles {
	if p.subnet.Type == SystemSubnet {
		return Cycles{}
	}
	return p.area(addBytes(used, more)).Sub(p.area(used))
}

func (p prices) area(used uint64) Cycles {
	t, c := p.subnet.MemoryThreshold, p.subnet.MemoryCapacity
	if used <= t {
		return Cycles{}
	}
	if c <= t {
		// All memory is above the threshold: the longest time at once.
		return p.memory(used-t, p.f.ReservationSeconds/2)
	}
	return p.memory(used-t, mulDiv(p.f.ReservationSeconds, used-t, c-t)/2)
}

// baseline is the part of a snapshot's price that does not depend on its size.
func (s *Service) baseline(p prices) uint64 {
	if p.subnet.Type == SystemSubnet {
		return 0
	}
	return s.cfg.Fees.SnapshotBaseline
}

// heapDeltaLimit is how many bytes a canister may change in a round.
func (s *Service) heapDeltaLimit(p prices) uint64 {
	if p.subnet.Type == SystemSubnet {
		return math.MaxUint64
	}
	return s.cfg.Limits.HeapDeltaRate
}
