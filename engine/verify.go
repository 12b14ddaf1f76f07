package engine

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/snapstore/snapstore/chunk"
	"github.com/snapstore/snapstore/gc"
	"github.com/snapstore/snapstore/internal/index"
	"github.com/snapstore/snapstore/internal/seglog"
	"github.com/snapstore/snapstore/manifest"
)

// Verify checks the store and yields every problem it finds, each with all
// that is known of where; the sequence ends early only on an error, which is
// yielded last. It reads what is durable; other operations go on meanwhile, but
// gc destroys nothing until it has ended.
//
// Checked are: the log as it was met since Open, and the directories of its
// segments; that every canister record
// can be read, and that the logical sizes in it are those of the manifests;
// that every stored count is the one recomputed from the records, with nothing
// stored that nothing names; that every node can be read; and every page, unless
// NoData. What versions share is read once; what is damaged is named for every
// version that has it. A damaged frame from which pages can still be read is told
// of once.
func (e *Engine) Verify(ctx context.Context, o VerifyOptions) iter.Seq2[Problem, error] {
	return func(yield func(Problem, error) bool) {
		began := time.Now()
		err := e.verify(ctx, o, func(p Problem) bool {
			e.counters.problems.Add(1)
			return yield(p, nil)
		})
		if errors.Is(err, errStopped) {
			return
		}
		e.counters.observe(opVerify, began, err)
		if err != nil {
			yield(Problem{}, opError("verify", CanisterID{}, SnapshotID{}, translate(err)))
		}
	}
}

// errStopped: the caller has seen enough.
var errStopped = errors.New("stopped by the caller")

func (e *Engine) verify(ctx context.Context, o VerifyOptions, yield func(Problem) bool) error {
	if e.closing.Load() {
		return ErrClosed
	}
	report := func(p Problem) error {
		if !yield(p) {
			return errStopped
		}
		return ctx.Err()
	}
	// Nothing that is named now is destroyed before the end.
	defer e.tickets.Begin()()
	if err := e.applier.Wait(ctx, seglog.Sequence(e.Sequence())); err != nil {
		return err
	}
	if err := e.log.CheckDirectories(ctx); err != nil {
		return err
	}
	frames := map[frameAt]bool{}
	for _, d := range e.log.Damage() {
		frames[frameAt{uint64(d.Segment), d.Offset}] = true
		p := Problem{Kind: ProblemLog, File: d.File, Offset: int64(d.Offset), Segment: uint64(d.Segment), Detail: d.String()}
		if err := report(p); err != nil {
			return err
		}
	}
	if err := e.idx.Untrusted(); err != nil {
		if err := report(Problem{Kind: ProblemIndex, Detail: err.Error() + "; the next open builds it anew"}); err != nil {
			return err
		}
	} else if err := e.verifyCounts(ctx, report); err != nil {
		return err
	}
	v := &check{e: e, ctx: ctx, o: o, report: report, began: time.Now(), seen: manifest.NewSeen(maxSeen), bad: map[chunk.Key]error{}, frames: frames}
	if o.Progress != nil || o.Rate > 0 {
		v.total = e.logicalTotal()
	}
	if err := v.canisters(v.version); err != nil {
		return err
	}
	if len(v.bad) == 0 {
		return nil
	}
	v.seen, v.naming = manifest.NewSeen(maxSeen), true
	return v.canisters(v.name)
}

