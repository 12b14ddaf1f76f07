package management

import (
	"testing"
)

func pricesOf(subnet Subnet) prices {
	var c *Config
	cfg := c.withDefaults()
	return prices{&cfg.Fees, subnet}
}

// The worked examples of the interface.
func TestWorkedExamples(t *testing.T) {
	t.Parallel()
	thirteen := pricesOf(Subnet{Nodes: 13, MemoryCapacity: 2 << 40, MemoryThreshold: 750 << 30})
	for _, c := range []struct {
		what string
		got  Cycles
		want uint64
	}{
		// A take of 1 GiB: 2,000,000,000 + 1,073,741,824 + 5,000,000.
		{"take of 1 GiB", thirteen.execution(2_000_000_000+1<<30, false), 3_078_741_824},
		{"nothing executed", thirteen.execution(0, false), 5_000_000},
		{"64-bit code", thirteen.execution(1_000_000, true), 7_000_000},
		{"on 34 nodes", pricesOf(Subnet{Nodes: 34}).execution(2_000_000_000+1<<30, false), 3_078_741_824 * 34 / 13},
		{"on one node", pricesOf(Subnet{Nodes: 1}).execution(10, false), 5_000_010 / 13},
		{"on a system subnet", pricesOf(Subnet{Nodes: 13, Type: SystemSubnet}).execution(1<<40, false), 0},
		{"a GiB for a second", thirteen.memory(1<<30, 1), 127_000},
		{"a GiB for a year", thirteen.memory(1<<30, 31_536_000), 4_005_072_000_000},
		{"half a GiB for a second", thirteen.memory(1<<29, 1), 63_500},
		{"one byte for a second", thirteen.memory(1, 1), 0},
		{"a percent for a second", thirteen.compute(1, 1), 10_000_000},
		{"below the threshold", thirteen.reserve(0, 750<<30), 0},
		{"at the threshold", thirteen.reserve(750<<30, 0), 0},
		// One GiB above it: 300,000,000 * 1 / 1298 / 2 seconds, rounded down twice.
		{"the first GiB above", thirteen.reserve(750<<30, 1<<30), 127_000 * (300_000_000 / 1298 / 2)},
		{"across the threshold", thirteen.reserve(749<<30, 2<<30), 127_000 * (300_000_000 / 1298 / 2)},
		{"the second GiB above", thirteen.reserve(751<<30, 1<<30), 2*127_000*(300_000_000*2/1298/2) - 127_000*(300_000_000/1298/2)},
		// The whole rest of the subnet: half of 300,000,000 seconds.
		{"all that is left", thirteen.reserve(750<<30, 1298<<30), 1298 * 127_000 * 150_000_000},
		{"on a system subnet", pricesOf(Subnet{Nodes: 13, Type: SystemSubnet, MemoryCapacity: 1 << 30}).reserve(0, 1<<30), 0},
	} {
		if c.got != NewCycles(c.want) {
			t.Errorf("%s: %v, want %d", c.what, c.got, c.want)
		}
	}
}

// What canisters must keep: the idle burn of a day for the days of the
// threshold, less what is reserved.
func TestFreezingThreshold(t *testing.T) {
	t.Parallel()
	p := pricesOf(Subnet{Nodes: 13})
	st := &state{set: settings{freezingThreshold: 2_592_000}}
	for _, c := range []struct {
		usage, allocation, reserved uint64
		compute                     uint8
		want                        uint64
	}{
		{usage: 1 << 30, want: 127_000 * 2_592_000},
		{usage: 1 << 30, allocation: 2 << 30, want: 2 * 127_000 * 2_592_000},
		{usage: 2 << 30, allocation: 1 << 30, want: 2 * 127_000 * 2_592_000},
		{compute: 3, want: 3 * 10_000_000 * 2_592_000},
		{usage: 1 << 30, reserved: 1000, want: 127_000*2_592_000 - 1000},
		{usage: 1 << 30, reserved: 1 << 62, want: 0},
	} {
		st.set.memoryAllocation, st.set.compute, st.reserved = c.allocation, c.compute, NewCycles(c.reserved)
		if got := p.freezing(st, c.usage); got != NewCycles(c.want) {
			t.Errorf("%+v: %v", c, got)
		}
	}
	// Nothing overflows, and what can not be is more than anybody has.
	st.set.freezingThreshold, st.reserved = 1<<64-1, Cycles{}
	if got := p.freezing(st, 1<<64-1); got.Less(Cycles{1 << 40, 0}) {
		t.Errorf("the longest threshold: %v", got)
	}
	full := pricesOf(Subnet{Nodes: 13, MemoryCapacity: 10, MemoryThreshold: 10})
	if full.reserve(1<<63, 1<<63).IsZero() {
		t.Error("a subnet that is all threshold reserves nothing")
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	var none *Config
	if err := none.Validate(); err != nil {
		t.Error(err)
	}
	if err := (&Config{SnapshotLimit: -1}).Validate(); err == nil {
		t.Error("a limit of -1 is valid")
	}
	if err := (&Config{Limits: Limits{History: 1000}}).Validate(); err == nil {
		t.Error("a history of 1000 is valid")
	}
	if err := (&Config{Limits: Limits{Chunk: 1<<20 + 1}}).Validate(); err == nil {
		t.Error("a chunk may be larger than what it is charged")
	}
	if err := (&Config{Limits: Limits{ChunkStore: 126}}).Validate(); err == nil {
		t.Error("a chunk store may have more entries than a manifest")
	}
	if (&Config{}).String() != none.String() || none.String() == "" {
		t.Error("the zero Config is not nil's")
	}
}
