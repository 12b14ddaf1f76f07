package gc

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/snapstore/snapstore/chunk"
	"github.com/snapstore/snapstore/internal/failpoint"
	"github.com/snapstore/snapstore/internal/index"
	"github.com/snapstore/snapstore/internal/seglog"
)

// Commit is what the committer's callback needs to know of a request that
// cleaning made.
type Commit struct {
	Moves []Move
	Done  func()
}

// CollectorOptions configure a Collector.
type CollectorOptions struct {
	// CleanBelow is the live share of the log under which the background rewrites
	// sealed segments that have less themselves, and that of a segment for a pass that
	// is asked for.
	CleanBelow float64
	// MoveCodec compresses what a pass moves that somebody asked for, and QuickCodec
	// what the background moves beside operations.
	MoveCodec, QuickCodec chunk.Codec
	// MaxDebt is how many reclaimable bytes may wait before operations do.
	MaxDebt int64
	// SegmentSize is that of a full segment, to tell small ones.
	SegmentSize int64
	// Reading says whether a snapshot of a canister is held by a reader.
	Reading func(key []byte, local uint64) bool
	// Commit hands a request to the log so that its batch reaches the applier.
	Commit func(ctx context.Context, req *seglog.Request, c *Commit) (seglog.Sequence, error)
	Logger *slog.Logger
}

// Collector runs drops, limbo and cleaning, in the background or when asked.
// Safe for concurrent use: one pass works at a time.
type Collector struct {
	o       CollectorOptions
	log     *seglog.Log
	idx     *index.Index
	store   *chunk.Store
	counter *Counter
	applier *Applier
	tickets *Tickets

	// pass is held by the pass that works: it has room for one. asked is how many wait
	// for it besides the background, which then comes to an end.
	pass  chan struct{}
	asked atomic.Int32
	pace  *Pace
	// breath is the pass's, and inBackground that nobody asked for it.
	breath       breath
	inBackground bool
	// abandoned are segments whose files are gone: what they held is lost, not
	// just unread today. A pass that a person asked for says so.
	abandoned map[seglog.SegmentID]bool
	// suspected is the ticket up to which operations must have ended before the
	// counter's suspects may be destroyed; kept over passes, since there may
	// never be a moment without an operation.
	suspecting bool
	suspected  Ticket
	kick       chan struct{}
	life       context.Context // ends at Close
	stop       context.CancelFunc
	done       sync.WaitGroup
	totals     totals

	raws sync.Pool // *[]byte, a group decoded
	// nextLook is when the background may look at limbo next, and again the timer for
	// that; both are the background's own, under pass.
	nextLook time.Time
	again    *time.Timer

	// sizes is the last look at the segments, which costs too much for every
	// operation; it may be a few moments old.
	sizes atomic.Pointer[sizes]
}

type sizes struct {
	at                    time.Time
	debt, log, live, held int64
}

// sizesAge is how old a look at the segments may be where nothing is decided
// but whether a take waits.
const sizesAge = 20 * time.Millisecond

type totals struct {
	dropped, destroyed, segments, cleaned, quarantined, reclaimed, written atomic.Int64
}

// Report is what a pass did, and what is left.
type Report struct {
	VersionsDropped int64 `json:"versions_dropped"`
	ChunksDestroyed int64 `json:"chunks_destroyed"`
	SegmentsDropped int64 `json:"segments_dropped"`
	SegmentsCleaned int64 `json:"segments_cleaned"`
	Quarantined     int64 `json:"segments_quarantined"`
	BytesReclaimed  int64 `json:"bytes_reclaimed"`
	BytesWritten    int64 `json:"bytes_written"`
	LogBytes        int64 `json:"log_bytes"`
	LiveBytes       int64 `json:"live_bytes"`
	// Held versions wait for a reader to close.
	Held int `json:"versions_held"`
	// HeldBytes are kept, dead or not, since something that could not be read may
	// name them.
	HeldBytes int64 `json:"bytes_held"`
}

// Options of a pass that somebody waits for.
type Options struct {
	// DryRun changes nothing and reports what waits.
	DryRun bool
	// Recompress rewrites what takes have written, dead bytes in it or not, with
	// the codec of what is moved. It is slow, and gives back what that codec
	// saves over the one of takes, once.
	Recompress bool
	// Progress is called after each unit of work.
	Progress func(Report)
}

