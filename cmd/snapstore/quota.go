package main

import (
	"github.com/spf13/cobra"

	"github.com/snapstore/snapstore/engine"
)

// quotas are what a canister and the store may be charged for, as long as the
// command runs.
type quotas struct {
	canister, store bytesValue
}

func (q *quotas) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.Var(&q.canister, "canister-quota", "the most bytes that the canister's live state and snapshots may come to, shared or not (default no limit)")
	f.Var(&q.store, "store-quota", "the most bytes that those of all canisters may come to (default no limit)")
}

// apply sets the options.
func (q *quotas) apply(o *engine.Options) *engine.Options {
	o.CanisterQuota, o.StoreQuota = q.canister.n, q.store.n
	return o
}
