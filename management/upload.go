package management

import (
	"context"
	"crypto/sha256"
	"errors"
	"math"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/manifest"
)

// UploadCanisterSnapshotMetadata begins a snapshot that is filled from outside.
// The canister is charged for all of it at once.
func (s *Service) UploadCanisterSnapshotMetadata(ctx context.Context, by Caller, a UploadCanisterSnapshotMetadataArgs) (out UploadCanisterSnapshotMetadataResult, err error) {
	if err := s.admit(by, "upload_canister_snapshot_metadata", a.CanisterID); err != nil {
		return out, err
	}
	replace, err := optSnapshotID(a.ReplaceSnapshot)
	if err != nil {
		return out, err
	}
	err = s.with(ctx, a.CanisterID, func(c *canister, st *state) error {
		if err := controller(c, st, by); err != nil {
			return err
		}
		meta, err := s.declared(st, &a)
		if err != nil {
			return err
		}
		old, err := s.replaced(c, replace, s.cfg.SnapshotLimit)
		if err != nil {
			return err
		}
		if err := s.rateLimited(c); err != nil {
			return err
		}
		u, err := s.usageOf(c, st)
		if err != nil {
			return storage(err)
		}
		size := addBytes(a.WasmModuleSize, a.WasmMemorySize, a.StableMemorySize, uint64(len(meta.CertifiedData)), globalBytes(meta.Globals))
		next := st.clone()
		p := s.prices()
		fee := p.execution(addBytes(s.baseline(p), size), false)
		now := addBytes(subBytes(u.total(), old.Size), size)
		if err := s.afford(c, next, demand{was: u.total(), now: now, fee: fee, short: outOfCycles(c.id)}); err != nil {
			return err
		}
		blob, err := next.encode()
		if err != nil {
			return storage(err)
		}
		up, err := c.live.Upload(ctx, meta, []engine.UploadSection{
			{Section: engine.WasmModule, Size: a.WasmModuleSize},
			{Section: engine.WasmMemory, Size: a.WasmMemorySize},
			{Section: engine.StableMemory, Size: a.StableMemorySize},
		}, engine.UploadOptions{Replace: old.ID, TakenAt: s.now(), Host: blob})
		if err != nil {
			return s.engineError(c, err)
		}
		s.publish(c, next, fee)
		out.SnapshotID = up.ID().Bytes()
		return nil
	})
	return out, err
}

// declared checks what an upload declares.
func (s *Service) declared(st *state, a *UploadCanisterSnapshotMetadataArgs) (engine.Metadata, error) {
	l := &s.cfg.Limits
	heap := s.heapLimit(st.wasm64)
	meta := engine.Metadata{
		CanisterVersion: st.version, CertifiedData: a.CertifiedData,
		GlobalTimer: timerOf(a.GlobalTimer), HookStatus: hookOf(a.OnLowWasmMemoryHookStatus),
	}
	switch {
	case a.WasmModuleSize == 0 || a.WasmModuleSize > l.WasmModule:
		return meta, invalidMetadata("wasm module of %d bytes, want 1 to %d", a.WasmModuleSize, l.WasmModule)
	case a.WasmMemorySize%wasmPage != 0:
		return meta, invalidMetadata("wasm memory of %d bytes is no multiple of %d", a.WasmMemorySize, wasmPage)
	case a.WasmMemorySize > heap:
		return meta, invalidMetadata("wasm memory of %d bytes, at most %d", a.WasmMemorySize, heap)
	case a.StableMemorySize%wasmPage != 0:
		return meta, invalidMetadata("stable memory of %d bytes is no multiple of %d", a.StableMemorySize, wasmPage)
	case a.StableMemorySize > l.StableMemory:
		return meta, invalidMetadata("stable memory of %d bytes, at most %d", a.StableMemorySize, l.StableMemory)
	case len(a.Globals) > l.Globals:
		return meta, invalidMetadata("%d globals, at most %d", len(a.Globals), l.Globals)
	case len(a.CertifiedData) > l.CertifiedData:
		return meta, invalidMetadata("%d bytes of certified data, at most %d", len(a.CertifiedData), l.CertifiedData)
	}
	for i, v := range a.Globals {
		g, ok := globalOf(v)
		if !ok {
			return meta, invalidMetadata("global %d is out of range", i)
		}
		meta.Globals = append(meta.Globals, g)
	}
	return meta, nil
}

// UploadCanisterSnapshotData writes a part of an uploaded snapshot, and charges
// the canister for it, also when the part is out of bounds.
func (s *Service) UploadCanisterSnapshotData(ctx context.Context, by Caller, a UploadCanisterSnapshotDataArgs) error {
	if err := s.admit(by, "upload_canister_snapshot_data", a.CanisterID); err != nil {
		return err
	}
	id, err := snapshotID(a.SnapshotID)
	if err != nil {
		return err
	}
	return s.with(ctx, a.CanisterID, func(c *canister, st *state) error {
		if err := controller(c, st, by); err != nil {
			return err
		}
		info, err := s.own(c, id)
		if err != nil {
			return err
		}
		if !info.Mutable {
			return reject(CodeCanisterSnapshotImmutable, "Only canister snapshots created by metadata upload can be mutated.")
		}
		// By its text this is an error of the chunk store, whatever is written.
		if err := s.rateLimited(c); err != nil {
			return chunkStoreError("%v", rejectText(err))
		}
		if a.Kind.WasmChunk != nil {
			return s.uploadChunkNow(ctx, c, st, info, a.Chunk)
		}
		return s.uploadPart(ctx, c, st, info, &a)
	})
}

