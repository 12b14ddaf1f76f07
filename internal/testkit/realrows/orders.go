package realrows

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/failpoint"
	"github.com/snapstore/snapstore/internal/testkit"
	"github.com/snapstore/snapstore/internal/testkit/drive"
	"github.com/snapstore/snapstore/internal/testkit/matrix"
)

// The critical steps of a take, a load, a reader, gc and cleaning are put in
// every order. Each who takes part has its steps in a row; an order is one merge
// of these rows. Who comes to a step waits until it is its turn. Many orders can
// not be: a lock or a ticket is in the way. Then nobody moves, and the first who
// waits goes on: what is played is another order, which is as good as any, and
// is counted as bent.

// step is a point, and whose it is.
type step struct {
	point failpoint.Point
	whose string
}

func (s step) String() string {
	if s.whose == "" {
		return string(s.point)
	}
	return fmt.Sprintf("%s of %x", s.point, s.whose[7:8])
}

// stuck is after what time without any step the order is bent. It decides
// nothing but which order is played.
const stuck = 15 * time.Millisecond

// turns makes who comes to a step wait for its turn.
type turns struct {
	mu     sync.Mutex
	moved  *sync.Cond
	order  []step
	parked map[step]bool
	last   time.Time
	played []step
	seen   map[failpoint.Point]int // also what is not in the order
	bent   int
	over   bool
}

func newTurns(order []step) *turns {
	t := &turns{order: slices.Clone(order), parked: map[step]bool{}, seen: map[failpoint.Point]int{}, last: time.Now()}
	t.moved = sync.NewCond(&t.mu)
	return t
}

func (t *turns) at(p failpoint.Point, whose string) {
	s := step{p, whose}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.seen[p]++
	// A step is ordered as often as it stands in the order.
	for !t.over && slices.Contains(t.order, s) {
		if t.order[0] == s {
			t.order = t.order[1:]
			t.played = append(t.played, s)
			delete(t.parked, s)
			t.last = time.Now()
			t.moved.Broadcast()
			return
		}
		t.parked[s] = true
		t.moved.Wait()
	}
}

// watch bends the order whenever nobody moves, until done is closed.
func (t *turns) watch(done <-chan struct{}) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case <-tick.C:
		}
		t.mu.Lock()
		if len(t.order) > 0 && time.Since(t.last) > stuck {
			for i, s := range t.order {
				if t.parked[s] {
					t.order = slices.Insert(slices.Delete(t.order, i, i+1), 0, s)
					t.bent++
					t.last = time.Now()
					t.moved.Broadcast()
					break
				}
			}
		}
		t.mu.Unlock()
	}
}

func (t *turns) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = true
	t.moved.Broadcast()
}

// stage is a store before the actors come.
type stage struct {
	r   *drive.Run
	ctx context.Context
}

func whose(c int) string { return string(drive.Canister(c).Bytes()) }

func takeSteps(c int) []step {
	return []step{{failpoint.Meet, ""}, {failpoint.Pinned, ""}, {failpoint.Asked, ""}, {failpoint.Commit, whose(c)}, {failpoint.Apply, whose(c)}, {failpoint.Applied, whose(c)}}
}

func recordSteps(c int) []step {
	return []step{{failpoint.Commit, whose(c)}, {failpoint.Apply, whose(c)}, {failpoint.Applied, whose(c)}}
}

func points(ps ...failpoint.Point) (out []step) {
	for _, p := range ps {
		out = append(out, step{p, ""})
	}
	return out
}

var (
	gcSteps    = points(failpoint.Drop, failpoint.Suspect, failpoint.Suspected, failpoint.Destroy, failpoint.Destroyed)
	cleanSteps = points(failpoint.Copied, failpoint.Repoint, failpoint.Repointed, failpoint.Prove, failpoint.Remove, failpoint.Removed)
)

// The pages of the scenes: shared is what dies or moves while others want it. How many
// there are decides how they fall into segments; TestReadersAreOvertaken sees that
// what readers look up lies in one that is dropped.
const (
	pagesEach = 28
	wasmKind  = 2
)

var wasmSection = testkit.Section{Kind: wasmKind}

func write(c int, first uint64, from testkit.Content, n int) testkit.Op {
	return writeEach(c, first, 1, from, n)
}

