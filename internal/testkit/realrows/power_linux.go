package realrows

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/testkit/matrix"
)

// A power cut needs a disk that forgets what it was not told to keep, under a
// real file system. User-Mode Linux is a kernel that runs as a process, with the
// machine's files as its root; in it the device mapper's flakey target drops all
// writes from one moment on. The journal stays on the machine's own disk.

// cutsOfACase is how often the power goes in one machine.
const cutsOfACase = 5

// diskSize of the machine in bytes: xfs wants 300 MiB.
const diskSize = 384 << 20

// diskKinds are the file systems, case by case.
var diskKinds = []string{"ext4", "ext4", "ext4", "ext4", "xfs", "btrfs"}

func powerRow() matrix.Row {
	return matrix.Row{
		Name:  "power",
		Fault: "power cut under ext4 (four in six), xfs and btrfs in User-Mode Linux with dm-flakey, five times in each store",
		Holds: "what was acknowledged is there bit for bit, what was under way is wholly there or absent, counts are exact, gc leaves nothing",
		Fast:  0, Full: 6,
		Needs: needsPower,
		Run: func(ctx context.Context, env *matrix.Env, index int64) (matrix.Tally, error) {
			return power(ctx, env, index, honest)
		},
	}
}

func needsPower() error {
	for _, tool := range []string{"linux.uml", "dmsetup", "insmod", "mkfs.ext4"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%s is not here: install user-mode-linux, dmsetup, kmod and e2fsprogs", tool)
		}
	}
	if _, err := flakyModules(); err != nil {
		return err
	}
	if os.Getuid() != 0 {
		return errors.New("this row makes file systems: it wants to be root")
	}
	return nil
}

// flakyModules are the modules to load, in order.
func flakyModules() ([]string, error) {
	dirs, err := filepath.Glob("/usr/lib/uml/modules/*/kernel/drivers/md")
	if err != nil || len(dirs) == 0 {
		return nil, errors.New("no modules of User-Mode Linux in /usr/lib/uml/modules")
	}
	dir := dirs[len(dirs)-1]
	return []string{filepath.Join(dir, "dm-mod.ko"), filepath.Join(dir, "dm-flakey.ko")}, nil
}

// machine is what the process in the machine is told. It travels as a file.
type machine struct {
	Plan    plan     `json:"plan"`
	Kind    string   `json:"kind"` // of file system
	Modules []string `json:"modules"`
	Mount   string   `json:"mount"`
	Result  string   `json:"result"` // a file, to be written line by line
	Scratch string   `json:"scratch"`
	// Acks are how many operations of a session are acknowledged before the
	// power goes, if that does not take too long.
	Acks []int `json:"acks"`
}

// cut is what the machine tells of a power cut.
type cut struct {
	Tally   matrix.Tally `json:"tally"`
	Durable int          `json:"durable"` // operations acknowledged in the session
	Error   string       `json:"error,omitempty"`
}

func power(ctx context.Context, env *matrix.Env, index int64, l lie) (sum matrix.Tally, err error) {
	sum.Cases = 1
	if env.Self == "" {
		return sum, errNoSelf
	}
	ctx, cancel := context.WithTimeout(ctx, 4*patience)
	defer cancel()
	m := machine{
		Plan: *newPlan(env, "power", index, l), Kind: diskKinds[index%int64(len(diskKinds))],
		Mount: filepath.Join(env.Dir, "mount"), Result: filepath.Join(env.Dir, "result"), Scratch: env.Dir,
	}
	m.Plan.Dir = filepath.Join(m.Mount, "store")
	if m.Modules, err = flakyModules(); err != nil {
		return sum, err
	}
	rng := env.Rand("power", index)
	for range cutsOfACase {
		m.Acks = append(m.Acks, 3+rng.IntN(80))
	}
	if err := os.MkdirAll(m.Mount, 0o700); err != nil {
		return sum, err
	}
	disk := filepath.Join(env.Dir, "disk")
	if err := makeDisk(ctx, disk, m.Kind, diskSize); err != nil {
		return sum, err
	}
	said, err := m.boot(ctx, env, disk)
	cuts, rerr := m.results()
	for i, c := range cuts {
		sum.Add(c.Tally)
		env.Logf("power %d.%d: %s, %d acknowledged operations", index, i, m.Kind, c.Durable)
		if c.Error != "" {
			return sum, fmt.Errorf("%s, seed %d, cut %d: %s", m.Kind, m.Plan.Seed, i, c.Error)
		}
	}
	if err := errors.Join(err, rerr); err != nil || len(cuts) != cutsOfACase {
		return sum, fmt.Errorf("the machine ended after %d of %d cuts: %w\n%s", len(cuts), cutsOfACase, err, said)
	}
	return sum, nil
}

