//go:build linux && (amd64 || arm64)

package trackmem

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestMain lets a test run this program again where system calls are refused.
func TestMain(m *testing.M) {
	if name := os.Getenv("TRACKMEM_REFUSED"); name != "" {
		runtime.LockOSThread()
		if err := refuse(map[string]uint32{"userfaultfd": unix.SYS_USERFAULTFD, "ioctl": unix.SYS_IOCTL}[name]); err != nil {
			panic(err) // the parent shows it
		}
	}
	os.Exit(m.Run())
}

// refuse makes a system call fail with EPERM from now on, in all threads of
// the process, as the default profile of a container does.
func refuse(call uint32) error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the number
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: call, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog))); errno != 0 {
		return errno
	}
	return nil
}

// again runs tests of this program in another process, and gives what it wrote.
func again(t *testing.T, run string, change func(*exec.Cmd)) (string, error) {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-test.run", run, "-test.v", "-test.short")
	cmd.Dir, cmd.Env = "/", os.Environ()
	change(cmd)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// What a container refuses leads to the hash mode, with the reason, and to an
// error for those who insist.
func TestRefusedSystemCalls(t *testing.T) {
	t.Parallel()
	for _, call := range []string{"userfaultfd", "ioctl"} {
		t.Run(call, func(t *testing.T) {
			t.Parallel()
			out, err := again(t, "^TestInsideConfinement$", func(c *exec.Cmd) { c.Env = append(c.Env, "TRACKMEM_REFUSED="+call) })
			switch {
			case strings.Contains(out, "panic: "+unix.ENOSYS.Error()), strings.Contains(out, "panic: "+unix.EINVAL.Error()):
				t.Skipf("this system filters no calls: %s", out)
			case err != nil:
				t.Fatalf("%v\n%s", err, out)
			case !strings.Contains(out, "PASS: TestInsideConfinement"):
				t.Fatalf("it did not run:\n%s", out)
			}
		})
	}
}

func TestInsideConfinement(t *testing.T) {
	call := os.Getenv("TRACKMEM_REFUSED")
	if call == "" {
		t.Skip("for a process that TestRefusedSystemCalls starts")
	}
	tr := tracker(t, Options{})
	if tr.Mode() != ModeHash || !strings.Contains(tr.Reason(), unix.EPERM.Error()) {
		t.Fatalf("decided on %s, %q", tr.Mode(), tr.Reason())
	}
	if _, err := New(Options{Mode: ModeKernel}); err == nil || !strings.Contains(err.Error(), unix.EPERM.Error()) {
		t.Errorf("the kernel mode was asked for: %v", err)
	}
	m := memory(t, tr, 1<<20, 1<<20)
	b := borrow(t, m)
	var d DirtySet
	b.Bytes()[5*PageSize] = 1
	if err := m.Collect(&d); err != nil || d.Len() != 1 || !d.Has(5) {
		t.Errorf("%d pages, %v", d.Len(), err)
	}
}

// forAll copies this program to where everybody may run it.
func forAll(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "trackmem")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	data, err := os.ReadFile("/proc/self/exe")
	program := filepath.Join(dir, "trackmem.test")
	if err = errors.Join(err, os.Chmod(dir, 0o755), os.WriteFile(program, data, 0o755)); err != nil {
		t.Fatal(err)
	}
	return program
}

// Nobody in particular can track: the tests of exactness pass without any
// privilege, in the mode that this user has.
func TestUnprivileged(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can become somebody else; this user has no privilege already")
	}
	t.Parallel()
	want := tracker(t, Options{}).Mode()
	program := forAll(t)
	out, err := again(t, "^(TestNothingIsMissed|TestModes|TestManyRuns|TestProbe)$", func(c *exec.Cmd) {
		c.Path = program
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	})
	switch {
	case errors.Is(err, os.ErrPermission):
		t.Skipf("nobody can not run programs from the temporary folder: %v", err)
	case err != nil:
		t.Fatalf("%v\n%s", err, out)
	case !strings.Contains(out, want.String()+", "):
		t.Fatalf("root has mode %s, nobody another:\n%s", want, out)
	}
}
