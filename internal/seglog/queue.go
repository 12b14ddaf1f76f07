package seglog

import (
	"context"
	"sync"
	"time"
)

// A pending is what waits for the committer: a request, or something that
// has to happen between two batches.
type pending struct {
	req  *Request
	call func() error

	done chan struct{} // closed when answered
	seq  Sequence
	err  error
}

func (p *pending) answer(seq Sequence, err error) {
	p.seq, p.err = seq, err
	close(p.done)
}

// A queue holds what waits, in order. Requests that arrive while a batch is
// synced share the next one.
type queue struct {
	mu     sync.Mutex
	items  []*pending
	closed bool
	wake   chan struct{}
}

func (q *queue) init() { q.wake = make(chan struct{}, 1) }

// put returns false if the queue is closed.
func (q *queue) put(p *pending) bool {
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return false
	}
	q.items = append(q.items, p)
	q.mu.Unlock()
	q.signal()
	return true
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// withdraw takes p out again; false if it was taken already.
func (q *queue) withdraw(p *pending) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i, other := range q.items {
		if other == p {
			q.items = append(q.items[:i], q.items[i+1:]...)
			return true
		}
	}
	return false
}

// take removes what one batch can hold: one call, or requests of up to most
// bytes and at least one. over reports that the queue is closed and empty.
func (q *queue) take(most int64) (items []*pending, over bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	n, size := 0, int64(0)
	for n < len(q.items) {
		p := q.items[n]
		if p.req == nil {
			if n == 0 {
				n++
			}
			break
		}
		size += p.req.size
		if n > 0 && size > most {
			break
		}
		n++
	}
	items = append(items, q.items[:n]...)
	q.items = append(q.items[:0], q.items[n:]...)
	clear(q.items[len(q.items):cap(q.items)])
	return items, q.closed && len(items) == 0
}

func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.signal()
}

// groupBytes bounds what requests of several callers may sum up to in one
// batch, so that a small one does not wait for many large ones to be written.
const groupBytes = 8 << 20

// commitLoop is the one goroutine that writes batches.
func (l *Log) commitLoop() {
	idle := time.NewTimer(time.Hour)
	idle.Stop()
	defer idle.Stop()
	for {
		items, over := l.queue.take(groupBytes)
		if over {
			return
		}
		if len(items) == 0 {
			select {
			case <-l.queue.wake:
			case <-idle.C:
				l.proveLast()
			}
			continue
		}
		idle.Stop()
		if call := items[0].call; call != nil {
			items[0].answer(0, call())
		} else {
			l.commitAll(items)
		}
		if l.o.IdleDelay > 0 && l.unproved() {
			idle.Reset(l.o.IdleDelay)
		}
	}
}

// unproved reports whether a crash and rot together could pass the last batch
// off as one that was never synced.
func (l *Log) unproved() bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.lastData > l.proved
}

// proveLast writes an empty batch: that it is there says that the one before
// was synced. It runs in the committer.
func (l *Log) proveLast() {
	if l.cur == nil || !l.unproved() || l.ReadOnly() != nil {
		return
	}
	if err := l.writeBatch(nil); err != nil {
		l.log.Warn("the batch that proves the last one could not be written", "err", err)
	}
}

// inCommitter runs call between two batches.
func (l *Log) inCommitter(call func() error) error {
	p := &pending{call: call, done: make(chan struct{})}
	if !l.queue.put(p) {
		return ErrClosed
	}
	<-p.done
	return p.err
}

// Commit makes a request durable, together with others that wait. Durable and
// handed to OnCommit when it returns nil. An error means that nothing of it
// will ever be seen, with one exception: when the error is ErrReadOnly and a
// sync was under way, the next Open decides, and may find the batch whole.
//
// ctx is respected until the request is taken into a batch.
func (l *Log) Commit(ctx context.Context, r *Request) (Sequence, error) {
	if err := l.check(); err != nil {
		return 0, commitError(err)
	}
	if err := l.prepare(r); err != nil {
		return 0, commitError(err)
	}
	if err := l.syncRanges(ctx, r.Ranges); err != nil {
		return 0, commitError(err)
	}
	p := &pending{req: r, done: make(chan struct{})}
	if !l.queue.put(p) {
		return 0, commitError(ErrClosed)
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		if l.queue.withdraw(p) {
			return 0, ctx.Err()
		}
		<-p.done
	}
	return p.seq, commitError(p.err)
}
