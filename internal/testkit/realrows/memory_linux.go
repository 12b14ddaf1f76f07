package realrows

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/testkit/matrix"
)

// cgroup bounds the memory of the processes that join it. An empty one bounds
// nothing.
type cgroup struct{ dir string }

// newCgroup makes one with so many bytes; where that is not allowed, an error.
func newCgroup(name string, bytes int64) (cgroup, error) {
	for _, v := range []struct{ parent, needs, limit string }{
		{"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.limit_in_bytes"},
		{"/sys/fs/cgroup", "cgroup.controllers", "memory.max"},
	} {
		if _, err := os.Stat(filepath.Join(v.parent, v.needs)); err != nil {
			continue
		}
		g := cgroup{filepath.Join(v.parent, name)}
		if err := os.Mkdir(g.dir, 0o755); err != nil {
			return cgroup{}, err
		}
		if err := os.WriteFile(filepath.Join(g.dir, v.limit), strconv.AppendInt(nil, bytes, 10), 0o600); err != nil {
			return cgroup{}, errors.Join(err, g.remove())
		}
		return g, nil
	}
	return cgroup{}, errors.New("there is no control group for memory")
}

func groupName(row string) string {
	return fmt.Sprintf("snapstore-%s-%d-%d", row, os.Getpid(), time.Now().UnixNano())
}

// join puts this process into it.
func (g cgroup) join() error {
	if g.dir == "" {
		return nil
	}
	return os.WriteFile(filepath.Join(g.dir, "cgroup.procs"), []byte("0"), 0o600)
}

