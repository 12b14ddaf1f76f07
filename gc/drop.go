package gc

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/snapstore/snapstore/chunk"
	"github.com/snapstore/snapstore/internal/failpoint"
	"github.com/snapstore/snapstore/internal/seglog"
	"github.com/snapstore/snapstore/manifest"
)

// dropDeltas bounds one step of a drop: a few milliseconds under the lock, which who
// applies a take waits for.
const dropDeltas = 1024

// Backlog is what waits to be dropped.
type Backlog struct {
	// Versions in all, and those that can not start because a reader holds them.
	Versions, Held int
}

// Waiting is how many versions wait to be dropped; it waits for nothing.
func (c *Counter) Waiting() int64 { return c.waiting.Load() }

// Backlog counts; read says whether a snapshot of a canister is being read.
func (c *Counter) Backlog(read func(key []byte, local uint64) bool) Backlog {
	var b Backlog
	if c.waiting.Load() == 0 {
		return b
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for key := range c.due {
		w, h := c.known[key].dying(func(local uint64) bool { return read([]byte(key), local) })
		b.Versions += w
		b.Held += h
	}
	return b
}

// versions are some of those that wait for their drop, by canister.
type versions map[string][]version

// dying lists what waits now.
func (c *Counter) dying() versions {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := versions{}
	for key := range c.due {
		for _, r := range c.known[key].list {
			for _, v := range r.versions {
				if v.dying {
					out[key] = append(out[key], v)
				}
			}
		}
	}
	return out
}

// DropStep does one bounded step of one drop, of all that wait or, unless it is
// nil, of those that are due; what is under way goes on in any case. What is dropped
// is taken out of due. It returns false when there is nothing to drop, or only what
// readers hold; finished when the step was the last of its version. One calls it at a
// time.
func (c *Counter) DropStep(ctx context.Context, read func(key []byte, local uint64) bool, due versions) (worked, finished bool, err error) {
	first, misses := "", c.store.NodeMisses()
	if c.cold {
		if first, err = c.warm(ctx, read, due); first == "" {
			return false, false, err
		}
	}
	defer func() { c.cold = c.store.NodeMisses() != misses }()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.idx.Untrusted(); err != nil {
		return false, false, err
	}
	key, next, r := c.nextDrop(first, read, due)
	if r == nil {
		return false, false, nil
	}
	v := r.versions[r.dropping]
	finished, err = c.dropStep(ctx, key, next, r)
	if i := slices.Index(due[key], v); finished && i >= 0 {
		// An equal one may come again, and was not there when due was made.
		due[key] = slices.Delete(due[key], i, i+1)
	}
	if err != nil && ctx.Err() == nil && !chunk.Transient(err) && !noSpace(err) {
		c.idx.MarkUntrusted(err)
	}
	return err == nil, finished, err
}

// nextDrop picks what is to be dropped next, of the canister under first if there is
// something, and gives what is known of its canister, to be changed; a nil run where
// there is nothing. mu is held.
func (c *Counter) nextDrop(first string, read func(key []byte, local uint64) bool, due versions) (key string, next *runs, r *run) {
	pick := func(key string) bool {
		rs := c.known[key]
		if rs.partial != nil {
			return false // its record is not applied in full; the replay will
		}
		next = rs.clone()
		r = next.nextDrop(func(local uint64) bool { return read([]byte(key), local) }, func(v version) bool { return due == nil || slices.Contains(due[key], v) })
		return r != nil
	}
	if _, ok := c.due[first]; ok && pick(first) {
		return first, next, r
	}
	for key := range c.due {
		if pick(key) {
			return key, next, r
		}
	}
	return "", nil, nil
}

// warm walks what the next step will walk, so that what is not in memory is read while
// nobody waits for the lock: a step that read 500 nodes from the disk held up what
// takes wait for by 90 ms, where one without any takes two. It says whose version that
// is, "" where there is none; much may be applied before the step. Damage it comes to is
// told twice, by the step too. It is done while nodes are missed in the cache; others
// would only be walked twice.
func (c *Counter) warm(ctx context.Context, read func(key []byte, local uint64) bool, due versions) (key string, err error) {
	c.mu.Lock()
	var r *run
	if err = c.idx.Untrusted(); err == nil {
		key, _, r = c.nextDrop("", read, due)
	}
	c.mu.Unlock()
	if r == nil {
		return "", err
	}
	_, _ = manifest.Replace(ctx, c.in([]byte(key)), r.drop(), r.cursor, c.dropBudget(),
		func(chunk.ID, int64, bool) error { return nil }, func(manifest.Place, chunk.ID, error) {})
	if failpoint.Enabled {
		failpoint.At(failpoint.Walked, key)
	}
	return key, nil
}

func (c *Counter) dropBudget() int { return min(dropDeltas, c.step) }

func (c *Counter) dropStep(ctx context.Context, key string, next *runs, r *run) (finished bool, err error) {
	d := c.emptyDeltas()
	store := c.in([]byte(key))
	at, err := manifest.Replace(ctx, store, r.drop(), r.cursor, c.dropBudget(), d.add(store.Domain()), c.unreadable)
	if err != nil {
		return false, err
	}
	if err := c.idx.Untrusted(); err != nil {
		return false, err
	}
	out := c.idx.NewBatch()
	if err := c.flushDeltas(out, d); err != nil {
		return false, err
	}
	if at.IsEnd() {
		next.remove(r)
		finished = true
	} else {
		r.cursor = at
	}
	putState(out, key, next)
	if err := out.Commit(); err != nil {
		return false, err // nothing was applied
	}
	c.know(key, next)
	return finished, nil
}

// recount hands each introduction of rs to add: together they are what the
// stored counts must be. Versions are walked side by side, so add is called
// concurrently, and in no order; bad is called by one at a time.
func (rs *runs) recount(ctx context.Context, g manifest.Getter, add func(chunk.ID, bool) error, bad func(manifest.Place, chunk.ID, error)) error {
	var one sync.Mutex
	alone := func(at manifest.Place, id chunk.ID, err error) {
		one.Lock()
		defer one.Unlock()
		bad(at, id, err)
	}
	side, ctx := errgroup.WithContext(ctx)
	side.SetLimit(runtime.GOMAXPROCS(0))
	emit := func(id chunk.ID, delta int64, node bool) error {
		if delta != 1 {
			return fmt.Errorf("introduction of %v counts %d", id, delta)
		}
		return add(id, node)
	}
	for i := range rs.list {
		r := &rs.list[i]
		for j, v := range r.versions {
			if j == r.dropping {
				continue // counted below, from its cursor on
			}
			p, splice := r.pred(j)
			side.Go(func() error {
				_, err := manifest.Replace(ctx, g, manifest.Change{P: p, V2: v.root, Splice: splice}, manifest.Place{}, 0, emit, alone)
				return err
			})
		}
		if r.dropping >= 0 {
			p, _ := r.pred(r.dropping)
			side.Go(func() error {
				_, err := manifest.Replace(ctx, g, manifest.Change{P: p, V2: r.versions[r.dropping].root}, r.cursor, 0, emit, alone)
				return err
			})
		}
	}
	return side.Wait()
}

// recordsIn lists the canisters whose newest record lies in a segment.
func (c *Counter) recordsIn(segment seglog.SegmentID) (keys []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, w := range c.where {
		if w.loc.Segment == segment {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}
