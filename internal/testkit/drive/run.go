package drive

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/testkit"
)

// Dir is where the store is on its disk.
const Dir = "store"

// Config of a Run. What is not set is drawn from the seed.
type Config struct {
	Seed uint64
	// Options, when not nil, changes the engine's options before each open.
	Options func(*engine.Options)
	// Opened is called with each engine that was opened.
	Opened    func(*engine.Engine)
	Canisters int // 3 by default
	// Faulty: the disk fails, so the index may come to be mistrusted.
	Faulty bool
	// Collect: CompareDamaged runs gc before it closes the store.
	Collect bool
	// Dedup, when not nil, is the dedup domain instead of one drawn from the seed.
	Dedup *engine.DedupDomain
	Limit int // of snapshots, 4 by default
	// Roots, when not nil, has the root of every content that was seen, from runs
	// before this one: equal content has equal roots.
	Roots map[[32]byte]engine.Root
	// Lend: wasm memory is written as a guest does it, through what it lends.
	Lend bool
}

// Run is a store under test. One goroutine drives it; Catch may be called from
// hooks meanwhile.
type Run struct {
	Config
	Disk  *testkit.Disk
	FS    *testkit.FS
	E     *engine.Engine
	M     *testkit.Model
	Ops   []testkit.Op
	Opens int

	options engine.Options
	readers []reader
	flushes sync.WaitGroup // of the index, beside operations
	uploads map[engine.SnapshotID]*engine.Upload
	roots   map[[32]byte]engine.Root // of equal content, equal

	mu      sync.Mutex
	allowed []*testkit.Model // what a crash now may leave
	proved  uint64           // sequence that was acknowledged
	hook    func(testkit.FileOp)
}

type reader struct {
	id   engine.SnapshotID
	s    *engine.Snapshot
	want testkit.State
}

// New creates a store on a new disk and opens it.
func New(cfg Config) (*Run, error) {
	r := newRun(cfg)
	r.Disk = testkit.NewDisk()
	r.FS = r.Disk.Mount()
	o := r.options
	o.FS = disk{r.FS}
	if err := engine.Create(Dir, &o); err != nil {
		return nil, err
	}
	// The store's own directory is for whoever makes it to keep.
	r.Disk.SyncAll()
	return r, r.Open()
}

// Resume makes a run of a store that is there, not opened yet, and may hold any
// of the models.
func Resume(cfg Config, disk *testkit.Disk, allowed ...*testkit.Model) *Run {
	r := newRun(cfg)
	r.Disk, r.FS, r.allowed, r.M = disk, disk.Mount(), allowed, allowed[0]
	return r
}

func newRun(cfg Config) *Run {
	if cfg.Canisters == 0 {
		cfg.Canisters = 3
	}
	if cfg.Limit == 0 {
		cfg.Limit = 4
	}
	if cfg.Roots == nil {
		cfg.Roots = map[[32]byte]engine.Root{}
	}
	r := &Run{Config: cfg, roots: cfg.Roots, uploads: map[engine.SnapshotID]*engine.Upload{}}
	r.options = Options(cfg.Seed)
	r.options.SnapshotLimit = cfg.Limit
	if !cfg.Lend {
		r.options.Tracking = engine.TrackHash // there is nothing to track, and each open would probe the machine
	}
	if cfg.Dedup != nil {
		r.options.DedupDomain = *cfg.Dedup
	}
	r.M = testkit.NewModel(cfg.Canisters, cfg.Limit)
	r.allowed = []*testkit.Model{r.M}
	return r
}

// Options are such that little data goes through everything a store does:
// small segments, a small memtable, small caches. The seed chooses the rest.
func Options(seed uint64) engine.Options {
	rng := rand.New(rand.NewPCG(seed, 0x0b7))
	o := engine.Options{
		SegmentSize: 64 << 10, MemTable: 256 << 10, RebuildMemory: 1 << 20,
		PageCache: 64 << 10, NodeCache: 64 << 10, IndexCache: 256 << 10,
		Ballast: []int64{-1, 64 << 10}[rng.IntN(2)], NoCompression: rng.IntN(4) == 0,
		CleanBelow:   []float64{0, 0.5, 0.95}[rng.IntN(3)],
		IdleSync:     []time.Duration{-1, time.Millisecond}[rng.IntN(2)],
		NoBackground: rng.IntN(2) == 0, DebtWait: 20 * time.Second,
		BulkAfter: []int64{0, 0, 1, 20 << 10}[rng.IntN(4)], CountStep: []int{0, 1, 3, 20}[rng.IntN(4)],
	}
	o.DedupDomain = []engine.DedupDomain{engine.DedupStore, engine.DedupCanister}[rng.IntN(2)]
	o.CompareOnHit = rng.IntN(4) == 0
	// At most as much as one segment holds: all of what goes beside the commit
	// stream, what is larger, or none.
	o.DirectLeast = []int{1, 1, 24 << 10, 1 << 20}[rng.IntN(4)]
	return o
}

