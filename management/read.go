package management

import (
	"context"
	"errors"
	"io"
	"math"
	"math/big"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/management/candid"
	"github.com/snapstore/snapstore/manifest"
)

// ReadCanisterSnapshotMetadata describes a snapshot of a canister.
func (s *Service) ReadCanisterSnapshotMetadata(ctx context.Context, by Caller, a SnapshotArgs) (out ReadCanisterSnapshotMetadataResult, err error) {
	if err := s.admit(by, "read_canister_snapshot_metadata", a.CanisterID); err != nil {
		return out, err
	}
	id, err := snapshotID(a.SnapshotID)
	if err != nil {
		return out, err
	}
	err = s.with(ctx, a.CanisterID, func(c *canister, st *state) error {
		if err := viewer(c, st, st.set.snapshot, by); err != nil {
			return err
		}
		info, err := s.own(c, id)
		if err != nil {
			return err
		}
		snap, err := s.e.Snapshot(ctx, info.ID)
		if err != nil {
			return storage(err)
		}
		defer snap.Close()
		out = describe(snap.Detail())
		return nil
	})
	return out, err
}

func describe(d engine.SnapshotDetail) ReadCanisterSnapshotMetadataResult {
	m := d.Metadata
	out := ReadCanisterSnapshotMetadataResult{
		Source: sourceVariant(m.Source == manifest.SourceUploaded), TakenAtTimestamp: m.TakenAt, CanisterVersion: m.CanisterVersion,
		CertifiedData: m.CertifiedData, GlobalTimer: timerVariant(m.GlobalTimer), OnLowWasmMemoryHookStatus: hookVariant(m.HookStatus),
	}
	for _, r := range d.Sections {
		switch r.Section.Kind {
		case manifest.WasmModule:
			out.WasmModuleSize = r.Size
		case manifest.WasmMemory:
			out.WasmMemorySize = r.Size
		case manifest.StableMemory:
			out.StableMemorySize = r.Size
		case manifest.WasmChunk:
			out.WasmChunkStore = append(out.WasmChunkStore, ChunkHash{Hash: r.Section.Hash[:]})
		}
	}
	for _, g := range m.Globals {
		out.Globals = append(out.Globals, globalVariant(g))
	}
	return out
}

// ReadCanisterSnapshotData reads a part of a snapshot, and charges the canister
// for it, also when the part is out of bounds.
func (s *Service) ReadCanisterSnapshotData(ctx context.Context, by Caller, a ReadCanisterSnapshotDataArgs) (out ReadCanisterSnapshotDataResult, err error) {
	if err := s.admit(by, "read_canister_snapshot_data", a.CanisterID); err != nil {
		return out, err
	}
	id, err := snapshotID(a.SnapshotID)
	if err != nil {
		return out, err
	}
	err = s.with(ctx, a.CanisterID, func(c *canister, st *state) error {
		if err := viewer(c, st, st.set.snapshot, by); err != nil {
			return err
		}
		info, err := s.own(c, id)
		if err != nil {
			return err
		}
		out.Chunk, err = s.readPart(ctx, c, st, info, a.Kind)
		return err
	})
	return out, err
}

func (s *Service) readPart(ctx context.Context, c *canister, st *state, info engine.SnapshotInfo, kind ReadKind) ([]byte, error) {
	var part *Slice
	var sec engine.Section
	var name string
	size := s.cfg.Limits.Chunk
	switch {
	case kind.WasmModule != nil:
		part, sec, name = kind.WasmModule, engine.WasmModule, "wasm module"
	case kind.WasmMemory != nil:
		part, sec, name = kind.WasmMemory, engine.WasmMemory, "main memory"
	case kind.StableMemory != nil:
		part, sec, name = kind.StableMemory, engine.StableMemory, "stable memory"
	case kind.WasmChunk == nil:
		return nil, invalid("Error decoding candid: no kind of data is chosen")
	}
	if part != nil {
		if size = part.Size; size > s.cfg.Limits.Slice {
			return nil, invalid("Requested slice too large: %d > %d", size, s.cfg.Limits.Slice)
		}
	}
	p := s.prices()
	instructions := addBytes(s.cfg.Fees.SnapshotDataBaseline, size)
	var out []byte
	err := s.charge(c, st, p.execution(instructions, false), func() (err error) {
		if part == nil {
			hash := kind.WasmChunk.Hash
			if len(hash) != 32 {
				return chunkStoreError("a hash has 32 bytes, not %d", len(hash))
			}
			sec = engine.WasmChunk([32]byte(hash))
		}
		out, err = s.readNow(ctx, info.ID, sec, part, name)
		return err
	})
	return out, err
}

// readNow reads a part of a section, or all of a chunk.
func (s *Service) readNow(ctx context.Context, id engine.SnapshotID, sec engine.Section, part *Slice, name string) ([]byte, error) {
	snap, err := s.e.Snapshot(ctx, id)
	if err != nil {
		return nil, storage(err)
	}
	defer snap.Close()
	r, length, err := s.reader(ctx, snap, sec)
	if err != nil {
		return nil, storage(err)
	}
	if part == nil {
		if length == 0 {
			return nil, chunkStoreError("no chunk %x in the snapshot", sec.Hash)
		}
		part = &Slice{Size: length}
	} else if addBytes(part.Offset, part.Size) > length || addBytes(part.Offset, part.Size) == math.MaxUint64 {
		return nil, invalid("Invalid subslice into %s: offset: %d, size: %d", name, part.Offset, part.Size)
	}
	out := make([]byte, part.Size)
	if len(out) == 0 {
		return out, nil
	}
	if _, err := r.ReadAt(out, int64(part.Offset)); err != nil && err != io.EOF {
		return nil, storage(err)
	}
	return out, nil
}

