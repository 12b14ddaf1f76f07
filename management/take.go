package management

import (
	"context"
	"errors"
	"time"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/manifest"
)

// TakeCanisterSnapshot makes a snapshot of a canister, in place of another one
// when that is given, and uninstalls its code when that is asked for.
func (s *Service) TakeCanisterSnapshot(ctx context.Context, by Caller, a TakeCanisterSnapshotArgs) (SnapshotRecord, error) {
	if err := s.admit(by, "take_canister_snapshot", a.CanisterID); err != nil {
		return SnapshotRecord{}, err
	}
	return s.take(ctx, by, a, s.cfg.SnapshotLimit)
}

func (s *Service) take(ctx context.Context, by Caller, a TakeCanisterSnapshotArgs, limit int) (out SnapshotRecord, err error) {
	replace, err := optSnapshotID(a.ReplaceSnapshot)
	if err != nil {
		return out, err
	}
	if err := sender(by, a.SenderCanisterVersion); err != nil {
		return out, err
	}
	uninstall := a.UninstallCode != nil && *a.UninstallCode
	err = s.with(ctx, a.CanisterID, func(c *canister, st *state) error {
		if err := controller(c, st, by); err != nil {
			return err
		}
		old, err := s.replaced(c, replace, limit)
		if err != nil {
			return err
		}
		if err := s.rateLimited(c); err != nil {
			return err
		}
		if err := s.refused(c, st); err != nil {
			return err
		}
		next := st.clone()
		if uninstall {
			s.uninstalled(next, by)
		}
		u, err := s.usageOf(c, st)
		if err != nil {
			return storage(err)
		}
		after := u
		if uninstall {
			after = u.empty()
		}
		after.history = next.historyBytes()
		after.snapshots = addBytes(subBytes(u.snapshots, old.Size), u.state())
		p := s.prices()
		fee := p.execution(addBytes(s.baseline(p), u.state()), false)
		if err := s.afford(c, next, demand{was: u.total(), now: after.total(), fee: fee, short: outOfCycles(c.id)}); err != nil {
			return err
		}
		if !st.hasModule {
			return reject(CodeCanisterRejectedMessage, "Failed to create snapshot for empty canister %s:", c.id)
		}

		changed := s.changedBytes(c)
		if uninstall {
			next.pending |= pendingUninstall
		}
		blob, err := next.encode()
		if err != nil {
			return storage(err)
		}
		res, err := s.takeNow(ctx, c, st, engine.TakeOptions{Replace: old.ID, TakenAt: s.now(), Host: blob})
		if err != nil {
			return s.engineError(c, err)
		}
		s.publish(c, next, fee)
		s.delta(c, changed)
		if uninstall {
			s.afterUninstall(ctx, c)
		}
		out = snapshotRecord(res.SnapshotInfo)
		return nil
	})
	return out, err
}

// takeNow stores what the snapshot is to hold beside the sections, and takes
// it; a take that fails puts back what was there.
func (s *Service) takeNow(ctx context.Context, c *canister, st *state, o engine.TakeOptions) (engine.TakeResult, error) {
	was := c.live.Metadata()
	meta := was
	meta.CanisterVersion, meta.GlobalTimer, meta.HookStatus = st.version, st.timer, st.hook
	if err := c.live.SetMetadata(meta); err != nil {
		return engine.TakeResult{}, err
	}
	res, err := c.live.Take(ctx, o)
	if err != nil {
		return res, errors.Join(err, c.live.SetMetadata(was))
	}
	return res, nil
}

// replaced finds the snapshot that a new one replaces, and holds the canister
// to its limit. It is zero when none is replaced.
func (s *Service) replaced(c *canister, replace engine.SnapshotID, limit int) (engine.SnapshotInfo, error) {
	if !replace.IsZero() {
		return s.own(c, replace)
	}
	n := 0
	for _, err := range s.e.Snapshots(c.id) {
		if err != nil {
			return engine.SnapshotInfo{}, storage(err)
		}
		n++
	}
	if n >= limit {
		return engine.SnapshotInfo{}, reject(CodeCanisterRejectedMessage,
			"Canister %s has reached the maximum number of snapshots allowed: %d.", c.id, limit)
	}
	return engine.SnapshotInfo{}, nil
}

// own finds a snapshot of the canister itself.
func (s *Service) own(c *canister, id engine.SnapshotID) (engine.SnapshotInfo, error) {
	info, err := s.find(c.id, id)
	if err != nil {
		return info, err
	}
	if id.Canister != c.id {
		return info, wrongOwner(c.id, id)
	}
	return info, nil
}

// find finds a snapshot of any canister.
func (s *Service) find(asked engine.CanisterID, id engine.SnapshotID) (engine.SnapshotInfo, error) {
	if s.lookup(id.Canister) != nil {
		for info, err := range s.e.Snapshots(id.Canister) {
			if err != nil && !errors.Is(err, engine.ErrNotFound) {
				return info, storage(err)
			}
			if err == nil && info.ID == id {
				return info, nil
			}
		}
	}
	return engine.SnapshotInfo{}, snapshotNotFound(asked, id)
}

// refused is what the configuration has against a canister that runs.
func (s *Service) refused(c *canister, st *state) error {
	if s.cfg.RefuseRunning && st.status != Stopped {
		return reject(CodeCanisterNotStopped, "Canister %s is %v, and must be stopped first.", c.id, st.status)
	}
	if n := s.host.OpenCallContexts(c.id); s.cfg.RefuseOpenCallContexts && n > 0 {
		return reject(CodeCanisterNotStopped, "Canister %s has %d open call contexts, which must be answered first.", c.id, n)
	}
	return nil
}

// changedBytes is what the live state has changed since it was last durable.
func (s *Service) changedBytes(c *canister) uint64 {
	var pages uint64
	for _, sec := range c.live.Sections() {
		if sec.Kind == manifest.WasmModule {
			continue
		}
		if mem, err := c.live.Memory(sec); err == nil {
			pages += uint64(mem.DirtyPages())
		}
	}
	return mulBytes(pages, engine.PageSize)
}

// uninstalled is what uninstalling does to a state.
func (s *Service) uninstalled(next *state, by Caller) {
	next.version++
	next.forget()
	next.record(change{at: s.host.Time(), version: next.version, origin: by.origin(), kind: changeUninstall}, s.cfg.Limits.History)
}

// afterUninstall tells the host. Should the live state not be emptied in the
// engine at once, whoever comes next does it.
func (s *Service) afterUninstall(ctx context.Context, c *canister) {
	_ = s.settle(ctx, c)
	s.host.CloseCallContexts(ctx, c.id, reject(CodeCanisterRejectedMessage, "Canister has been uninstalled."))
	s.host.ClearLog(ctx, c.id)
	s.host.Happened(ctx, c.id, EventUninstalled)
}

// engineError words an error of a snapshot step of the engine.
func (s *Service) engineError(c *canister, err error) error {
	if errors.Is(err, engine.ErrSnapshotLimit) {
		return reject(CodeCanisterRejectedMessage, "Canister %s has reached the maximum number of snapshots allowed.", c.id)
	}
	return storage(err)
}

func (s *Service) now() time.Time { return time.Unix(0, int64(s.host.Time())) }

func snapshotRecord(i engine.SnapshotInfo) SnapshotRecord {
	return SnapshotRecord{ID: i.ID.Bytes(), TakenAtTimestamp: uint64(i.TakenAt.UnixNano()), TotalSize: i.Size}
}
