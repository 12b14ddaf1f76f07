package realrows

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/testkit/drive"
	"github.com/snapstore/snapstore/internal/testkit/matrix"
)

// hardship is what befalls a process that has a store open. It goes on until
// nothing works any more, must not end of itself, and may only be told what the
// system says.
type hardship struct {
	name  string
	fault string
	full  int64
	// device are the file systems the store is on, case by case; "" is where the scratch folder is.
	device []string
	size   int64
	// limit is set by the process itself.
	limit func(rng *rand.Rand) *rlimit
	// strike is done to it while it works.
	strike func(d *device, p *plan) error
	// gone: the store is not there any more afterwards.
	gone bool
	// damaged: what can not be read may be taken for damage, since nothing tells
	// the two apart.
	damaged bool
	says    []error
}

type rlimit struct {
	resource int
	value    uint64
	first    bool // before the store is opened
}

var hardships = []hardship{
	{
		name: "limit-fsize", fault: "RLIMIT_FSIZE of 4 KiB to 128 KiB for a process with segments of 64 KiB", full: 20,
		limit: func(rng *rand.Rand) *rlimit {
			return &rlimit{syscall.RLIMIT_FSIZE, 4<<10 + rng.Uint64N(124<<10), rng.IntN(2) == 0}
		},
		says: []error{syscall.EFBIG},
	},
	{
		name: "limit-files", fault: "RLIMIT_NOFILE of 10 to 64", full: 20,
		limit: func(rng *rand.Rand) *rlimit {
			return &rlimit{syscall.RLIMIT_NOFILE, 10 + rng.Uint64N(55), rng.IntN(2) == 0}
		},
		says: []error{syscall.EMFILE},
	},
	{
		name: "read-only", fault: "ext4 becomes read-only under a live store", full: 20,
		device: []string{"ext4"}, size: 96 << 20,
		strike: func(d *device, _ *plan) error { return d.goReadOnly() },
		says:   []error{syscall.EROFS, syscall.EIO},
	},
	{
		name: "shutdown", fault: "ext4 and xfs forget what was not synced and fail everything, under a live store, five times in each", full: 20,
		device: []string{"ext4", "xfs"}, size: 320 << 20,
		strike:  func(d *device, _ *plan) error { return d.shutdown() },
		damaged: true, says: []error{syscall.EIO, syscall.EROFS, syscall.ESHUTDOWN},
	},
	{
		name: "removed", fault: "the store's directory is removed under a live store", full: 20,
		strike: func(_ *device, p *plan) error { return removeAll(p.Dir) },
		gone:   true, damaged: true, says: []error{syscall.ENOENT},
	},
}

// removeAll goes on while files appear.
func removeAll(dir string) (err error) {
	for range 100 {
		if err = os.RemoveAll(dir); err == nil {
			return nil
		}
	}
	return err
}

func hardRows() (rows []matrix.Row) {
	for _, h := range hardships {
		rows = append(rows, matrix.Row{
			Name: h.name, Fault: h.fault,
			Holds: "no panic and no exit, every error is the system's or a typed one and none says corruption; afterwards all that was acknowledged is there",
			Fast:  1, Full: h.full,
			Needs: func() error {
				if h.device != nil {
					return needsDevices()
				}
				return nil
			},
			Run: func(ctx context.Context, env *matrix.Env, index int64) (matrix.Tally, error) {
				return h.run(ctx, env, index, honest)
			},
		})
	}
	return rows
}

// sessionsOfAStore is how often a store is opened under the hardship.
const sessionsOfAStore = 5