// verifyCounts recomputes every count from the canisters' records.
func (e *Engine) verifyCounts(ctx context.Context, report func(Problem) error) error {
	found, err := e.compareCounts(ctx)
	if err != nil {
		return err
	}
	for _, p := range found {
		if err := report(p); err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) compareCounts(ctx context.Context) (found []Problem, err error) {
	// The scratch files of a comparison are those of one at a time.
	select {
	case e.comparing <- struct{}{}:
		defer func() { <-e.comparing }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	unnamed := 0
	o := index.RebuildOptions{Memory: e.o.RebuildMemory}
	err = e.counter.Compare(ctx, o, func(m index.CountMismatch) error {
		if m.Counted == 0 && m.Present && m.Stored.Count == 0 {
			return nil // in limbo
		}
		p := Problem{Chunk: e.named(m), Detail: m.String()}
		switch {
		case !m.Present:
			p.Kind = ProblemMissing
		case m.Counted == 0:
			p.Kind = ProblemLeak
		default:
			p.Kind = ProblemCount
		}
		if len(found) >= maxProblems {
			return errStopped
		}
		found = append(found, p)
		return nil
	}, func(key []byte, id chunk.ID, err error) {
		c, _ := CanisterIDFromBytes(key)
		if len(found) >= maxProblems {
			unnamed++
			return
		}
		found = append(found, Problem{Kind: ProblemNode, Canister: c, Chunk: id, Detail: err.Error()})
	})
	if err != nil && !errors.Is(err, errStopped) {
		return nil, err
	}
	if err != nil || unnamed > 0 {
		found = append(found, Problem{Kind: ProblemIndex, Detail: fmt.Sprintf("the comparison of counts found more than %d problems and names no more; rebuild the index, then verify again", maxProblems)})
	}
	return found, nil
}

// maxSeen is how many nodes are remembered as checked: about 16 MiB. A node
// that was forgotten is checked again.
const maxSeen = 1 << 18

// maxProblems bounds what is kept of one comparison of counts; there is always
// one problem that says so.
const maxProblems = 100_000

func (e *Engine) logicalTotal() int64 {
	var sum uint64
	e.mu.RLock()
	defer e.mu.RUnlock()
	for _, ent := range e.table {
		if ent.rec != nil {
			sum += ent.rec.HeadLogical + ent.rec.Logical()
		}
	}
	return int64(min(sum, 1<<62))
}

// check walks versions and reads their pages.
type check struct {
	e      *Engine
	store  *chunk.Store // as the canister sees it whose turn it is
	direct chunk.Direct
	ctx    context.Context
	o      VerifyOptions
	report func(Problem) error
	began  time.Time
	done   int64
	read   int64
	total  int64
	seen   *manifest.Seen
	pages  pageWindow // used by one version after the other
	// bad are the pages and nodes that could not be read, and why; at most
	// maxProblems of them.
	bad map[chunk.Key]error
	// frames are those that are damaged and were told of.
	frames map[frameAt]bool
	naming bool // the second time round
}

// found keeps what could not be read until all of the store is known.
func (v *check) found(id chunk.ID, err error) error {
	if cerr := v.ctx.Err(); cerr != nil {
		return cerr
	}
	if errors.Is(err, ErrClosed) || v.e.closing.Load() {
		return ErrClosed
	}
	if len(v.bad) < maxProblems {
		v.bad[v.store.Domain().Key(id)] = err
	}
	return nil
}

// frame tells, once for each, of a damaged frame from which a page can be read all
// the same.
func (v *check) frame(err error) error {
	var ce *CorruptionError
	if !errors.As(err, &ce) {
		return nil
	}
	at := frameAt{ce.Segment, ce.Offset}
	if v.frames[at] || len(v.frames) == maxProblems {
		return nil
	}
	v.frames[at] = true
	return v.report(Problem{
		Kind: ProblemLog, Segment: at.segment, File: segmentFile(at.segment), Offset: int64(at.offset),
		Detail: ce.Err.Error() + "; pages in it that are whole can be read, and a repair moves them out",
	})
}

// frameAt is where a frame is.
type frameAt struct {
	segment uint64
	offset  uint32
}

func segmentFile(segment uint64) string { return "log/" + seglog.SegmentID(segment).String() + ".seg" }

// known gives why something could not be read, nil if it could.
func (v *check) known(id chunk.ID) error { return v.bad[v.store.Domain().Key(id)] }

// perVersion is done with each version: its snapshot (zero for the live state),
// logical size, root and canister.
type perVersion func(id SnapshotID, logical uint64, root chunk.ID, c CanisterID) error

func (v *check) canisters(do perVersion) error {
	for info, err := range v.e.Canisters() {
		if err != nil && info.ID.IsZero() {
			return err
		}
		if err := v.canister(info.ID, do); err != nil {
			return err
		}
	}
	return nil
}

// canister goes through the versions of a canister.
func (v *check) canister(id CanisterID, do perVersion) error {
	ctx := v.ctx
	// Past every cache: what is to be found is on the disk.
	v.store = v.e.in(id)
	v.direct = v.store.Direct()
	if v.e.dedup != DedupStore {
		v.seen = manifest.NewSeen(maxSeen) // what others have is not what this one has
	}
	_, rec, err := v.e.lookup(id)
	if err != nil {
		if errors.Is(err, ErrDamaged) && v.naming {
			return nil
		}
		if errors.Is(err, ErrDamaged) {
			return v.report(Problem{Kind: ProblemRecord, Canister: id, Detail: err.Error()})
		}
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		return err
	}
	for _, s := range rec.Snapshots {
		sid := SnapshotID{Canister: id, Local: s.Local}
		pin, err := v.e.pin(ctx, sid)
		if errors.Is(err, ErrNotFound) {
			continue // deleted meanwhile
		}
		if err != nil {
			if err := do(sid, s.Logical, s.Root, id); err != nil {
				return err
			}
			continue
		}
		err = do(sid, s.Logical, pin.info.Root, id)
		pin.Close()
		if err != nil {
			return err
		}
	}
	if rec.Head.IsZero() {
		return nil
	}
	return do(SnapshotID{}, rec.HeadLogical, rec.Head, id)
}

// version checks one version, leaving out what lies below nodes that were
// checked already.
func (v *check) version(id SnapshotID, logical uint64, root chunk.ID, c CanisterID) error {
	m, err := v.e.manifest(v.ctx, v.store, root)
	if err != nil {
		if err := v.found(root, err); err != nil {
			return err
		}
		return v.problem(ProblemNode, c, id, Section{}, 0, root, err)
	}
	if size := m.LogicalSize(); size != logical {
		p := Problem{Kind: ProblemLogical, Canister: c, Snapshot: id, Detail: fmt.Sprintf("recorded %d bytes, the manifest has %d", logical, size)}
		if err := v.report(p); err != nil {
			return err
		}
	}
	defer func() { v.done += int64(min(logical, 1<<62)); v.progress() }()
	var unread error
	var refs []chunk.PageRef
	flush := func() error {
		if len(refs) == 0 {
			return nil
		}
		err := v.direct.Pages(v.ctx, refs)
		v.pace(int64(len(refs)) * PageSize)
		if err != nil {
			if v.ctx.Err() != nil {
				return v.ctx.Err()
			}
			for i, r := range refs {
				perr := v.direct.Page(r.ID, r.Dst)
				if perr == nil {
					continue
				}
				if v.store.PagesOnce(v.ctx, refs[i:i+1]) == nil {
					err = v.frame(perr)
				} else {
					err = v.found(r.ID, perr)
				}
				if err != nil {
					return err
				}
			}
		}
		refs = refs[:0]
		return nil
	}
	err = manifest.Walk(v.ctx, v.direct, root, manifest.WalkOptions{
		Seen: v.seen,
		Visit: func(p manifest.Place, chunkID chunk.ID) error {
			if v.o.NoData || !p.IsPage() {
				return nil
			}
			refs = append(refs, chunk.PageRef{ID: chunkID, Dst: v.pages.page(len(refs))})
			if len(refs) == verifyWindow {
				return flush()
			}
			return nil
		},
		Bad: func(_ manifest.Place, node chunk.ID, err error) { unread = errors.Join(unread, v.found(node, err)) },
	})
	if err = errors.Join(err, unread); err != nil {
		return err
	}
	return flush()
}

// name tells of everything in one version that was found damaged.
func (v *check) name(id SnapshotID, _ uint64, root chunk.ID, c CanisterID) error {
	if v.known(root) != nil {
		return nil // told already, and nothing below it can be found
	}
	var stop error
	tell := func(kind ProblemKind, p manifest.Place, chunkID chunk.ID, err error) {
		if stop == nil {
			from, _ := p.Pages()
			stop = v.problem(kind, c, id, p.Section(), from, chunkID, err)
		}
	}
	err := manifest.Walk(v.ctx, v.direct, root, manifest.WalkOptions{
		Seen:    v.seen,
		Damaged: func(chunkID chunk.ID) bool { return v.known(chunkID) != nil },
		Visit: func(p manifest.Place, chunkID chunk.ID) error {
			if err := v.known(chunkID); err != nil && p.IsPage() {
				tell(ProblemPage, p, chunkID, err)
			}
			return stop
		},
		Bad: func(p manifest.Place, node chunk.ID, err error) { tell(ProblemNode, p, node, err) },
	})
	return errors.Join(err, stop)
}

func (v *check) problem(kind ProblemKind, c CanisterID, id SnapshotID, s Section, page uint64, chunkID chunk.ID, err error) error {
	if cerr := v.ctx.Err(); cerr != nil {
		return cerr
	}
	if errors.Is(err, ErrClosed) || v.e.closing.Load() {
		return ErrClosed
	}
	p := Problem{Kind: kind, Canister: c, Snapshot: id, Page: page, Chunk: chunkID, Detail: err.Error()}
	if s.Kind != 0 {
		p.Section = s.String()
	}
	var ce *CorruptionError
	if errors.As(err, &ce) {
		p.Segment = ce.Segment
		p.File, p.Offset = segmentFile(ce.Segment), int64(ce.Offset)
	}
	return v.report(p)
}

// pace keeps reading under the rate that was asked for.
func (v *check) pace(n int64) {
	v.read += n
	v.progress()
	if v.o.Rate <= 0 {
		return
	}
	due := time.Duration(float64(v.read) / float64(v.o.Rate) * float64(time.Second))
	if ahead := due - time.Since(v.began); ahead > 0 {
		select {
		case <-v.ctx.Done():
		case <-time.After(ahead):
		}
	}
}

func (v *check) progress() {
	if v.o.Progress != nil {
		v.o.Progress(min(v.done+v.read, v.total), v.total)
	}
}

// GC drops, destroys and cleans until nothing is left of what there was to do when it
// began, also what lies in open segments, and returns what came of it. Snapshots that
// readers hold stay. While operations are under way it rests as long as it works, so
// that takes stay quick.
func (e *Engine) GC(ctx context.Context, o GCOptions) (GCReport, error) {
	if e.closing.Load() {
		return gc.Report{}, opError("gc", CanisterID{}, SnapshotID{}, ErrClosed)
	}
	r, err := e.gc.Collect(ctx, o)
	if errors.Is(err, context.Canceled) && ctx.Err() == nil {
		err = ErrClosed // Close ended it, not the caller
	}
	return r, opError("gc", CanisterID{}, SnapshotID{}, translate(err))
}
