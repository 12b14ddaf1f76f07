package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/snapstore/snapstore/bench/limit"
	"github.com/snapstore/snapstore/bench/workload"
	"github.com/snapstore/snapstore/engine"
)

// Run measures what the options ask for. On an error, and when ctx ends, there
// is no result and nothing is left behind.
func Run(ctx context.Context, o Options) (res Result, err error) {
	o, err = o.normal()
	if err != nil {
		return res, err
	}
	checked, err := workload.Check(o.Seed)
	if err != nil {
		return res, err
	}
	dir, err := os.MkdirTemp(o.Dir, "snapstore-bench-")
	if err != nil {
		return res, fmt.Errorf("make a directory for the stores: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	r := &run{o: o, s: o.sizes(), dir: dir, rec: newRecorder()}
	if err := r.room(); err != nil {
		return res, err
	}
	if r.disk, err = limit.NewDisk(dir, int64(r.s.image/16)); err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, r.disk.Close()) }()
	began := time.Now()
	for _, w := range Workloads() {
		if !slices.Contains(o.Workloads, w) {
			continue
		}
		if err := r.workload(ctx, w); err != nil {
			return Result{}, fmt.Errorf("workload %s: %w", w, err)
		}
	}
	res = Result{
		Schema: Schema, Began: began.UTC().Truncate(time.Second), DurationSeconds: time.Since(began).Seconds(),
		Build: thisBuild(), Machine: thisMachine(dir), Data: checked,
		Figures: r.rec.results(), Series: r.series, Peers: r.peers,
		Settings: Settings{
			Seed: o.Seed, Repeats: o.Repeats, Scale: o.Scale, ImageBytes: uint64(r.s.image), Takes: r.s.takes, Snapshots: r.s.row,
			Preload: o.Preload, Series: r.images,
		},
	}
	for _, w := range o.Workloads {
		res.Settings.Workloads = append(res.Settings.Workloads, string(w))
	}
	res.Machine.Tracking = r.tracking
	// JSON has arrays, and not null.
	res.Series, res.Peers = slices.Concat([]Series{}, res.Series), slices.Concat([]PeerResult{}, res.Peers)
	res.Settings.Series = slices.Concat([]string{}, res.Settings.Series)
	return res, nil
}

// run is a run under way. It is used by one goroutine.
type run struct {
	o    Options
	s    sizes
	dir  string
	rec  *recorder
	disk *limit.Disk

	series   []Series
	peers    []PeerResult
	images   []string
	tracking string
	stores   int
}

func (r *run) workload(ctx context.Context, w Workload) error {
	switch w {
	case IdealMix:
		return r.idealMix(ctx)
	case Row:
		return r.row(ctx)
	case Sparse:
		return r.sparse(ctx)
	case Small:
		return r.small(ctx)
	case Churn:
		return r.churn(ctx)
	case Preload:
		return r.preload(ctx)
	case Images:
		return r.imageSeries(ctx)
	}
	return r.comparePeers(ctx)
}

// room refuses a run that would fill the disk half way.
func (r *run) room() error {
	have, ok := free(r.dir)
	need := uint64(4 * r.s.image)
	if slices.Contains(r.o.Workloads, Row) {
		need = max(need, uint64(r.s.image)+uint64(r.s.row)*uint64(r.s.image)/100)
	}
	if slices.Contains(r.o.Workloads, Peers) {
		need = max(need, uint64(2+2*peerVersions)*uint64(r.s.image))
	}
	if ok && have < need {
		return fmt.Errorf("%w: %s has %d MiB left and the run may need %d: choose another place with Dir, or a smaller Scale",
			ErrOptions, r.dir, have>>20, need>>20)
	}
	return nil
}

func (r *run) step(format string, args ...any) { r.o.Progress(fmt.Sprintf(format, args...)) }

// store is an open store of the run.
type store struct {
	e   *engine.Engine
	dir string
	o   *engine.Options
}

// newStore makes one in a directory of its own; nil options are defaults.
func (r *run) newStore(o *engine.Options) (*store, error) {
	r.stores++
	s := &store{dir: fmt.Sprintf("%s/store-%d", r.dir, r.stores), o: o}
	if err := engine.Create(s.dir, o); err != nil {
		return nil, err
	}
	return s, s.open()
}

func (s *store) open() (err error) {
	s.e, err = engine.Open(s.dir, s.o)
	return err
}

// close leaves the files.
func (s *store) close() error {
	if s.e == nil {
		return nil
	}
	e := s.e
	s.e = nil
	return e.Close()
}

