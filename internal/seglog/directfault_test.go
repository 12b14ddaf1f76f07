package seglog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/snapstore/snapstore/internal/testkit"
)

// directOptions are such that each spill of a few frames writes several buffers
// past the page cache, with a head and a tail through it.
func directOptions(fs *testkit.FS) Options {
	o := testOptions(fs)
	o.SegmentSize, o.SpillBuffer, o.DirectLeast = 64<<10, 16<<10, 1
	o.OpenDirect = func(path string) (DirectFile, error) { return fs.OpenDirect(path) }
	return o
}

// spilled are frames and where they are said to be.
type spilled map[Loc][]byte

// spill appends twelve frames, of 3 to 8 KiB, and commits them with a record.
func (s spilled) spill(l *Log, stream Stream, n uint64) error {
	sp, err := l.Spill(stream)
	if err != nil {
		return err
	}
	defer sp.Close()
	mine := spilled{}
	for i := range uint64(12) {
		p := filler(n<<8|i, int(3000+(n+i)*997%5000))
		loc, err := sp.Append(KindGroup, p)
		if err != nil {
			return err
		}
		mine[loc] = p
	}
	if err := sp.Flush(); err != nil {
		return err
	}
	r := request("k", n)
	r.Ranges = sp.Ranges()
	if stream == StreamMoved {
		r.Reserve = ReserveFirst
	}
	if _, err := l.Commit(context.Background(), r); err != nil {
		return err
	}
	for loc, p := range mine {
		s[loc] = p
	}
	return nil
}

// check reads every frame of a log.
func (s spilled) check(l *Log) error {
	for loc, p := range s {
		_, got, err := l.ReadFrame(loc, nil)
		if err == nil && !bytes.Equal(got, p) {
			err = errors.New("other bytes")
		}
		if err != nil {
			return fmt.Errorf("%s is not what was committed: %w", loc, err)
		}
	}
	return nil
}

