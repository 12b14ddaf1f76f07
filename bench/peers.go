package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/snapstore/snapstore/bench/peer"
	"github.com/snapstore/snapstore/bench/workload"
	"github.com/snapstore/snapstore/engine"
)

// peerVersions is how many versions there are after the first.
const peerVersions = 5

// Kinds of peers.
const (
	kindSelf    = "snapstore"
	kindBackup  = "backup"
	kindReflink = "reflink"
	kindCopy    = "copy"
	kindLibrary = "library"
)

// kindOf sorts a peer by its name, so that like is compared with like.
func kindOf(name string) string {
	switch {
	case strings.Contains(name, "reflink") || strings.HasPrefix(name, "btrfs") || strings.HasPrefix(name, "xfs"):
		return kindReflink
	case name == "cp":
		return kindCopy
	case strings.HasPrefix(name, "pebble") || strings.HasPrefix(name, "bbolt"):
		return kindLibrary
	}
	return kindBackup
}

// contender is a peer that takes part.
type contender struct {
	result                          PeerResult
	store                           peer.Store
	full, increment, restore, drops []float64
}

// comparePeers keeps the same versions with the engine and with every peer that
// is here, in turns, and reads them back.
func (r *run) comparePeers(ctx context.Context) (err error) {
	m, release, err := r.newMix()
	if err != nil {
		return err
	}
	defer release()
	var all []*contender
	defer func() {
		for _, c := range all {
			if c.store != nil {
				err = errors.Join(err, c.store.Close())
			}
		}
	}()
	for _, p := range append([]peer.Peer{self{}}, r.o.Systems...) {
		c, err := r.contend(ctx, p)
		if err != nil {
			return err
		}
		all = append(all, c)
	}
	v := peer.Version{Path: filepath.Join(r.dir, "image"), Mem: m.image.Mem}
	var names []string
	for n := range peerVersions + 1 {
		v.Name, v.Dirty = fmt.Sprintf("v%02d", n), nil
		if n > 0 {
			v.Dirty = m.image.Step(dirtyShare)
		}
		if err := writeVersion(v); err != nil {
			return err
		}
		names = append(names, v.Name)
		// Who goes first changes from version to version.
		for i := range all {
			c := all[(i+n)%len(all)]
			if c.store == nil {
				continue
			}
			r.step("%s, version %d of %d: %s", Peers, n, peerVersions, c.result.Name)
			if own, ok := c.store.(*selfStore); ok {
				if err := own.write(v); err != nil {
					return err
				}
			}
			took, err := timed(func() error { return c.store.Put(ctx, v) })
			if err != nil {
				if err := c.fail(ctx, "put", err); err != nil {
					return err
				}
				continue
			}
			size, err := c.store.Size(ctx)
			if err != nil {
				if err := c.fail(ctx, "size", err); err != nil {
					return err
				}
				continue
			}
			if n == 0 {
				c.full, c.result.FullBytes = append(c.full, took), size
			} else {
				c.increment = append(c.increment, took)
			}
			c.result.AllBytes = size
		}
	}
	for _, c := range all {
		if c.store == nil {
			continue
		}
		r.step("%s, restore and delete: %s", Peers, c.result.Name)
		if err := c.readAndDelete(ctx, r.dir, v, names); err != nil {
			if err := c.fail(ctx, "restore or delete", err); err != nil {
				return err
			}
		}
	}
	for _, c := range all {
		c.result.Full, c.result.Increment = spread(c.full), spread(c.increment)
		c.result.Restore, c.result.Delete = spread(c.restore), spread(c.drops)
		r.peers = append(r.peers, c.result)
	}
	r.judgePeers(all)
	return nil
}

// fail takes a peer out of the run and says why; the engine itself must not
// fail, and an interruption is nobody's fault.
func (c *contender) fail(ctx context.Context, what string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if c.result.Kind == kindSelf {
		return err
	}
	c.result.Absent = fmt.Sprintf("%s failed: %v", what, err)
	c.full, c.increment, c.restore, c.drops = nil, nil, nil, nil
	c.result.FullBytes, c.result.AllBytes, c.result.DeletedBytes = 0, 0, 0
	s := c.store
	c.store = nil
	_ = s.Close() // it has failed already
	return nil
}

func (r *run) contend(ctx context.Context, p peer.Peer) (*contender, error) {
	f := p.Features()
	c := &contender{result: PeerResult{
		Name: p.Name(), Kind: kindOf(p.Name()), Dedup: f.Dedup, Compress: f.Compress, Checksums: f.Checksums, Durable: f.Durable, Note: f.Note,
	}}
	if _, ok := p.(self); ok {
		c.result.Kind = kindSelf
	}
	var err error
	if c.result.Version, err = p.Probe(ctx); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		c.result.Absent = err.Error()
		return c, nil
	}
	dir := filepath.Join(r.dir, "peer-"+p.Name())
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	if c.store, err = p.Create(ctx, dir); err != nil {
		if ctx.Err() != nil || c.result.Kind == kindSelf {
			return nil, err
		}
		c.result.Absent = fmt.Sprintf("create failed: %v", err)
		c.store = nil
	}
	return c, nil
}

// readAndDelete restores the newest version, compares it, and deletes all but
// that one.
func (c *contender) readAndDelete(ctx context.Context, dir string, v peer.Version, names []string) error {
	dst := filepath.Join(dir, "restored")
	defer func() { _ = os.Remove(dst) }() // goes with its directory at the latest
	took, err := timed(func() error { return c.store.Get(ctx, v.Name, dst) })
	if err != nil {
		return err
	}
	c.restore = append(c.restore, took)
	if err := fileEquals(dst, v.Mem); err != nil {
		return err
	}
	for _, name := range names[:len(names)-1] {
		if took, err = timed(func() error { return c.store.Delete(ctx, name) }); err != nil {
			return err
		}
		c.drops = append(c.drops, took)
	}
	c.result.DeletedBytes, err = c.store.Size(ctx)
	return err
}