// NewCollector makes a collector; Start begins its background work.
func NewCollector(log *seglog.Log, idx *index.Index, store *chunk.Store, counter *Counter, applier *Applier, pace *Pace, o CollectorOptions) *Collector {
	g := &Collector{o: o, log: log, idx: idx, store: store, counter: counter, applier: applier, pace: pace, tickets: pace.tickets, pass: make(chan struct{}, 1), kick: make(chan struct{}, 1), abandoned: map[seglog.SegmentID]bool{}}
	g.life, g.stop = context.WithCancel(context.Background())
	return g
}

// Start begins background work; Close ends it.
func (g *Collector) Start() {
	g.done.Go(func() {
		for {
			select {
			case <-g.life.Done():
				return
			case <-g.kick:
			}
			if err := g.background(g.life); err != nil && g.life.Err() == nil {
				g.o.Logger.Error("gc stopped", "error", err)
			}
		}
	})
}

// Kick asks for a background pass; it never blocks.
func (g *Collector) Kick() {
	select {
	case g.kick <- struct{}{}:
	default:
	}
}

// Close ends background work and any pass under way, and waits for both.
func (g *Collector) Close() {
	g.stop()
	g.done.Wait()
	defer g.hold()() // the last pass has seen the end of life
	if g.again != nil {
		g.again.Stop()
	}
}

// hold waits for the pass, however long.
func (g *Collector) hold() (leave func()) {
	g.pass <- struct{}{}
	return func() { <-g.pass }
}

// enter waits for the pass on behalf of somebody who asked for one. The background
// leaves it, and goes on once leave was called.
func (g *Collector) enter(ctx context.Context) (leave func(), err error) {
	g.asked.Add(1)
	defer g.asked.Add(-1)
	select {
	case g.pass <- struct{}{}:
	case <-ctx.Done():
		g.Kick()
		return nil, ctx.Err()
	}
	leave = func() {
		<-g.pass
		g.Kick()
	}
	if g.life.Err() != nil {
		leave()
		return nil, seglog.ErrClosed
	}
	return leave, nil
}

// Tidy drops the segments with nothing alive that the durable index no longer
// needs. Damage is left for a pass that somebody asks for, or one in the
// background. It may be called after Close.
func (g *Collector) Tidy() error {
	defer g.hold()()
	return g.releaseDead(context.Background(), false)
}

// Relieve is for a delete that finds no room, not even the reserve: cleaning in
// the background may be using it for its copies. It lets that come to an end, and
// drops every segment with nothing alive.
func (g *Collector) Relieve(ctx context.Context) error {
	g.pace.relief.Add(1)
	defer g.pace.relief.Add(-1)
	leave, err := g.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	return g.drain(ctx)
}

// lookEvery is how often background work looks at limbo and segments: every 20 ms
// was 15 % of the work of small takes. A look that takes long is followed by lookRest
// times as much rest from looking.
const (
	lookEvery = 200 * time.Millisecond
	lookRest  = 20
	// lookAgain bounds that rest: a look that took longer than a twentieth of it has
	// destroyed much, and what it made free waits for the next.
	lookAgain = 10 * time.Second
)

// lookAtLimbo is emptyLimbo in the background, and says when it may be next.
func (g *Collector) lookAtLimbo(ctx context.Context) error {
	began, rested := time.Now(), g.breath.rested
	err := g.emptyLimbo(ctx, false)
	worked := time.Since(began) - (g.breath.rested - rested)
	g.nextLook = time.Now().Add(min(max(lookEvery, lookRest*worked), lookAgain))
	return err
}

// later asks for a background pass after a while.
func (g *Collector) later(d time.Duration) {
	if g.again == nil {
		g.again = time.AfterFunc(d, g.Kick)
	} else {
		g.again.Reset(d)
	}
}

