package management

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"

	"github.com/snapstore/snapstore/engine"
)

// InstallCode gives a canister a module. What its code does on the way is for
// the host to run; the state that it leaves and the module become the
// canister's in one step.
func (s *Service) InstallCode(ctx context.Context, by Caller, a InstallCodeArgs) error {
	if err := sender(by, a.SenderCanisterVersion); err != nil {
		return err
	}
	return s.with(ctx, a.CanisterID, func(c *canister, st *state) error {
		if err := controller(c, st, by); err != nil {
			return err
		}
		if err := s.rateLimited(c); err != nil {
			return err
		}
		in := Installation{Canister: c.id, Caller: by, Wasm: a.WasmModule, Arg: a.Arg, Live: c.live}
		switch {
		case a.Mode.Install != nil:
			in.Kind = Install
			if st.hasModule {
				return reject(CodeCanisterNonEmpty,
					"Canister %s cannot be installed because the canister is not empty. Try installing with mode='reinstall' instead.", c.id)
			}
		case a.Mode.Reinstall != nil:
			in.Kind = Reinstall
		case a.Mode.Upgrade != nil:
			in.Kind = Upgrade
			if f := *a.Mode.Upgrade; f != nil {
				in.SkipPreUpgrade = f.SkipPreUpgrade != nil && *f.SkipPreUpgrade
				in.KeepMemory = f.WasmMemoryPersistence != nil && f.WasmMemoryPersistence.Keep != nil
			}
			if !st.hasModule {
				return reject(CodeCanisterWasmModuleNotFound, "Attempted to upgrade canister %s, which has no module.", c.id)
			}
		default:
			return invalid("Error decoding candid: no mode is chosen")
		}
		return s.install(ctx, c, st, in)
	})
}

func (s *Service) install(ctx context.Context, c *canister, st *state, in Installation) error {
	l := &s.cfg.Limits
	if n := uint64(len(in.Wasm)); n == 0 || n > l.WasmModule {
		return invalidWasm(errors.New("it is empty or too large"))
	}
	m, err := s.host.Compile(ctx, in.Wasm)
	if err != nil {
		return invalidWasm(err)
	}
	in.Module = m
	u, err := s.usageOf(c, st)
	if err != nil {
		return storage(err)
	}
	// Compiling and running must be paid for before they are begun.
	p := s.prices()
	fee := p.execution(m.Instructions, m.Wasm64)
	if need := p.freezing(st, u.total()).Add(fee); !fee.IsZero() && st.balance.Less(need) {
		return broke(c.id, "installation")(need.Sub(st.balance))
	}
	done, err := s.host.RunInstall(ctx, in)
	if err != nil {
		var r *Reject
		if errors.As(err, &r) {
			return r
		}
		return reject(CodeCanisterTrapped, "Error from Canister %s: %v", c.id, err)
	}
	fee = p.execution(addBytes(m.Instructions, done.Instructions), m.Wasm64)

	meta, err := s.installedMeta(c, in, m, &done)
	if err != nil {
		return err
	}
	after := u
	after.module, after.custom = uint64(len(in.Wasm)), m.CustomSections
	after.globals, after.certified = globalBytes(meta.Globals), uint64(len(meta.CertifiedData))
	if in.Kind == Reinstall {
		after.stable = 0
	}
	if !in.KeepMemory {
		after.wasm = 0
	}
	if done.WasmMemory != nil {
		after.wasm = done.WasmMemory.Size
	}
	if done.StableMemory != nil {
		after.stable = done.StableMemory.Size
	}
	heap := s.heapLimit(m.Wasm64)
	if after.wasm > heap || after.stable > l.StableMemory {
		return invalidWasm(errors.New("its memory is too large"))
	}
	next := st.clone()
	next.version++
	next.use(&compiled{m, hashOf(in.Wasm)})
	next.timer = done.Timer
	next.timer.Present = true
	next.lastInstall = s.host.Time()
	s.watchMemory(next, after.wasm)
	next.record(change{
		at: next.lastInstall, version: next.version, origin: in.Caller.origin(), kind: changeDeployment, mode: in.Kind, module: next.moduleHash,
	}, l.History)
	after.history = next.historyBytes()
	if err := s.afford(c, next, demand{was: u.total(), now: after.total(), fee: fee, short: broke(c.id, "installation")}); err != nil {
		return err
	}
	err = s.replace(ctx, c, next, func(live *engine.Canister) error {
		return writeInstalled(ctx, live, in, &done, meta)
	})
	if err != nil {
		return storage(err)
	}
	s.burn(fee)
	s.host.Happened(ctx, c.id, EventInstalled)
	return nil
}

