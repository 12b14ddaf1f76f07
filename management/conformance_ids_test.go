package management

import (
	"encoding/hex"
	"fmt"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/management/candid"
)

// F. Ids, and the names and the limit of the first proposal.
func idRows() []row {
	return []row{
		{
			id: "ID01", setup: "first snapshot", call: "take", want: "local id 0 (docs example 0000000000000000 + canister id)", mark: "S", run: id01,
		},
		{
			id: "ID02", setup: "encode (canister, n)", call: "-", want: "BE u64 n followed by principal bytes", mark: "T", run: id02,
		},
		{
			id: "ID03", setup: "7 bytes / > 37 bytes / bad principal tail", call: "decode", want: "error", mark: "T/C", chose: "8 bytes name no canister and do not decode; a tail that is no canister here is 305", run: id03,
		},
		{
			id: "ID04", setup: "delete then take", call: "take", want: "id not reused (counter monotonic)", mark: "C", run: id04,
		},
		{
			id: "ID05", setup: "candid roundtrip", call: "-", want: "equal", mark: "T", run: id05,
		},
		{
			id: "L101", setup: "limit=1: take, take(null)", call: "-", want: "second 406", mark: "S", chose: "by the names take_snapshot, load_snapshot, list_snapshots, delete_snapshot", run: l101,
		},
		{
			id: "L102", setup: "limit=1: take(replace=current)", call: "-", want: "ok, one snapshot", mark: "S", chose: "a snapshot of another canister can not be loaded by these names", run: l102,
		},
		{
			id: "L103", setup: "limit=1: take(replace=other id) with one present", call: "-", want: "305", mark: "S", run: l103,
		},
		{
			id: "L104", setup: "limit=1: replace given but none present", call: "-", want: "305", mark: "S", run: l104,
		},
	}
}

func id01(w *world) {
	id := w.user()
	equal(w, "id", hex.EncodeToString(w.take(id).ID), "0000000000000000"+hex.EncodeToString(id.Bytes()))
}

func id02(w *world) {
	c, err := engine.CanisterIDFromBytes([]byte{0x80, 0, 0, 0, 0, 0x10, 0, 0x0a, 1, 1})
	if err != nil {
		w.Fatal(err)
	}
	equal(w, "id", hex.EncodeToString(wireID(c, 0)), "0000000000000000800000000010000a0101")
	equal(w, "id", hex.EncodeToString(wireID(c, 0x0102030405060708)), "0102030405060708800000000010000a0101")
}

func id03(w *world) {
	id := w.user()
	for _, bad := range [][]byte{nil, make([]byte, 7), make([]byte, 8), make([]byte, 38), make([]byte, 1000)} {
		w.fails(CodeInvalidManagementPayload, alice, "take_canister_snapshot", takeArgs(id, bad), "Error decoding candid")
		w.fails(CodeInvalidManagementPayload, alice, "delete_canister_snapshot", snapArgs(id, bad), "Error decoding candid")
	}
	for _, strange := range [][]byte{make([]byte, 9), make([]byte, 37)} {
		w.fails(CodeCanisterSnapshotNotFound, alice, "delete_canister_snapshot", snapArgs(id, strange))
	}
}

func id04(w *world) {
	id := w.user()
	one := w.take(id)
	w.delete(id, one.ID)
	equal(w, "id", string(w.take(id).ID), string(wireID(id, 1)))
	w.reopen()
	equal(w, "id after a restart", string(w.take(id).ID), string(wireID(id, 2)))
}

func id05(w *world) {
	id := w.user()
	snap := w.take(id)
	got := decode[SnapshotRecord](w, w.arg(snap))
	parsed, err := engine.SnapshotIDFromBytes(got.ID)
	if err != nil {
		w.Fatal(err)
	}
	equal(w, "id", string(parsed.Bytes()), string(snap.ID))
	equal(w, "canister", parsed.Canister, id)
}

// original takes by the name and the record of the first proposal.
func (w *world) original(id engine.CanisterID, replace ...[]byte) SnapshotRecord {
	w.Helper()
	return decode[SnapshotRecord](w, w.do(alice, "take_snapshot", originalArgs(id, replace...)))
}

func originalArgs(id engine.CanisterID, replace ...[]byte) TakeSnapshotArgs {
	a := TakeSnapshotArgs{CanisterID: id.Bytes()}
	if len(replace) > 0 {
		a.ReplaceSnapshot = &replace[0]
	}
	return a
}

func l101(w *world) {
	id := w.user()
	snap := w.original(id)
	w.fails(CodeCanisterRejectedMessage, alice, "take_snapshot", originalArgs(id), "allowed: 1.")
	list := decode[[]SnapshotRecord](w, w.do(alice, "list_snapshots", only(id)))
	equal(w, "snapshots", fmt.Sprint(list), fmt.Sprint([]SnapshotRecord{snap}))
	w.show(id, VisibilityVariant{Public: &candid.Null{}}) // came later
	w.fails(CodeCanisterInvalidController, viaCanister(bob), "list_snapshots", only(id))
}

func l102(w *world) {
	id := w.user()
	w.write(id, engine.WasmMemory, 0, "two")
	snap := w.original(id, w.original(id).ID)
	list := decode[[]SnapshotRecord](w, w.do(alice, "list_snapshots", only(id)))
	equal(w, "snapshots", fmt.Sprint(list), fmt.Sprint([]SnapshotRecord{snap}))
	w.write(id, engine.WasmMemory, 0, "...")
	w.do(alice, "load_snapshot", snapArgs(id, snap.ID))
	w.holds(id, engine.WasmMemory, 0, "two")
	w.do(alice, "delete_snapshot", snapArgs(id, snap.ID))
	w.fails(CodeCanisterSnapshotNotFound, alice, "delete_snapshot", snapArgs(id, snap.ID))
	w.original(id)
	// Loading those of others came later.
	w.fails(CodeCanisterSnapshotNotFound, alice, "load_snapshot", snapArgs(id, w.original(w.user()).ID))
}

func l103(w *world) {
	id := w.user()
	snap := w.original(id)
	w.fails(CodeCanisterSnapshotNotFound, alice, "take_snapshot", originalArgs(id, wireID(id, 9)))
	equal(w, "what is left", string(w.list(id)[0].ID), string(snap.ID))
}

func l104(w *world) {
	id := w.user()
	w.fails(CodeCanisterSnapshotNotFound, alice, "take_snapshot", originalArgs(id, wireID(id, 0)))
	equal(w, "snapshots", len(w.list(id)), 0)
}