// writeEach leaves gaps: pages lie step apart.
func writeEach(c int, first, step uint64, from testkit.Content, n int) testkit.Op {
	o := testkit.Op{Name: testkit.Write, C: c, Section: wasmSection, Replace: testkit.NoSnapshot}
	for i := range n {
		content := from
		if from != 0 {
			content += testkit.Content(i)
		}
		o.Spans = append(o.Spans, testkit.Span{Off: (first + step*uint64(i)) * testkit.PageSize, Len: testkit.PageSize, Content: content})
	}
	return o
}

func op(name testkit.OpName, c int, local uint64) testkit.Op {
	return testkit.Op{Name: name, C: c, From: c, Local: local, Replace: testkit.NoSnapshot, At: 1_700_000_000_000_000_000}
}

func resize(c int, pages uint64) testkit.Op {
	return testkit.Op{Name: testkit.Resize, C: c, Section: wasmSection, Size: pages * testkit.PageSize, Replace: testkit.NoSnapshot}
}

const (
	sharedFrom testkit.Content = 1000
	otherFrom  testkit.Content = 2000
	junkFrom   testkit.Content = 3000
)

// dying sets up a canister 0 whose deleted snapshot was the only one with the
// shared pages, and a canister 1 that is about to take them again.
func dying(s *stage) error {
	return s.do(
		op(testkit.Create, 0, 0), op(testkit.Create, 1, 0), resize(0, 2*pagesEach), resize(1, 2*pagesEach),
		write(0, 0, sharedFrom, pagesEach), write(0, pagesEach, junkFrom, pagesEach), op(testkit.Take, 0, 0),
		write(0, 0, otherFrom, pagesEach), write(0, pagesEach, 0, pagesEach), op(testkit.Checkpoint, 0, 0),
		write(1, 0, otherFrom, pagesEach), op(testkit.Take, 1, 0),
		op(testkit.Delete, 0, 0),
		write(1, 0, sharedFrom, pagesEach),
	)
}

// lastHolder is dying before the delete.
func lastHolder(s *stage) error {
	return s.do(
		op(testkit.Create, 0, 0), op(testkit.Create, 1, 0), resize(0, 2*pagesEach), resize(1, 2*pagesEach),
		write(0, 0, sharedFrom, pagesEach), write(0, pagesEach, junkFrom, pagesEach), op(testkit.Take, 0, 0),
		write(0, 0, otherFrom, pagesEach), write(0, pagesEach, 0, pagesEach), op(testkit.Checkpoint, 0, 0),
		write(1, 0, otherFrom, pagesEach), op(testkit.Take, 1, 0),
		write(1, 0, sharedFrom, pagesEach),
	)
}

// apart is how far the shared pages of halfDead lie from one another. Dead ones
// are between them, so that no group is wholly alive and stays where it is.
const apart = 3

// halfDead sets up segments in which the shared pages of snapshot 1 of canister
// 0, and of its live memory, live among dead ones. A first gc comes as far as
// cleaning, so that the next has nothing else to do.
func halfDead(s *stage) error { return s.halfDead() }

// halfDeadWanted is halfDead with a canister 1 that is about to take the shared
// pages too, and canister 0 has nothing of them but the snapshot.
func halfDeadWanted(s *stage) error {
	return s.halfDead(
		op(testkit.Create, 1, 0), resize(1, 2*pagesEach),
		writeEach(0, 0, apart, otherFrom, pagesEach), op(testkit.Checkpoint, 0, 0),
		write(1, 0, sharedFrom, pagesEach),
	)
}

func (s *stage) halfDead(then ...testkit.Op) error {
	err := s.do(slices.Concat([]testkit.Op{
		op(testkit.Create, 0, 0), resize(0, apart*pagesEach),
		writeEach(0, 0, apart, sharedFrom, pagesEach), writeEach(0, 1, apart, junkFrom, pagesEach), writeEach(0, 2, apart, junkFrom+pagesEach, pagesEach), op(testkit.Take, 0, 0),
		writeEach(0, 1, apart, 0, pagesEach), writeEach(0, 2, apart, 0, pagesEach), op(testkit.Take, 0, 0),
	}, then, []testkit.Op{op(testkit.Delete, 0, 0)})...)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	failpoint.OnPoint(func(p failpoint.Point, _ string) {
		if p == failpoint.Copied {
			cancel()
		}
	})
	defer failpoint.OnPoint(nil)
	if _, err := s.r.E.GC(ctx, engine.GCOptions{}); !errors.Is(err, context.Canceled) {
		return fmt.Errorf("gc came past cleaning: %w", err)
	}
	return nil
}

