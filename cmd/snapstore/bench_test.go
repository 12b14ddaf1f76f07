package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestBenchInterrupted ends a run as soon as it has made its directory: nothing
// is left, and the message does not speak of a store.
func TestBenchInterrupted(t *testing.T) {
	t.Parallel()
	dir, out := t.TempDir(), filepath.Join(t.TempDir(), "result.json")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		for ctx.Err() == nil {
			if made, err := filepath.Glob(filepath.Join(dir, "*", "store-*")); err == nil && len(made) > 0 {
				cancel()
			}
			time.Sleep(time.Millisecond)
		}
	}()
	var stderr bytes.Buffer
	a := &app{stdout: &stderr, stderr: &stderr, getenv: func(string) string { return "" }}
	code := run(ctx, []string{"bench", "run", "--scale", "0.01", "--workload", "row", "--dir", dir, "--out", out}, a)
	if code != exitInterrupted || !strings.Contains(stderr.String(), "interrupted") || !strings.Contains(stderr.String(), "begin it again") {
		t.Errorf("exit code %d: %s", code, &stderr)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if left, err := os.ReadDir(filepath.Dir(out)); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
