package seglog

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestRealDisk is the history of the crash tests on the file system of the
// machine, where segments are truncated and not zeroed.
func TestRealDisk(t *testing.T) {
	o := testOptions(vfs.Default)
	o.Dir = filepath.Join(t.TempDir(), "store")
	o.Ballast = 1 << 20
	if err := Create(CreateOptions{FS: o.FS, Dir: o.Dir, SegmentSize: minSegmentSize}); err != nil {
		t.Fatal(err)
	}
	h := &history{t: t, m: &model{}, rng: rand.New(rand.NewPCG(1, 4))}
	for i := range 5 {
		h.l = mustStart(t, o)
		for range 15 {
			if err := h.step(); err != nil {
				t.Fatal(err)
			}
		}
		if i%2 == 0 {
			if err := h.l.Close(); err != nil {
				t.Fatal(err)
			}
		} else {
			o.Dir = crashCopy(t, h.l, o.Dir)
		}
		l := mustOpen(t, o)
		if err := checkHolds(l, h.m.snapshot()); err != nil {
			t.Fatal(err)
		}
		l.Close()
	}
	if _, err := os.Stat(filepath.Join(o.Dir, ballastName)); err != nil {
		t.Fatal(err)
	}
	recovered := 0
	for _, s := range h.l.segs {
		st, err := os.Stat(s.path)
		if err != nil {
			t.Fatal(err)
		}
		if s.state == stateRecovered {
			recovered++
		}
		if s.state == stateOpen || st.Size() != s.size {
			t.Errorf("%s: %d bytes of %d, state %d", s.path, st.Size(), s.size, s.state)
		}
	}
	if recovered == 0 {
		t.Error("no segment was ended by a crash")
	}
}

// crashCopy returns what a crash of the process would leave of a log that runs on, with
// zeros behind each open segment, as a write leaves them that made the file longer and no
// more. It is a copy: two logs in one directory would end each other's segments.
func crashCopy(t *testing.T, l *Log, dir string) string {
	t.Helper()
	crashed := filepath.Join(t.TempDir(), "store")
	defer holdFiles(l)()
	if err := os.CopyFS(crashed, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	for _, s := range l.Segments() {
		if s.Sealed {
			continue
		}
		f, err := os.OpenFile(filepath.Join(crashed, logDirName, filepath.Base(s.Path)), os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return crashed
}
