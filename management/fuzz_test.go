package management

import (
	"errors"
	"testing"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/management/candid"
)

// FuzzCall lets anybody send anything to a Service with a few canisters and
// snapshots: nothing panics, every error is a reject, and the ledgers balance.
func FuzzCall(f *testing.F) {
	seeds := newWorld(f, nil)
	id := seeds.user()
	snap := seeds.take(id)
	upgrade := (*UpgradeFlags)(nil)
	amount := nat(5)
	for _, seed := range []struct {
		method string
		arg    any
	}{
		{"take_canister_snapshot", takeArgs(id, snap.ID)},
		{"load_canister_snapshot", loadArgs(id, snap.ID)},
		{"list_canister_snapshots", only(id)},
		{"delete_canister_snapshot", snapArgs(id, snap.ID)},
		{"read_canister_snapshot_metadata", snapArgs(id, snap.ID)},
		{"read_canister_snapshot_data", readArgs(id, snap.ID, wasmAt(5, 6))},
		{"upload_canister_snapshot_metadata", declare(id, 10, 1<<16, 0)},
		{"upload_canister_snapshot_data", writeArgs(id, wireID(id, 1), toWasm(5), []byte("data"))},
		{"provisional_create_canister_with_cycles", ProvisionalCreateArgs{
			Amount: &amount, Settings: &CanisterSettings{SnapshotVisibility: &VisibilityVariant{Public: &candid.Null{}}},
		}},
		{"install_code", InstallCodeArgs{Mode: InstallMode{Upgrade: &upgrade}, CanisterID: id.Bytes(), WasmModule: simple().wasm("x")}},
		{"uninstall_code", UninstallCodeArgs{CanisterID: id.Bytes()}},
		{"canister_status", only(id)},
		{"update_settings", UpdateSettingsArgs{CanisterID: id.Bytes(), Settings: CanisterSettings{ComputeAllocation: &amount}}},
		{"upload_chunk", UploadChunkArgs{CanisterID: id.Bytes(), Chunk: []byte("chunk")}},
		{"clear_chunk_store", only(id)},
		{"stop_canister", only(id)},
		{"delete_canister", only(id)},
		{"provisional_top_up", ProvisionalTopUpArgs{CanisterID: id.Bytes(), Amount: amount}},
	} {
		f.Add(seed.method, seeds.arg(seed.arg), true)
	}
	// One store for all inputs of a process: a new one each time would leave no
	// time for inputs. What an input finds may so depend on those before it.
	w := seeds
	f.Fuzz(func(t *testing.T, method string, arg []byte, user bool) {
		w.TB = t
		if len(w.ids()) > 50 {
			if err := w.s.Keep(w.ctx, func(have engine.CanisterID) bool { return have == id }); err != nil {
				t.Fatal(err)
			}
		}
		if w.s.lookup(id) == nil { // an input deleted it
			at := candid.Principal(id.Bytes())
			w.do(alice, "provisional_create_canister_with_cycles", ProvisionalCreateArgs{SpecifiedID: &at})
			w.install(id, simple().wasm("again"))
		}
		by := alice
		if !user {
			by = as(id, 1)
		}
		if len(method) > 0 && int(method[0]) < len(Methods()) {
			method = Methods()[method[0]] // so that chance finds them
		}
		w.s.Round()
		_, err := w.s.Call(w.ctx, by, method, arg)
		var r *Reject
		if err != nil && (!errors.As(err, &r) || r.ErrorCode == CodeStorage) {
			t.Fatal(err, errors.Unwrap(err))
		}
		w.check()
	})
}
