package management

import (
	"context"
	"errors"
	"fmt"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/management/candid"
)

// CreateCanister makes a canister of the cycles that came with the call.
func (s *Service) CreateCanister(ctx context.Context, by Caller, a CreateCanisterArgs) (CreateCanisterResult, error) {
	if err := sender(by, a.SenderCanisterVersion); err != nil {
		return CreateCanisterResult{}, err
	}
	p := s.prices()
	fee := p.scale(NewCycles(s.cfg.Fees.CreateCanister))
	if by.Cycles.Less(fee) {
		return CreateCanisterResult{}, reject(CodeInsufficientCyclesForCreateCanister,
			"Creating a canister requires a fee of %v that is deducted from the canister's initial balance but only %v cycles were received with the create_canister request.",
			fee, by.Cycles)
	}
	return s.create(ctx, by, a.Settings, nil, by.Cycles, fee)
}

// ProvisionalCreateCanister makes a canister of cycles that nobody pays.
func (s *Service) ProvisionalCreateCanister(ctx context.Context, by Caller, a ProvisionalCreateArgs) (CreateCanisterResult, error) {
	if !s.cfg.Provisional {
		return CreateCanisterResult{}, notProvisional(by)
	}
	if err := sender(by, a.SenderCanisterVersion); err != nil {
		return CreateCanisterResult{}, err
	}
	amount := NewCycles(s.cfg.Fees.ProvisionalBalance)
	if a.Amount != nil {
		amount = CyclesFromBig(a.Amount.Big())
	}
	var at *engine.CanisterID
	if a.SpecifiedID != nil {
		id, err := engine.CanisterIDFromBytes(*a.SpecifiedID)
		if err != nil {
			return CreateCanisterResult{}, undecodable(err)
		}
		at = &id
	}
	return s.create(ctx, by, a.Settings, at, amount, Cycles{})
}

func notProvisional(by Caller) *Reject {
	return reject(CodeCanisterContractViolation, "Caller %s is not allowed to call ic00 provisional methods", text(by.Principal))
}

func (s *Service) create(ctx context.Context, by Caller, set *CanisterSettings, at *engine.CanisterID, amount, fee Cycles) (out CreateCanisterResult, err error) {
	next := s.newState()
	next.set.controllers = []string{string(by.Principal)}
	if set != nil {
		if err := s.apply(next, set); err != nil {
			return out, err
		}
	}
	next.balance = amount
	next.record(change{
		at: s.host.Time(), origin: by.origin(), kind: changeCreation,
		controllers: next.set.controllers, environment: environmentHash(next.set.environment),
	}, s.cfg.Limits.History)
	most := s.cfg.Limits.CanistersPerSubnet
	s.mu.Lock()
	full := most > 0 && len(s.table)+s.creating >= most
	if !full {
		s.creating++
	}
	s.mu.Unlock()
	if full {
		return out, reject(CodeMaxNumberOfCanistersReached, "Subnet has reached the allowed canister limit of %d canisters.", most)
	}

	c := &canister{op: make(chan struct{}, 1)}
	c.op <- struct{}{}
	c.st.Store(s.newState())
	defer c.unlock()
	err = s.afford(c, next, demand{now: next.historyBytes(), fee: fee, allocation: true, short: func(need Cycles) *Reject {
		return reject(CodeInsufficientCyclesForCreateCanister, "Creating the canister needs %v more cycles.", need)
	}})
	if err == nil {
		err = s.createNow(ctx, c, next, at)
	}
	if err != nil {
		s.forgetMemory(c)
		s.mu.Lock()
		s.creating--
		s.mu.Unlock()
		return out, err
	}
	s.mint(amount)
	s.burn(fee)
	if err := s.account(c); err != nil {
		return out, storage(err)
	}
	return CreateCanisterResult{CanisterID: c.id.Bytes()}, nil
}

// idsAtOnce is how many names the host may give that are taken.
const idsAtOnce = 100_000

