package management

import (
	"context"
	"slices"

	"github.com/snapstore/snapstore/engine"
)

// Execution is what running code changes of a canister beside its memories.
type Execution struct {
	Cycles        Cycles
	Version       uint64
	CertifiedData []byte
	// Globals are the captured ones; SetGlobals makes them from all.
	Globals []Global
	Timer   Timer
	Hook    HookStatus

	s      *Service
	module func() (*Module, error)
}

// SetGlobals takes the values of all globals that the module defines, in order,
// and keeps those that snapshots have.
func (x *Execution) SetGlobals(all []Global) (err error) {
	m, err := x.module()
	if err != nil {
		return err
	}
	x.Globals, err = x.s.capture(m, all)
	return err
}

// Execute lets a host change what code that ran has changed: cycles that it
// burned or got, certified data, globals, timer, hook, version. It becomes
// durable with the canister's next change, as the memories do.
func (s *Service) Execute(ctx context.Context, id engine.CanisterID, f func(*Execution) error) error {
	return s.with(ctx, id.Bytes(), func(c *canister, st *state) error {
		meta := c.live.Metadata()
		x := &Execution{
			Cycles: st.balance, Version: st.version, CertifiedData: slices.Clone(meta.CertifiedData), Globals: slices.Clone(meta.Globals),
			Timer: st.timer, Hook: st.hook, s: s,
		}
		x.module = func() (*Module, error) {
			wasm, err := s.liveModule(c.live)
			if err != nil {
				return nil, err
			}
			return s.host.Compile(ctx, wasm)
		}
		if err := f(x); err != nil {
			return err
		}
		meta.CertifiedData, meta.Globals = x.CertifiedData, x.Globals
		next := st.clone()
		next.balance, next.version, next.timer, next.hook = x.Cycles, x.Version, x.Timer, x.Hook
		next.timer.Present = true
		if _, err := next.encode(); err != nil {
			return storage(err)
		}
		if err := c.live.SetMetadata(meta); err != nil {
			return storage(err)
		}
		s.publish(c, next, st.balance.Sub(next.balance))
		s.mint(next.balance.Sub(st.balance))
		return nil
	})
}