// remove closes the store and takes its files away.
func (s *store) remove() error { return errors.Join(s.close(), os.RemoveAll(s.dir)) }

// reopen closes the store and opens it again.
func (s *store) reopen() error {
	if err := s.close(); err != nil {
		return err
	}
	return s.open()
}

// read hands a section of a snapshot to f.
func (s *store) read(ctx context.Context, id engine.SnapshotID, section engine.Section, f func(*engine.SectionReader) error) error {
	snap, err := s.e.Snapshot(ctx, id)
	if err != nil {
		return err
	}
	defer snap.Close()
	sec, err := snap.Section(section)
	if err != nil {
		return err
	}
	return f(sec)
}

// rest waits until the process has written nothing for a second: what the index
// merges in the background comes of what was written before.
func (s *store) rest(ctx context.Context) error {
	was, _, counted := ioCounters()
	for still := 0; counted && still < 4; still++ {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(250 * time.Millisecond):
		}
		if now, _, _ := ioCounters(); now != was {
			was, still = now, -1
		}
	}
	return nil
}

// writtenAtRest is what the process has written once the store has come to rest,
// without what gc wrote since it was opened.
func (s *store) writtenAtRest(ctx context.Context) (int64, error) {
	if err := s.rest(ctx); err != nil {
		return 0, err
	}
	written, _, _ := ioCounters()
	return written - s.e.Stats().GC.BytesWritten, nil
}

// reopenCounting is reopen, and tells what the process had written when the store
// was closed, with all of the index.
func (s *store) reopenCounting() (written int64, err error) {
	if err := s.close(); err != nil {
		return 0, err
	}
	written, _, _ = ioCounters()
	return written, s.open()
}

// settle waits until the index has all that is durable, and, where gc works in
// the background, nothing is left to drop.
func (s *store) settle(ctx context.Context) error {
	// Between a batch that is applied and the drop that comes of it nothing is
	// to be seen of either, so it is looked for more than once.
	for quiet, polls := 0, 1; ; polls++ {
		// Stats costs more than what is measured, if asked all the time.
		batches, drops := s.e.Behind()
		switch {
		case batches == 0 && (drops == 0 || s.o != nil && s.o.NoBackground):
			quiet++
		case batches == 0 && polls%64 == 0 && s.allHeld(drops):
			return nil
		default:
			quiet = 0
		}
		if quiet == 3 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(500 * time.Microsecond):
		}
	}
}

// allHeld tells that all drops that wait are held by readers.
func (s *store) allHeld(drops int64) bool {
	st := s.e.Stats()
	return st.Readers > 0 && int64(st.HeldDrops) >= drops
}

// canisterID is the n-th canister of a run.
func canisterID(n int) (engine.CanisterID, error) {
	return engine.CanisterIDFromBytes([]byte{0, 0, 0, 0, 0, 0, byte(n >> 8), byte(n), 1, 1})
}

// canister makes the n-th canister with a section of size bytes.
func (s *store) canister(ctx context.Context, n int, sec engine.Section, size uint64) (*engine.Canister, *engine.Memory, error) {
	id, err := canisterID(n)
	if err != nil {
		return nil, nil, err
	}
	c, err := s.e.CreateCanister(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	m, err := c.Memory(sec)
	if err != nil {
		return nil, nil, err
	}
	return c, m, m.Resize(size)
}

// again opens the n-th canister of a store that was opened again.
func (s *store) again(n int, sec engine.Section) (*engine.Canister, *engine.Memory, error) {
	id, err := canisterID(n)
	if err != nil {
		return nil, nil, err
	}
	c, err := s.e.Canister(id)
	if err != nil {
		return nil, nil, err
	}
	m, err := c.Memory(sec)
	return c, m, err
}

// fill writes a whole image.
func fill(m *engine.Memory, mem []byte) error {
	const piece = 1 << 20
	for off := 0; off < len(mem); off += piece {
		if _, err := m.WriteAt(mem[off:min(off+piece, len(mem))], int64(off)); err != nil {
			return err
		}
	}
	return nil
}

// put writes the pages with these indexes.
func put(m *engine.Memory, mem []byte, indexes []uint64) error {
	for _, i := range indexes {
		if _, err := m.WriteAt(mem[i*workload.PageSize:(i+1)*workload.PageSize], int64(i)*workload.PageSize); err != nil {
			return err
		}
	}
	return nil
}

func ms(d time.Duration) float64 { return float64(d) / 1e6 }

func mbps(bytes int, d time.Duration) float64 { return float64(bytes) / 1e6 / d.Seconds() }

func mb[T int | int64 | uint64](bytes T) float64 { return float64(bytes) / 1e6 }