// charge takes a fee that does not depend on memory out of the canister's
// balance, above what it must keep, for what f does, also when f refuses what
// the caller asked for; but not for what the store could not do. The fee is
// durable with the next change.
func (s *Service) charge(c *canister, st *state, fee Cycles, f func() error) error {
	u, err := s.usageOf(c, st)
	if err != nil {
		return storage(err)
	}
	if need := s.prices().freezing(st, u.total()).Add(fee); !fee.IsZero() && st.balance.Less(need) {
		return outOfCycles(c.id)(need.Sub(st.balance))
	}
	err = f()
	var r *Reject
	if fee.IsZero() || errors.As(err, &r) && r.Err != nil {
		return err
	}
	next := st.clone()
	next.balance = next.balance.Sub(fee)
	s.publish(c, next, fee)
	return err
}

// reader opens a section of a snapshot, for as long as the snapshot is open,
// with its length; one that is not there has none. An upload shows what was
// written to it, durable or not.
func (s *Service) reader(ctx context.Context, snap *engine.Snapshot, sec engine.Section) (io.ReaderAt, uint64, error) {
	for _, r := range snap.Sections() {
		if r.Section != sec {
			continue
		}
		if info := snap.Info(); info.Mutable {
			u, err := s.lookup(info.ID.Canister).live.OpenUpload(ctx, info.ID)
			return uploadReader{u, sec}, r.Size, err
		}
		out, err := snap.Section(sec)
		return out, r.Size, err
	}
	return nil, 0, nil
}

type uploadReader struct {
	u   *engine.Upload
	sec engine.Section
}

func (r uploadReader) ReadAt(p []byte, off int64) (int, error) { return r.u.ReadAt(r.sec, p, off) }

func sourceVariant(uploaded bool) SourceVariant {
	if uploaded {
		return SourceVariant{MetadataUpload: &candid.Reserved{}}
	}
	return SourceVariant{TakenFromCanister: &candid.Reserved{}}
}

func globalVariant(g Global) GlobalVariant {
	switch g.Kind {
	case manifest.GlobalI32:
		v := int32(uint32(g.Lo))
		return GlobalVariant{I32: &v}
	case manifest.GlobalI64:
		v := int64(g.Lo)
		return GlobalVariant{I64: &v}
	case manifest.GlobalF32:
		v := math.Float32frombits(uint32(g.Lo))
		return GlobalVariant{F32: &v}
	case manifest.GlobalF64:
		v := math.Float64frombits(g.Lo)
		return GlobalVariant{F64: &v}
	}
	v := natOf(Cycles{g.Hi, g.Lo})
	return GlobalVariant{V128: &v}
}

// natOf converts; every amount fits a nat.
func natOf(c Cycles) candid.Nat {
	n, err := candid.NewNat(c.Big())
	if err != nil {
		return candid.Nat{}
	}
	return n
}

func nat(n uint64) candid.Nat { return candid.NatFromUint64(n) }

// globalOf reads a global of an argument; ok is false for one out of range.
func globalOf(v GlobalVariant) (g Global, ok bool) {
	switch {
	case v.I32 != nil:
		return Global{Kind: manifest.GlobalI32, Lo: uint64(uint32(*v.I32))}, true
	case v.I64 != nil:
		return Global{Kind: manifest.GlobalI64, Lo: uint64(*v.I64)}, true
	case v.F32 != nil:
		return Global{Kind: manifest.GlobalF32, Lo: uint64(math.Float32bits(*v.F32))}, true
	case v.F64 != nil:
		return Global{Kind: manifest.GlobalF64, Lo: math.Float64bits(*v.F64)}, true
	case v.V128 != nil && v.V128.Big().Cmp(new(big.Int).Lsh(big.NewInt(1), 128)) < 0:
		c := CyclesFromBig(v.V128.Big())
		return Global{Kind: manifest.GlobalV128, Lo: c.lo, Hi: c.hi}, true
	}
	return g, false
}

func timerVariant(t Timer) *TimerVariant {
	switch {
	case t.Active:
		return &TimerVariant{Active: &t.Deadline}
	case t.Present:
		return &TimerVariant{Inactive: &candid.Null{}}
	}
	return nil
}

func timerOf(v *TimerVariant) Timer {
	switch {
	case v == nil:
		return Timer{}
	case v.Active != nil:
		return Timer{Present: true, Active: true, Deadline: *v.Active}
	}
	return Timer{Present: true}
}

func hookVariant(h HookStatus) *HookVariant {
	switch h {
	case manifest.HookConditionNotSatisfied:
		return &HookVariant{ConditionNotSatisfied: &candid.Null{}}
	case manifest.HookReady:
		return &HookVariant{Ready: &candid.Null{}}
	case manifest.HookExecuted:
		return &HookVariant{Executed: &candid.Null{}}
	}
	return nil
}

func hookOf(v *HookVariant) HookStatus {
	switch {
	case v == nil:
		return manifest.HookAbsent
	case v.Ready != nil:
		return manifest.HookReady
	case v.Executed != nil:
		return manifest.HookExecuted
	}
	return manifest.HookConditionNotSatisfied
}