func (g *Collector) background(ctx context.Context) error {
	defer g.hold()()
	g.breath.began, g.inBackground = time.Now(), true
	defer func() { g.inBackground = false }()
	for g.asked.Load() == 0 {
		worked, _, err := g.dropStep(ctx, nil)
		if err != nil {
			return err
		}
		if !worked {
			break
		}
		if time.Now().After(g.nextLook) {
			// Versions may come as fast as they are dropped: the rest of it has its turn.
			defer g.Kick()
			break
		}
		g.breathe(ctx)
	}
	if g.asked.Load() > 0 {
		return nil // and is kicked by who leaves
	}
	// What follows looks at all of limbo and at every segment. Small operations
	// come by the thousand a second, and change little there;
	// but when they are held back for it, it does not wait.
	if left := time.Until(g.nextLook); left > 0 && g.pace.waited.Load() == 0 {
		g.later(left)
		return nil
	}
	if err := g.lookAtLimbo(ctx); err != nil {
		return err
	}
	if g.worthFlush() {
		if err := g.flush(); err != nil && !noSpace(err) {
			return err
		}
	}
	// What needs no space first: on a full disk it is what makes some.
	if err := g.releaseDead(ctx, true); err != nil {
		return err
	}
	tried := map[seglog.SegmentID]bool{}
	var damaged []victim
	var full error
	for ctx.Err() == nil && full == nil && g.asked.Load() == 0 {
		v, ok := first(g.due(), tried)
		if !ok {
			break
		}
		var err error
		if v.damaged, err = g.empty(ctx, v); errors.Is(err, errLeft) {
			g.o.Logger.Warn("segment is not cleaned", "error", err)
			continue
		} else if noSpace(err) {
			full = err // what was emptied until now is given back below
			continue
		} else if err != nil {
			return err
		}
		if v.damaged {
			damaged = append(damaged, v)
		}
		g.breathe(ctx)
	}
	if err := g.release(ctx, damaged); err != nil {
		return err
	}
	return errors.Join(full, g.releaseDead(ctx, true))
}

// releaseDead drops the segments with nothing alive, if the state of the index
// that says so is durable, or enough waits for that to make it so.
func (g *Collector) releaseDead(ctx context.Context, damaged bool) error {
	if err := ctx.Err(); err != nil || !g.idx.Settled() && !g.worthFlush() {
		return err
	}
	return g.dropDead(ctx, false, damaged)
}

func (g *Collector) dropDead(ctx context.Context, asked, damaged bool) error {
	var dead []victim
	for _, v := range g.victims(asked) {
		if v.live != 0 {
			continue
		}
		var err error
		if v.damaged, err = g.empty(ctx, v); errors.Is(err, errLeft) {
			continue
		} else if err != nil {
			return err
		}
		if v.damaged && !damaged {
			continue
		}
		dead = append(dead, v)
	}
	return g.release(ctx, dead)
}

// newest is the last segment that is in use.
func (g *Collector) newest() (last seglog.SegmentID) {
	for _, s := range g.log.Segments() {
		last = max(last, s.ID)
	}
	return last
}

// upTo leaves out those that came later.
func upTo(last seglog.SegmentID, all []victim) []victim {
	return slices.DeleteFunc(all, func(v victim) bool { return v.id > last })
}

// first gives the emptiest victim that was not tried in this pass, and marks it.
func first(all []victim, tried map[seglog.SegmentID]bool) (victim, bool) {
	for _, v := range all {
		if !tried[v.id] {
			tried[v.id] = true
			return v, true
		}
	}
	return victim{}, false
}

// Collect does everything there is to do when it begins, sealing and cleaning open
// segments too, and returns when it is done. What comes to be done meanwhile is for
// the next pass: beside operations that never pause there would be no end. What a
// reader holds stays.
func (g *Collector) Collect(ctx context.Context, o Options) (Report, error) {
	if o.DryRun {
		return g.report(g.snapshotTotals()), nil
	}
	leave, err := g.enter(ctx)
	if err != nil {
		return Report{}, err
	}
	defer leave()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(g.life, cancel)()
	before := g.snapshotTotals()
	report := func() Report { return g.report(before) }
	progress := func() {
		if o.Progress != nil {
			o.Progress(report())
		}
	}
	if err := g.waitApplied(ctx); err != nil {
		return report(), err
	}
	g.breath.began = time.Now()
	due := g.counter.dying()
	for {
		worked, finished, err := g.dropStep(ctx, due)
		if err != nil {
			return report(), err
		}
		if finished {
			progress()
		}
		if !worked {
			break
		}
		g.breathe(ctx)
	}
	for {
		err := g.emptyLimbo(ctx, true)
		if err == nil {
			break
		}
		before := g.totals.segments.Load()
		if noSpace(err) {
			err = errors.Join(err, g.drain(ctx))
		}
		if g.totals.segments.Load() == before {
			return report(), err
		}
	}
	progress()
	if err := g.releaseDead(ctx, true); err != nil {
		return report(), err
	}
	if o.Recompress || g.wasteful() {
		if err := g.sealOpen(ctx); err != nil {
			return report(), err
		}
	}
	tried, quick := map[seglog.SegmentID]bool{}, map[seglog.SegmentID]bool{}
	last := g.newest()
	var emptied []victim
	var size int64
	for {
		v, ok := first(upTo(last, g.victims(true)), tried)
		if !ok && o.Recompress {
			v, ok = first(upTo(last, g.fresh(ctx, quick)), tried)
		}
		if ok {
			var err error
			if v.damaged, err = g.empty(ctx, v); errors.Is(err, errLeft) {
				g.o.Logger.Warn("segment is not cleaned", "error", err)
				continue
			} else if noSpace(err) && len(emptied) > 0 {
				// The copies fill the disk while what they were made of still stands:
				// with that gone there is room for this one too.
				if err := g.release(ctx, emptied); err != nil {
					return report(), err
				}
				emptied, size = nil, 0
				delete(tried, v.id)
				progress()
				continue
			} else if err != nil {
				// What was emptied before is given back all the same.
				err = errors.Join(err, g.release(ctx, emptied))
				return report(), err
			}
			emptied, size = append(emptied, v), size+v.size
			progress()
		}
		if !ok || size >= together {
			if err := g.release(ctx, emptied); err != nil {
				return report(), err
			}
			emptied, size = nil, 0
			progress()
		}
		if !ok {
			g.compact(ctx)
			return report(), ctx.Err()
		}
	}
}

