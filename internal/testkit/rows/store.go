package rows

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"sync"

	"github.com/snapstore/snapstore/chunk"
	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/seglog"
	"github.com/snapstore/snapstore/internal/testkit"
	"github.com/snapstore/snapstore/internal/testkit/drive"
)

// A subject is a store with a bit of everything in it, to be damaged: every
// stream, compressed or not, small steps of counting or large, closed or as a
// crash leaves it. Cases copy its disk.
type subject struct {
	cfg      drive.Config
	disk     *testkit.Disk
	model    *testkit.Model
	sequence uint64
	older    []*testkit.Disk // states it went through
	kinds    map[string]kind // of every file
	frames   []frame         // of the log, by segment and offset
}

// frame is one of the log, with the versions that need it: nil where that is
// not known, empty where nothing does.
type frame struct {
	loc    seglog.Loc
	kind   seglog.Kind
	needed map[string]bool
}

// kind is what a file is for.
type kind string

// The kinds of files that a store has.
const (
	kindRootA    kind = "ROOT-A"
	kindRootB    kind = "ROOT-B"
	kindCommit   kind = "commit segment"
	kindBulk     kind = "bulk segment"
	kindMoved    kind = "moved segment"
	kindBallast  kind = "ballast"
	kindFilter   kind = "filter"
	kindTable    kind = "index table"
	kindManifest kind = "index MANIFEST"
	kindOptions  kind = "index OPTIONS"
	// Those of no size: they can be missing, or come from elsewhere.
	kindLock    kind = "lock"
	kindMarker  kind = "index marker"
	kindTrusted kind = "mark of trust"
)

// sized are the kinds that have bits to flip.
func sized() []kind {
	return []kind{kindCommit, kindRootA, kindTable, kindBulk, kindManifest, kindRootB, kindMoved, kindFilter, kindOptions, kindBallast}
}

// every is every kind.
func every() []kind { return append(sized(), kindLock, kindMarker, kindTrusted) }

// variants is how many subjects there are of a seed.
const variants = 8

// subjects makes each subject once.
type subjects struct {
	mu   sync.Mutex
	made map[uint64]*making
}

type making struct {
	once sync.Once
	s    *subject
	err  error
}

func (all *subjects) get(ctx context.Context, seed uint64, variant int64) (*subject, error) {
	key := seed*variants + uint64(variant%variants)
	all.mu.Lock()
	if all.made == nil {
		all.made = map[uint64]*making{}
	}
	m := all.made[key]
	if m == nil {
		m = &making{}
		all.made[key] = m
	}
	all.mu.Unlock()
	m.once.Do(func() { m.s, m.err = newSubject(ctx, key, int(variant%variants)) })
	return m.s, m.err
}

func newSubject(ctx context.Context, seed uint64, variant int) (_ *subject, err error) {
	s := &subject{cfg: quietly(seed, func(o *engine.Options) {
		o.NoCompression = variant&1 == 0
		o.CountStep, o.Ballast, o.CleanBelow = []int{0, 7}[variant>>1&1], 64<<10, 0.9
		o.BulkAfter = 40 << 10
	})}
	r, err := drive.New(s.cfg)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	do := func(ops ...testkit.Op) {
		for _, o := range ops {
			if err == nil {
				err = r.Do(ctx, o)
			}
		}
	}
	keep := func() { s.older = append(s.older, r.Disk.Crash(100, nil)) }
	do(on(testkit.Create, 0), on(testkit.Create, 1), on(testkit.Create, 2), resize(0, wasm(), 70), resize(1, wasm(), 70), resize(2, stable(), 2))
	keep()
	for i := range 4 {
		c := testkit.Content(40 * i)
		do(fill(0, wasm(), uint64(10*i), 30, c+2), on(testkit.Take, 0), fill(1, wasm(), uint64(12*i), 20, c+3), on(testkit.Checkpoint, 1))
		if i%2 == 0 {
			do(op(testkit.FlushIndex))
		}
		keep()
	}
	do(on(testkit.Take, 1), remove(0, 1), op(testkit.GC), on(testkit.Take, 2), load(2, 0, 0), on(testkit.Destroy, 2), fill(1, wasm(), 3, 1, 9), on(testkit.Take, 1))
	keep()
	do(fill(0, wasm(), 5, 3, 700), on(testkit.Take, 0))
	if err == nil {
		err = r.E.FlushIndex()
	}
	// Damage of the very last batch can not be told from one that was never
	// synced, so the last one brings nothing.
	do(fill(0, wasm(), 60, 1, 999), on(testkit.Checkpoint, 0), on(testkit.Checkpoint, 0))
	if err == nil {
		err = s.look(ctx, r)
	}
	s.model, s.sequence = r.M.Reopened(), 0
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, r.History())
	}
	s.sequence = r.E.Sequence()
	if variant>>2&1 == 1 {
		s.disk = r.Disk.Crash(100, nil)
		return s, nil
	}
	if err := r.Close(); err != nil {
		return nil, err
	}
	s.disk = r.Disk.Crash(100, nil)
	return s, s.name(nil)
}

