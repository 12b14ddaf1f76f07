// Command snapstore-torture plays the fault matrix: it crashes, fills, breaks
// and rots stores in every way it knows, and holds what is left against a
// model. It is not part of the product.
//
//	snapstore-torture --for 10m           some of every row, and a table
//	snapstore-torture list                the rows
//	snapstore-torture case flip 17        one case, by row, index and --seed
//
// One seed replays one run, and one index one case of it. Exit codes are those
// of snapstore: 0 when all that must hold did, 3 when it did not.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/snapstore/snapstore/internal/testkit/realrows"
)

func main() {
	// Rows of real processes start this program again, to be killed.
	if len(os.Args) > 1 && os.Args[1] == "worker" {
		os.Exit(realrows.Worker(os.Args[2:]))
	}
	os.Exit(int(execute()))
}

// exitCode is what the process ends with.
type exitCode int

const (
	exitOK          exitCode = 0
	exitError       exitCode = 1
	exitUsage       exitCode = 2
	exitProblems    exitCode = 3 // what must hold did not
	exitInterrupted exitCode = 130
)

// errProblems: the report says what did not hold.
var errProblems = errors.New("what must hold did not")

func execute() exitCode {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process
	cmd := newCommand(os.Stdout, os.Stderr)
	err := cmd.ExecuteContext(ctx)
	switch {
	case errors.Is(err, errProblems):
		return exitProblems
	case ctx.Err() != nil:
		return exitInterrupted
	case err == nil:
		return exitOK
	}
	fmt.Fprintf(os.Stderr, "snapstore-torture: %v\n", err)
	var usage *usageError
	if errors.As(err, &usage) {
		return exitUsage
	}
	return exitError
}