// compact merges the index for who asked for space, where that needs none that is
// scarce. It gives back little beside the log, so that it fails is told and no more.
func (g *Collector) compact(ctx context.Context) {
	if g.log.Short() {
		return
	}
	if err := g.idx.Compact(ctx); err != nil && ctx.Err() == nil {
		g.o.Logger.Warn("index is not merged", "error", err)
	}
}

// dropStep is Counter.DropStep of what is due, nil for all. Where the index has no room to go on, what is
// dead already goes first: that makes some.
func (g *Collector) dropStep(ctx context.Context, due versions) (worked, finished bool, err error) {
	for {
		failpoint.At(failpoint.Drop, "")
		err := g.withRoom(func() (err error) {
			worked, finished, err = g.tryDrop(ctx, due)
			return err
		})
		if !noSpace(err) {
			return worked, finished, err
		}
		before := g.totals.segments.Load()
		if lerr := g.emptyLimbo(ctx, false); lerr != nil && !noSpace(lerr) {
			return false, false, errors.Join(err, lerr)
		}
		if derr := g.drain(ctx); derr != nil {
			return false, false, errors.Join(err, derr)
		}
		if g.totals.segments.Load() == before {
			return false, false, err
		}
	}
}

// tryDrop is Counter.DropStep of what is due, counted.
func (g *Collector) tryDrop(ctx context.Context, due versions) (worked, finished bool, err error) {
	worked, finished, err = g.counter.DropStep(ctx, g.o.Reading, due)
	if finished {
		g.totals.dropped.Add(1)
	}
	return worked, finished, err
}

// drain drops every segment with nothing alive, though the index can not be
// written.
func (g *Collector) drain(ctx context.Context) error { return g.dropDead(ctx, true, true) }

// sealOpen closes the open segments, so that they can be cleaned too.
func (g *Collector) sealOpen(ctx context.Context) error {
	if err := g.withRoom(func() error { return g.log.Seal(ctx) }); err != nil {
		return err
	}
	// One batch more, so that no sealed segment holds the last one.
	if _, err := g.o.Commit(ctx, &seglog.Request{Reserve: seglog.ReserveFirst}, &Commit{}); err != nil {
		return err
	}
	return g.waitApplied(ctx)
}

func (g *Collector) waitApplied(ctx context.Context) error {
	last, _ := g.log.Last()
	return g.applier.Wait(ctx, last)
}

// emptyLimbo destroys what can be. Background passes leave what operations
// under way may have met; a pass that is waited for waits for them.
func (g *Collector) emptyLimbo(ctx context.Context, wait bool) error {
	var after chunk.Key
	for {
		if !g.suspecting {
			failpoint.At(failpoint.Suspect, "")
			n, next, err := g.counter.Suspect(after)
			if err != nil || n == 0 {
				return err
			}
			after = next
			g.suspecting, g.suspected = true, g.tickets.Now()
			failpoint.At(failpoint.Suspected, "")
		}
		for !g.tickets.Passed(g.suspected) {
			if !wait {
				return nil // the end of the operation kicks again
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(time.Millisecond):
			}
			g.breath.began = time.Now() // this was no work
		}
		var d int
		err := g.withRoom(func() error {
			n, err := g.counter.Destroy(func() { g.breathe(ctx) })
			d += n
			return err
		})
		g.suspecting = false
		g.totals.destroyed.Add(int64(d))
		if err != nil {
			return err
		}
	}
}
