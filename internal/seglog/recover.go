package seglog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

// Open reads ROOT, compares it with the directory, and finds the accepted
// tail. It changes nothing on disk. Damage is no reason to fail: it is in
// Damage. The caller holds the store's lock.
func Open(o Options) (*Log, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.IdleDelay == 0 {
		o.IdleDelay = defaultIdleDelay
	}
	if o.SpillBuffer <= 0 {
		o.SpillBuffer = 1 << 20
	}
	if o.DirectLeast <= 0 {
		o.DirectLeast = defaultDirectLeast
	}
	r, damage, err := readRootFiles(o.FS, o.Dir)
	if err != nil {
		return nil, err
	}
	if o.SegmentSize == 0 {
		o.SegmentSize = r.segmentSize
	}
	if !validSegmentSize(o.SegmentSize) {
		return nil, fmt.Errorf("seglog: segment size %d: want a multiple of %d from %d to %d",
			o.SegmentSize, frameAlign, minSegmentSize, maxSegmentSize)
	}
	l := &Log{
		o: o, fs: o.FS, log: o.Logger, gate: newGate(maxInFlight), cache: newFileCache(o.FS, maxOpenFiles),
		seal: newSealer(r.key), store: r.store, key: r.key, features: r.features,
		segs: make(map[SegmentID]*segment, len(r.segments)), generation: r.generation, epoch: r.epoch,
		nextSegment: r.nextSegment, nextSeq: r.nextSeq, floor: r.floor, segmentSize: o.SegmentSize,
		pool: make(map[Stream][]*segment), damageSeen: make(map[damageKey]bool),
		chores: make(chan struct{}, 1), stop: make(chan struct{}),
	}
	l.queue.init()
	l.chunks.New = func() any {
		buf := make([]byte, scanChunk)
		return &buf
	}
	l.spillBufs.Size, l.spillBufs.Keep = directAlign+o.SpillBuffer+o.SpillBuffer/8, keptSpills
	l.rootFiles = rootFiles{fs: o.FS, dir: o.Dir}
	l.reserve.adopt(l)
	l.addDamage(damage...)
	start := time.Now()
	if err := l.recover(r); err != nil {
		return nil, fmt.Errorf("seglog: open: %w", err)
	}
	if l.last < o.MinSequence {
		return nil, fmt.Errorf("seglog: %s: %w: at %s, wanted %s", o.Dir, ErrRolledBack, l.last, o.MinSequence)
	}
	l.log.Info("log opened", "store", l.store, "epoch", l.epoch, "segments", len(l.segs),
		"last", l.last, "damage", l.damageCount, "took", time.Since(start))
	return l, nil
}

// recovered is what Open learned and Start carries out.
type recovered struct {
	clean    bool          // nothing was open
	open     []*segment    // listed as open, ascending
	unlisted []SegmentID   // files below nextSegment: drops that did not finish
	foreign  []foreignFile // files at or above nextSegment
	accepted []*foundBatch // of the open segments
	// keepSpills: a proved batch lost its trailer, and with it the knowledge
	// which spilled data it depended on. All that was spilled is kept.
	keepSpills bool
}

// recover fills the table and finds the last accepted batch.
func (l *Log) recover(r *root) error {
	rec := &recovered{}
	l.found = rec
	if err := l.loadTable(r, rec); err != nil {
		return err
	}
	var (
		batches []*foundBatch
		readers []*batchReader
	)
	for _, s := range rec.open {
		if s.missing || s.stream == StreamBulk || s.stream == StreamMoved {
			continue
		}
		rd, found, err := l.readOpen(s)
		if err != nil {
			return err
		}
		batches = append(batches, found...)
		readers = append(readers, rd)
		// Whatever ROOT says of them comes from before.
		s.first, s.last, s.empty = 0, 0, true
	}
	if err := l.accept(r, rec, batches); err != nil {
		return err
	}
	for _, rd := range readers {
		s := rd.seg
		s.entries = rd.entries
		s.written.Store(s.size)
		for _, g := range rd.gaps {
			if g.to > s.size && unreadable(g.err) != nil {
				return fmt.Errorf("can not tell whether a batch was synced: %w", g.err)
			}
		}
	}
	return l.sizeSpills(rec)
}

