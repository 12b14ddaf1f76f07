package seglog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/snapstore/snapstore/internal/osfs"
)

// What spills write past the page cache is what they were given, also where one
// ends in the middle of a block and the next goes on there, and where the file
// system turns out to be none for it.
func TestDirectWrites(t *testing.T) {
	real := osfs.New()
	for name, open := range map[string]func(string) (DirectFile, error){
		"direct": func(path string) (DirectFile, error) { return real.OpenDirect(path) },
		"never":  nil,
		"no":     func(string) (DirectFile, error) { return nil, fmt.Errorf("none here: %w", errors.ErrUnsupported) },
		"late":   func(string) (DirectFile, error) { return refusing{errors.ErrUnsupported}, nil },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.Chmod(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := Create(CreateOptions{FS: real, Dir: dir, SegmentSize: 4 << 20}); err != nil {
				t.Fatal(err)
			}
			o := Options{FS: real, Dir: dir, IdleDelay: -1, OpenDirect: open}
			l := mustStart(t, o)
			rng := rand.New(rand.NewPCG(1, 2))
			want := map[Loc][]byte{}
			for range 4 {
				s, err := l.Spill(StreamBulk)
				if err != nil {
					t.Fatal(err)
				}
				for range 60 {
					p := filler(rng.Uint64(), 1+rng.IntN(100<<10))
					loc, err := s.Append(KindGroup, p)
					if err != nil {
						t.Fatal(err)
					}
					want[loc] = p
				}
				if err := s.Flush(); err != nil {
					t.Fatal(err)
				}
				mustCommit(t, l, &Request{Ranges: s.Ranges()})
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
			check := func() {
				for loc, p := range want {
					if _, got, err := l.ReadFrame(loc, nil); err != nil || !bytes.Equal(got, p) {
						t.Fatalf("%s: %v", loc, err)
					}
				}
			}
			check()
			switch n := l.Stats().DirectBytes; {
			case name != "direct" && n != 0:
				t.Errorf("%d bytes past the page cache", n)
			case name == "direct" && n == 0:
				if d, err := real.OpenDirect(l.Segments()[0].Path); errors.Is(err, errors.ErrUnsupported) {
					t.Logf("no direct writes to %s: %v", dir, err)
				} else {
					t.Errorf("nothing past the page cache (%v, %v)", d, err)
				}
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			l = mustOpen(t, o)
			defer func() { l.Close() }()
			if err := l.Replay(context.Background(), 0, func(b *Batch) error { return nil }); err != nil {
				t.Fatal(err)
			}
			check()
		})
	}
}

// A direct write that fails ends the spill, as any other.
func TestDirectWriteFails(t *testing.T) {
	fs := vfs.NewMem()
	newStore(t, fs)
	o := testOptions(fs)
	boom := errors.New("boom")
	o.SegmentSize, o.SpillBuffer = 4<<20, 1<<20
	o.OpenDirect = func(string) (DirectFile, error) { return refusing{boom}, nil }
	l := mustStart(t, o)
	s, err := l.Spill(StreamBulk)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for range 10 {
		if _, err = s.Append(KindGroup, filler(1, 150<<10)); err != nil {
			break
		}
	}
	if err = errors.Join(err, s.Flush()); !errors.Is(err, boom) {
		t.Errorf("got %v", err)
	}
	if _, err := l.Commit(context.Background(), &Request{Ranges: s.Ranges()}); err == nil {
		t.Error("committed what was never written")
	}
}

// refusing is a file whose writes fail.
type refusing struct{ err error }

func (r refusing) WriteAt([]byte, int64) (int, error) { return 0, r.err }
func (r refusing) Close() error                       { return nil }
func (r refusing) Align() int                         { return 512 }

var _ io.WriterAt = refusing{}
