package management

import (
	"context"
	"crypto/sha256"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/manifest"
)

// self lets controllers and the canister itself.
func self(c *canister, st *state, by Caller) error {
	if string(by.Principal) == principalOf(c.id) {
		return nil
	}
	return controller(c, st, by)
}

// UploadChunk puts a chunk into the chunk store of a canister.
func (s *Service) UploadChunk(ctx context.Context, by Caller, a UploadChunkArgs) (out ChunkHash, err error) {
	err = s.with(ctx, a.CanisterID, func(c *canister, st *state) error {
		if err := self(c, st, by); err != nil {
			return err
		}
		if err := s.rateLimited(c); err != nil {
			return err
		}
		l := &s.cfg.Limits
		hash := sha256.Sum256(a.Chunk)
		sec := engine.WasmChunk(hash)
		// To open a section makes it, so only those that are there are opened.
		entries := 0
		for _, have := range c.live.Sections() {
			m, err := c.live.Memory(have)
			if err != nil {
				return storage(err)
			}
			if have.Kind != manifest.WasmChunk || m.Size() == 0 {
				continue
			}
			if have == sec {
				out.Hash = hash[:]
				return nil
			}
			entries++
		}
		switch {
		case uint64(len(a.Chunk)) > l.Chunk || len(a.Chunk) == 0:
			return chunkStoreError("a chunk of %d bytes, want 1 to %d", len(a.Chunk), l.Chunk)
		case entries >= l.ChunkStore:
			return chunkStoreError("the store has the most entries it may have, %d", l.ChunkStore)
		}
		u, err := s.usageOf(c, st)
		if err != nil {
			return storage(err)
		}
		next := st.clone()
		fee := s.prices().execution(s.cfg.Fees.UploadChunk, false)
		if err := s.afford(c, next, demand{was: u.total(), now: addBytes(u.total(), chunkCharge), fee: fee, short: broke(c.id, "upload of a chunk")}); err != nil {
			return err
		}
		mem, err := c.live.Memory(sec)
		if err != nil {
			return storage(err)
		}
		if err = mem.Resize(uint64(len(a.Chunk))); err == nil {
			if _, err = mem.WriteAt(a.Chunk, 0); err == nil {
				err = s.commit(ctx, c, next)
			}
		}
		if err != nil {
			_ = mem.Resize(0)
			return storage(err)
		}
		s.burn(fee)
		s.delta(c, l.Chunk)
		out.Hash = hash[:]
		return nil
	})
	return out, err
}

// ClearChunkStore empties the chunk store of a canister.
func (s *Service) ClearChunkStore(ctx context.Context, by Caller, a CanisterIDArgs) error {
	return s.with(ctx, a.CanisterID, func(c *canister, st *state) error {
		if err := self(c, st, by); err != nil {
			return err
		}
		return storage(s.replace(ctx, c, st.clone(), func(live *engine.Canister) error {
			for _, sec := range live.Sections() {
				if sec.Kind == manifest.WasmChunk {
					if err := live.RemoveSection(sec); err != nil {
						return err
					}
				}
			}
			return nil
		}))
	})
}

// StoredChunks lists the chunk store of a canister.
func (s *Service) StoredChunks(ctx context.Context, by Caller, a CanisterIDArgs) ([]ChunkHash, error) {
	out := []ChunkHash{}
	err := s.with(ctx, a.CanisterID, func(c *canister, st *state) error {
		if err := self(c, st, by); err != nil {
			return err
		}
		for _, sec := range c.live.Sections() {
			if sec.Kind != manifest.WasmChunk {
				continue
			}
			mem, err := c.live.Memory(sec)
			if err != nil {
				return storage(err)
			}
			if mem.Size() > 0 {
				out = append(out, ChunkHash{Hash: sec.Hash[:]})
			}
		}
		return nil
	})
	return out, err
}