func (s *stage) do(ops ...testkit.Op) error {
	for _, o := range ops {
		if err := s.r.Do(s.ctx, o); err != nil {
			return err
		}
	}
	return nil
}

func (s *stage) take(c int) error {
	h, err := s.r.E.Canister(drive.Canister(c))
	if err != nil {
		return err
	}
	_, err = h.Take(s.ctx, engine.TakeOptions{TakenAt: time.Unix(0, op(testkit.Take, c, 0).At)})
	return err
}

func (s *stage) load(c int, local uint64) error {
	h, err := s.r.E.Canister(drive.Canister(c))
	if err != nil {
		return err
	}
	_, err = h.Load(s.ctx, drive.SnapshotID(c, local), engine.LoadOptions{})
	return err
}

func (s *stage) gc() error {
	_, err := s.r.E.GC(s.ctx, engine.GCOptions{})
	return err
}

// read reads the shared pages of snapshot 1 of canister 0, group by group and
// then all at once.
func (s *stage) read() error {
	snap, err := s.r.E.Snapshot(s.ctx, drive.SnapshotID(0, 1))
	if err != nil {
		return err
	}
	defer snap.Close()
	sec, err := snap.Section(engine.WasmMemory)
	if err != nil {
		return err
	}
	if err := sharedPages(sec, 8); err != nil {
		return err
	}
	var all bytes.Buffer
	if _, err := sec.WriteTo(&all); err != nil {
		return err
	}
	return sharedPages(bytes.NewReader(all.Bytes()), 1)
}

// look reads the shared pages of the live memory of canister 0, where a page is
// read by itself and not with its neighbours.
func (s *stage) look() error {
	h, err := s.r.E.Canister(drive.Canister(0))
	if err != nil {
		return err
	}
	m, err := h.Memory(engine.WasmMemory)
	if err != nil {
		return err
	}
	return sharedPages(m, 8)
}

// sharedPages reads every step-th of the shared pages.
func sharedPages(r io.ReaderAt, step int) error {
	page := make([]byte, testkit.PageSize)
	for i := 0; i < pagesEach; i += step {
		if _, err := r.ReadAt(page, int64(apart*i)*testkit.PageSize); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if want := (sharedFrom + testkit.Content(i)).Bytes(testkit.PageSize); !bytes.Equal(page, want) {
			return fmt.Errorf("shared page %d reads wrong", i)
		}
	}
	return nil
}

// actor is one who takes part: its steps, what it does, and what the model is
// told of it.
type actor struct {
	steps []step
	run   func(*stage) error
	told  []testkit.Op
}

func taker(c int) actor {
	return actor{takeSteps(c), func(s *stage) error { return s.take(c) }, []testkit.Op{op(testkit.Take, c, 0)}}
}

func deleter(c int, local uint64) actor {
	return actor{recordSteps(c), func(s *stage) error { return s.r.E.Delete(s.ctx, drive.SnapshotID(c, local)) }, []testkit.Op{op(testkit.Delete, c, local)}}
}

func loader(c int, local uint64) actor {
	steps := append(points(failpoint.Locate, failpoint.Located), recordSteps(c)...)
	return actor{steps, func(s *stage) error { return s.load(c, local) }, []testkit.Op{op(testkit.Load, c, local)}}
}

var (
	collector = actor{gcSteps, (*stage).gc, nil}
	cleaner   = actor{cleanSteps, (*stage).gc, nil}
	readSteps = points(failpoint.Locate, failpoint.Located, failpoint.Locate, failpoint.Located)
	reader    = actor{readSteps, (*stage).read, nil}
	onlooker  = actor{readSteps, (*stage).look, nil}
)

// cast is a scene: what it starts from and who takes part.
type cast struct {
	name   string
	setup  func(*stage) error
	actors []actor
	// sample is how many of its orders are played, 0 all.
	sample int64
	// nodes are kept in memory, so that what readers look for is pages.
	nodes bool
}

