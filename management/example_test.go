package management_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/management"
	"github.com/snapstore/snapstore/management/candid"
)

// A replica hands over what reaches the management canister, and answers with
// what comes back.
func Example() {
	ctx := context.Background()
	tmp, _ := os.MkdirTemp("", "snapstore")
	defer os.RemoveAll(tmp)
	dir := filepath.Join(tmp, "store")
	engine.Create(dir, nil)
	e, _ := engine.Open(dir, nil)
	defer e.Close()
	s, _ := management.New(ctx, e, nil, &management.Config{Provisional: true})

	user := management.Caller{Principal: []byte{4}}
	made, _ := s.ProvisionalCreateCanister(ctx, user, management.ProvisionalCreateArgs{})
	wasm := []byte("\x00asm\x01\x00\x00\x00")
	s.InstallCode(ctx, user, management.InstallCodeArgs{
		CanisterID: made.CanisterID, WasmModule: wasm, Mode: management.InstallMode{Install: &candid.Null{}},
	})

	arg, _ := candid.Marshal(management.TakeCanisterSnapshotArgs{CanisterID: made.CanisterID})
	reply, _ := s.Call(ctx, user, "take_canister_snapshot", arg)
	var snap management.SnapshotRecord
	candid.Unmarshal(reply, candid.Limits{}, &snap)
	fmt.Println(hex.EncodeToString(snap.ID), snap.TotalSize)

	stranger := management.Caller{Principal: []byte{5}, Canister: true}
	_, err := s.Call(ctx, stranger, "take_canister_snapshot", arg)
	var r *management.Reject
	fmt.Println(errors.As(err, &r), r.Code, r.ErrorCode)
	// Output:
	// 000000000000000000000000000000000101 8
	// true CANISTER_ERROR IC0512
}