// installedMeta checks what the host says the code left, and makes of it what
// is stored beside the sections.
func (s *Service) installedMeta(c *canister, in Installation, m *Module, done *Installed) (engine.Metadata, error) {
	meta := engine.Metadata{CertifiedData: done.CertifiedData}
	if done.CertifiedData == nil && in.Kind == Upgrade {
		meta.CertifiedData = c.live.Metadata().CertifiedData
	}
	if len(done.CertifiedData) > s.cfg.Limits.CertifiedData {
		return meta, reject(CodeCanisterContractViolation, "Certified data of %d bytes, at most %d.", len(done.CertifiedData), s.cfg.Limits.CertifiedData)
	}
	var err error
	meta.Globals, err = s.capture(m, done.Globals)
	return meta, err
}

// capture keeps of the values of all globals those that snapshots have.
func (s *Service) capture(m *Module, all []Global) ([]Global, error) {
	if len(all) != len(m.Globals) {
		return nil, invalidWasm(errors.New("the host has another number of globals"))
	}
	var out []Global
	for i, t := range m.Globals {
		if !t.Captured() {
			continue
		}
		if all[i].Kind != t.Kind {
			return nil, invalidWasm(errors.New("the host has globals of other types"))
		}
		out = append(out, all[i])
	}
	if len(out) > s.cfg.Limits.Globals {
		return nil, invalidWasm(errors.New("too many globals"))
	}
	return out, nil
}

// writeInstalled makes the live state the installed one, in memory.
func writeInstalled(ctx context.Context, live *engine.Canister, in Installation, done *Installed, meta engine.Metadata) error {
	write := func(sec engine.Section, img *Image, wipe bool) error {
		mem, err := live.Memory(sec)
		if err != nil || img == nil && !wipe {
			return err
		}
		if img == nil || img.At == nil {
			if err := mem.Resize(0); err != nil || img == nil {
				return err
			}
			return mem.Resize(img.Size)
		}
		if img.Size > math.MaxInt64 {
			return errors.New("image too large")
		}
		_, err = mem.Assign(ctx, io.NewSectionReader(img.At, 0, int64(img.Size)), img.Size, nil)
		return err
	}
	return errors.Join(
		write(engine.WasmModule, &Image{Size: uint64(len(in.Wasm)), At: bytes.NewReader(in.Wasm)}, true),
		write(engine.WasmMemory, done.WasmMemory, !in.KeepMemory),
		write(engine.StableMemory, done.StableMemory, in.Kind == Reinstall),
		live.SetMetadata(meta),
	)
}

// UninstallCode takes a canister's module and memories away. Snapshots stay.
func (s *Service) UninstallCode(ctx context.Context, by Caller, a UninstallCodeArgs) error {
	if err := sender(by, a.SenderCanisterVersion); err != nil {
		return err
	}
	return s.with(ctx, a.CanisterID, func(c *canister, st *state) error {
		if err := controller(c, st, by); err != nil {
			return err
		}
		next := st.clone()
		s.uninstalled(next, by)
		if err := s.replace(ctx, c, next, func(live *engine.Canister) error { return clearLive(live, true) }); err != nil {
			return storage(err)
		}
		s.afterUninstall(ctx, c)
		return nil
	})
}