// afterCrash opens what a power loss leaves and checks it.
func (s spilled) afterCrash(t *testing.T, disk *testkit.Disk) {
	t.Helper()
	rng := rand.New(rand.NewPCG(7, 7))
	for _, keep := range []int{0, 30, 70, 100} {
		l, err := Open(directOptions(disk.Crash(keep, rng).Mount()))
		if err != nil {
			t.Fatalf("%d%% kept: %v", keep, err)
		}
		if _, err := contents(l); err != nil {
			t.Fatalf("%d%% kept: %v", keep, err)
		}
		if damage := l.Damage(); len(damage) > 0 {
			t.Fatalf("%d%% kept: %v", keep, damage)
		}
		if err := s.check(l); err != nil {
			t.Fatalf("%d%% kept: %v", keep, err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDirectWriteFaults fails one write of a spill: what goes past the page cache,
// and the ends that do not.
func TestDirectWriteFaults(t *testing.T) {
	for name, c := range map[string]struct {
		stream Stream
		fault  testkit.Fault
		holds  bool // the spill is committed all the same
	}{
		"no space for the middle":              {StreamBulk, testkit.Fault{Err: syscall.ENOSPC}, false},
		"no space for the tail":                {StreamBulk, testkit.Fault{After: 1, Err: syscall.ENOSPC}, false},
		"no space in the middle of cleaning":   {StreamMoved, testkit.Fault{Err: syscall.ENOSPC}, true},
		"no space for the tail of cleaning":    {StreamMoved, testkit.Fault{After: 1, Err: syscall.ENOSPC}, true},
		"no space for the next head":           {StreamMoved, testkit.Fault{After: 3, Err: syscall.ENOSPC}, true},
		"no space again after the reserve":     {StreamMoved, testkit.Fault{Times: 2, Err: syscall.ENOSPC}, false},
		"the middle can not be written":        {StreamBulk, testkit.Fault{Err: syscall.EIO}, false},
		"the tail can not be written":          {StreamBulk, testkit.Fault{After: 1, Err: syscall.EIO}, false},
		"the next middle can not be written":   {StreamBulk, testkit.Fault{After: 2, Err: syscall.EIO}, false},
		"the next head can not be written":     {StreamBulk, testkit.Fault{After: 3, Err: syscall.EIO}, false},
		"cleaning can not write the middle":    {StreamMoved, testkit.Fault{Err: syscall.EIO}, false},
		"the file can not be opened for it":    {StreamBulk, testkit.Fault{Kind: testkit.OpOpen, Err: syscall.EMFILE}, true},
		"the sync of what was written fails":   {StreamBulk, testkit.Fault{Kind: testkit.OpSync, Err: syscall.EIO}, false},
		"cleaning can not sync what was moved": {StreamMoved, testkit.Fault{Kind: testkit.OpSync, Err: syscall.EIO}, false},
	} {
		t.Run(name, func(t *testing.T) {
			disk := testkit.NewDisk()
			fs := disk.Mount()
			newStore(t, fs)
			o := directOptions(fs)
			o.Ballast = 64 << 10
			l := mustStart(t, o)
			all := spilled{}
			if err := all.spill(l, StreamBulk, 1); err != nil {
				t.Fatal(err)
			}
			if l.Stats().DirectBytes == 0 {
				t.Fatal("nothing is written past the page cache")
			}
			f := c.fault
			if f.Kind == 0 {
				f.Kind, f.Torn = testkit.OpWrite, true
			}
			if f.Times == 0 {
				f.Times = 1
			}
			met := false
			f.Name, f.Met = segmentSuffix, func() { met = true }
			// A segment of its own: what is left of the last one would end the
			// first buffer early.
			if err := l.Seal(t.Context()); err != nil {
				t.Fatal(err)
			}
			fs.Inject(&f)
			err := all.spill(l, c.stream, 2)
			fs.Inject()
			if !met || (err == nil) != c.holds || err != nil && !errors.Is(err, f.Err) {
				t.Fatalf("met %t: %v", met, err)
			}
			if errors.Is(f.Err, syscall.ENOSPC) && err != nil && !errors.Is(err, ErrNoSpace) {
				t.Errorf("got %v", err)
			}
			if cause := l.ReadOnly(); cause != nil {
				t.Fatalf("a spill that failed made the log read-only: %v", cause)
			}
			all.afterCrash(t, disk)
			if err := all.check(l); err != nil {
				t.Fatal(err)
			}
			if err := all.spill(l, c.stream, 3); err != nil {
				t.Fatalf("the next one: %v", err)
			}
			all.afterCrash(t, disk)
		})
	}
}

// TestDirectWriteCrash lets the power go before every operation of spills that go
// past the page cache.
func TestDirectWriteCrash(t *testing.T) {
	for at := int64(1); ; at++ {
		disk := testkit.NewDisk()
		fs := disk.Mount()
		newStore(t, fs)
		l := mustStart(t, directOptions(fs))
		all := spilled{}
		fs.KillAt(at)
		for n := range uint64(4) {
			if err := all.spill(l, StreamBulk+Stream(n%2), 1+n); err != nil {
				if !fs.Dead() {
					t.Fatal(err)
				}
				break
			}
		}
		all.afterCrash(t, disk)
		if !fs.Dead() {
			if l.Stats().DirectBytes == 0 || at < 50 {
				t.Fatalf("%d operations, %d bytes past the page cache", at, l.Stats().DirectBytes)
			}
			return
		}
	}
}

// A write that ends in the middle of a block and is refused then, as a file system
// may do it, is made again as a whole through the page cache.
func TestShortDirectWrite(t *testing.T) {
	disk := testkit.NewDisk()
	fs := disk.Mount()
	newStore(t, fs)
	o := directOptions(fs)
	o.OpenDirect = func(path string) (DirectFile, error) {
		d, err := fs.OpenDirect(path)
		return short{d}, err
	}
	l := mustStart(t, o)
	all := spilled{}
	for n := range uint64(3) {
		if err := all.spill(l, StreamBulk, 1+n); err != nil {
			t.Fatal(err)
		}
	}
	if n := l.Stats().DirectBytes; n != 0 {
		t.Errorf("%d bytes past the page cache", n)
	}
	if err := all.check(l); err != nil {
		t.Fatal(err)
	}
	all.afterCrash(t, disk)
}

// short writes the first half of what it is given.
type short struct{ DirectFile }

func (s short) WriteAt(p []byte, off int64) (int, error) {
	n, err := s.DirectFile.WriteAt(p[:len(p)/2/directAlign*directAlign], off)
	return n, errors.Join(err, errors.ErrUnsupported)
}
