package realrows

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/testkit"
	"github.com/snapstore/snapstore/internal/testkit/drive"
	"github.com/snapstore/snapstore/internal/testkit/matrix"
)

func slowRow() matrix.Row {
	return matrix.Row{
		Name:  "slow",
		Fault: "a sync of the log does not come back, and syncs take a second now and then",
		Holds: "guests write, readers read and lists list meanwhile; who waits with a context is let go; statistics and metrics tell; nothing is lost",
		Fast:  1, Full: 30,
		Needs: func() error { return nil },
		Run:   slow,
	}
}

// valve holds syncs of the log back while it is shut.
type valve struct {
	mu     sync.Mutex
	shut   chan struct{} // nil when it is open
	waits  chan struct{} // has one when a sync of the committer waits
	stalls atomic.Int64  // syncs that are still to take a second
	rng    *rand.Rand
}

func (v *valve) at(op testkit.FileOp) {
	if op.Kind != testkit.OpSync || !strings.HasPrefix(op.Path, "store/log") {
		return
	}
	v.mu.Lock()
	shut := v.shut
	stall := shut == nil && v.stalls.Load() > 0 && v.rng.IntN(20) == 0
	v.mu.Unlock()
	if shut != nil {
		// A segment that earlier work filled may be sealed just now: that this waits
		// says nothing of the take.
		if committing() {
			select {
			case v.waits <- struct{}{}:
			default:
			}
		}
		<-shut
	}
	if stall {
		v.stalls.Add(-1)
		time.Sleep(time.Second)
	}
}

// committing reports whether the goroutine is the log's committer.
func committing() bool {
	pcs := make([]uintptr, 64)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(1, pcs)])
	for {
		f, more := frames.Next()
		if strings.HasSuffix(f.Function, "seglog.(*Log).commitLoop") {
			return true
		}
		if !more {
			return false
		}
	}
}

func (v *valve) close() (open func()) {
	shut := make(chan struct{})
	v.mu.Lock()
	v.shut = shut
	v.mu.Unlock()
	return func() {
		v.mu.Lock()
		if v.shut == shut {
			v.shut = nil
			close(shut)
		}
		v.mu.Unlock()
	}
}

// unguarded is a guest that needs no stopping: the case does not write while it
// stands still.
type unguarded struct{}

func (unguarded) Quiesce(_ context.Context, pause func() error) error { return pause() }

func slow(ctx context.Context, env *matrix.Env, index int64) (t matrix.Tally, err error) {
	t.Cases, t.Points = 1, 1
	rng := env.Rand("slow", index)
	seed := rng.Uint64()
	r, err := drive.New(drive.Config{Seed: seed, Limit: limit, Options: func(o *engine.Options) {
		o.NoBackground = false
		o.IdleSync = -1 // no sync of its own, so that the one that stalls is known
		// A take that makes a segment while it writes syncs there, and is not to be
		// called back from that: only from waiting for its commit.
		o.BulkAfter = 0
	}})
	if err != nil {
		return t, err
	}
	v := &valve{waits: make(chan struct{}, 1), rng: rng}
	open := func() {}
	defer func() {
		open()
		err = errors.Join(err, r.Close())
	}()
	r.OnOp(v.at)
	s := &stage{r: r, ctx: ctx}
	for c := range 3 {
		if err := s.do(op(testkit.Create, c, 0), resize(c, 2*pagesEach), write(c, 0, testkit.Content(100*c+1), pagesEach), op(testkit.Take, c, 0)); err != nil {
			return t, err
		}
	}
	lent, err := r.E.Canister(drive.Canister(1))
	if err != nil {
		return t, err
	}
	lent.SetGuest(unguarded{})
	mem, err := lent.Memory(engine.WasmMemory)
	if err != nil {
		return t, err
	}
	region, err := mem.Bytes(ctx, 4<<30)
	if err != nil {
		return t, err
	}
	if err := s.do(write(0, 3, 5001, 5), write(2, 3, 5011, 5)); err != nil {
		return t, err
	}

	open = v.close()
	taken := make(chan error, 1)
	go func() { taken <- s.take(0) }()
	select {
	case <-v.waits:
	case err := <-taken:
		return t, fmt.Errorf("a take returned without a sync: %w", err)
	case <-time.After(patience):
		return t, errors.New("a take never syncs")
	}
	// From here on nothing of the log gets to the disk until open is called.
	if err := inTime("what needs no sync", func() error { return s.whileStalled(region) }); err != nil {
		return t, err
	}
	select {
	case err := <-taken:
		return t, fmt.Errorf("a take returned before its sync did: %w", err)
	default:
	}
	open()
	if err := inTime("the take", func() error { return <-taken }); err != nil {
		return t, err
	}
	// The take has what was there when it was sealed, the rest is live.
	m := r.M
	for _, o := range []testkit.Op{op(testkit.Take, 0, 0), write(0, 0, 6001, pagesEach), write(1, 0, 6101, pagesEach)} {
		m = m.Apply(o).Next
	}
	r.M = m
	t.Acknowledged += 4
	if err := region.Release(); err != nil {
		return t, err
	}
	if err := r.Compare(); err != nil {
		t.Lost++
		return t, err
	}
	if slowest := r.E.Stats().SlowestSyncSeconds; slowest <= 0 {
		return t, errors.New("the slowest sync is not told")
	}
	lent.SetGuest(nil)
	// Then a life in which some syncs take a second.
	v.stalls.Store(1 + index%3)
	g := testkit.NewGenerator(seed, testkit.Reopen, testkit.Kill, testkit.KillSoon, testkit.PowerLoss, testkit.DropIndex, testkit.Break, testkit.Mend)
	for range 60 {
		if err := r.Do(ctx, g.Next(r.M)); err != nil {
			return t, fmt.Errorf("%w\n%s", err, r.History())
		}
	}
	v.stalls.Store(0)
	if err := r.Check(ctx, drive.Collect); err != nil {
		t.Leaked++
		return t, fmt.Errorf("%w\n%s", err, r.History())
	}
	return t, nil
}