func rejectText(err error) string {
	var r *Reject
	if errors.As(err, &r) {
		return r.Message
	}
	return err.Error()
}

func (s *Service) uploadPart(ctx context.Context, c *canister, st *state, info engine.SnapshotInfo, a *UploadCanisterSnapshotDataArgs) error {
	var at *Offset
	var sec engine.Section
	var name string
	switch {
	case a.Kind.WasmModule != nil:
		at, sec, name = a.Kind.WasmModule, engine.WasmModule, "wasm module"
	case a.Kind.WasmMemory != nil:
		at, sec, name = a.Kind.WasmMemory, engine.WasmMemory, "main memory"
	case a.Kind.StableMemory != nil:
		at, sec, name = a.Kind.StableMemory, engine.StableMemory, "stable memory"
	default:
		return invalid("Error decoding candid: no kind of data is chosen")
	}
	size := uint64(len(a.Chunk))
	return s.charge(c, st, s.prices().execution(size, false), func() error {
		return s.writeNow(ctx, c, info.ID, sec, at.Offset, a.Chunk, name)
	})
}

// writeNow writes a part of a section of an upload.
func (s *Service) writeNow(ctx context.Context, c *canister, id engine.SnapshotID, sec engine.Section, off uint64, data []byte, name string) error {
	size := uint64(len(data))
	var length uint64
	snap, err := s.e.Snapshot(ctx, id)
	if err != nil {
		return storage(err)
	}
	for _, r := range snap.Sections() {
		if r.Section == sec {
			length = r.Size
		}
	}
	snap.Close()
	if end := addBytes(off, size); end > length || end == math.MaxUint64 {
		return invalid("Invalid subslice into %s: offset: %d, size: %d", name, off, size)
	}
	if size == 0 {
		return nil
	}
	u, err := c.live.OpenUpload(ctx, id)
	if err != nil {
		return storage(err)
	}
	// A page that is written in part is read first. That can only be the first or
	// the last: a write must not stop half way because the last can not be read.
	if (off+size)%engine.PageSize != 0 {
		if _, err := u.ReadAt(sec, make([]byte, 1), int64(off+size-1)); err != nil {
			return storage(err)
		}
	}
	if _, err := u.WriteAt(sec, data, int64(off)); err != nil {
		return storage(err)
	}
	s.delta(c, size)
	return nil
}

// uploadChunkNow adds an entry to the chunk store of an upload.
func (s *Service) uploadChunkNow(ctx context.Context, c *canister, st *state, info engine.SnapshotInfo, chunk []byte) error {
	l := &s.cfg.Limits
	u, err := s.usageOf(c, st)
	if err != nil {
		return storage(err)
	}
	have, entries, err := s.chunkIn(ctx, info.ID, sha256.Sum256(chunk))
	if err != nil {
		return storage(err)
	}
	// The fee comes first: it is charged for a chunk that is refused, too.
	fee := s.prices().execution(l.Chunk, false)
	now := u.total()
	if !have {
		switch {
		case uint64(len(chunk)) > l.Chunk || len(chunk) == 0:
			return s.chargedError(c, st, fee, chunkStoreError("a chunk of %d bytes, want 1 to %d", len(chunk), l.Chunk))
		case entries >= l.ChunkStore:
			return s.chargedError(c, st, fee, chunkStoreError("the store has the most entries it may have, %d", l.ChunkStore))
		}
		now = addBytes(now, chunkCharge)
	}
	next := st.clone()
	if err := s.afford(c, next, demand{was: u.total(), now: now, fee: fee, short: outOfCycles(c.id)}); err != nil {
		return err
	}
	blob, err := next.encode()
	if err != nil {
		return storage(err)
	}
	up, err := c.live.OpenUpload(ctx, info.ID)
	if err != nil {
		return storage(err)
	}
	if _, err := up.AddChunk(ctx, chunk, blob); err != nil {
		return storage(err)
	}
	s.publish(c, next, fee)
	s.delta(c, l.Chunk)
	return nil
}

// chargedError charges for a call and refuses it.
func (s *Service) chargedError(c *canister, st *state, fee Cycles, r *Reject) error {
	return s.charge(c, st, fee, func() error { return r })
}

// chunkIn tells whether a snapshot has a chunk, and how many it has.
func (s *Service) chunkIn(ctx context.Context, id engine.SnapshotID, hash [32]byte) (have bool, entries int, err error) {
	snap, err := s.e.Snapshot(ctx, id)
	if err != nil {
		return false, 0, err
	}
	defer snap.Close()
	for _, r := range snap.Sections() {
		if r.Section.Kind == manifest.WasmChunk {
			entries++
			have = have || r.Section.Hash == hash
		}
	}
	return have, entries, nil
}
