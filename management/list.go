package management

import (
	"context"

	"github.com/snapstore/snapstore/engine"
)

// ListCanisterSnapshots lists the snapshots of a canister, oldest first.
func (s *Service) ListCanisterSnapshots(ctx context.Context, by Caller, a CanisterIDArgs) ([]SnapshotRecord, error) {
	if err := s.admit(by, "list_canister_snapshots", a.CanisterID); err != nil {
		return nil, err
	}
	return s.list(ctx, by, a, true)
}

// list is for controllers, and for viewers where there are any.
func (s *Service) list(ctx context.Context, by Caller, a CanisterIDArgs, viewers bool) ([]SnapshotRecord, error) {
	out := []SnapshotRecord{}
	err := s.with(ctx, a.CanisterID, func(c *canister, st *state) error {
		var who visibility
		if viewers {
			who = st.set.snapshot
		}
		if err := viewer(c, st, who, by); err != nil {
			return err
		}
		for info, err := range s.e.Snapshots(c.id) {
			if err != nil {
				return storage(err)
			}
			out = append(out, snapshotRecord(info))
		}
		return nil
	})
	return out, err
}

// DeleteCanisterSnapshot deletes a snapshot of a canister.
func (s *Service) DeleteCanisterSnapshot(ctx context.Context, by Caller, a SnapshotArgs) error {
	if err := s.admit(by, "delete_canister_snapshot", a.CanisterID); err != nil {
		return err
	}
	return s.delete(ctx, by, a)
}

func (s *Service) delete(ctx context.Context, by Caller, a SnapshotArgs) error {
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
		return s.deleteNow(ctx, c, st, info)
	})
}

func (s *Service) deleteNow(ctx context.Context, c *canister, st *state, info engine.SnapshotInfo) error {
	u, err := s.usageOf(c, st)
	if err != nil {
		return storage(err)
	}
	next := st.clone()
	if err := s.afford(c, next, demand{was: u.total(), now: subBytes(u.total(), info.Size), short: outOfCycles(c.id)}); err != nil {
		return err
	}
	blob, err := next.encode()
	if err != nil {
		return storage(err)
	}
	if err := s.e.DeleteHost(ctx, info.ID, blob); err != nil {
		return storage(err)
	}
	s.publish(c, next, Cycles{})
	return nil
}