func casts() []cast {
	return []cast{
		{"a take wants what gc destroys", dying, []actor{taker(1), collector}, 0, false},
		{"a reader reads what cleaning moves", halfDead, []actor{reader, cleaner}, 0, false},
		{"live memory is read while cleaning moves it", halfDead, []actor{onlooker, cleaner}, 0, true},
		{"a take wants what cleaning moves", halfDeadWanted, []actor{taker(1), cleaner}, 0, false},
		{"a load brings back what cleaning moves", halfDeadWanted, []actor{loader(0, 1), cleaner}, 0, false},
		{"two takes want what gc destroys", func(s *stage) error {
			if err := dying(s); err != nil {
				return err
			}
			return s.do(op(testkit.Create, 2, 0), resize(2, 2*pagesEach), write(2, 0, sharedFrom, pagesEach))
		}, []actor{taker(1), {recordSteps(2), taker(2).run, taker(2).told}, collector}, 300, false},
		{"a take wants what is deleted and collected", lastHolder, []actor{taker(1), deleter(0, 0), collector}, 300, false},
		{"a take, a reader and cleaning", halfDeadWanted, []actor{taker(1), reader, cleaner}, 300, false},
		{"a delete of what cleaning moves, and a take of it", halfDeadWanted, []actor{taker(1), deleter(0, 1), cleaner}, 300, false},
	}
}

// merges is how many orders the rows have.
func merges(rows [][]step) int64 {
	n, total := int64(1), int64(0)
	for _, r := range rows {
		for i := range r {
			total++
			n = n * total / int64(i+1)
		}
	}
	return n
}

// merge gives the k-th order of the rows.
func merge(rows [][]step, k int64) (out []step) {
	rows = slices.Clone(rows)
	for {
		done := true
		for i := range rows {
			if len(rows[i]) == 0 {
				continue
			}
			done = false
			next := slices.Clone(rows)
			next[i] = rows[i][1:]
			if n := merges(next); k >= n {
				k -= n
				continue
			}
			out = append(out, rows[i][0])
			rows = next
			break
		}
		if done {
			return out
		}
	}
}

func (c cast) rows() (rows [][]step) {
	for _, a := range c.actors {
		rows = append(rows, a.steps)
	}
	return rows
}

// orders is how many are played, and which the i-th is.
func (c cast) orders() int64 {
	n := merges(c.rows())
	if c.sample > 0 {
		n = min(n, c.sample)
	}
	return n
}

func (c cast) order(seed uint64, i int64) []step {
	rows := c.rows()
	if n := merges(rows); c.sample > 0 && n > c.sample {
		i = rand.New(rand.NewPCG(seed, uint64(i))).Int64N(n)
	}
	return merge(rows, i)
}

// playOrder plays one order on a store of its own.
func (c cast) playOrder(ctx context.Context, seed uint64, i int64) (matrix.Tally, bool, error) {
	t, turns, err := c.play(ctx, seed+uint64(i), c.order(seed, i))
	if turns == nil {
		return t, false, err
	}
	if err != nil {
		err = fmt.Errorf("%s, order %d of seed %d, %v: %w", c.name, i, seed, turns.played, err)
	}
	return t, turns.bent > 0, err
}