func (h hardship) run(ctx context.Context, env *matrix.Env, index int64, l lie) (sum matrix.Tally, err error) {
	sum.Cases = 1
	if env.Self == "" {
		return sum, errNoSelf
	}
	rng := env.Rand(h.name, index)
	p := newPlan(env, h.name, index, l)
	var d *device
	if h.device != nil {
		if d, err = newDevice(ctx, env.Dir, h.device[index%int64(len(h.device))], h.size); err != nil {
			return sum, err
		}
		defer func() { err = errors.Join(err, d.detach()) }()
		p.Dir = filepath.Join(d.mount, "store")
	}
	if err := engine.Create(p.Dir, p.options()); err != nil {
		return sum, err
	}
	if d != nil {
		syscall.Sync() // the store's own directory is for whoever makes it to keep
	}
	for k := range sessionsOfAStore {
		told, err := h.session(ctx, env, p, d, rng)
		if err != nil {
			return sum, fmt.Errorf("seed %d, session %d: %w", p.Seed, k, err)
		}
		env.Logf("%s %d.%d: %s", h.name, index, k, told)
		if d != nil {
			if err := errors.Join(d.detach(), d.attach()); err != nil {
				return sum, err
			}
		}
		if h.gone {
			sum.Points++
			if _, err := engine.Open(p.Dir, p.options()); !errors.Is(err, engine.ErrNoStore) {
				return sum, fmt.Errorf("opening what is gone: %w", err)
			}
			return sum, nil
		}
		t, err := p.settle(ctx)
		if told != worked {
			t.Named++
		}
		sum.Add(t)
		if err == nil {
			err = p.reopened()
		}
		if err != nil {
			return sum, fmt.Errorf("seed %d, session %d, after %s: %w", p.Seed, k, told, err)
		}
	}
	return sum, nil
}

// worked is what a process tells that met no error.
const worked = "it went well"

// session runs a process under the hardship and returns what it told.
func (h hardship) session(ctx context.Context, env *matrix.Env, p *plan, d *device, rng *rand.Rand) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	file := filepath.Join(env.Dir, "plan")
	if err := p.save(file); err != nil {
		return "", err
	}
	if err := os.Remove(p.Journal); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	cmd := exec.CommandContext(ctx, env.Self, "worker", "hard", file, h.name, strconv.FormatUint(rng.Uint64(), 10))
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if err := cmd.Start(); err != nil {
		return "", err
	}
	struck := make(chan error, 1)
	over := make(chan struct{})
	wait := time.Duration(20+rng.IntN(400)) * time.Millisecond
	go func() { struck <- h.strikeLater(d, p, cmd.Process.Pid, wait, over) }()
	err := cmd.Wait()
	close(over)
	if err = errors.Join(err, ctx.Err(), <-struck); err != nil {
		return "", fmt.Errorf("the worker: %w: %s", err, &complaints)
	}
	return strings.TrimSpace(out.String()), nil
}

func (h hardship) strikeLater(d *device, p *plan, pid int, wait time.Duration, over <-chan struct{}) error {
	if h.strike == nil {
		return nil
	}
	for {
		said, err := p.readJournal()
		if err != nil {
			return err
		}
		if said.opened {
			break
		}
		select {
		case <-over:
			return nil
		case <-time.After(time.Millisecond):
		}
	}
	select {
	case <-over:
		return nil
	case <-time.After(wait):
	}
	if d == nil {
		return h.strike(d, p)
	}
	// A sync that is under way while a file system fails may come back and say
	// that all is well: none may be. Who is killed or loses power does not live
	// to see that; this process does.
	if err := stopAll(pid); err != nil {
		return err
	}
	return errors.Join(h.strike(d, p), syscall.Kill(pid, syscall.SIGCONT))
}

// stopAll stops a process, and returns when no thread of it is in the middle of
// anything.
func stopAll(pid int) error {
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return err
	}
	for began := time.Now(); time.Since(began) < patience; time.Sleep(time.Millisecond) {
		states, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		if err != nil {
			return err
		}
		stopped := 0
		for _, file := range states {
			b, err := os.ReadFile(file)
			if i := bytes.LastIndexByte(b, ')'); err == nil && i >= 0 && bytes.HasPrefix(b[i:], []byte(") T")) {
				stopped++
			}
		}
		if stopped > 0 && stopped == len(states) {
			return nil
		}
	}
	return errors.New("the worker does not stop")
}

