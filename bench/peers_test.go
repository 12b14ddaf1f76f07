package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/snapstore/snapstore/bench/peer"
)

// fake keeps whole images, and fails as it is told to.
type fake struct {
	name     string
	features peer.Features
	absent   bool
	fails    string // the call that does
	pause    time.Duration
}

func fakes() []peer.Peer {
	return []peer.Peer{
		&fake{name: "borg-slow", features: peer.Features{Dedup: true, Compress: true}, pause: 20 * time.Millisecond},
		&fake{name: "borg-fast", features: peer.Features{Dedup: true, Compress: true}, pause: 5 * time.Millisecond},
		&fake{name: "restic", absent: true},
		&fake{name: "bup", fails: "create"},
		&fake{name: "casync", fails: "put"},
		&fake{name: "xfs", fails: "get"},
		&fake{name: "cp", fails: "content"},
		&fake{name: "pebble", fails: "delete"},
		&fake{name: "btrfs", fails: "size"},
	}
}

func (f *fake) Name() string            { return f.name }
func (f *fake) Features() peer.Features { return f.features }

func (f *fake) Probe(context.Context) (string, error) {
	if f.absent {
		return "", fmt.Errorf("%w: run apt install %s", peer.ErrAbsent, f.name)
	}
	return "1.0", nil
}

func (f *fake) Create(_ context.Context, dir string) (peer.Store, error) {
	return &fakeStore{fake: f, dir: dir}, f.fail("create")
}

var errFake = errors.New("as it was told")

func (f *fake) fail(call string) error {
	if f.fails == call {
		return errFake
	}
	return nil
}

type fakeStore struct {
	*fake
	dir  string
	last []uint64
}

// Put checks that it gets what the interface promises.
func (s *fakeStore) Put(_ context.Context, v peer.Version) error {
	time.Sleep(s.pause)
	b, err := os.ReadFile(v.Path)
	if err != nil || !bytes.Equal(b, v.Mem) {
		return fmt.Errorf("the file is not the version: %w", err)
	}
	if (v.Dirty == nil) != (s.last == nil) {
		return errors.New("only the first version has no dirty pages")
	}
	if s.last = v.Dirty; v.Dirty == nil {
		s.last = []uint64{}
	}
	return errors.Join(s.fail("put"), os.WriteFile(filepath.Join(s.dir, v.Name), b, 0o600))
}

func (s *fakeStore) Get(_ context.Context, name, dst string) error {
	b, err := os.ReadFile(filepath.Join(s.dir, name))
	if s.fails == "content" {
		b[len(b)/2]++
	}
	return errors.Join(err, s.fail("get"), os.WriteFile(dst, b, 0o600))
}

func (s *fakeStore) Delete(_ context.Context, name string) error {
	return errors.Join(s.fail("delete"), os.Remove(filepath.Join(s.dir, name)))
}

func (s *fakeStore) Size(context.Context) (int64, error) {
	n, err := onDisk(s.dir)
	return n, errors.Join(err, s.fail("size"))
}

func (s *fakeStore) Close() error { return nil }

// checkPeers looks at what a run with the fakes says of them.
func checkPeers(t *testing.T, r *Result) {
	t.Helper()
	want := map[string]string{
		"snapstore": "", "borg-slow": "", "borg-fast": "", "restic": "run apt install restic", "bup": "create failed",
		"casync": "put failed", "xfs": "as it was told", "cp": "not what was kept", "pebble": "as it was told", "btrfs": "size failed",
	}
	if len(r.Peers) != len(want) {
		t.Errorf("%d peers, want %d", len(r.Peers), len(want))
	}
	for _, p := range r.Peers {
		why, ok := want[p.Name]
		if !ok || why == "" != (p.Absent == "") || !strings.Contains(p.Absent, why) {
			t.Errorf("%s: absent because %q, want %q", p.Name, p.Absent, why)
		}
		if whole := p.Full != nil && p.Increment != nil && p.Restore != nil && p.Delete != nil && p.AllBytes > 0; whole != (why == "") {
			t.Errorf("%s: %+v", p.Name, p)
		}
	}
	// Which of the two was faster is for the machine to say.
	for id, of := range map[string]func(PeerResult) *Spread{
		"peer.full":   func(p PeerResult) *Spread { return p.Full },
		"peer.backup": func(p PeerResult) *Spread { return p.Increment },
	} {
		best, name := math.Inf(1), ""
		for _, p := range r.Peers {
			if s := of(p); s != nil && strings.HasPrefix(p.Name, "borg-") && s.Median < best {
				best, name = s.Median, p.Name
			}
		}
		if f, _ := r.Figure(id); name == "" || f.Reason != "the fastest was "+name {
			t.Errorf("%s: %s, and it was %q", id, f.Reason, name)
		}
	}
	if f, _ := r.Figure("peer.reflink"); f.Verdict != NotMeasured || !strings.Contains(f.Reason, "README") {
		t.Errorf("peer.reflink: %s, %s", f.Verdict, f.Reason)
	}
}