// inTime calls f and gives up on it after a long while: what is blocked by a
// stalled disk would wait for ever.
func inTime(what string, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-time.After(patience):
		return fmt.Errorf("%s: blocked by a sync that does not come back", what)
	}
}

// whileStalled does what must not wait for the disk.
func (s *stage) whileStalled(region *engine.Borrow) error {
	e := s.r.E
	c, err := e.Canister(drive.Canister(0))
	if err != nil {
		return err
	}
	m, err := c.Memory(engine.WasmMemory)
	if err != nil {
		return err
	}
	page := make([]byte, testkit.PageSize)
	for i := range pagesEach {
		p := testkit.Content(6001 + i).Bytes(testkit.PageSize)
		if _, err := m.WriteAt(p, int64(i)*testkit.PageSize); err != nil {
			return fmt.Errorf("write: %w", err)
		}
		if _, err := m.ReadAt(page, int64(i)*testkit.PageSize); err != nil || !bytes.Equal(page, p) {
			return fmt.Errorf("read of what was just written: %w", err)
		}
		copy(region.Bytes()[i*testkit.PageSize:], testkit.Content(6101+i).Bytes(testkit.PageSize))
	}
	snap, err := e.Snapshot(s.ctx, drive.SnapshotID(0, 0))
	if err != nil {
		return err
	}
	sec, err := snap.Section(engine.WasmMemory)
	if err == nil {
		_, err = sec.ReadAt(page, 0)
	}
	snap.Close()
	if err != nil || !bytes.Equal(page, testkit.Content(1).Bytes(testkit.PageSize)) {
		return fmt.Errorf("read of a snapshot: %w", err)
	}
	n := 0
	for _, err := range e.Snapshots(drive.Canister(0)) {
		if err != nil {
			return err
		}
		n++
	}
	if n != 1 {
		return fmt.Errorf("%d snapshots are listed while the second is not durable", n)
	}
	if st := e.Stats(); st.SyncingSeconds <= 0 || st.SlowestSyncSeconds < st.SyncingSeconds {
		return fmt.Errorf("the stall is not told: syncing %v, slowest %v", st.SyncingSeconds, st.SlowestSyncSeconds)
	}
	if v, err := scrape(e, "snapstore_log_syncing_seconds"); err != nil || v <= 0 {
		return fmt.Errorf("the stall is not in the metrics: %v, %w", v, err)
	}
	// Who waits with a context is let go: for the commit, and for the canister.
	for _, i := range []int{2, 0} {
		h, err := e.Canister(drive.Canister(i))
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(s.ctx, 30*time.Millisecond)
		_, err = h.Take(ctx, engine.TakeOptions{})
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("take of canister %d with a context that ends: %w", i, err)
		}
	}
	return nil
}

// scrape gives a metric without labels.
func scrape(e *engine.Engine, name string) (float64, error) {
	reg := prometheus.NewPedanticRegistry()
	if err := reg.Register(e.Collector()); err != nil {
		return 0, err
	}
	families, err := reg.Gather()
	if err != nil {
		return 0, err
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue(), nil
		}
	}
	return 0, fmt.Errorf("no metric %s", name)
}