// createNow makes the canister durable, under a name that was never used if
// none is given, and enters it.
func (s *Service) createNow(ctx context.Context, c *canister, next *state, at *engine.CanisterID) error {
	blob, err := next.encode()
	if err != nil {
		return storage(err)
	}
	for range idsAtOnce {
		var id engine.CanisterID
		if at != nil {
			id = *at
		} else if id, err = s.host.NewCanisterID(ctx); err != nil {
			return storage(err)
		}
		live, err := s.e.CreateCanisterHost(ctx, id, blob)
		switch {
		case err == nil:
			c.id, c.live = id, live
			c.st.Store(next)
			s.mu.Lock()
			s.table[id] = c
			s.creating--
			s.mu.Unlock()
			return nil
		case !errors.Is(err, engine.ErrExists):
			return storage(err)
		case at != nil:
			return reject(CodeCanisterIDAlreadyExists, "Canister %s is already installed.", id)
		}
	}
	return storage(fmt.Errorf("the host gave %d names that are taken", idsAtOnce))
}

// forgetMemory takes a canister that is not there out of the ledger.
func (s *Service) forgetMemory(c *canister) {
	s.mu.Lock()
	s.allocated -= c.counted + c.held
	c.counted, c.held = 0, 0
	s.mu.Unlock()
}

// ProvisionalTopUpCanister adds cycles that nobody pays.
func (s *Service) ProvisionalTopUpCanister(ctx context.Context, by Caller, a ProvisionalTopUpArgs) error {
	if !s.cfg.Provisional {
		return notProvisional(by)
	}
	return s.with(ctx, a.CanisterID, func(c *canister, st *state) error {
		next := st.clone()
		next.balance = next.balance.Add(CyclesFromBig(a.Amount.Big()))
		if err := s.commit(ctx, c, next); err != nil {
			return storage(err)
		}
		s.mint(next.balance.Sub(st.balance))
		return nil
	})
}

// StartCanister lets a canister run, and ends the stopping of one.
func (s *Service) StartCanister(ctx context.Context, by Caller, a CanisterIDArgs) error {
	return s.with(ctx, a.CanisterID, func(c *canister, st *state) error {
		if err := controller(c, st, by); err != nil {
			return err
		}
		return s.setStatus(ctx, c, st, Running)
	})
}

func (s *Service) setStatus(ctx context.Context, c *canister, st *state, to CanisterStatus) error {
	if st.status == to {
		return nil
	}
	next := st.clone()
	next.status = to
	next.version++
	if err := s.commit(ctx, c, next); err != nil {
		return storage(err)
	}
	c.live.SetStatus(engine.Status{Running: to != Stopped, OpenCallContexts: s.host.OpenCallContexts(c.id)})
	switch to {
	case Running:
		s.host.Happened(ctx, c.id, EventStarted)
	case Stopped:
		s.host.Happened(ctx, c.id, EventStopped)
	}
	return nil
}

// StopCanister stops a canister, once it has answered all calls. It waits as
// long as ctx lets it; the canister goes on stopping after that.
func (s *Service) StopCanister(ctx context.Context, by Caller, a CanisterIDArgs) error {
	var id engine.CanisterID
	waits := false
	err := s.with(ctx, a.CanisterID, func(c *canister, st *state) error {
		if err := controller(c, st, by); err != nil {
			return err
		}
		if id = c.id; st.status != Stopped && s.host.OpenCallContexts(id) > 0 {
			waits = true
			return s.setStatus(ctx, c, st, Stopping)
		}
		return s.setStatus(ctx, c, st, Stopped)
	})
	if err != nil || !waits {
		return err
	}
	// Nothing is held here: the calls that must end may be calls like this one.
	if err := s.host.Stopped(ctx, id); err != nil {
		return &Reject{
			Code: SysTransient, ErrorCode: CodeStopCanisterRequestTimeout, Err: err,
			Message: fmt.Sprintf("Stop canister request timed out; canister %s goes on stopping.", id),
		}
	}
	return s.with(ctx, a.CanisterID, func(c *canister, st *state) error {
		if st.status == Running {
			return reject(CodeCanisterStoppingCancelled, "Canister %s was started before it had stopped.", c.id)
		}
		return s.setStatus(ctx, c, st, Stopped)
	})
}

