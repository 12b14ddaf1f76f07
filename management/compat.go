package management

import "context"

// The snapshot methods under the names and with the records that they were
// first proposed with. A canister has one snapshot at most, and loads only its
// own; nobody but controllers may list.
const originalLimit = 1

// TakeSnapshot is take_canister_snapshot with a limit of one snapshot.
func (s *Service) TakeSnapshot(ctx context.Context, by Caller, a TakeSnapshotArgs) (SnapshotRecord, error) {
	if err := s.admit(by, "take_snapshot", a.CanisterID); err != nil {
		return SnapshotRecord{}, err
	}
	return s.take(ctx, by, TakeCanisterSnapshotArgs{CanisterID: a.CanisterID, ReplaceSnapshot: a.ReplaceSnapshot}, originalLimit)
}

// LoadSnapshot is load_canister_snapshot of the canister's own snapshots.
func (s *Service) LoadSnapshot(ctx context.Context, by Caller, a SnapshotArgs) error {
	if err := s.admit(by, "load_snapshot", a.CanisterID); err != nil {
		return err
	}
	return s.load(ctx, by, LoadCanisterSnapshotArgs{CanisterID: a.CanisterID, SnapshotID: a.SnapshotID}, false)
}

// ListSnapshots is list_canister_snapshots.
func (s *Service) ListSnapshots(ctx context.Context, by Caller, a CanisterIDArgs) ([]SnapshotRecord, error) {
	if err := s.admit(by, "list_snapshots", a.CanisterID); err != nil {
		return nil, err
	}
	return s.list(ctx, by, a, false)
}

// DeleteSnapshot is delete_canister_snapshot.
func (s *Service) DeleteSnapshot(ctx context.Context, by Caller, a SnapshotArgs) error {
	if err := s.admit(by, "delete_snapshot", a.CanisterID); err != nil {
		return err
	}
	return s.delete(ctx, by, a)
}
