package realrows

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/testkit/matrix"
)

// killsOfACase is how often the worker of one store is killed: the later
// sessions start from what the earlier ones left behind.
const killsOfACase = 5

func killRow() matrix.Row {
	return matrix.Row{
		Name:  "kill",
		Fault: "kill -9 of a process that takes, loads, deletes, uploads and collects in six canisters, also while it opens the store; five times in each store",
		Holds: "what was acknowledged is there bit for bit, what was under way is wholly there or absent, counts are exact, gc leaves nothing",
		Fast:  1, Full: 40,
		Needs: func() error { return nil },
		Run: func(ctx context.Context, env *matrix.Env, index int64) (matrix.Tally, error) {
			return kills(ctx, env, index, honest)
		},
	}
}

func newPlan(env *matrix.Env, row string, index int64, l lie) *plan {
	rng := env.Rand(row, index)
	return &plan{
		Dir: filepath.Join(env.Dir, "store"), Journal: filepath.Join(env.Dir, "journal"),
		Seed: rng.Uint64(), Lanes: 3, Lie: l,
	}
}

func kills(ctx context.Context, env *matrix.Env, index int64, l lie) (sum matrix.Tally, err error) {
	sum.Cases = 1
	if env.Self == "" {
		return sum, errNoSelf
	}
	rng := env.Rand("kill", index)
	p := newPlan(env, "kill", index, l)
	if err := engine.Create(p.Dir, p.options()); err != nil {
		return sum, err
	}
	for k := range killsOfACase {
		// One in four dies while it opens the store.
		opening := rng.IntN(4) == 0
		wait := time.Duration(20+rng.IntN(500)) * time.Millisecond
		if opening {
			wait = time.Duration(rng.IntN(20_000)) * time.Microsecond
		}
		if err := p.killOne(ctx, env, opening, wait); err != nil {
			return sum, fmt.Errorf("session %d: %w", k, err)
		}
		said, err := p.readJournal()
		if err != nil {
			return sum, err
		}
		env.Logf("kill %d.%d: opened %t, %d acknowledged operations", index, k, said.opened, said.durable)
		t, err := p.settle(ctx)
		sum.Add(t)
		if err == nil {
			err = p.reopened()
		}
		if err != nil {
			return sum, fmt.Errorf("seed %d, session %d, killed with %v: %w", p.Seed, k, said.lanes, err)
		}
	}
	return sum, nil
}

// killOne starts a worker and kills it so long after it began to open the
// store, or after it had opened it.
func (p *plan) killOne(ctx context.Context, env *matrix.Env, opening bool, wait time.Duration) error {
	file := filepath.Join(env.Dir, "plan")
	if err := p.save(file); err != nil {
		return err
	}
	if err := os.Remove(p.Journal); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, env.Self, "worker", "play", file)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // it is killed, and what it says is in out
		close(ended)
	}()
	alive := func(d time.Duration) error {
		select {
		case <-ended:
			return fmt.Errorf("the worker ended of itself: %s", &out)
		case <-time.After(d):
			return nil
		}
	}
	err := func() error {
		for began := time.Now(); ; {
			said, err := p.readJournal()
			if err != nil {
				return err
			}
			if said.opened || opening && said.started {
				return alive(wait)
			}
			if time.Since(began) > patience {
				return errors.New("the worker does not open the store")
			}
			if err := alive(time.Millisecond); err != nil {
				return err
			}
		}
	}()
	_ = cmd.Process.Kill()
	<-ended
	return err
}