// accepts says whether an error may be told: what the system says, or what
// follows from it.
func (h hardship) accepts(err error) bool {
	if !h.damaged && (errors.Is(err, engine.ErrCorrupt) || errors.Is(err, engine.ErrDamaged)) {
		return false
	}
	for _, e := range append(slices.Clone(h.says), engine.ErrReadOnly, engine.ErrDebt, context.DeadlineExceeded) {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// session of a process under hardship is no longer than this.
const hardTime = time.Second

// hard is the process: it lives all lanes until each has met an error, or for a
// while, then tries whatever else there is, closes the store and tells the
// first error.
func hard(ctx context.Context, args []string) error {
	p, err := readPlan(args[0])
	if err != nil {
		return err
	}
	at := slices.IndexFunc(hardships, func(h hardship) bool { return h.name == args[1] })
	if at < 0 {
		return fmt.Errorf("no hardship %q", args[1])
	}
	h := hardships[at]
	seed, err := strconv.ParseUint(args[2], 10, 64)
	if err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(seed, 5))
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
	var limit *rlimit
	if h.limit != nil {
		limit = h.limit(rng)
	}
	if limit != nil && limit.first {
		if err := limit.set(); err != nil {
			return err
		}
	}
	o := p.options()
	o.FS = p.fs()
	e, err := engine.Open(p.Dir, o)
	if err != nil {
		if !h.accepts(err) {
			return fmt.Errorf("open: %w", err)
		}
		fmt.Println("open:", err)
		return nil
	}
	if limit != nil && !limit.first {
		if err := limit.set(); err != nil {
			return err
		}
	}
	if err := j.note(false, "open"); err != nil {
		return err
	}
	soon, cancel := context.WithTimeout(ctx, hardTime)
	defer cancel()
	met := make([]error, len(lanes))
	var wg sync.WaitGroup
	for i, l := range lanes {
		wg.Go(func() { met[i] = l.live(soon, e, j) })
	}
	wg.Go(func() {
		for soon.Err() == nil {
			_, _ = e.GC(soon, engine.GCOptions{})
			time.Sleep(10 * time.Millisecond)
		}
	})
	wg.Wait()
	told := worked
	for _, err := range met {
		if !h.accepts(err) && e.Stats().IndexUntrusted == "" {
			return err
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			told = err.Error()
		}
	}
	if err := h.tryAll(ctx, e, p); err != nil {
		return err
	}
	if err := e.Close(); err != nil && !h.accepts(err) {
		return fmt.Errorf("close: %w", err)
	}
	told, _, _ = strings.Cut(told, "\n")
	fmt.Println(told)
	return nil
}

func (l *rlimit) set() error {
	var have syscall.Rlimit
	if err := syscall.Getrlimit(l.resource, &have); err != nil {
		return err
	}
	have.Cur = min(l.value, have.Max)
	return syscall.Setrlimit(l.resource, &have)
}

// tryAll asks for everything that is left to ask for.
func (h hardship) tryAll(ctx context.Context, e *engine.Engine, p *plan) error {
	ctx, cancel := context.WithTimeout(ctx, 20*hardTime)
	defer cancel()
	check := func(what string, err error) error {
		if err != nil && !h.accepts(err) && e.Stats().IndexUntrusted == "" {
			return fmt.Errorf("%s: %w", what, err)
		}
		return nil
	}
	for c := range p.Lanes * laneCanisters {
		for info, err := range e.Snapshots(drive.Canister(c)) {
			if errors.Is(err, engine.ErrNotFound) {
				break
			}
			if err != nil {
				return err
			}
			s, err := e.Snapshot(ctx, info.ID)
			if err == nil {
				for _, sec := range s.Sections() {
					r, serr := s.Section(sec.Section)
					if serr == nil && sec.Size < 1<<24 {
						_, serr = r.WriteTo(io.Discard)
					}
					err = errors.Join(err, serr)
				}
				s.Close()
			}
			if err := check("read", err); err != nil {
				return err
			}
		}
	}
	_, err := e.GC(ctx, engine.GCOptions{})
	if err := check("gc", err); err != nil {
		return err
	}
	_, err = e.Usage(ctx)
	if err := check("usage", err); err != nil {
		return err
	}
	for _, err := range e.Verify(ctx, engine.VerifyOptions{}) {
		if err != nil {
			break
		}
		// What can not be read now is a problem to it; the store is verified
		// again without the hardship.
	}
	e.Stats()
	return nil
}
