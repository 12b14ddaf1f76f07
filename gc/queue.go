package gc

import (
	"context"
	"log/slog"
	"sync"

	"github.com/snapstore/snapstore/internal/failpoint"
	"github.com/snapstore/snapstore/internal/seglog"
)

// Applier applies batches behind the committer, strictly in the order they
// are handed in. Safe for concurrent use.
type Applier struct {
	counter *Counter
	log     *slog.Logger

	mu      sync.Mutex
	changed *sync.Cond
	queue   []*Batch
	applied seglog.Sequence
	busy    bool // a batch that left the queue is being applied
	closed  bool
	ended   bool // what is enqueued now is for the next open to replay
	done    chan struct{}
}

// NewApplier starts one goroutine, which Close ends. applied is the sequence
// the index is at.
func NewApplier(c *Counter, applied seglog.Sequence, log *slog.Logger) *Applier {
	a := &Applier{counter: c, log: log, applied: applied, done: make(chan struct{})}
	a.changed = sync.NewCond(&a.mu)
	go a.work()
	return a
}

// Enqueue hands in the next batch and returns at once.
func (a *Applier) Enqueue(b *Batch) {
	a.mu.Lock()
	a.queue = append(a.queue, b)
	a.mu.Unlock()
	a.changed.Broadcast()
}

func (a *Applier) work() {
	defer close(a.done)
	for {
		a.mu.Lock()
		for len(a.queue) == 0 && !a.closed {
			a.changed.Wait()
		}
		if len(a.queue) == 0 {
			a.ended = true
			a.mu.Unlock()
			a.changed.Broadcast()
			return
		}
		b := a.queue[0]
		a.queue[0], a.queue = nil, a.queue[1:]
		a.busy = true
		a.mu.Unlock()

		if failpoint.Enabled {
			b.pass(failpoint.Apply, failpoint.Repoint)
		}
		// A batch that can not be applied is still published in the chunk
		// store, so that reads go on; the next open rebuilds.
		if err := a.counter.Apply(context.Background(), b); err != nil {
			a.log.Error("index is not kept up", "sequence", b.Seq, "error", err)
		}
		if failpoint.Enabled {
			b.pass(failpoint.Applied, failpoint.Repointed)
		}
		if b.Done != nil {
			b.Done() // who waits for the batch may want what it held on to
		}
		a.mu.Lock()
		a.applied, a.busy = b.Seq, false
		a.mu.Unlock()
		a.changed.Broadcast()
	}
}

// pass comes to a point for each canister whose record the batch brings, or to
// another if it moves what cleaning copied.
func (b *Batch) pass(record, move failpoint.Point) {
	if len(b.Moves) > 0 {
		failpoint.At(move, "")
		return
	}
	for i := range b.Records {
		failpoint.At(record, string(b.Records[i].Key))
	}
}

// Wait returns when the batch seq is applied, or ctx is done. It fails with
// seglog.ErrClosed if that batch came after the end.
func (a *Applier) Wait(ctx context.Context, seq seglog.Sequence) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.applied >= seq {
		return nil
	}
	stop := context.AfterFunc(ctx, func() {
		a.mu.Lock() // so that no waiter is between its check and its wait
		defer a.mu.Unlock()
		a.changed.Broadcast()
	})
	defer stop()
	for a.applied < seq {
		if err := ctx.Err(); err != nil {
			return err
		}
		if a.ended {
			return seglog.ErrClosed
		}
		a.changed.Wait()
	}
	return nil
}

// Drain returns when all that was handed in is applied.
func (a *Applier) Drain() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for (a.busy || len(a.queue) > 0) && !a.ended {
		a.changed.Wait()
	}
}

// Applied returns the sequence of the last batch that went through.
func (a *Applier) Applied() seglog.Sequence {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.applied
}

// Waiting returns how many batches are queued.
func (a *Applier) Waiting() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.queue)
}

// Close applies what is queued and ends.
func (a *Applier) Close() {
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	a.changed.Broadcast()
	<-a.done
}
