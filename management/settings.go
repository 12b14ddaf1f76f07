package management

import (
	"context"
	"crypto/sha256"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/snapstore/snapstore/management/candid"
	"github.com/snapstore/snapstore/manifest"
)

// UpdateSettings changes the settings that are given.
func (s *Service) UpdateSettings(ctx context.Context, by Caller, a UpdateSettingsArgs) error {
	if err := sender(by, a.SenderCanisterVersion); err != nil {
		return err
	}
	return s.with(ctx, a.CanisterID, func(c *canister, st *state) error {
		if err := controller(c, st, by); err != nil {
			return err
		}
		next := st.clone()
		if err := s.apply(next, &a.Settings); err != nil {
			return err
		}
		next.version++
		if a.Settings.Controllers != nil {
			next.record(change{
				at: s.host.Time(), version: next.version, origin: by.origin(), kind: changeControllers, controllers: next.set.controllers,
			}, s.cfg.Limits.History)
		}
		u, err := s.usageOf(c, st)
		if err != nil {
			return storage(err)
		}
		s.watchMemory(next, u.wasm)
		after := u
		after.history = next.historyBytes()
		// A canister without cycles may still change who controls it.
		if next.set.compute > st.set.compute || next.set.memoryAllocation > st.set.memoryAllocation || next.set.freezingThreshold > st.set.freezingThreshold {
			d := demand{
				was: u.total(), now: after.total(), allocation: true, compute: next.set.compute > st.set.compute, short: outOfCycles(c.id),
			}
			if err := s.afford(c, next, d); err != nil {
				return err
			}
		}
		return storage(s.commit(ctx, c, next))
	})
}

// watchMemory moves the hook on when the condition for it came or went.
func (s *Service) watchMemory(st *state, wasmMemory uint64) {
	limit := s.heapLimit(st.wasm64)
	switch low := st.lowMemory(wasmMemory, limit); {
	case !low:
		st.hook = manifest.HookConditionNotSatisfied
	case st.hook == manifest.HookConditionNotSatisfied:
		st.hook = manifest.HookReady
	}
}

// apply puts the settings that are given into a state, or says which can not be.
func (s *Service) apply(next *state, a *CanisterSettings) error {
	l := &s.cfg.Limits
	set := &next.set
	if a.Controllers != nil {
		if len(*a.Controllers) > l.Controllers {
			return invalid("Error decoding candid: %d controllers, at most %d", len(*a.Controllers), l.Controllers)
		}
		if err := fitting(*a.Controllers); err != nil {
			return err
		}
		set.controllers = nil
		for _, p := range *a.Controllers {
			if !slices.Contains(set.controllers, string(p)) {
				set.controllers = append(set.controllers, string(p))
			}
		}
	}
	if a.ComputeAllocation != nil {
		v, ok := a.ComputeAllocation.Uint64()
		if !ok || v > 100 {
			return reject(CodeCanisterContractViolation, "ComputeAllocation expected to be in the range [0..100], got %v", a.ComputeAllocation)
		}
		set.compute = uint8(v)
	}
	for _, f := range []struct {
		name string
		nat  *candid.Nat
		to   *uint64
		most uint64
	}{
		{"MemoryAllocation", a.MemoryAllocation, &set.memoryAllocation, 1 << 48},
		{"Freezing threshold", a.FreezingThreshold, &set.freezingThreshold, math.MaxUint64},
		{"Wasm memory limit", a.WasmMemoryLimit, &set.wasmMemoryLimit, 1 << 48},
		{"Wasm memory threshold", a.WasmMemoryThreshold, &set.wasmMemoryThreshold, math.MaxUint64},
		{"Log memory limit", a.LogMemoryLimit, &set.logMemoryLimit, 2 << 20},
	} {
		if f.nat == nil {
			continue
		}
		v, ok := f.nat.Uint64()
		if !ok || v > f.most {
			return reject(CodeCanisterContractViolation, "%s expected to be in the range [0..%d], got %v", f.name, f.most, f.nat)
		}
		*f.to = v
	}
	for _, f := range []struct {
		nat *candid.Nat
		to  *Cycles
	}{{a.ReservedCyclesLimit, &set.reservedLimit}, {a.MinimumIncomingCallCycles, &set.minimumIncoming}} {
		if f.nat != nil {
			*f.to = CyclesFromBig(f.nat.Big())
		}
	}
	if a.ReservedCyclesLimit != nil && set.reservedLimit.Less(next.reserved) {
		return reject(CodeReservedCyclesLimitIsTooLow,
			"Cannot set the reserved cycles limit %v below the reserved cycles balance of the canister %v.", set.reservedLimit, next.reserved)
	}
	for _, f := range []struct {
		v  *VisibilityVariant
		to *visibility
	}{{a.LogVisibility, &set.log}, {a.SnapshotVisibility, &set.snapshot}, {a.StatusVisibility, &set.stat}} {
		if f.v == nil {
			continue
		}
		if f.v.AllowedViewers != nil && len(*f.v.AllowedViewers) > l.Viewers {
			return invalid("Error decoding candid: %d viewers, at most %d", len(*f.v.AllowedViewers), l.Viewers)
		}
		if f.v.AllowedViewers != nil {
			if err := fitting(*f.v.AllowedViewers); err != nil {
				return err
			}
		}
		*f.to = visibilityOf(*f.v)
	}
	if a.EnvironmentVariables != nil {
		return s.applyEnvironment(set, *a.EnvironmentVariables)
	}
	return nil
}

