package peer

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// left reports what a store in dir has left in the system after its end.
func left(t *testing.T, dir string) {
	t.Helper()
	leftRunning(t, dir)
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(mounts, []byte(dir)) {
		t.Errorf("something is still mounted in %s", dir)
	}
	for _, l := range attached(t, dir) {
		t.Errorf("still attached: %s", l)
	}
}

// attached lists the loop devices over files in dir.
func attached(t *testing.T, dir string) (found []string) {
	t.Helper()
	loops, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range loops {
		if b, err := os.ReadFile(l); err == nil && strings.HasPrefix(string(b), dir+"/") {
			found = append(found, fmt.Sprintf("%s over %s", l, b))
		}
	}
	return found
}

func leftRunning(t *testing.T, dir string) {
	t.Helper()
	for _, p := range running(t, dir) {
		t.Errorf("still running: %s", p)
	}
}

// running lists programs that were started for a store in dir: each of them
// has its home there.
func running(t *testing.T, dir string) (found []string) {
	t.Helper()
	envs, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range envs {
		b, err := os.ReadFile(e)
		if err == nil && bytes.Contains(b, []byte("HOME="+dir+"/")) {
			cmd, _ := os.ReadFile(filepath.Join(filepath.Dir(e), "cmdline"))
			found = append(found, fmt.Sprintf("%s: %s", filepath.Base(filepath.Dir(e)), bytes.ReplaceAll(cmd, []byte{0}, []byte{' '})))
		}
	}
	return found
}