// DeleteCanister deletes a stopped canister with its snapshots. Its cycles are
// burned.
func (s *Service) DeleteCanister(ctx context.Context, by Caller, a CanisterIDArgs) error {
	return s.with(ctx, a.CanisterID, func(c *canister, st *state) error {
		if err := controller(c, st, by); err != nil {
			return err
		}
		if st.status != Stopped {
			return reject(CodeCanisterNotStopped, "Canister %s must be stopped before it is deleted.", c.id)
		}
		return s.drop(ctx, c)
	})
}

// drop deletes a canister. The caller holds it.
func (s *Service) drop(ctx context.Context, c *canister) error {
	if err := s.e.DeleteCanister(ctx, c.id); err != nil {
		return storage(err)
	}
	st := c.state()
	c.gone = true
	s.forgetMemory(c)
	s.mu.Lock()
	if s.table[c.id] == c { // and not one that was made anew since
		delete(s.table, c.id)
	}
	s.mu.Unlock()
	s.burn(st.balance.Add(st.reserved))
	s.host.Happened(ctx, c.id, EventDeleted)
	return nil
}

// Keep drops every canister that is not kept, as a replica does after its
// subnet was split: what they had is on the other subnet.
func (s *Service) Keep(ctx context.Context, keep func(engine.CanisterID) bool) error {
	for _, id := range s.Canisters() {
		if keep(id) {
			continue
		}
		err := s.with(ctx, id.Bytes(), func(c *canister, _ *state) error { return s.drop(ctx, c) })
		var r *Reject
		if errors.As(err, &r) && r.ErrorCode == CodeCanisterNotFound {
			continue // somebody else deleted it
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// RenameCanister refuses a canister with snapshots. One without may be moved
// to another name by the replica; this package does not do it.
func (s *Service) RenameCanister(ctx context.Context, by Caller, a RenameCanisterArgs) error {
	return s.with(ctx, a.CanisterID, func(c *canister, st *state) error {
		if err := controller(c, st, by); err != nil {
			return err
		}
		for _, err := range s.e.Snapshots(c.id) {
			if err != nil {
				return storage(err)
			}
			return reject(CodeCanisterNonEmpty, "Canister %s must not have any snapshots before it is renamed.", c.id)
		}
		return reject(CodeUnknownManagementMessage, "Canister %s can not be renamed here: make it anew under the other name.", c.id)
	})
}

// ChargeIdle takes from a canister what it burned by being there for so many
// seconds; the charge becomes durable with the canister's next change, or Flush.
// One that can not pay loses its code, its snapshots and its history, durably;
// out says so.
func (s *Service) ChargeIdle(ctx context.Context, id engine.CanisterID, seconds uint64) (out bool, err error) {
	err = s.with(ctx, id.Bytes(), func(c *canister, st *state) error {
		u, err := s.usageOf(c, st)
		if err != nil {
			return storage(err)
		}
		fee := s.prices().idle(&st.set, u.total(), seconds)
		next := st.clone()
		// Storage that was paid ahead is used up first.
		next.reserved = st.reserved.Sub(fee)
		rest := fee.Sub(st.reserved)
		if !st.balance.Less(rest) {
			next.balance = st.balance.Sub(rest)
			s.publish(c, next, fee)
			return nil
		}
		out = true
		next.balance, next.reserved = Cycles{}, Cycles{}
		next.set.compute, next.set.memoryAllocation = 0, 0
		next.version++
		next.forget()
		next.history = nil
		next.totalChanges++ // the uninstallation
		next.pending |= pendingPurge
		if err := s.replace(ctx, c, next, func(live *engine.Canister) error { return clearLive(live, true) }); err != nil {
			out = false
			return storage(err)
		}
		s.burn(st.balance.Add(st.reserved))
		s.afterUninstall(ctx, c)
		return nil
	})
	return out, err
}

func principals(list []string) []candid.Principal {
	out := make([]candid.Principal, len(list))
	for i, p := range list {
		out[i] = candid.Principal(p)
	}
	return out
}