// fitting refuses principals that no message can have: those of a typed call
// were not decoded.
func fitting(list []candid.Principal) error {
	for _, p := range list {
		if len(p) > candid.MaxPrincipal {
			return invalid("Error decoding candid: a principal of %d bytes, at most %d", len(p), candid.MaxPrincipal)
		}
	}
	return nil
}

func (s *Service) applyEnvironment(set *settings, vars []EnvironmentVariable) error {
	l := &s.cfg.Limits
	if len(vars) > l.Environment {
		return invalid("Error decoding candid: %d environment variables, at most %d", len(vars), l.Environment)
	}
	set.environment = nil
	seen := map[string]bool{}
	for _, v := range vars {
		switch {
		case len(v.Name) > l.EnvironmentText || len(v.Value) > l.EnvironmentText:
			return invalid("Error decoding candid: an environment variable of more than %d bytes", l.EnvironmentText)
		case !utf8.ValidString(v.Name) || !utf8.ValidString(v.Value):
			return invalid("Error decoding candid: an environment variable that is not UTF-8")
		case seen[v.Name]:
			return invalid("Duplicate environment variables are not allowed: %q", v.Name)
		}
		seen[v.Name] = true
		set.environment = append(set.environment, variable{v.Name, v.Value})
	}
	return nil
}

// environmentHash stands for the variables in the history; zero is none.
func environmentHash(vars []variable) (out [32]byte) {
	if len(vars) == 0 {
		return out
	}
	var pairs []string
	for _, v := range vars {
		name, value := sha256.Sum256([]byte(v.name)), sha256.Sum256([]byte(v.value))
		pairs = append(pairs, string(name[:])+string(value[:]))
	}
	slices.Sort(pairs)
	return sha256.Sum256([]byte(strings.Join(pairs, "")))
}

func visibilityOf(v VisibilityVariant) visibility {
	switch {
	case v.Public != nil:
		return visibility{kind: visibleToAll}
	case v.AllowedViewers != nil:
		out := visibility{kind: visibleToViewers}
		for _, p := range *v.AllowedViewers {
			out.viewers = append(out.viewers, string(p))
		}
		return out
	}
	return visibility{}
}

func visibilityVariant(v visibility) VisibilityVariant {
	switch v.kind {
	case visibleToAll:
		return VisibilityVariant{Public: &candid.Null{}}
	case visibleToViewers:
		list := principals(v.viewers)
		return VisibilityVariant{AllowedViewers: &list}
	}
	return VisibilityVariant{Controllers: &candid.Null{}}
}
