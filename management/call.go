package management

import (
	"context"
	"errors"

	"github.com/snapstore/snapstore/management/candid"
)

// Call answers a call of the management canister: a method by its name in the
// interface, and its argument in Candid. An error is a *Reject.
func (s *Service) Call(ctx context.Context, by Caller, method string, arg []byte) ([]byte, error) {
	h := handlerOf(method)
	if h == nil {
		return nil, reject(CodeUnknownManagementMessage, "Management canister has no method '%.100s'", method)
	}
	if len(arg) > s.cfg.Limits.MessageBytes {
		return nil, invalid("Error decoding candid: %d bytes, at most %d", len(arg), s.cfg.Limits.MessageBytes)
	}
	reply, err := h(s, ctx, by, arg)
	if err != nil {
		var r *Reject
		errors.As(storage(err), &r)
		return nil, r
	}
	return reply, nil
}

// handler answers one method.
type handler func(s *Service, ctx context.Context, by Caller, arg []byte) ([]byte, error)

// answers makes a handler of a method with an argument and a result.
func answers[A, R any](f func(*Service, context.Context, Caller, A) (R, error)) handler {
	return func(s *Service, ctx context.Context, by Caller, arg []byte) ([]byte, error) {
		var a A
		if err := s.decode(arg, &a, 0); err != nil {
			return nil, err
		}
		out, err := f(s, ctx, by, a)
		if err != nil {
			return nil, err
		}
		return candid.Marshal(out)
	}
}

// does makes a handler of a method without a result.
func does[A any](f func(*Service, context.Context, Caller, A) error) handler {
	return func(s *Service, ctx context.Context, by Caller, arg []byte) ([]byte, error) {
		var a A
		if err := s.decode(arg, &a, 0); err != nil {
			return nil, err
		}
		if err := f(s, ctx, by, a); err != nil {
			return nil, err
		}
		return candid.Marshal()
	}
}

func (s *Service) decode(arg []byte, to any, skip int) error {
	if err := candid.Unmarshal(arg, candid.Limits{Decoded: 2*s.cfg.Limits.MessageBytes + 1<<20, Skipped: skip}, to); err != nil {
		return invalid("%v", err)
	}
	return nil
}

// handlerOf finds a method by its name.
func handlerOf(method string) handler {
	switch method {
	case "take_canister_snapshot":
		return answers((*Service).TakeCanisterSnapshot)
	case "load_canister_snapshot":
		return does((*Service).LoadCanisterSnapshot)
	case "list_canister_snapshots":
		return answers((*Service).ListCanisterSnapshots)
	case "delete_canister_snapshot":
		return does((*Service).DeleteCanisterSnapshot)
	case "read_canister_snapshot_metadata":
		return answers((*Service).ReadCanisterSnapshotMetadata)
	case "read_canister_snapshot_data":
		return answers((*Service).ReadCanisterSnapshotData)
	case "upload_canister_snapshot_metadata":
		return answers((*Service).UploadCanisterSnapshotMetadata)
	case "upload_canister_snapshot_data":
		return does((*Service).UploadCanisterSnapshotData)

	case "create_canister":
		return answers((*Service).CreateCanister)
	case "provisional_create_canister_with_cycles":
		return answers((*Service).ProvisionalCreateCanister)
	case "provisional_top_up_canister":
		return does((*Service).ProvisionalTopUpCanister)
	case "install_code":
		return does((*Service).InstallCode)
	case "uninstall_code":
		return does((*Service).UninstallCode)
	case "start_canister":
		return does((*Service).StartCanister)
	case "stop_canister":
		return does((*Service).StopCanister)
	case "delete_canister":
		return does((*Service).DeleteCanister)
	case "rename_canister":
		return does((*Service).RenameCanister)
	case "canister_status":
		return answers((*Service).CanisterStatus)
	case "canister_info":
		return answers((*Service).CanisterInfo)
	case "update_settings":
		return does((*Service).UpdateSettings)
	case "upload_chunk":
		return answers((*Service).UploadChunk)
	case "clear_chunk_store":
		return does((*Service).ClearChunkStore)
	case "stored_chunks":
		return answers((*Service).StoredChunks)

	case "take_snapshot":
		return answers((*Service).TakeSnapshot)
	case "load_snapshot":
		return does((*Service).LoadSnapshot)
	case "list_snapshots":
		return answers((*Service).ListSnapshots)
	case "delete_snapshot":
		return does((*Service).DeleteSnapshot)
	}
	return nil
}

// Methods lists what Call answers.
func Methods() []string {
	return []string{
		"take_canister_snapshot", "load_canister_snapshot", "list_canister_snapshots", "delete_canister_snapshot",
		"read_canister_snapshot_metadata", "read_canister_snapshot_data",
		"upload_canister_snapshot_metadata", "upload_canister_snapshot_data",
		"create_canister", "provisional_create_canister_with_cycles", "provisional_top_up_canister",
		"install_code", "uninstall_code", "start_canister", "stop_canister", "delete_canister", "rename_canister",
		"canister_status", "canister_info", "update_settings", "upload_chunk", "clear_chunk_store", "stored_chunks",
		"take_snapshot", "load_snapshot", "list_snapshots", "delete_snapshot",
	}
}

// Admit tells whether a replica may take an ingress message in: those that
// reach for a canister's snapshots must come from a controller. Every call of
// a snapshot method asks the same again.
func (s *Service) Admit(by Caller, method string, arg []byte) error {
	if handlerOf(method) == nil {
		return reject(CodeUnknownManagementMessage, "Management canister has no method '%.100s'", method)
	}
	switch method {
	case "list_canister_snapshots", "read_canister_snapshot_metadata", "read_canister_snapshot_data":
	case "take_canister_snapshot", "load_canister_snapshot", "delete_canister_snapshot",
		"upload_canister_snapshot_metadata", "upload_canister_snapshot_data",
		"take_snapshot", "load_snapshot", "list_snapshots", "delete_snapshot":
	default:
		return nil
	}
	var a CanisterIDArgs
	if err := s.decode(arg, &a, len(arg)+1<<16); err != nil {
		return err
	}
	return s.admit(by, method, a.CanisterID)
}

func (s *Service) admit(by Caller, method string, canister []byte) error {
	if by.Canister {
		return nil
	}
	id, err := canisterID(canister)
	if err != nil {
		return err
	}
	c := s.lookup(id)
	if c == nil {
		return notFound(id)
	}
	st := c.state()
	if st.controls(string(by.Principal)) {
		return nil
	}
	switch method {
	case "list_canister_snapshots", "read_canister_snapshot_metadata", "read_canister_snapshot_data":
		if s.cfg.IngressVisibility && st.set.snapshot.allows(string(by.Principal)) {
			return nil
		}
	}
	return reject(CodeCanisterInvalidController, "Only controllers of canister %s can call ic00 method %s", id, method)
}
