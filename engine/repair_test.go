package engine_test

import (
	"bytes"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/seglog"
	"github.com/snapstore/snapstore/internal/testkit"
	"github.com/snapstore/snapstore/internal/testkit/drive"
)

// damagedStore is a store of two canisters with ten snapshots each, closed. All
// pages of all versions are known.
type damagedStore struct {
	t    *testing.T
	disk *testkit.Disk
	o    *engine.Options
	want map[engine.SnapshotID][]byte
}

func newDamagedStore(t *testing.T) *damagedStore {
	t.Helper()
	s := &damagedStore{t: t, disk: testkit.NewDisk(), want: map[engine.SnapshotID][]byte{}}
	s.o = &engine.Options{FS: s.disk.Mount(), Ballast: -1, NoBackground: true, NoCompression: true, SegmentSize: 256 << 10, MemTable: 256 << 10}
	if err := engine.Create("store", s.o); err != nil {
		t.Fatal(err)
	}
	e := must(engine.Open("store", s.o))
	for who := range 2 {
		c := must(e.CreateCanister(bg, drive.Canister(who)))
		m := must(c.Memory(engine.WasmMemory))
		img := make([]byte, 100*4096)
		if err := m.Resize(uint64(len(img))); err != nil {
			t.Fatal(err)
		}
		for i := range 10 {
			for p := i * 7 % 60; p < i*7%60+40; p++ {
				copy(img[p*4096:], testkit.Content(who*100_000+i*1000+p+2).Bytes(4096))
			}
			must(m.WriteAt(img, 0))
			s.want[must(c.Take(bg, engine.TakeOptions{})).ID] = bytes.Clone(img)
		}
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *damagedStore) segments() []string {
	var out []string
	for _, name := range s.disk.Files("store/log") {
		if p, err := s.disk.Bytes(name); err == nil && len(p) > 100<<10 {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// read compares every version with what it should be and returns the pages that
// can not be read. A page that reads as something else is a failure.
func (s *damagedStore) read() map[string]bool {
	s.t.Helper()
	e := must(engine.Open("store", s.o))
	defer e.Close()
	lost := map[string]bool{}
	for id, want := range s.want {
		snap, err := e.Snapshot(bg, id)
		if err != nil {
			lost[id.String()] = true
			continue
		}
		r, err := snap.Section(engine.WasmMemory)
		if err != nil {
			s.t.Fatal(err)
		}
		p := make([]byte, 4096)
		for page := range len(want) / 4096 {
			switch _, err := r.ReadAt(p, int64(page)*4096); {
			case err != nil:
				lost[fmt.Sprintf("%s/%d", id, page)] = true
			case !bytes.Equal(p, want[page*4096:][:4096]):
				s.t.Fatalf("%v page %d reads as something else, without an error", id, page)
			}
		}
		snap.Close()
	}
	return lost
}

func (s *damagedStore) repair() (engine.RepairReport, map[string]bool) {
	s.t.Helper()
	named := map[string]bool{}
	r, err := engine.Repair(bg, "store", s.o, engine.RepairOptions{Left: func(p engine.Problem) {
		if p.Kind == engine.ProblemPage && !p.Snapshot.IsZero() {
			named[fmt.Sprintf("%s/%d", p.Snapshot, p.Page)] = true
		}
		if p.Kind == engine.ProblemNode && p.Section == "" && !p.Snapshot.IsZero() {
			named[p.Snapshot.String()] = true
		}
	}})
	if err != nil {
		s.t.Fatal(err)
	}
	return r, named
}

// TestRepair damages a store in each way, and repairs it: what is derived is
// built anew; what is lost is named, page by page, and nothing else is; the
// damaged file is put aside; a second repair finds nothing to do; and what is
// written again heals.
func TestRepair(t *testing.T) {
	flip := func(at func(p []byte) int) func(*damagedStore) {
		return func(s *damagedStore) {
			name := s.segments()[1]
			if err := s.disk.Edit(name, func(p []byte) { p[at(p)] ^= 4 }); err != nil {
				s.t.Fatal(err)
			}
		}
	}
	for name, c := range map[string]struct {
		hurt        func(*damagedStore)
		lost, aside bool
	}{
		"nothing":        {func(*damagedStore) {}, false, false},
		"a page":         {flip(func(p []byte) int { return len(p) / 2 }), true, true},
		"a header":       {flip(func([]byte) int { return 5 }), false, true}, // each page proves itself
		"a directory":    {flip(func(p []byte) int { return len(p) - 100 }), false, false},
		"many pages":     {func(s *damagedStore) { eachSegment(s, func(p []byte) { p[len(p)/3] ^= 1 }) }, true, true},
		"a ROOT":         {func(s *damagedStore) { must0(s.disk.Edit("store/ROOT-B", func(p []byte) { p[30] ^= 1 })) }, false, false},
		"the index":      {func(s *damagedStore) { must0(s.o.FS.RemoveAll("store/index")) }, false, false},
		"zeroed blocks":  {func(s *damagedStore) { must0(s.disk.Edit(s.segments()[2], func(p []byte) { clear(p[8192:16384]) })) }, true, true},
		"a missing file": {func(s *damagedStore) { must0(s.o.FS.Remove(s.segments()[1])) }, true, false},
		"a shorter file": {func(s *damagedStore) {
			f := must(s.o.FS.OpenReadWrite(s.segments()[1], ""))
			must0(f.(interface{ Truncate(int64) error }).Truncate(50_000))
			must0(f.Close())
		}, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newDamagedStore(t)
			c.hurt(s)
			r, named := s.repair()
			t.Logf("%+v, %d pages lost", r, len(named))
			lost := s.read()
			if c.lost != (len(lost) > 0) || c.lost != (r.Left > 0) {
				t.Fatalf("%d pages lost, %d problems left: %+v", len(lost), r.Left, r)
			}
			if !maps.Equal(lost, named) {
				t.Errorf("lost are %d pages and named are %d", len(lost), len(named))
			}
			if c.aside != (len(r.SetAside) > 0) {
				t.Errorf("set aside: %v, kept %v", r.SetAside, r.Kept)
			}
			if name == "a directory" && len(r.Emptied) != 1 {
				t.Errorf("the segment still has the directory it had: %+v", r)
			}
			for _, id := range r.SetAside {
				file := seglog.SegmentID(id).String() + ".seg"
				if !slices.ContainsFunc(s.disk.Files("store/quarantine"), func(f string) bool { return path.Base(f) == file }) {
					t.Errorf("segment %d is not in quarantine", id)
				}
				if slices.ContainsFunc(s.disk.Files("store/log"), func(f string) bool { return strings.HasSuffix(f, file) }) {
					t.Errorf("segment %d is still in the log", id)
				}
			}
			again, _ := s.repair()
			if again.Found != r.Left || again.Left != r.Left || len(again.SetAside)+len(again.Emptied)+len(again.Kept) > 0 {
				t.Errorf("a second repair: %+v after %+v", again, r)
			}
			// All that was ever taken comes again, in another canister.
			e := must(engine.Open("store", s.o))
			c := must(e.CreateCanister(bg, drive.Canister(5)))
			m := must(c.Memory(engine.WasmMemory))
			for _, img := range s.want {
				must(m.Assign(bg, bytes.NewReader(img), uint64(len(img)), nil))
				must(c.Checkpoint(bg))
			}
			must0(e.Close())
			for page := range s.read() {
				if strings.Contains(page, "/") { // a manifest does not come again
					t.Errorf("%s did not heal", page)
				}
			}
		})
	}
}

func eachSegment(s *damagedStore, f func(p []byte)) {
	for _, name := range s.segments() {
		must0(s.disk.Edit(name, f))
	}
}

// created makes a store, and opens it.
func created(o *engine.Options) *engine.Engine {
	must0(engine.Create("store", o))
	return must(engine.Open("store", o))
}

func must0(err error) {
	if err != nil {
		panic(err)
	}
}
