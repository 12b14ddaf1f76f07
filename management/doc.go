// Package management is the management canister of the Internet Computer, as
// far as it concerns a canister's state and its snapshots, on top of an engine.
// A replica hands it the calls that reach aaaaa-aa; it answers with Candid
// bytes or a reject.
//
// The nouns. A Service serves one engine. A Caller made a call. A Host is what
// only a replica knows: time, the subnet, how to compile a module, what runs.
// A Reject is the only error of a call: reject code, error code and message as
// clients see them. Cycles are 128-bit and never go below zero.
//
// The order of checks. A call is decoded, then admitted (an ingress message
// for a snapshot of a canister must come from a controller), then the caller's
// own version is compared with sender_canister_version where it gave one. Then,
// for a snapshot method: the canister is there, the caller may do this, the
// arguments are in their bounds, the snapshot named is there and belongs to the
// canister, the limit on snapshots, the heap-delta rate, what the Host has
// against it, the module compiles and fits, and the resources in this order:
// subnet memory for the growth of allocated bytes, the freezing threshold with
// the new memory usage, the fee above that threshold, the reservation for
// storage. That a canister is empty is noticed last. Everything is checked
// before anything is changed: a rejected call leaves the canister, its
// snapshots, balances, counters and the engine as they were. Two methods charge
// a rejected call for the work it caused, as the interface has it: reading and
// writing snapshot data out of bounds.
//
// What is durable when. What must survive a restart (controllers, settings,
// balances, history, version, status) is in the canister's record, beside the
// snapshots. A method that changes a canister changes that and the snapshots
// in one atomic step of the engine, and has done so when it returns. The fees
// of reading and the data of uploads become durable with the canister's next
// change, or Flush. Two things take more than one step, and each says in its
// first what is left to do, which whoever comes next finishes before anything
// else: a take with uninstall_code, and a canister that runs out of cycles.
//
// The ledgers. Memory: a canister uses the logical bytes of its live state,
// its history and all its snapshots, whatever is shared; it is allocated that
// or its memory allocation, whichever is more; and the subnet has as much less.
// Cycles: what was minted is what canisters have, main and reserved balance,
// and what was burned. Reserved cycles are never given back. Both are held to
// by tests after every call.
//
// Concurrency: every method may be called from any goroutine. Calls on one
// canister go one after another, those on different canisters in parallel. One
// call holds two: the load of another canister's upload that can still change
// holds that canister as well. A host that runs code of a canister must not
// change the size of its memories while a call on it is under way.
//
// The package opens no file and speaks no HTTP. docs/management.md is the page
// for people who embed it, docs/conformance.md says which rows of the
// conformance table hold.
package management
