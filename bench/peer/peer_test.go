package peer

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sample is an image of n pages: a quarter zeros, a tenth copies of the first
// page, half like tables, the rest random.
func sample(rng *rand.Rand, n int) []byte {
	mem := make([]byte, n*pageSize)
	for i := range uint64(n) {
		scribble(rng, page(mem, i))
	}
	return mem
}

func scribble(rng *rand.Rand, p []byte) {
	clear(p)
	kind := rng.IntN(20)
	switch {
	case kind < 5:
	case kind < 7:
		for i := range p {
			p[i] = byte(i)
		}
	default:
		limit := uint64(1 << 10)
		if kind > 16 {
			limit = 1<<64 - 1
		}
		for i := 0; i+8 <= len(p); i += 8 {
			binary.LittleEndian.PutUint64(p[i:], rng.Uint64N(limit))
		}
	}
}

// change rewrites some pages, half of them in a row.
func change(rng *rand.Rand, mem []byte, n int) (dirty []uint64) {
	pages := pageCount(len(mem))
	at := rng.IntN(pages - n)
	for i := range n / 2 {
		dirty = append(dirty, uint64(at+i))
	}
	for len(dirty) < n {
		dirty = append(dirty, uint64(rng.IntN(pages)))
	}
	slices.Sort(dirty)
	dirty = slices.Compact(dirty)
	for _, i := range dirty {
		scribble(rng, page(mem, i))
	}
	return dirty
}

// A desk is a store of a peer with a place for images beside it.
type desk struct {
	Store
	t   *testing.T
	dir string
}

func open(t *testing.T, p Peer) *desk {
	t.Helper()
	version, err := p.Probe(t.Context())
	if errors.Is(err, ErrAbsent) {
		t.Skipf("%v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Log(version)
	d := &desk{t: t, dir: t.TempDir()}
	store := filepath.Join(d.dir, "store")
	if err := os.Mkdir(store, 0o700); err != nil {
		t.Fatal(err)
	}
	if d.Store, err = p.Create(t.Context(), store); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		left(t, d.dir)
	})
	return d
}

// put writes the image where peers can read it, and keeps it.
func (d *desk) put(ctx context.Context, name string, mem []byte, dirty []uint64) error {
	d.t.Helper()
	path := filepath.Join(d.dir, "image")
	if err := os.WriteFile(path, mem, 0o600); err != nil {
		d.t.Fatal(err)
	}
	return d.Put(ctx, Version{Name: name, Path: path, Mem: mem, Dirty: dirty})
}

// same compares what the store gives with what it was given.
func (d *desk) same(name string, want []byte) {
	d.t.Helper()
	dst := filepath.Join(d.dir, "out-"+name)
	if err := d.Get(d.t.Context(), name, dst); err != nil {
		d.t.Fatalf("get %s: %v", name, err)
	}
	got, err := os.ReadFile(dst)
	if err != nil {
		d.t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		d.t.Fatalf("%s came back changed: %d bytes, want %d", name, len(got), len(want))
	}
	if err := os.Remove(dst); err != nil {
		d.t.Fatal(err)
	}
}

func (d *desk) size() int64 {
	d.t.Helper()
	n, err := d.Size(d.t.Context())
	if err != nil {
		d.t.Fatal(err)
	}
	return n
}

