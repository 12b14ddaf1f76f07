package management

import (
	"context"
	"errors"
	"slices"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/principal"
	"github.com/snapstore/snapstore/manifest"
)

// LoadCanisterSnapshot makes a snapshot the state of a canister: its own, or
// one of another canister that the caller controls as well.
func (s *Service) LoadCanisterSnapshot(ctx context.Context, by Caller, a LoadCanisterSnapshotArgs) error {
	if err := s.admit(by, "load_canister_snapshot", a.CanisterID); err != nil {
		return err
	}
	return s.load(ctx, by, a, true)
}

func (s *Service) load(ctx context.Context, by Caller, a LoadCanisterSnapshotArgs, cross bool) error {
	id, err := snapshotID(a.SnapshotID)
	if err != nil {
		return err
	}
	if err := sender(by, a.SenderCanisterVersion); err != nil {
		return err
	}
	to, err := canisterID(a.CanisterID)
	if err != nil {
		return err
	}
	// Two canisters are held in the order of their ids, so that no two loads wait
	// for each other; and another's only for who may load from it.
	no := s.mayLoad(to, id, by, cross)
	before := no == nil && id.Canister.Compare(to) < 0
	after := no == nil && id.Canister.Compare(to) > 0
	release, err := s.holdUpload(ctx, id, before)
	if err != nil {
		return err
	}
	defer release()
	return s.with(ctx, a.CanisterID, func(c *canister, st *state) error {
		if err := controller(c, st, by); err != nil {
			return err
		}
		if err := s.rateLimited(c); err != nil {
			return err
		}
		release, err := s.holdUpload(ctx, id, after)
		if err != nil {
			return err
		}
		defer release()
		info, err := s.find(c.id, id)
		if err != nil {
			return err
		}
		if no != nil {
			return no
		}
		if err := s.mayLoad(c.id, id, by, cross); err != nil {
			return err
		}
		if s.host.LongExecution(c.id) {
			return reject(CodeCanisterRejectedMessage, "The canister %s is currently executing a long-running message.", c.id)
		}
		if err := s.refused(c, st); err != nil {
			return err
		}
		return s.loadChecked(ctx, c, st, info, by)
	})
}

// mayLoad asks the owner of a snapshot of another canister: its controllers
// are those of the moment.
func (s *Service) mayLoad(to engine.CanisterID, id engine.SnapshotID, by Caller, cross bool) error {
	if id.Canister == to {
		return nil
	}
	if !cross {
		return snapshotNotFound(to, id)
	}
	owner := s.lookup(id.Canister)
	if owner == nil {
		return notFound(id.Canister)
	}
	if !owner.state().controls(string(by.Principal)) {
		return reject(CodeCanisterRejectedMessage,
			"Only a controller of the canister that snapshot %s belongs to can load it on canister %s. Sender: %s.",
			snapText(id), to, principal.Encode(by.Principal))
	}
	return nil
}

// holdUpload holds the canister of a snapshot that can still change, where that
// is asked for: what is loaded must be what was checked, and the load makes the
// upload one that can not change any more, which must not come upon a call that
// writes or reads it. What can not change now never will.
func (s *Service) holdUpload(ctx context.Context, id engine.SnapshotID, ask bool) (release func(), err error) {
	nothing := func() {}
	if !ask {
		return nothing, nil
	}
	if info, err := s.find(id.Canister, id); err == nil && !info.Mutable {
		return nothing, nil
	}
	c, err := s.hold(ctx, id.Canister)
	var r *Reject
	switch {
	case err == nil:
		return c.unlock, nil
	case errors.As(err, &r) && r.ErrorCode == CodeCanisterNotFound:
		return nothing, nil // nor is its snapshot
	}
	return nil, err
}

