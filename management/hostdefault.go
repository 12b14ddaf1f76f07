package management

import (
	"context"
	"encoding/binary"
	"sync/atomic"
	"time"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/manifest"
)

// DefaultHost is a Host for a Service that works alone: one application subnet
// of 13 nodes, on which no code runs. Embed it and override what is known
// better. The zero value is ready; it must not be copied.
type DefaultHost struct {
	last atomic.Uint64 // newest time that was given out
	next atomic.Uint64 // canister ids given out
}

var _ Host = (*DefaultHost)(nil)

// Capacity and threshold of subnet memory in bytes, as on the Internet
// Computer.
const (
	DefaultMemoryCapacity  = 2 << 40
	DefaultMemoryThreshold = 750 << 30
)

// Time is the clock, which does not fall when it is set back.
func (h *DefaultHost) Time() uint64 {
	for {
		now, last := uint64(time.Now().UnixNano()), h.last.Load()
		if now <= last {
			return last
		}
		if h.last.CompareAndSwap(last, now) {
			return now
		}
	}
}

// Subnet is an application subnet of 13 nodes.
func (h *DefaultHost) Subnet() Subnet {
	return Subnet{Nodes: 13, MemoryCapacity: DefaultMemoryCapacity, MemoryThreshold: DefaultMemoryThreshold}
}

// NewCanisterID counts from 0. The Service asks again while a name is taken.
func (h *DefaultHost) NewCanisterID(context.Context) (engine.CanisterID, error) {
	return engine.CanisterIDFromBytes(append(binary.BigEndian.AppendUint64(nil, h.next.Add(1)-1), 1, 1))
}

// Compile reads what the sections of the module say; it compiles nothing.
func (h *DefaultHost) Compile(_ context.Context, wasm []byte) (*Module, error) {
	return ParseModule(wasm)
}

// RunInstall runs nothing: the memory is as the module declares it, and the
// globals are zero.
func (h *DefaultHost) RunInstall(_ context.Context, in Installation) (Installed, error) {
	out := Installed{Timer: Timer{Present: true}}
	for _, g := range in.Module.Globals {
		out.Globals = append(out.Globals, manifest.Global{Kind: g.Kind})
	}
	if !in.KeepMemory {
		out.WasmMemory = &Image{Size: in.Module.InitialMemory}
	}
	return out, nil
}

// LongExecution is never.
func (h *DefaultHost) LongExecution(engine.CanisterID) bool { return false }

// OpenCallContexts is none.
func (h *DefaultHost) OpenCallContexts(engine.CanisterID) int { return 0 }

// CloseCallContexts has nothing to close.
func (h *DefaultHost) CloseCallContexts(context.Context, engine.CanisterID, *Reject) {}

// Stopped is at once.
func (h *DefaultHost) Stopped(context.Context, engine.CanisterID) error { return nil }

// Happened does nothing.
func (h *DefaultHost) Happened(context.Context, engine.CanisterID, EventKind) {}

// Loadable is always.
func (h *DefaultHost) Loadable(engine.SnapshotID) bool { return true }

// LogBytes is none.
func (h *DefaultHost) LogBytes(engine.CanisterID) uint64 { return 0 }

// ClearLog has nothing to clear.
func (h *DefaultHost) ClearLog(context.Context, engine.CanisterID) {}

// QueryStats is none.
func (h *DefaultHost) QueryStats(engine.CanisterID) QueryStats { return QueryStats{} }

// ReadyForMigration is never.
func (h *DefaultHost) ReadyForMigration(engine.CanisterID) bool { return false }