// TestPeers runs what is here through everything a store does.
func TestPeers(t *testing.T) {
	for _, p := range All() {
		t.Run(p.Name(), func(t *testing.T) {
			t.Parallel()
			switch p.(type) {
			case borg, bup:
				if os.Getenv("SNAPSTORE_PEERS") == "" {
					t.Skip("it starts Python a dozen times, 5 to 10 s of CPU: SNAPSTORE_PEERS=1 runs it")
				}
			}
			d := open(t, p)
			ctx := t.Context()
			rng := rand.New(rand.NewPCG(1, 2))
			// The last page is not whole.
			images := [3][]byte{sample(rng, 1000)[:1000*pageSize-100]}
			empty := d.size()
			if err := d.put(ctx, "v-0", images[0], nil); err != nil {
				t.Fatal(err)
			}
			first := d.size()
			for i := 1; i < 3; i++ {
				images[i] = slices.Clone(images[i-1])
				dirty := change(rng, images[i], 300)
				if err := d.put(ctx, names[i], images[i], dirty); err != nil {
					t.Fatal(err)
				}
			}
			all := d.size()
			d.same("v-1", images[1])
			for _, wrong := range []string{"v-3", "", "..", "-v-1", "../image"} {
				if err := d.Get(ctx, wrong, filepath.Join(d.dir, "wrong")); !errors.Is(err, errUnknown) {
					t.Errorf("get %q: %v, want %v", wrong, err, errUnknown)
				}
				if err := d.Delete(ctx, wrong); !errors.Is(err, errUnknown) {
					t.Errorf("delete %q: %v, want %v", wrong, err, errUnknown)
				}
			}
			for name, want := range map[string]error{"v-1": errExists, "": errName, "../v": errName, "-v": errName, "V": errName} {
				if err := d.put(ctx, name, images[0], nil); !errors.Is(err, want) {
					t.Errorf("put %q: %v, want %v", name, err, want)
				}
			}
			if err := d.Delete(ctx, "v-1"); err != nil {
				t.Fatal(err)
			}
			two := d.size()
			d.same("v-0", images[0])
			d.same("v-2", images[2])
			if err := d.Get(ctx, "v-1", filepath.Join(d.dir, "gone")); !errors.Is(err, errUnknown) {
				t.Errorf("get of what was deleted: %v", err)
			}
			t.Logf("bytes on disk: empty %d, one version %d, three %d, two %d", empty, first, all, two)
			raw := int64(len(images[0]))
			// Half of the image is neither zeros, copies nor tables.
			if got := first - empty; got < raw/8 || got > 2*raw {
				t.Errorf("the first of %d bytes takes %d", raw, got)
			}
			if all <= first || all-first > 2*2*raw {
				t.Errorf("%d bytes with one version and %d with three", first, all)
			}
			if slack := raw / 4; two > all+slack {
				t.Errorf("deleting one of three versions took the store from %d to %d bytes", all, two)
			}
			d.cancelled(p)
		})
	}
}

var names = [3]string{"v-0", "v-1", "v-2"}

// cancelled: whatever is cancelled, wherever it is, nothing stays behind. The
// store is only good to be closed afterwards.
func (d *desk) cancelled(p Peer) {
	d.t.Helper()
	mem := sample(rand.New(rand.NewPCG(3, 4)), 4000)
	over, cancel := context.WithCancel(d.t.Context())
	cancel()
	if err := d.put(over, "early", mem, nil); !errors.Is(err, context.Canceled) {
		d.t.Errorf("put after the end: %v", err)
	}
	if err := d.Get(over, "v-0", filepath.Join(d.dir, "early")); !errors.Is(err, context.Canceled) {
		d.t.Errorf("get after the end: %v", err)
	}
	if _, err := d.Size(over); !errors.Is(err, context.Canceled) {
		d.t.Errorf("size after the end: %v", err)
	}
	dir := d.t.TempDir()
	if s, err := p.Create(over, dir); !errors.Is(err, context.Canceled) {
		d.t.Errorf("create after the end: %v", err)
		if err == nil {
			d.t.Error(s.Close())
		}
	}
	left(d.t, dir)
	soon, cancel := context.WithTimeout(d.t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := d.put(soon, "soon", mem, nil); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		d.t.Errorf("put that was cancelled: %v", err)
	}
	gone(d.t, d.dir)
	if err := d.Delete(over, "v-0"); !errors.Is(err, context.Canceled) {
		d.t.Errorf("delete after the end: %v", err)
	}
}

// TestCreateNowhere: a store that could not be made leaves nothing.
func TestCreateNowhere(t *testing.T) {
	for _, p := range All() {
		t.Run(p.Name(), func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "file", "store")
			if err := os.WriteFile(filepath.Dir(dir), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if s, err := p.Create(t.Context(), dir); err == nil {
				t.Errorf("a store below a file")
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}
			left(t, dir)
		})
	}
}

func TestAll(t *testing.T) {
	want := "cp btrfs xfs restic borg borg-fixed bup casync pebble bbolt"
	var got []string
	for _, p := range All() {
		got = append(got, p.Name())
		if p.Features().Note == "" {
			t.Errorf("%s: nothing to note", p.Name())
		}
	}
	if s := strings.Join(got, " "); s != want {
		t.Errorf("got %s, want %s", s, want)
	}
}

// TestAbsent: without programs in PATH, all that need one are absent and say
// what to install.
func TestAbsent(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	for _, p := range All() {
		_, err := p.Probe(t.Context())
		if _, library := p.(diy); library {
			if err != nil {
				t.Errorf("%s: %v", p.Name(), err)
			}
			continue
		}
		if !errors.Is(err, ErrAbsent) {
			t.Errorf("%s: %v, want %v", p.Name(), err, ErrAbsent)
			continue
		}
		_, isReflink := p.(reflink)
		if !isReflink && !strings.Contains(err.Error(), "apt-get install ") {
			t.Errorf("%s: does not say how to install it: %v", p.Name(), err)
		}
	}
}

// gone waits until killed processes are reaped by whoever inherited them.
func gone(t *testing.T, dir string) {
	t.Helper()
	for range 200 {
		if len(running(t, dir)) == 0 {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	leftRunning(t, dir)
}
