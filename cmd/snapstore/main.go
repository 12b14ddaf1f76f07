package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	os.Exit(int(execute()))
}

func execute() exitCode {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The first signal asks for an orderly end; a second one gets the default
	// treatment, which the store survives like any crash.
	context.AfterFunc(ctx, stop)
	return run(ctx, os.Args[1:], &app{stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv})
}

// run is the whole command but for the process around it.
func run(ctx context.Context, args []string, a *app) exitCode {
	root := newRootCommand(a)
	root.SetArgs(args)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	f := explain(ctx, err)
	if a.json || f.Code == exitUsage && asksForJSON(args) {
		f.writeJSON(a.stderr)
	} else {
		f.writeText(a.stderr)
	}
	return f.Code
}

// asksForJSON looks for --json where parsing ended before it got there.
func asksForJSON(args []string) bool {
	for _, arg := range args {
		switch arg {
		case "--":
			return false
		case "--json", "--json=true":
			return true
		}
	}
	return false
}

// app is one invocation: the flags every verb has, and where output goes.
type app struct {
	store      string
	json       bool
	quiet      bool
	noProgress bool
	verbose    bool

	stdout io.Writer
	stderr io.Writer
	getenv func(string) string
}
