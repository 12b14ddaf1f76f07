package seglog

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestGroupCommit: callers that come while a sync is under way share the next
// batch, and each is answered after OnCommit has seen it.
func TestGroupCommit(t *testing.T) {
	mem := vfs.NewMem()
	newStore(t, mem)
	hold := make(chan struct{})
	var holding, syncs atomic.Int64
	fs := &faultFS{FS: mem, before: func(op fsOp) error {
		if op.name == "syncdata" && op.segment() {
			syncs.Add(1)
			if holding.CompareAndSwap(1, 2) {
				<-hold
			}
		}
		return nil
	}}
	o := testOptions(fs)
	o.SegmentSize = 1 << 20
	var mu sync.Mutex
	seen := make(map[*Request]Sequence)
	var last Sequence
	o.OnCommit = func(c Committed) {
		mu.Lock()
		defer mu.Unlock()
		if c.Seq <= last || (c.Hash == Hash{}) {
			t.Errorf("batch %s after %s", c.Seq, last)
		}
		last = c.Seq
		for _, r := range c.Requests {
			seen[r] = c.Seq
		}
	}
	l := mustStart(t, o)
	holding.Store(1)
	before := syncs.Load()
	const n = 20
	var wg sync.WaitGroup
	reqs, seqs := make([]*Request, n), make([]Sequence, n)
	commit := func(i int) {
		defer wg.Done()
		reqs[i] = request(fmt.Sprint("key", i), uint64(i), 100, 50)
		seq, err := l.Commit(context.Background(), reqs[i])
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		if seqs[i] = seq; seen[reqs[i]] != seq {
			t.Errorf("request %d answered in batch %s, published in %s", i, seq, seen[reqs[i]])
		}
	}
	wg.Add(1)
	go commit(0)
	for holding.Load() != 2 {
		time.Sleep(time.Millisecond) // the first sync is reached soon
	}
	wg.Add(n - 1)
	for i := 1; i < n; i++ {
		go commit(i)
	}
	for {
		l.queue.mu.Lock()
		waiting := len(l.queue.items)
		l.queue.mu.Unlock()
		if waiting == n-1 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	close(hold)
	wg.Wait()
	if got := syncs.Load() - before; got != 2 {
		t.Errorf("%d syncs for %d requests, want 2", got, n)
	}
	for i := 2; i < n; i++ {
		if seqs[i] != seqs[1] {
			t.Errorf("request %d in batch %s, want %s", i, seqs[i], seqs[1])
		}
	}
	for i, r := range reqs {
		for j, loc := range r.Locs {
			if _, p, err := l.ReadFrame(loc, nil); err != nil || string(p) != string(r.Frames[j].Payload) {
				t.Errorf("request %d frame %d: %v", i, j, err)
			}
		}
	}
	if b := replayAll(t, l); len(b) != 2 || len(b[1].Records) != n-1 {
		t.Errorf("%d batches", len(b))
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestCommitContext: a request leaves the queue when its context ends, but
// not the batch it was taken into.
func TestCommitContext(t *testing.T) {
	mem := vfs.NewMem()
	newStore(t, mem)
	l := mustStart(t, testOptions(mem))
	ctx, cancel := context.WithCancel(context.Background())
	release, entered := make(chan struct{}), make(chan struct{})
	go l.inCommitter(func() error { close(entered); <-release; return nil })
	<-entered
	done := make(chan error)
	go func() {
		_, err := l.Commit(ctx, request("k", 1))
		done <- err
	}()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	close(release)
	mustCommit(t, l, request("k", 2))
	got, err := contents(l)
	if err != nil || len(got) != 1 || got[2] == nil {
		t.Fatal(got, err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Commit(context.Background(), request("k", 3)); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
}

// TestIdle: the last batch is proved after the delay, once, and not before.
func TestIdle(t *testing.T) {
	mem := vfs.NewMem()
	newStore(t, mem)
	synctest.Test(t, func(t *testing.T) {
		o := testOptions(mem)
		o.IdleDelay = time.Second
		l := mustStart(t, o)
		mustCommit(t, l, request("k", 1))
		time.Sleep(o.IdleDelay / 2)
		seq := mustCommit(t, l, request("k", 2))
		time.Sleep(o.IdleDelay - time.Millisecond)
		synctest.Wait()
		if last, _ := l.Last(); last != seq {
			t.Fatalf("last is %s, want %s", last, seq)
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if last, _ := l.Last(); last != seq+1 {
			t.Fatalf("last is %s, want %s", last, seq+1)
		}
		time.Sleep(10 * o.IdleDelay)
		synctest.Wait()
		if last, _ := l.Last(); last != seq+1 {
			t.Fatalf("an idle log writes: last is %s", last)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestConcurrent runs everything at once.
func TestConcurrent(t *testing.T) {
	mem := vfs.NewMem()
	newStore(t, mem)
	o := testOptions(mem)
	o.SegmentSize = 16 << 10
	o.IdleDelay = time.Millisecond
	l := mustStart(t, o)
	ctx := context.Background()
	var wg, bg sync.WaitGroup
	stop := make(chan struct{})
	var mu sync.Mutex
	var written []Loc
	for g := range 6 {
		wg.Go(func() {
			for i := range 60 {
				n := uint64(g*1000 + i)
				r := request(fmt.Sprint("g", g), n, 300, 900)
				if i%5 == 0 {
					s, err := l.Spill(StreamBulk + Stream(g%2))
					if err != nil {
						t.Error(err)
						return
					}
					for j := range 10 {
						if _, err := s.Append(KindGroup, filler(n<<8|uint64(j), 700)); err != nil {
							t.Error(err)
						}
					}
					if err := s.Flush(); err != nil {
						t.Error(err)
					}
					r.Ranges = s.Ranges()
					defer s.Close()
				}
				if _, err := l.Commit(ctx, r); err != nil {
					t.Error(err)
				}
				mu.Lock()
				written = append(written, r.Locs...)
				mu.Unlock()
			}
		})
	}
	bg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			mu.Lock()
			locs := append([]Loc(nil), written...)
			mu.Unlock()
			for _, loc := range locs {
				if _, _, err := l.ReadFrame(loc, nil); err != nil && !errors.Is(err, ErrSegmentGone) {
					t.Error(err)
				}
			}
		}
	})
	bg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if i%10 == 0 {
				if err := l.Seal(ctx); err != nil {
					t.Error(err)
				}
			}
			for _, s := range l.Segments() {
				if s.Sealed && s.Stream == StreamCommit && i%3 == 0 {
					if err := l.Drop(ctx, 0, s.ID); err != nil {
						t.Error(err)
					}
					break
				}
			}
			l.Stats()
			for _, err := range l.Scan(ctx) {
				if err != nil {
					t.Error(err)
				}
			}
		}
	})
	wg.Wait()
	close(stop)
	bg.Wait()
	noDamage(t, l)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = mustOpen(t, testOptions(mem))
	for _, b := range replayAll(t, l) {
		for _, f := range b.Frames {
			if f.Damaged != nil {
				t.Error(f.Damaged)
			}
		}
	}
	noDamage(t, l)
}

// TestCloseUnderSpill: a spill that outlives the log gets errors.
func TestCloseUnderSpill(t *testing.T) {
	mem := vfs.NewMem()
	newStore(t, mem)
	l := mustStart(t, testOptions(mem))
	var wg sync.WaitGroup
	started := make(chan struct{}, 4)
	for range 4 {
		wg.Go(func() {
			s, err := l.Spill(StreamBulk)
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close()
			for i := uint64(0); ; i++ {
				if _, err := s.Append(KindGroup, filler(i, 200)); err != nil {
					if !errors.Is(err, ErrClosed) {
						t.Error(err)
					}
					return
				}
				if i == 0 {
					started <- struct{}{}
				}
			}
		})
	}
	for range 4 {
		<-started
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if files, err := listSegments(mem, testDir+"/"+logDirName); err != nil {
		t.Error(err)
	} else if l = mustStart(t, testOptions(mem)); len(l.Segments()) > len(files)+1 {
		t.Errorf("%d segments of %d files", len(l.Segments()), len(files))
	}
	noDamage(t, l)
}

// TestCloseWhileTaking: a segment is asked for and ROOT is being written for it
// when the log closes. It is given or refused, and nobody else gets it.
func TestCloseWhileTaking(t *testing.T) {
	mem := vfs.NewMem()
	newStore(t, mem)
	var armed atomic.Bool
	var l *Log
	entered := make(chan struct{})
	fs := &faultFS{FS: mem, before: func(op fsOp) error {
		if strings.Contains(op.path, "ROOT") && op.changes() && armed.CompareAndSwap(true, false) {
			close(entered)
			// Until Close has come for the spare, or must be waiting.
			for range 100 {
				time.Sleep(time.Millisecond)
				l.mu.RLock()
				gone := l.spare == nil
				l.mu.RUnlock()
				if gone {
					break
				}
			}
		}
		return nil
	}}
	l = mustStart(t, testOptions(fs))
	if _, err := l.takeSegment(StreamBulk, 1); err != nil { // the one that is ready
		t.Fatal(err)
	}
	armed.Store(true)
	taken := make(chan error, 1)
	go func() {
		_, err := l.takeSegment(StreamBulk, 1)
		taken <- err
	}()
	<-entered
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := <-taken; err != nil && !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if _, err := l.takeSegment(StreamBulk, 1); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}