// remove waits until the last process in it is really gone.
func (g cgroup) remove() (err error) {
	if g.dir == "" {
		return nil
	}
	for range 200 {
		if err = os.Remove(g.dir); err == nil || errors.Is(err, os.ErrNotExist) {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return err
}

func needsCgroup() error {
	g, err := newCgroup(groupName("probe"), 64<<20)
	if err != nil {
		return fmt.Errorf("memory can not be bounded here: %w", err)
	}
	return g.remove()
}

const (
	// bigSize is of a snapshot, bigLimit of the memory of the process that has
	// to do with it, in bytes.
	bigSize  = 1 << 30
	bigLimit = 256 << 20
)

func memoryRow() matrix.Row {
	return matrix.Row{
		Name:  "memory",
		Fault: "a snapshot of 1 GiB is written, taken, loaded, read, verified, collected and its index rebuilt by a process with 256 MiB: in a control group, where there are some; the peak is measured in any case",
		Holds: "it gets through, and its peak stays under the limit",
		Fast:  0, Full: 3,
		Needs: func() error { return nil },
		Run:   bigInSmall,
	}
}

func bigInSmall(ctx context.Context, env *matrix.Env, index int64) (t matrix.Tally, err error) {
	t.Cases, t.Points = 1, 1
	if env.Self == "" {
		return t, errNoSelf
	}
	ctx, cancel := context.WithTimeout(ctx, 4*patience)
	defer cancel()
	g, err := newCgroup(groupName("memory"), bigLimit)
	if err != nil {
		env.Logf("memory: only measured: %v", err)
	}
	defer func() { err = errors.Join(err, g.remove()) }()
	cmd := exec.CommandContext(ctx, env.Self, "worker", "big", filepath.Join(env.Dir, "store"), g.dir, strconv.FormatUint(env.Rand("memory", index).Uint64(), 10))
	cmd.Env = append(os.Environ(), fmt.Sprintf("GOMEMLIMIT=%d", bigLimit*3/4))
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if err := cmd.Run(); err != nil {
		t.Lost++
		return t, fmt.Errorf("worker: %w: %s%s", err, &out, &complaints)
	}
	peak, err := strconv.ParseInt(strings.TrimSpace(out.String()), 10, 64)
	if err != nil {
		return t, err
	}
	t.Acknowledged++
	env.Logf("memory %d: peak %d MiB of %d", index, peak>>20, bigLimit>>20)
	if peak > bigLimit {
		return t, fmt.Errorf("peak of %d bytes, limit %d", peak, bigLimit)
	}
	return t, nil
}

// peak is the most memory this process ever had, in bytes.
func peak() (int64, error) {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if rest, ok := strings.CutPrefix(sc.Text(), "VmHWM:"); ok {
			n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return n << 10, err
		}
	}
	return 0, errors.New("the system does not tell the peak")
}

// piece is how much of a big memory is written between two checkpoints.
const piece = 16 << 20

// bigPiece fills p with pages of which no two are equal, half of them noise.
func bigPiece(p []byte, seed uint64, n int) {
	rng := rand.New(rand.NewPCG(seed, uint64(n)))
	for i := 0; i < len(p); i += 8 {
		v := rng.Uint64()
		if i/engine.PageSize%2 == 0 && i%engine.PageSize >= 64 {
			v = uint64(n)
		}
		for k := range 8 {
			p[i+k] = byte(v >> (8 * k))
		}
	}
}

// big is the process with little memory.
func big(ctx context.Context, args []string) (err error) {
	if err := (cgroup{args[1]}).join(); err != nil {
		return err
	}
	seed, err := strconv.ParseUint(args[2], 10, 64)
	if err != nil {
		return err
	}
	o := &engine.Options{MemTable: 8 << 20, PageCache: 8 << 20, NodeCache: 8 << 20, IndexCache: 8 << 20, RebuildMemory: 16 << 20}
	if err := engine.Create(args[0], o); err != nil {
		return err
	}
	a, err := openAlbum(ctx, args[0], o, nil, bigSize)
	if err != nil {
		return err
	}
	buf := make([]byte, piece)
	for i := range bigSize / piece {
		bigPiece(buf, seed, i)
		if _, err := a.m.WriteAt(buf, int64(i)*piece); err != nil {
			return err
		}
		if _, err := a.c.Checkpoint(ctx); err != nil {
			return err
		}
	}
	r, err := a.c.Take(ctx, engine.TakeOptions{})
	if err != nil {
		return err
	}
	clear(buf)
	if _, err := a.m.WriteAt(buf, bigSize/2); err != nil {
		return err
	}
	if _, err := a.c.Checkpoint(ctx); err != nil {
		return err
	}
	if _, err := a.c.Load(ctx, r.ID, engine.LoadOptions{}); err != nil {
		return err
	}
	for {
		if err := readBig(ctx, a.e, r.ID, seed); err != nil {
			return err
		}
		for p, err := range a.e.Verify(ctx, engine.VerifyOptions{}) {
			return fmt.Errorf("verify: %+v: %w", p, err)
		}
		if _, err := a.e.GC(ctx, engine.GCOptions{}); err != nil {
			return err
		}
		if err := a.e.Close(); err != nil {
			return err
		}
		if o.RebuildIndex {
			break
		}
		o.RebuildIndex = true
		if a, err = openAlbum(ctx, args[0], o, nil, bigSize); err != nil {
			return err
		}
	}
	n, err := peak()
	fmt.Println(n)
	return err
}

func readBig(ctx context.Context, e *engine.Engine, id engine.SnapshotID, seed uint64) error {
	s, err := e.Snapshot(ctx, id)
	if err != nil {
		return err
	}
	defer s.Close()
	sec, err := s.Section(engine.WasmMemory)
	if err != nil {
		return err
	}
	r, w := io.Pipe()
	go func() {
		_, err := sec.WriteTo(w)
		_ = w.CloseWithError(err) // it returns nil
	}()
	defer r.Close()
	got, want := make([]byte, piece), make([]byte, piece)
	for i := range bigSize / piece {
		if _, err := io.ReadFull(r, got); err != nil {
			return err
		}
		bigPiece(want, seed, i)
		if !bytes.Equal(got, want) {
			return fmt.Errorf("the snapshot differs in its piece %d", i)
		}
	}
	return nil
}

func oomRow() matrix.Row {
	return matrix.Row{
		Name:  "oom",
		Fault: "the system kills a process that has used up its memory, in the middle of its operations; five times in each store",
		Holds: "as after kill -9",
		Fast:  0, Full: 10,
		Needs: needsCgroup,
		Run:   ooms,
	}
}

// oomLimit is what a process has that will use up more.
const oomLimit = 160 << 20

func ooms(ctx context.Context, env *matrix.Env, index int64) (sum matrix.Tally, err error) {
	sum.Cases = 1
	if env.Self == "" {
		return sum, errNoSelf
	}
	p := newPlan(env, "oom", index, honest)
	if err := engine.Create(p.Dir, p.options()); err != nil {
		return sum, err
	}
	for k := range killsOfACase {
		if err := p.oomOnce(ctx, env); err != nil {
			return sum, fmt.Errorf("session %d: %w", k, err)
		}
		said, err := p.readJournal()
		if err != nil {
			return sum, err
		}
		env.Logf("oom %d.%d: opened %t, %d acknowledged operations", index, k, said.opened, said.durable)
		t, err := p.settle(ctx)
		sum.Add(t)
		if err == nil {
			err = p.reopened()
		}
		if err != nil {
			return sum, fmt.Errorf("seed %d, session %d: %w", p.Seed, k, err)
		}
	}
	return sum, nil
}

func (p *plan) oomOnce(ctx context.Context, env *matrix.Env) (err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	g, err := newCgroup(groupName("oom"), oomLimit)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.remove()) }()
	file := filepath.Join(env.Dir, "plan")
	if err := p.save(file); err != nil {
		return err
	}
	if err := os.Remove(p.Journal); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	out, err := exec.CommandContext(ctx, env.Self, "worker", "greedy", file, g.dir).CombinedOutput()
	var ended *exec.ExitError
	if errors.As(err, &ended) && ctx.Err() == nil {
		if st, ok := ended.Sys().(syscall.WaitStatus); ok && st.Signaled() && st.Signal() == syscall.SIGKILL {
			return nil
		}
	}
	return fmt.Errorf("the worker was not killed: %w: %s", err, out)
}

// greedy plays a plan and uses up memory beside it.
func greedy(ctx context.Context, args []string) error {
	if err := (cgroup{args[1]}).join(); err != nil {
		return err
	}
	debug.SetGCPercent(-1)
	go func() {
		var kept [][]byte
		for {
			b := make([]byte, 1<<20)
			for i := 0; i < len(b); i += 4096 {
				b[i] = 1
			}
			kept = append(kept, b)
			time.Sleep(5 * time.Millisecond)
			if len(kept) > 1<<12 {
				return
			}
		}
	}()
	return play(ctx, args[0])
}
