package realrows

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/testkit"
	"github.com/snapstore/snapstore/internal/testkit/drive"
)

// Worker is the entry of a process of these rows: args[0] says which part it
// plays. It returns the exit code of the process.
func Worker(args []string) int { return worker(args, os.Stderr) }

// part is what a worker can play.
type part struct {
	args int
	run  func(ctx context.Context, args []string) error
}

func worker(args []string, complaints io.Writer) int {
	parts := systemParts()
	parts["play"] = part{1, func(ctx context.Context, args []string) error { return play(ctx, args[0]) }}
	parts["orders"] = part{3, playOrders}
	if len(args) == 0 || parts[args[0]].run == nil || len(args)-1 != parts[args[0]].args {
		fmt.Fprintf(complaints, "worker: %q is no part with these arguments\n", args)
		return 2
	}
	if err := parts[args[0]].run(context.Background(), args[1:]); err != nil {
		fmt.Fprintf(complaints, "worker %s: %v\n", args[0], err)
		return 1
	}
	return 0
}

// play opens the store of a plan and goes on in all lanes until it is killed.
func play(ctx context.Context, file string) error {
	p, err := readPlan(file)
	if err != nil {
		return err
	}
	j, err := openJournal(p.Journal)
	if err != nil {
		return err
	}
	lanes, err := p.lanes()
	if err != nil {
		return err
	}
	if err := j.note(false, "start"); err != nil {
		return err
	}
	o := p.options()
	o.FS = p.fs()
	e, err := engine.Open(p.Dir, o)
	if err != nil {
		return err
	}
	if err := j.note(false, "open"); err != nil {
		return err
	}
	failed := make(chan error, len(lanes)+1)
	var wg sync.WaitGroup
	for _, l := range lanes {
		wg.Go(func() { failed <- l.live(ctx, e, j) })
	}
	wg.Go(func() {
		rng := rand.New(rand.NewPCG(p.Seed, 7))
		for {
			time.Sleep(time.Duration(rng.IntN(30)) * time.Millisecond)
			if _, err := e.GC(ctx, engine.GCOptions{}); err != nil {
				failed <- fmt.Errorf("gc: %w", err)
				return
			}
		}
	})
	return <-failed // the process ends, whatever the others do
}

// live plays the lane's operations one after another.
func (l *lane) live(ctx context.Context, e *engine.Engine, j *journal) error {
	p := l.plan
	r := drive.Beside(drive.Config{Seed: p.Seed, Canisters: p.Lanes * laneCanisters, Limit: limit, Lend: (p.Seed+uint64(l.n))%3 == 0}, e, l.model)
	n := 0
	for o := range l.ops(len(p.Before), func() *testkit.Model { return r.M }) {
		if err := j.note(false, "begin %d %d", l.n, n); err != nil {
			return err
		}
		ack := func() error {
			var seq uint64
			if durable(o) {
				seq = e.Sequence()
			}
			return j.note(seq > 0, "ack %d %d %d", l.n, n, seq)
		}
		if p.Lie == early {
			if err := ack(); err != nil {
				return err
			}
		}
		if err := r.Do(ctx, o); err != nil {
			if p.Lie == vague && ctx.Err() == nil {
				err = errors.New(err.Error())
			}
			return fmt.Errorf("lane %d: %w\n%s", l.n, err, r.History())
		}
		if p.Lie != early {
			if err := ack(); err != nil {
				return err
			}
		}
		n++
	}
	return errors.New("a lane came to its end")
}

// lying is a file system whose files are not what they say.
type lying struct {
	vfs.FS
	file func(vfs.File) vfs.File
}

func (l lying) wrap(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return l.file(f), nil
}

func (l lying) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return l.wrap(l.FS.Create(name, c))
}

func (l lying) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return l.wrap(l.FS.OpenReadWrite(name, c, opts...))
}

func (l lying) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return l.wrap(l.FS.ReuseForWrite(old, name, c))
}

func (l lying) OpenDir(name string) (vfs.File, error) { return l.wrap(l.FS.OpenDir(name)) }

// unsyncedFile does nothing when it is synced: what it is told to make durable
// is not.
type unsyncedFile struct{ vfs.File }

func (unsyncedFile) Sync() error                { return nil }
func (unsyncedFile) SyncData() error            { return nil }
func (unsyncedFile) SyncTo(int64) (bool, error) { return true, nil }

// deafFile takes a write that failed for one that did not.
type deafFile struct{ vfs.File }

func (f deafFile) Write(p []byte) (int, error) {
	_, _ = f.File.Write(p) // that is the lie
	return len(p), nil
}

func (f deafFile) WriteAt(p []byte, off int64) (int, error) {
	_, _ = f.File.WriteAt(p, off) // that is the lie
	return len(p), nil
}