// loadTable makes the segments of ROOT, and compares them with the directory.
func (l *Log) loadTable(r *root, rec *recovered) error {
	names, err := listSegments(l.fs, l.fs.PathJoin(l.o.Dir, logDirName))
	if err != nil {
		return err
	}
	there := make(map[SegmentID]bool, len(names))
	for _, id := range names {
		there[id] = true
	}
	for i := range r.segments {
		e := &r.segments[i]
		s := newSegment(e.id, l.segmentPath(e.id))
		s.stream, s.state, s.size, s.dirAt = e.stream, e.state, int64(e.length), int64(e.dirAt)
		s.first, s.last, s.hash, s.empty, s.listed = e.first, e.last, e.hash, e.empty, true
		s.written.Store(s.size)
		l.segs[s.id] = s
		switch {
		case !there[s.id]:
			s.missing = true
			l.addDamage(Damage{File: s.path, Segment: s.id, Length: e.length, Batch: s.last, Reason: "missing"})
		default:
			st, err := l.fs.Stat(s.path)
			if err != nil {
				return err
			}
			if st.Size() < s.size {
				l.addDamage(Damage{
					File: s.path, Segment: s.id, Offset: uint32(st.Size()),
					Length: uint32(s.size - st.Size()), Batch: s.last, Reason: "the file ends here",
				})
			}
		}
		delete(there, s.id)
		if s.state == stateOpen {
			rec.open = append(rec.open, s)
		}
	}
	rec.clean = len(rec.open) == 0
	for id := range there {
		if id < r.nextSegment {
			rec.unlisted = append(rec.unlisted, id)
		} else {
			used, err := l.isUsed(id)
			if err != nil {
				return err
			}
			rec.foreign = append(rec.foreign, foreignFile{id: id, used: used})
			l.nextSegment = max(l.nextSegment, id+1)
		}
	}
	slices.Sort(rec.unlisted)
	return nil
}

// A foreignFile has a number that ROOT has not given out. Usually its creation
// was interrupted. If it was used, ROOT is not the newest this store had.
type foreignFile struct {
	id   SegmentID
	used bool
}

func (l *Log) isUsed(id SegmentID) (bool, error) {
	path := l.segmentPath(id)
	f, err := l.fs.Open(path)
	if err != nil {
		return false, err
	}
	from, to := int64(0), int64(0)
	st, err := f.Stat()
	if err == nil {
		from, to, err = occupied(f, 0, st.Size())
	}
	if err = errors.Join(err, f.Close()); err != nil || from == to {
		return false, err
	}
	l.addDamage(Damage{
		File: path, Segment: id, Length: uint32(to), Reason: "written, but not listed: ROOT is older than the log",
	})
	return true, nil
}

// readOpen reads all of a segment that was open. A spare gets its stream from
// the first frame in it, and has none if there is no frame.
func (l *Log) readOpen(s *segment) (*batchReader, []*foundBatch, error) {
	sc, err := l.openScanner(context.Background(), s, 0, -1, true)
	if err != nil {
		return nil, nil, err
	}
	defer sc.close()
	sc.listed = s.size
	rd := &batchReader{sc: sc, seg: s, keep: true}
	for s.stream == 0 {
		it, err := rd.peek()
		if err != nil || it == nil {
			return rd, nil, err
		}
		if it.frame {
			s.stream = it.hdr.stream
			break
		}
		rd.gaps = append(rd.gaps, gap{it.span, it.err})
		rd.peeked = false
	}
	var found []*foundBatch
	for s.stream == StreamCommit {
		b, err := rd.next()
		if err != nil {
			return nil, nil, err
		}
		if b == nil {
			break
		}
		found = append(found, b)
	}
	return rd, found, nil
}
