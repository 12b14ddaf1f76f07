package peer

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"
)

// TestKilled: nothing stays attached when the process that has a file system
// open is killed and can not clean up.
func TestKilled(t *testing.T) {
	const with = "SNAPSTORE_PEER_KILLED"
	for _, p := range []Peer{reflink{btrfs}, reflink{xfs}} {
		t.Run(p.Name(), func(t *testing.T) {
			if dir := os.Getenv(with); dir != "" {
				s, err := p.Create(t.Context(), dir)
				if err != nil {
					t.Fatal(err)
				}
				mem := make([]byte, pageSize)
				mem[0] = 1
				if err := s.Put(t.Context(), Version{Name: "v", Mem: mem}); err != nil {
					t.Fatal(err)
				}
				fmt.Println("ready")
				select {} // until killed
			}
			if _, err := p.Probe(t.Context()); errors.Is(err, ErrAbsent) {
				t.Skipf("%v", err)
			}
			dir := t.TempDir()
			cmd := exec.Command(os.Args[0], "-test.run", "^TestKilled$/^"+p.Name()+"$", "-test.timeout", "60s")
			cmd.Env = append(os.Environ(), with+"="+dir)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ready := false
			for in := bufio.NewScanner(out); !ready && in.Scan(); {
				ready = in.Text() == "ready"
				if !ready {
					t.Log(in.Text())
				}
			}
			if got := attached(t, dir); ready && len(got) != 1 {
				t.Errorf("attached before the kill: %q", got)
			}
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			cmd.Wait()
			if !ready {
				t.Fatal("it could not make its store")
			}
			for wait := time.Millisecond; len(attached(t, dir)) > 0 && wait < 8*time.Second; wait *= 2 {
				time.Sleep(wait)
			}
			left(t, dir)
		})
	}
}