// disk is a file system that is also written past its page cache.
type disk struct{ *testkit.FS }

// OpenDirect is what engine.Options asks for.
func (d disk) OpenDirect(name string) (engine.DirectFile, error) { return d.FS.OpenDirect(name) }

// Canister gives the id of a canister of the model.
func Canister(i int) engine.CanisterID {
	id, err := engine.CanisterIDFromBytes([]byte{0, 0, 0, 0, 0, 0, 0, byte(i), 1, 1})
	if err != nil {
		panic(err) // ten bytes are an id
	}
	return id
}

// SnapshotID gives the id of a snapshot of the model.
func SnapshotID(i int, local uint64) engine.SnapshotID {
	return engine.SnapshotID{Canister: Canister(i), Local: local}
}

// Section gives the engine's name of a section of the model.
func Section(s testkit.Section) engine.Section {
	switch s.Kind {
	case 1:
		return engine.WasmModule
	case 2:
		return engine.WasmMemory
	case 3:
		return engine.StableMemory
	}
	return engine.WasmChunk([32]byte{0xc0, s.Chunk})
}

// Open opens the store and settles which of the allowed models it holds.
func (r *Run) Open() error {
	o := r.options
	o.FS = disk{r.FS}
	r.mu.Lock()
	o.MinSequence = r.proved
	r.mu.Unlock()
	if r.Options != nil {
		r.Options(&o)
	}
	r.FS.OnOp(r.hook)
	e, err := engine.Open(Dir, &o)
	if err != nil && r.Faulty && !r.FS.Dead() {
		// With the disk mended it must open.
		r.FS.Inject()
		e, err = engine.Open(Dir, &o)
	}
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	r.E = e
	r.Opens++
	if r.Opened != nil {
		r.Opened(e)
	}
	return r.settle()
}

// settle finds the one allowed model that the store holds.
func (r *Run) settle() error {
	r.mu.Lock()
	allowed := r.allowed
	r.mu.Unlock()
	// What the store says is judged by reads that do not fail.
	defer r.FS.Spare()()
	var errs []error
	for i := len(allowed) - 1; i >= 0; i-- {
		m := allowed[i].Reopened()
		err := r.compareDurable(m)
		if err == nil {
			err = r.compareLive(m) // the heads, byte by byte
		}
		if err == nil {
			r.acknowledge(m)
			return nil
		}
		errs = append(errs, fmt.Errorf("allowed state %d of %d: %w", i+1, len(allowed), err))
	}
	return fmt.Errorf("the store holds nothing that was right: %w", errors.Join(errs...))
}

// acknowledge makes m the model, and the only one.
func (r *Run) acknowledge(m *testkit.Model) {
	seq := r.E.Sequence()
	r.mu.Lock()
	r.M, r.allowed, r.proved = m, []*testkit.Model{m}, max(r.proved, seq)
	r.mu.Unlock()
}

// OnOp sets a hook that outlives reopening.
func (r *Run) OnOp(hook func(testkit.FileOp)) {
	r.hook = hook
	if r.FS != nil {
		r.FS.OnOp(hook)
	}
}

// ErrCrashed: the process was killed while the operation was under way.
var ErrCrashed = errors.New("killed under way")

// Do plays an operation. When the process is killed under way (FS.KillAt),
// ErrCrashed is returned and Recover goes on. Any other error is a finding.
func (r *Run) Do(ctx context.Context, o testkit.Op) error {
	r.mu.Lock()
	r.Ops = append(r.Ops, o)
	r.mu.Unlock()
	if err := r.do(ctx, o); err != nil {
		if r.FS.Dead() {
			return ErrCrashed
		}
		return fmt.Errorf("operation %d, %v: %w", len(r.Ops), o, err)
	}
	return nil
}

func (r *Run) do(ctx context.Context, o testkit.Op) error {
	switch o.Name {
	case testkit.Reopen:
		return r.Reopen()
	case testkit.DropIndex:
		if err := r.Close(); err != nil {
			return err
		}
		if err := r.FS.RemoveAll(path.Join(Dir, "index")); err != nil {
			if !r.Faulty {
				return err
			}
			return r.Open()
		}
		if err := r.Open(); err != nil {
			return err
		}
		if r.E.Stats().Rebuilt == "" && !r.Faulty {
			return errors.New("the index was not rebuilt")
		}
		return nil
	case testkit.Kill:
		r.FS.Kill()
		return r.Recover()
	case testkit.KillSoon:
		r.FS.KillAt(int64(o.Size))
		return nil
	case testkit.Break:
		fault := o.Fault // it counts, so a replay needs a fresh one
		r.FS.Inject(&fault)
		return nil
	case testkit.Mend:
		r.FS.Inject()
		return nil
	case testkit.FlushIndex:
		e := r.E
		r.flushes.Go(func() { _ = e.FlushIndex() }) // what fails shows in the index's state
		return nil
	case testkit.PowerLoss:
		return r.PowerLoss(o.Seed)
	}
	out := r.M.Apply(o)
	r.mu.Lock()
	r.allowed = append([]*testkit.Model{r.M}, append(slices.Clone(out.Between), out.Next)...)
	r.mu.Unlock()
	err := r.play(ctx, o)
	r.flushes.Wait()
	if r.FS.Dead() {
		return ErrCrashed
	}
	if r.Faulty && refusal(err) == failed {
		return r.failed(out, err)
	}
	if got := refusal(err); got != out.Refused {
		return fmt.Errorf("want %q, got %q: %w", out.Refused, got, orNothing(err))
	}
	r.acknowledge(out.Next)
	if why := r.E.Stats().IndexUntrusted; why != "" && !r.Faulty {
		return fmt.Errorf("the index is not trusted: %s", why)
	}
	return nil
}

