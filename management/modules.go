package management

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"sync"

	"github.com/snapstore/snapstore/engine"
)

func hashOf(b []byte) [32]byte { return sha256.Sum256(b) }

// modulesAtOnce bounds the cache of descriptions; they are small.
const modulesAtOnce = 256

// compiled is a module that was described, and its SHA-256.
type compiled struct {
	*Module
	hash [32]byte
}

// moduleCache keeps what compiling told, by the root of the module's pages, so
// that loading a snapshot does not read and compile what was seen before.
type moduleCache struct {
	mu sync.Mutex
	m  map[engine.SectionRoot]*compiled
}

func (mc *moduleCache) get(r engine.SectionRoot) *compiled {
	mc.mu.Lock()
	defer mc.mu.Unlock()
	return mc.m[r]
}

func (mc *moduleCache) put(r engine.SectionRoot, m *compiled) {
	mc.mu.Lock()
	defer mc.mu.Unlock()
	if mc.m == nil || len(mc.m) >= modulesAtOnce {
		mc.m = map[engine.SectionRoot]*compiled{}
	}
	mc.m[r] = m
}

// compile describes the module of a snapshot; of an upload that can still
// change, what was written to it so far.
func (s *Service) compile(ctx context.Context, snap *engine.Snapshot) (*compiled, error) {
	mutable := snap.Info().Mutable
	for _, r := range snap.Sections() {
		if r.Section != engine.WasmModule {
			continue
		}
		if m := s.modules.get(r); m != nil && !mutable {
			return m, nil
		}
		src, size, err := s.reader(ctx, snap, r.Section)
		if err != nil {
			return nil, err
		}
		wasm, err := io.ReadAll(io.NewSectionReader(src, 0, int64(size)))
		if err != nil {
			return nil, err
		}
		m, err := s.host.Compile(ctx, wasm)
		if err != nil {
			return nil, invalidWasm(err)
		}
		out := &compiled{m, hashOf(wasm)}
		if !mutable {
			s.modules.put(r, out)
		}
		return out, nil
	}
	return nil, invalidWasm(fmt.Errorf("there is no module"))
}

func invalidWasm(err error) *Reject {
	return reject(CodeCanisterInvalidWasm, "Canister's Wasm module is not valid: %v", err)
}

// liveModule reads the module of the live state; nil when there is none.
func (s *Service) liveModule(live *engine.Canister) ([]byte, error) {
	mem, err := live.Memory(engine.WasmModule)
	if err != nil || mem.Size() == 0 {
		return nil, err
	}
	return io.ReadAll(io.NewSectionReader(mem, 0, int64(mem.Size())))
}