func makeDisk(ctx context.Context, file, kind string, size int64) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		return err
	}
	args := map[string][]string{
		"ext4":  {"mkfs.ext4", "-q", "-F", file},
		"xfs":   {"mkfs.xfs", "-q", file},
		"btrfs": {"mkfs.btrfs", "-q", file},
	}[kind]
	if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", args[0], err, out)
	}
	return nil
}

// boot runs the machine until it is off.
func (m *machine) boot(ctx context.Context, env *matrix.Env, disk string) (said string, err error) {
	b, err := json.Marshal(m)
	if err != nil {
		return "", err
	}
	file, script := filepath.Join(env.Dir, "machine"), filepath.Join(env.Dir, "init")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		return "", err
	}
	init := fmt.Sprintf("#!/bin/sh\nexport PATH=/usr/sbin:/usr/bin:/sbin:/bin\nexport TMPDIR='%s'\n'%s' worker power '%s'\npoweroff -f\n", env.Dir, env.Self, file)
	if err := os.WriteFile(script, []byte(init), 0o700); err != nil {
		return "", err
	}
	cmd := exec.Command("linux.uml", "mem=768M", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "rw", "init="+script,
		"ubd0="+disk, "con0=null,fd:1", "con=null", "quiet", "umid=snapstore"+fmt.Sprint(os.Getpid()), "uml_dir="+env.Dir+"/")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // it is many processes
	if err := cmd.Start(); err != nil {
		return "", err
	}
	stop := context.AfterFunc(ctx, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	err = cmd.Wait()
	stop()
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	return out.String(), errors.Join(err, ctx.Err())
}

func (m *machine) results() (cuts []cut, err error) {
	b, err := os.ReadFile(m.Result)
	if err != nil {
		return nil, err
	}
	for line := range bytes.Lines(b) {
		var c cut
		if err := json.Unmarshal(line, &c); err != nil {
			return cuts, err
		}
		cuts = append(cuts, c)
	}
	return cuts, nil
}

