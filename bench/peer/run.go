package peer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// A runner runs the programs of one store. What they leave outside the store
// (caches, locks, settings, temporary files) goes into home, and nothing of
// the caller's environment but PATH reaches them.
type runner struct {
	home string
	env  []string
}

// newRunner makes the home in dir.
func newRunner(dir string, env ...string) (runner, error) {
	r := runner{home: filepath.Join(dir, "home"), env: env}
	return r, os.MkdirAll(r.home, 0o700)
}

// A programError is a program that ran and failed.
type programError struct {
	what   string // the program and its verb
	output string // the end of what it printed
	err    error
}

func (e *programError) Error() string {
	if e.output == "" {
		return fmt.Sprintf("%s: %v", e.what, e.err)
	}
	return fmt.Sprintf("%s: %v: %s", e.what, e.err, e.output)
}

func (e *programError) Unwrap() error { return e.err }

// run runs a program and gives what it printed on its standard output, at most
// the last 64 KiB. When ctx ends, the program is killed and all that it
// started; nothing of it runs any more on return.
func (r runner) run(ctx context.Context, name string, args ...string) (string, error) {
	var out tail
	err := r.start(ctx, &out, name, args)
	return out.String(), err
}

// runTo is run with the standard output going into a new file, which is not
// left behind half written.
func (r runner) runTo(ctx context.Context, dst, name string, args ...string) error {
	f, err := os.Create(dst)
	if err != nil {
		return err
	}
	// The program gets the file itself, so no bytes pass through this process.
	err = errors.Join(r.start(ctx, f, name, args), f.Close())
	if err != nil {
		return errors.Join(err, os.Remove(dst))
	}
	return nil
}

// graceAfterKill is how long the pipes of a killed program may stay open.
const graceAfterKill = 5 * time.Second

func (r runner) start(ctx context.Context, stdout interface{ Write([]byte) (int, error) }, name string, args []string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	var stderr tail
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout = stdout
	cmd.Stderr = &stderr
	cmd.Env = append([]string{
		"PATH=" + os.Getenv("PATH"),
		"HOME=" + r.home,
		"TMPDIR=" + r.home,
		"XDG_CACHE_HOME=" + filepath.Join(r.home, "cache"),
		"XDG_CONFIG_HOME=" + filepath.Join(r.home, "config"),
		"LC_ALL=C.UTF-8",
	}, r.env...)
	cmd.WaitDelay = graceAfterKill
	ownGroup(cmd)
	err := cmd.Run()
	if err == nil {
		return nil
	}
	what := name
	if len(args) > 0 {
		what += " " + args[0]
	}
	if ctx.Err() != nil {
		groupGone(cmd)
		return fmt.Errorf("%s: %w", what, ctx.Err())
	}
	output := stderr.String()
	if output == "" {
		if t, ok := stdout.(*tail); ok {
			output = t.String() // some complain on the wrong side
		}
	}
	return &programError{what: what, output: lastLines(output, 4), err: err}
}

// lastLines joins the last n lines that are not empty.
func lastLines(s string, n int) string {
	lines := strings.FieldsFunc(s, func(c rune) bool { return c == '\n' || c == '\r' })
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return strings.Join(lines, "; ")
}

// tail keeps the last 64 KiB of what is written to it.
type tail struct{ b []byte }

const tailSize = 64 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p[max(0, len(p)-tailSize):]...)
	if over := len(t.b) - tailSize; over > 0 {
		t.b = append(t.b[:0], t.b[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string { return string(t.b) }

// probe gives the first line of what a program says of its version. Without
// the program, the error says what to install.
func probe(ctx context.Context, debian, name string, args ...string) (string, error) {
	if err := installed(debian, name); err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "peer-probe-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // nothing of worth is in it
	r, err := newRunner(dir)
	if err != nil {
		return "", err
	}
	out, err := r.run(ctx, name, args...)
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(strings.TrimSpace(out), "\n")
	return line, nil
}

// installed refuses a program that is not in PATH.
func installed(debian, name string) error {
	if _, err := exec.LookPath(name); err != nil {
		return fmt.Errorf("%s: %w: apt-get install %s", name, ErrAbsent, debian)
	}
	return nil
}
