package candid_test

import (
	"errors"
	"fmt"

	"github.com/snapstore/snapstore/management/candid"
)

// An argument of an older client, read by a server that knows more.
func Example() {
	type oldArgs struct {
		CanisterID candid.Principal `candid:"canister_id"`
	}
	type visibility struct {
		candid.Variant
		Public  *candid.Null        `candid:"public"`
		Viewers *[]candid.Principal `candid:"allowed_viewers"`
	}
	type args struct {
		CanisterID candid.Principal `candid:"canister_id"`
		Visibility *visibility      `candid:"snapshot_visibility"`
		Limit      *uint64          `candid:"limit"`
	}

	message, err := candid.Marshal(oldArgs{CanisterID: candid.Principal{4}})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%x\n", message)

	var a args
	fmt.Println(candid.Unmarshal(message, candid.Limits{}, &a))
	fmt.Println(a.CanisterID, a.Visibility == nil, a.Limit == nil)

	// Output:
	// 4449444c016c01b3c4b1f204680100010104
	// <nil>
	// [4] true true
}

// What is wrong with a message, and where.
func ExampleError() {
	message, err := candid.Marshal([]string{"one", "two"})
	if err != nil {
		fmt.Println(err)
		return
	}
	var numbers []candid.Nat
	err = candid.Unmarshal(message, candid.Limits{}, &numbers)
	fmt.Println(err)
	fmt.Println(errors.Is(err, candid.ErrType))

	// Output:
	// Error decoding candid at byte 10, argument 0[0]: wrong type: text where nat is expected
	// true
}
