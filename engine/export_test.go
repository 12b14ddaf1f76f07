package engine

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/snapstore/snapstore/chunk"
	"github.com/snapstore/snapstore/gc"
	"github.com/snapstore/snapstore/internal/index"
	"github.com/snapstore/snapstore/internal/seglog"
)

// IndexID is the index's name for an ID.
type IndexID = index.ID

// ForgetInFilter makes the filter deny what is there.
func (e *Engine) ForgetInFilter(forget func(IndexID) bool) { e.idx.ForgetInFilter(forget) }

// SetStep changes how many changes of counts one atomic step of the index has.
// Nothing may go on meanwhile.
func (e *Engine) SetStep(n int) { e.counter.SetStep(n) }

// KeepOfLoads changes how many pages of a load are not read twice. Nothing may go on
// meanwhile.
func (e *Engine) KeepOfLoads(pages int) { e.patchKept = pages }

// HoldApplier keeps the applier between two batches until release is called.
func (e *Engine) HoldApplier() (release func()) {
	held, done := make(chan struct{}), make(chan struct{})
	seq, hash := e.log.Last()
	e.applier.Enqueue(&gc.Batch{Seq: seq, Hash: hash, Done: func() { close(held); <-done }})
	<-held
	return func() { close(done) }
}

// Lossy tells whether takes look up what their head already names.
func (e *Engine) Lossy() bool { return e.counter.Lossy() }

// Lookups is how often the index was asked for content.
func (e *Engine) Lookups() uint64 { return e.store.Stats().Lookups }

// FramesRead is how many frames were read for content.
func (e *Engine) FramesRead() uint64 { return e.store.Stats().Frames }

// ChargeForTest charges for what is not there.
func (e *Engine) ChargeForTest(n uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.accounts.used.add(n)
}

// IndexMetrics gives the counters of the index.
func (e *Engine) IndexMetrics() index.Metrics { return e.idx.Metrics() }

// FillIndex enters n chunks that nobody has, in a segment that there is not.
func (e *Engine) FillIndex(n int) error {
	const batch = 100_000
	r := rand.NewChaCha8([32]byte{1})
	for i := 0; i < n; {
		out := e.idx.NewBatch()
		for k := 0; k < batch && i < n; k++ {
			var id index.ID
			_, _ = r.Read(id[:])
			// In order, so that nothing is merged while it is filled.
			binary.BigEndian.PutUint64(id[:], uint64(i)*(^uint64(0)/uint64(n)))
			out.SetEntry(id, index.Entry{Count: 1, Location: index.Location{
				Segment: 1 << 40, Offset: uint32(i%8000/16) * 40000, Length: 40000, Slot: uint8(i % 16), Slots: 16,
			}})
			i++
		}
		if err := out.Commit(); err != nil {
			return err
		}
	}
	return e.idx.Flush()
}

// SettleIndex waits until the index merges nothing any more.
func (e *Engine) SettleIndex() {
	for last := uint64(0); ; {
		now := e.idx.Metrics().Compacted
		if now == last {
			return
		}
		last = now
		time.Sleep(300 * time.Millisecond)
	}
}

// MeetNothing looks ids up as a take does.
func (e *Engine) MeetNothing(ids []chunk.ID, met []bool) error {
	pins := e.store.NewPins()
	defer pins.Release()
	return e.store.Meet(pins, ids, met)
}

// Applied tells whether the index has all that is durable, and nothing waits
// to be dropped. It costs nothing, so that who waits can ask often.
func (e *Engine) Applied() bool {
	last, _ := e.log.Last()
	return e.applier.Applied() >= last && e.counter.Waiting() == 0
}

// Groups counts groups by codec, in what cleaning moved or in what it did not.
func (e *Engine) Groups(ctx context.Context, moved bool) (map[chunk.Codec]int, error) {
	n := map[chunk.Codec]int{}
	for _, s := range e.log.Segments() {
		if (s.Stream == seglog.StreamMoved) != moved {
			continue
		}
		for f, err := range e.log.ScanSegment(ctx, s.ID) {
			if err != nil {
				return nil, err
			}
			if f.Kind != seglog.KindGroup {
				continue
			}
			codec, err := chunk.GroupCodec(f.Payload)
			if err != nil {
				return nil, err
			}
			n[codec]++
		}
	}
	return n, nil
}

// MovedLittle says whether cleaning has left a segment of no more than so many bytes.
func (e *Engine) MovedLittle(bytes int64) bool {
	return slices.ContainsFunc(e.log.Segments(), func(s seglog.SegmentInfo) bool {
		return s.Stream == seglog.StreamMoved && s.Size <= bytes
	})
}

// ReadAtIn is ReadAt in windows of so many pages.
func (r *SectionReader) ReadAtIn(window int, p []byte, off int64) (int, error) {
	return r.readAt(p, off, window)
}
