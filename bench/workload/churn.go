package workload

import "math/rand/v2"

// Action is one operation of the churn.
type Action uint8

// The actions.
const (
	Take    Action = iota // one more snapshot
	Replace               // a take that replaces the oldest snapshot
	Delete                // of a snapshot
)

// String names the action.
func (a Action) String() string {
	switch a {
	case Take:
		return "take"
	case Replace:
		return "replace"
	}
	return "delete"
}

// Operation of the churn: an action on a canister. Victim chooses the snapshot
// that leaves, oldest first.
type Operation struct {
	Action   Action
	Canister int
	Victim   int
}

// Churn makes an endless row of operations on so many canisters, each with at
// most limit snapshots: takes while there is room, then replaces, and deletes
// now and then. It keeps count of what there is, so every operation is possible.
type Churn struct {
	order *rand.Rand
	held  []int
	limit int
}

// NewChurn starts with no snapshots.
func NewChurn(seed uint64, canisters, limit int) *Churn {
	return &Churn{order: rand.New(rand.NewPCG(seed, 0x636875)), held: make([]int, canisters), limit: limit}
}

// Next is the next operation.
func (c *Churn) Next() Operation {
	op := Operation{Canister: c.order.IntN(len(c.held))}
	n := &c.held[op.Canister]
	switch k := c.order.IntN(100); {
	case *n > 1 && k < 15:
		op.Action, op.Victim = Delete, c.order.IntN(*n)
		*n--
	case *n >= c.limit || *n > 0 && k < 40:
		op.Action = Replace
	default:
		*n++
	}
	return op
}