func (s *Service) loadChecked(ctx context.Context, c *canister, st *state, info engine.SnapshotInfo, by Caller) error {
	u, err := s.usageOf(c, st)
	if err != nil {
		return storage(err)
	}
	// The first part of the fee must be there before anything is compiled.
	p := s.prices()
	base := p.execution(s.baseline(p), false)
	keep := p.freezing(st, u.total())
	if need := keep.Add(base); !base.IsZero() && st.balance.Less(need) {
		return outOfCycles(c.id)(need.Sub(st.balance))
	}
	snap, err := s.e.Snapshot(ctx, info.ID)
	if err != nil {
		return s.gone(c, info.ID, err)
	}
	defer snap.Close()
	d := snap.Detail()
	uploaded := d.Metadata.Source == manifest.SourceUploaded
	m, err := s.compile(ctx, snap)
	if err != nil {
		return storage(err)
	}
	if uploaded && !sameGlobals(d.Metadata.Globals, m.captured()) {
		return invalid("Snapshot %s is inconsistent: its globals do not match those of its module.", snapText(info.ID))
	}
	if info.ID.Canister != c.id && s.cfg.FlushedSnapshotsOnly && !s.host.Loadable(info.ID) {
		return reject(CodeCanisterRejectedMessage,
			"Snapshot %s is not currently loadable on the specified canister %s. Try again later. The call should succeed after a checkpoint.",
			snapText(info.ID), c.id)
	}
	after := usage{log: u.log, snapshots: u.snapshots, custom: m.CustomSections, globals: globalBytes(d.Metadata.Globals)}
	for _, r := range d.Sections {
		after.add(r.Section, r.Size)
	}
	if most := s.heapLimit(m.Wasm64); uploaded && after.wasm > most {
		return invalid("Snapshot %s is inconsistent: it has %d bytes of main memory, and its module at most %d.", snapText(info.ID), after.wasm, most)
	}
	next := st.clone()
	next.use(m)
	if err := s.restoreHook(next, d.Metadata, m.Module, after.wasm, uploaded, info.ID); err != nil {
		return err
	}
	next.version++
	next.lastInstall = s.host.Time()
	entry := change{
		at: next.lastInstall, version: next.version, origin: by.origin(), kind: changeLoad,
		snapshot: info.ID.Bytes(), taken: d.Metadata.TakenAt, snapVer: d.Metadata.CanisterVersion, uploaded: uploaded,
	}
	if info.ID.Canister != c.id {
		entry.from = principalOf(info.ID.Canister)
	}
	next.record(entry, s.cfg.Limits.History)
	after.history = next.historyBytes()

	fee := base.Add(p.execution(addBytes(m.Instructions, info.Size), m.Wasm64))
	if err := s.afford(c, next, demand{was: u.total(), now: after.total(), fee: fee, short: outOfCycles(c.id)}); err != nil {
		return err
	}
	blob, err := next.encode()
	if err != nil {
		return storage(err)
	}
	res, err := c.live.Load(ctx, info.ID, engine.LoadOptions{FromOtherCanister: info.ID.Canister != c.id, Host: blob})
	if err != nil {
		return s.gone(c, info.ID, err)
	}
	s.publish(c, next, fee)
	s.delta(c, mulBytes(res.Pages, engine.PageSize))
	s.host.Happened(ctx, c.id, EventLoaded)
	return nil
}

// gone words an error of the engine on a snapshot, which may have been deleted
// since it was found when it is another canister's.
func (s *Service) gone(c *canister, id engine.SnapshotID, err error) error {
	if id.Canister != c.id && errors.Is(err, engine.ErrNotFound) {
		return snapshotNotFound(c.id, id)
	}
	return storage(err)
}

// sameGlobals tells whether values are of the types, in order.
func sameGlobals(values []Global, types []GlobalType) bool {
	return slices.EqualFunc(values, types, func(v Global, t GlobalType) bool { return v.Kind == t.Kind })
}

// restoreHook is what a load does to timer and hook: those of a taken snapshot
// stay out, so that the hook looks at the memory anew; those of an uploaded one
// come in where it has them.
func (s *Service) restoreHook(next *state, meta engine.Metadata, m *Module, wasmMemory uint64, uploaded bool, id engine.SnapshotID) error {
	limit := s.heapLimit(m.Wasm64)
	low := next.lowMemory(wasmMemory, limit)
	if !uploaded {
		next.hook = manifest.HookConditionNotSatisfied
		if low {
			next.hook = manifest.HookReady
		}
		return nil
	}
	if meta.GlobalTimer.Present {
		next.timer = meta.GlobalTimer
	}
	switch meta.HookStatus {
	case manifest.HookAbsent:
	case manifest.HookConditionNotSatisfied, manifest.HookReady, manifest.HookExecuted:
		if low != (meta.HookStatus != manifest.HookConditionNotSatisfied) {
			return invalid("Snapshot %s is inconsistent: its hook status %v does not fit its memory.", snapText(id), meta.HookStatus)
		}
		next.hook = meta.HookStatus
	}
	return nil
}