// look notes what is where.
func (s *subject) look(ctx context.Context, r *drive.Run) error {
	if err := r.Verify(ctx); err != nil { // and waits until all is applied
		return err
	}
	type place struct {
		segment uint64
		offset  uint32
	}
	needed := map[place]map[string]bool{}
	add := func(canister int, name string, st testkit.State) error {
		for _, im := range st.Sections {
			for _, p := range im.Pages {
				en, ok, err := r.E.EntryOf(drive.Canister(canister), chunk.ID(p.ID))
				if err != nil || !ok {
					return fmt.Errorf("page %x of %s is not in the index: %w", p.ID, name, err)
				}
				at := place{en.Segment, en.Offset}
				if needed[at] == nil {
					needed[at] = map[string]bool{}
				}
				needed[at][name] = true
			}
		}
		return nil
	}
	for i, c := range r.M.Canisters {
		if err := add(i, fmt.Sprintf("c%d/head", i), c.Head); err != nil {
			return err
		}
		for _, sn := range c.Snapshots {
			if err := add(i, fmt.Sprintf("c%d/%d", i, sn.Local), sn.State); err != nil {
				return err
			}
		}
	}
	streams := map[seglog.SegmentID]seglog.Stream{}
	for f, err := range r.E.Log().Scan(ctx) {
		if err != nil {
			return err
		}
		streams[f.Loc.Segment] = f.Stream
		fr := frame{loc: f.Loc, kind: f.Kind}
		if f.Kind == seglog.KindGroup {
			fr.needed = needed[place{uint64(f.Loc.Segment), f.Loc.Offset}]
			if fr.needed == nil {
				fr.needed = map[string]bool{}
			}
		}
		s.frames = append(s.frames, fr)
	}
	s.disk = r.Disk
	return s.name(streams)
}

// name finds out what kind every file is; segments by their stream.
func (s *subject) name(streams map[seglog.SegmentID]seglog.Stream) error {
	if s.kinds == nil {
		s.kinds = map[string]kind{}
	}
	for _, f := range s.disk.Files(drive.Dir) {
		base := path.Base(f)
		var k kind
		switch {
		case base == "ROOT-A":
			k = kindRootA
		case base == "ROOT-B":
			k = kindRootB
		case base == "LOCK":
			k = kindLock
		case strings.HasPrefix(base, "BALLAST"):
			k = kindBallast
		case base == "FILTER":
			k = kindFilter
		case base == "TRUSTED":
			k = kindTrusted
		case strings.HasSuffix(base, ".sst"):
			k = kindTable
		case strings.HasPrefix(base, "MANIFEST-"):
			k = kindManifest
		case strings.HasPrefix(base, "OPTIONS-"):
			k = kindOptions
		case strings.HasPrefix(base, "marker."):
			k = kindMarker
		case strings.HasSuffix(base, ".seg"):
			id, err := seglog.ParseSegmentID(strings.TrimSuffix(base, ".seg"))
			if err != nil {
				return err
			}
			switch streams[id] {
			case seglog.StreamBulk:
				k = kindBulk
			case seglog.StreamMoved:
				k = kindMoved
			default:
				k = kindCommit
			}
			if streams == nil {
				k = s.kinds[f] // as it was before the store was closed
				if k == "" {
					k = kindCommit
				}
			}
		default:
			return fmt.Errorf("no kind of file for %s: tell the rows what it is", f)
		}
		s.kinds[f] = k
	}
	return nil
}

// files lists those of a kind.
func (s *subject) files(k kind) (out []string) {
	for _, f := range s.disk.Files(drive.Dir) {
		if s.kinds[f] == k {
			out = append(out, f)
		}
	}
	return out
}

// frameAt finds what stands at a place of a file of the log.
func (s *subject) frameAt(file string, offset int64) *frame {
	for i := range s.frames {
		f := &s.frames[i]
		if f.loc.Segment.String()+".seg" == path.Base(file) && int64(f.loc.Offset) <= offset && offset < int64(f.loc.Offset)+int64(f.loc.Length) {
			return f
		}
	}
	return nil
}