// inMachine is the first process of the machine.
func inMachine(ctx context.Context, file string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var m machine
	if err := json.Unmarshal(b, &m); err != nil {
		return err
	}
	result, err := os.OpenFile(m.Result, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	tell := func(c cut) {
		if b, err := json.Marshal(c); err == nil {
			_, _ = result.Write(append(b, '\n'))
		}
	}
	if err := m.prepare(); err != nil {
		tell(cut{Error: err.Error()})
		return err
	}
	for _, acks := range m.Acks {
		c, err := m.cut(ctx, acks)
		if err != nil {
			c.Error = err.Error()
		}
		tell(c)
		if err != nil {
			return err
		}
	}
	return syscall.Unmount(m.Mount, 0)
}

func run(args ...string) error {
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// table is what the device does: everything, or everything but writing.
func table(dropping bool) string {
	up, down, features := 180, 0, ""
	if dropping {
		up, down, features = 0, 180, " 1 drop_writes"
	}
	return fmt.Sprintf("0 %d flakey /dev/ubda 0 %d %d%s", diskSize/512, up, down, features)
}

func (m *machine) prepare() error {
	for _, t := range []struct{ kind, dir string }{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}} {
		if err := syscall.Mount(t.kind, t.dir, t.kind, 0, ""); err != nil && !errors.Is(err, syscall.EBUSY) {
			return fmt.Errorf("mount %s: %w", t.dir, err)
		}
	}
	for _, file := range m.Modules {
		if err := run("insmod", file); err != nil {
			return err
		}
	}
	if err := run("dmsetup", "create", "--noudevsync", "disk", "--table", table(false)); err != nil {
		return err
	}
	if err := m.mount(); err != nil {
		return err
	}
	if err := engine.Create(m.Plan.Dir, m.Plan.options()); err != nil {
		return err
	}
	syscall.Sync() // the store's own directory is for whoever makes it to keep
	return nil
}

func (m *machine) mount() error {
	if err := syscall.Mount("/dev/dm-0", m.Mount, m.Kind, 0, ""); err != nil {
		return fmt.Errorf("mount %s: %w", m.Kind, err)
	}
	return nil
}

// become changes what the device does, between two of its requests and without
// a flush of anything.
func (m *machine) become(dropping bool) error {
	for _, args := range [][]string{
		{"suspend", "--noflush", "--nolockfs", "disk"},
		{"load", "disk", "--table", table(dropping)},
		{"resume", "--noudevsync", "disk"},
	} {
		if err := run(append([]string{"dmsetup"}, args...)...); err != nil {
			return err
		}
	}
	return nil
}

// longest a session goes on when nothing much is acknowledged.
const longest = 10 * time.Second

// cut lets a worker live, cuts the power, and looks at what is left.
func (m *machine) cut(ctx context.Context, acks int) (c cut, err error) {
	p := &m.Plan
	file := filepath.Join(m.Scratch, "plan")
	if err := p.save(file); err != nil {
		return c, err
	}
	if err := os.Remove(p.Journal); err != nil && !errors.Is(err, os.ErrNotExist) {
		return c, err
	}
	var out bytes.Buffer
	worker := exec.Command("/proc/self/exe", "worker", "play", file)
	worker.Stdout, worker.Stderr = &out, &out
	if err := worker.Start(); err != nil {
		return c, err
	}
	kill := func() string {
		_ = worker.Process.Kill()
		_ = worker.Wait()
		return out.String()
	}
	var opened time.Time
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		said, err := p.readJournal()
		if err != nil {
			kill()
			return c, err
		}
		if said.opened && opened.IsZero() {
			opened = time.Now()
		}
		if said.durable >= acks || said.opened && time.Since(opened) > longest {
			break
		}
		if time.Since(began) > patience {
			return c, fmt.Errorf("the worker does not open the store: %s", kill())
		}
	}
	// From the stop on it acknowledges nothing: what the device drops then was
	// never said to be there.
	if err := worker.Process.Signal(syscall.SIGSTOP); err != nil {
		return c, fmt.Errorf("the worker ended of itself: %w: %s", err, kill())
	}
	var stopped syscall.WaitStatus
	if _, err := syscall.Wait4(worker.Process.Pid, &stopped, syscall.WUNTRACED, nil); err != nil || !stopped.Stopped() {
		return c, fmt.Errorf("the worker ended of itself: %w, %#x: %s", err, stopped, &out)
	}
	if err := m.become(true); err != nil {
		return c, err
	}
	kill()
	if err := syscall.Unmount(m.Mount, 0); err != nil {
		return c, fmt.Errorf("unmount: %w", err)
	}
	if err := m.become(false); err != nil {
		return c, err
	}
	if err := m.mount(); err != nil {
		return c, err
	}
	said, err := p.readJournal()
	if err != nil {
		return c, err
	}
	c.Durable = said.durable
	if c.Tally, err = p.settle(ctx); err != nil {
		return c, err
	}
	return c, p.reopened()
}
