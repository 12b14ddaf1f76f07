// Package realrows holds the rows of the fault matrix that need what a model of
// a disk can not give: processes that are really killed, file systems that are
// really full or lose power, limits of the system, and goroutines that really
// run beside each other.
//
// The nouns. A plan is a store, a seed and what was done to it so far; a lane is
// a share of its canisters that one goroutine lives, so that what it may find
// after a crash does not depend on the others. A worker is a process that plays
// a plan and writes each operation into a journal outside the store, before it
// begins and after it was acknowledged. Who killed the worker reads the journal,
// plays the same operations on the model, and holds the store against it.
package realrows

import (
	"errors"

	"github.com/snapstore/snapstore/internal/testkit/matrix"
)

// Rows lists the rows; those that can not run on this system are there and say
// so.
func Rows() []matrix.Row {
	return append([]matrix.Row{
		killRow(),
		ordersRow(),
		slowRow(),
		parallelRow(),
	}, systemRows()...)
}

var errNoSelf = errors.New("this row starts processes of its own program, and was not told which")