// failed is after an operation that failed because the disk did: it must have
// changed nothing that is durable, but for the first step of an operation that
// takes two, and nothing in memory. Only a store that could not even take back
// what it wrote may show it after it was opened again.
func (r *Run) failed(out testkit.Outcome, err error) error {
	resume := r.FS.Spare()
	defer func() { resume() }()
	var errs []error
	for _, m := range append([]*testkit.Model{r.M}, out.Between...) {
		cerr := r.compareDurable(m)
		if cerr == nil {
			cerr = r.compareLive(m)
		}
		if cerr == nil {
			if r.E.Log().ReadOnly() != nil {
				r.mu.Lock()
				r.M = m
				r.mu.Unlock()
				resume()
				resume = func() {}
				return r.Reopen()
			}
			r.acknowledge(m)
			return nil
		}
		errs = append(errs, cerr)
	}
	return fmt.Errorf("it failed (%w) and changed something: %w", err, errors.Join(errs...))
}

func orNothing(err error) error {
	if err == nil {
		return errors.New("no error")
	}
	return err
}

// Close closes the engine and what is open in it.
func (r *Run) Close() error {
	if r.E == nil {
		return nil
	}
	for _, rd := range r.readers {
		rd.s.Close()
	}
	r.readers = nil
	clear(r.uploads)
	r.flushes.Wait()
	err := r.E.Close()
	r.E = nil
	if err != nil && !r.FS.Dead() && !r.Faulty {
		return fmt.Errorf("close: %w", err)
	}
	return nil
}

// Reopen closes and opens the store.
func (r *Run) Reopen() error {
	if err := r.Close(); err != nil {
		return err
	}
	return r.Open()
}

// Play plays operations, recovers where the process is killed, and checks what
// is left at the end.
func (r *Run) Play(ctx context.Context, ops iter.Seq[testkit.Op], d Depth) error {
	for o := range ops {
		err := r.Do(ctx, o)
		for errors.Is(err, ErrCrashed) {
			err = r.Recover()
		}
		if err != nil {
			return err
		}
	}
	r.FS.KillAt(0)
	r.FS.Inject()
	if r.Faulty || r.FS.Dead() { // work in the background may have met the end
		if err := r.Recover(); err != nil {
			return fmt.Errorf("with the disk mended: %w", err)
		}
	}
	if err := r.Check(ctx, d); err != nil {
		return fmt.Errorf("at the end: %w", err)
	}
	return nil
}

// Recover goes on after the process was killed, on the same disk: what it
// wrote and did not sync is still there, and still not synced.
func (r *Run) Recover() error {
	r.FS.Kill()
	if err := r.Close(); err != nil {
		return err
	}
	r.FS = r.Disk.Mount()
	return r.Open()
}

// PowerLoss kills the process and, with it, some of what was not synced.
func (r *Run) PowerLoss(seed uint64) error {
	rng := rand.New(rand.NewPCG(seed, 1))
	return r.LosePower(keepPercent(rng), rng)
}

// LosePower is PowerLoss that keeps so many percent of what was not synced.
func (r *Run) LosePower(keep int, rng *rand.Rand) error {
	r.FS.Kill()
	if err := r.Close(); err != nil {
		return err
	}
	disk := r.Disk.Crash(keep, rng)
	r.mu.Lock()
	r.Disk = disk
	r.mu.Unlock()
	r.FS = r.Disk.Mount()
	return r.Open()
}

// keepPercent draws how much of what was not synced survives.
func keepPercent(rng *rand.Rand) int {
	switch n := rng.IntN(10); {
	case n < 3:
		return 0
	case n < 4:
		return 100
	}
	return 1 + rng.IntN(99)
}

// History is what was done, a line each, for people.
func (r *Run) History() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d, %s\n", r.Seed, r.options.String())
	for i, o := range r.Ops {
		fmt.Fprintf(&b, "%4d %v\n", i+1, o)
	}
	return b.String()
}