// play plays an order, and gives what was played; nil if it came to nothing.
func (c cast) play(ctx context.Context, seed uint64, order []step) (t matrix.Tally, turns *turns, err error) {
	t.Points = 1
	r, err := drive.New(drive.Config{Seed: seed, Limit: limit, Options: func(o *engine.Options) {
		// A cache of a byte holds nothing, so that readers read. What one canister
		// has is to be what others want.
		o.NoBackground, o.CleanBelow, o.PageCache, o.NodeCache, o.IdleSync = true, 0.95, 1, 1, -1
		o.DedupDomain = engine.DedupStore
		if c.nodes {
			o.NodeCache = 1 << 20
		}
	}})
	if err != nil {
		return t, nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	s := &stage{r: r, ctx: ctx}
	if err := c.setup(s); err != nil {
		return t, nil, fmt.Errorf("setting up: %w", err)
	}
	if err := r.E.DumpIndex(io.Discard); err != nil { // it waits until all is applied
		return t, nil, err
	}
	turns = newTurns(order)
	failpoint.OnPoint(turns.at)
	defer failpoint.OnPoint(nil)
	failed := make([]error, len(c.actors))
	var wg sync.WaitGroup
	for i, a := range c.actors {
		wg.Go(func() { failed[i] = a.run(s) })
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	go turns.watch(done)
	select {
	case <-done:
	case <-time.After(patience):
		return t, nil, fmt.Errorf("%s: nobody goes on after %v; to come: %v", c.name, turns.played, turns.order)
	}
	turns.end()
	failpoint.OnPoint(nil)
	if err := errors.Join(failed...); err != nil {
		t.Silent++
		return t, turns, err
	}
	m := r.M
	for _, a := range c.actors {
		for _, o := range a.told {
			m = m.Apply(o).Next
		}
	}
	r.M = m
	for _, can := range m.Canisters {
		t.Acknowledged += int64(len(can.Snapshots))
	}
	if err := r.Compare(); err != nil {
		t.Lost++
		return t, turns, err
	}
	if err := judge(&t, r.Verify(ctx)); err != nil {
		return t, turns, err
	}
	if err := r.CheckGC(ctx); err != nil {
		t.Leaked++
		return t, turns, err
	}
	if err := r.Compare(); err != nil {
		t.FreedEarly++
		return t, turns, err
	}
	return t, turns, nil
}

// ordersOfACase are played by one process.
const ordersOfACase = 40

// countOrders is how many there are in all scenes.
func countOrders() (n int64) {
	for _, c := range casts() {
		n += c.orders()
	}
	return n
}

func ordersRow() matrix.Row {
	return matrix.Row{
		Name:  "orders",
		Fault: "a take, two takes, a load, a reader or a delete beside gc and cleaning, in all orders of their critical steps; of three beside each other 300 orders each",
		Holds: "no reader sees wrong bytes, what was acknowledged is there, counts are exact, gc leaves nothing and takes nothing away",
		Fast:  1, Full: (countOrders() + ordersOfACase - 1) / ordersOfACase,
		Needs: func() error {
			if !failpoint.Enabled {
				return errors.New("build it with -tags failpoint")
			}
			return nil
		},
		Run: runOrders,
	}
}

// ordersTold is what the worker of a case tells.
type ordersTold struct {
	Tally matrix.Tally `json:"tally"`
	Bent  int          `json:"bent"`
	Error string       `json:"error,omitempty"`
}

func runOrders(ctx context.Context, env *matrix.Env, index int64) (sum matrix.Tally, err error) {
	sum.Cases = 1
	if env.Self == "" {
		return sum, errNoSelf
	}
	ctx, cancel := context.WithTimeout(ctx, 4*patience)
	defer cancel()
	file := filepath.Join(env.Dir, "told")
	out, err := exec.CommandContext(ctx, env.Self, "worker", "orders", strconv.FormatUint(env.Seed, 10), strconv.FormatInt(index, 10), file).CombinedOutput()
	if err != nil {
		return sum, fmt.Errorf("worker: %w: %s", err, out)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return sum, err
	}
	var told ordersTold
	if err := json.Unmarshal(b, &told); err != nil {
		return sum, err
	}
	sum.Add(told.Tally)
	env.Logf("orders %d: %d played, %d of them bent", index, told.Tally.Points, told.Bent)
	if told.Error != "" {
		return sum, errors.New(told.Error)
	}
	return sum, nil
}

// playOrders is the worker: it plays its share of all orders. The shares are
// spread over the scenes, so that a few show something of each.
func playOrders(ctx context.Context, args []string) error {
	seed, err := strconv.ParseUint(args[0], 10, 64)
	if err != nil {
		return err
	}
	index, err := strconv.ParseInt(args[1], 10, 64)
	if err != nil {
		return err
	}
	shares := (countOrders() + ordersOfACase - 1) / ordersOfACase
	var told ordersTold
	at := int64(0)
scenes:
	for _, c := range casts() {
		for i := range c.orders() {
			at++
			if at%shares != index%shares {
				continue
			}
			t, bent, err := c.playOrder(ctx, seed, i)
			told.Tally.Add(t)
			if bent {
				told.Bent++
			}
			if err != nil {
				told.Error = err.Error()
				break scenes
			}
		}
	}
	b, err := json.Marshal(told)
	if err != nil {
		return err
	}
	return os.WriteFile(args[2], b, 0o600)
}