func timed(f func() error) (float64, error) {
	runtime.GC() // of who went before
	began := time.Now()
	err := f()
	return time.Since(began).Seconds(), err
}

// writeVersion makes the file hold the version: all of it, or what changed.
func writeVersion(v peer.Version) (err error) {
	f, err := os.OpenFile(v.Path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if v.Dirty == nil {
		_, err = f.WriteAt(v.Mem, 0)
	}
	for _, i := range v.Dirty {
		if _, err = f.WriteAt(v.Mem[i*workload.PageSize:(i+1)*workload.PageSize], int64(i)*workload.PageSize); err != nil {
			return err
		}
	}
	if err != nil {
		return err
	}
	return f.Sync()
}

// fileEquals compares a file with what it should hold.
func fileEquals(name string, want []byte) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, 1<<20)
	for off := 0; off < len(want); off += len(buf) {
		b := buf[:min(len(buf), len(want)-off)]
		if _, err := io.ReadFull(f, b); err != nil {
			return fmt.Errorf("what was restored is too short: %w", err)
		}
		if !bytes.Equal(b, want[off:off+len(b)]) {
			return errors.New("what was restored is not what was kept")
		}
	}
	if n, _ := f.Read(buf[:1]); n > 0 {
		return errors.New("what was restored is too long")
	}
	return nil
}

// judgePeers compares the engine with the fastest of each kind.
func (r *run) judgePeers(all []*contender) {
	own := all[0]
	fastest := func(of func(*contender) []float64, in func(PeerResult) bool) (best float64, name string) {
		for _, c := range all[1:] {
			if c.result.Absent != "" || !in(c.result) {
				continue
			}
			if s := spread(of(c)); s != nil && (best == 0 || s.Median < best) {
				best, name = s.Median, c.result.Name
			}
		}
		return best, name
	}
	full := func(c *contender) []float64 { return c.full }
	increment := func(c *contender) []float64 { return c.increment }
	for _, x := range []struct {
		id string
		of func(*contender) []float64
		in func(PeerResult) bool
	}{
		{"peer.full", full, func(p PeerResult) bool { return p.Dedup && p.Compress }},
		{"peer.backup", increment, func(p PeerResult) bool { return p.Kind == kindBackup }},
		{"peer.reflink", increment, func(p PeerResult) bool { return p.Kind == kindReflink }},
	} {
		best, name := fastest(x.of, x.in)
		if name == "" {
			r.rec.note(x.id, "no such peer is here: bench/README.md says how to install them")
			continue
		}
		r.rec.note(x.id, "the fastest was "+name)
		for _, v := range x.of(own) {
			r.rec.add(x.id, v, best)
		}
	}
}

// self is the engine among its peers.
type self struct{}

func (self) Name() string { return kindSelf }

func (self) Features() peer.Features {
	return peer.Features{Dedup: true, Compress: true, Checksums: true, Durable: true, Note: "in this process, from memory that holds the version, told which pages are dirty; a codec of its own"}
}

func (self) Probe(context.Context) (string, error) { return thisBuild().Version, nil }

func (self) Create(ctx context.Context, dir string) (peer.Store, error) {
	s := &store{dir: dir, o: &engine.Options{SnapshotLimit: limitOf}}
	if err := engine.Create(dir, s.o); err != nil {
		return nil, err
	}
	if err := s.open(); err != nil {
		return nil, err
	}
	c, mem, err := s.canister(ctx, 1, engine.WasmMemory, 0)
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	return &selfStore{store: s, c: c, mem: mem, ids: map[string]engine.SnapshotID{}}, nil
}

type selfStore struct {
	*store
	c   *engine.Canister
	mem *engine.Memory
	ids map[string]engine.SnapshotID
}

// write makes the canister's memory hold a version. It is in nobody's time: others
// are given the version as a file that is written before, or in memory.
func (s *selfStore) write(v peer.Version) error {
	if err := s.mem.Resize(uint64(len(v.Mem))); err != nil {
		return err
	}
	if v.Dirty == nil {
		return fill(s.mem, v.Mem)
	}
	return put(s.mem, v.Mem, v.Dirty)
}

func (s *selfStore) Put(ctx context.Context, v peer.Version) error {
	res, err := s.c.Take(ctx, engine.TakeOptions{})
	s.ids[v.Name] = res.ID
	return err
}

func (s *selfStore) Get(ctx context.Context, name, dst string) error {
	return s.read(ctx, s.ids[name], engine.WasmMemory, func(sec *engine.SectionReader) (err error) {
		f, err := os.Create(dst)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		w := bufio.NewWriterSize(f, 1<<20)
		if _, err := sec.WriteTo(w); err != nil {
			return err
		}
		return w.Flush()
	})
}

func (s *selfStore) Delete(ctx context.Context, name string) error {
	return s.e.Delete(ctx, s.ids[name])
}

// Size is of a store that has settled and was cleaned.
func (s *selfStore) Size(ctx context.Context) (int64, error) {
	if err := s.settle(ctx); err != nil {
		return 0, err
	}
	if _, err := s.e.GC(ctx, engine.GCOptions{}); err != nil {
		return 0, err
	}
	return onDisk(s.dir)
}

func (s *selfStore) Close() error { return s.close() }
