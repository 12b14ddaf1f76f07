//go:build unix

package peer

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func testRunner(t *testing.T, env ...string) (runner, string) {
	t.Helper()
	dir := t.TempDir()
	r, err := newRunner(dir, env...)
	if err != nil {
		t.Fatal(err)
	}
	return r, dir
}

// TestRunKillsAll: a program that started others and waits for them is killed
// with them.
func TestRunKillsAll(t *testing.T) {
	t.Parallel()
	r, dir := testRunner(t)
	ctx, cancel := context.WithCancel(t.Context())
	started := filepath.Join(dir, "started")
	go func() {
		for ctx.Err() == nil {
			if _, err := os.Stat(started); err == nil {
				cancel()
			}
			time.Sleep(time.Millisecond)
		}
	}()
	defer cancel()
	_, err := r.run(ctx, "sh", "-c", "sleep 300 & sleep 300 & touch '"+started+"'; wait")
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want %v", err, context.Canceled)
	}
	gone(t, dir)
}

// TestRunSeparate: nothing of the environment but PATH reaches a program.
func TestRunSeparate(t *testing.T) {
	t.Setenv("SECRET", "x")
	t.Setenv("HOME", "/somewhere")
	r, dir := testRunner(t, "MORE=y")
	out, err := r.run(t.Context(), "env")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"HOME=" + dir, "TMPDIR=" + dir, "PATH=", "MORE=y"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %s in:\n%s", want, out)
		}
	}
	if strings.Contains(out, "SECRET") || strings.Contains(out, "/somewhere") {
		t.Errorf("the environment reached it:\n%s", out)
	}
}

// TestRunFailure: an error says what the program said.
func TestRunFailure(t *testing.T) {
	t.Parallel()
	r, dir := testRunner(t)
	_, err := r.run(t.Context(), "sh", "-c", "echo no space >&2; exit 3")
	var failed *programError
	if !errors.As(err, &failed) || err.Error() != "sh -c: exit status 3: no space" {
		t.Errorf("%v", err)
	}
	if _, err = r.run(t.Context(), "sh", "-c", "echo on the wrong side; exit 1"); err == nil || !strings.Contains(err.Error(), "wrong side") {
		t.Errorf("%v", err)
	}
	dst := filepath.Join(dir, "dst")
	if err := r.runTo(t.Context(), dst, "sh", "-c", "echo half; exit 1"); err == nil {
		t.Error("no error")
	}
	if _, err := os.Stat(dst); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("half a file was left: %v", err)
	}
}

// TestRunLong: of a program that talks much, the end is kept.
func TestRunLong(t *testing.T) {
	t.Parallel()
	r, _ := testRunner(t)
	out, err := r.run(t.Context(), "sh", "-c", "seq 1 100000")
	if err != nil {
		t.Fatal(err)
	}
	if len(out) != tailSize || !strings.HasSuffix(out, "99999\n100000\n") {
		t.Errorf("%d bytes that end in %q", len(out), lastLines(out, 2))
	}
	var tl tail
	for i := range 3 * tailSize / 1000 {
		if _, err := tl.Write([]byte(strings.Repeat(string(rune('a'+i%26)), 1000))); err != nil {
			t.Fatal(err)
		}
		if len(tl.b) > tailSize {
			t.Fatalf("%d bytes kept", len(tl.b))
		}
	}
}
