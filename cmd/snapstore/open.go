package main

import (
	"context"
	"errors"
	"log/slog"

	"github.com/snapstore/snapstore/engine"
)

// storeDir is the store that was named.
func (a *app) storeDir() (string, error) {
	if a.store == "" {
		return "", usageError("pass --store DIR, or set "+storeEnv, "no store was named")
	}
	return a.store, nil
}

// reading are the options of verbs that change no canister: gc work is left to
// those that do.
func (a *app) reading() *engine.Options {
	o := a.writing()
	o.NoBackground = true
	return o
}

// writing are the options of verbs that may make garbage: gc works beside
// them, and stops when they end.
func (a *app) writing() *engine.Options {
	o := &engine.Options{}
	if a.verbose {
		o.Logger = slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return o
}

// changing are the options of a verb that changes something unless it is a dry run.
func (a *app) changing(dryRun bool) *engine.Options {
	if dryRun {
		return a.reading()
	}
	return a.writing()
}

// withStore opens the store for the time of fn.
func (a *app) withStore(ctx context.Context, o *engine.Options, fn func(*engine.Engine) error) (err error) {
	dir, err := a.storeDir()
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	e, err := engine.Open(dir, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	// The signal may have come while the store was being opened.
	if err := ctx.Err(); err != nil {
		return err
	}
	return fn(e)
}
