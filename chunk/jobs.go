package chunk

import (
	"runtime"
	"sync"

	"github.com/snapstore/snapstore/internal/seglog"
)

// A job is a group that is compressed beside the writer. It keeps them in a queue
// and takes the result of the oldest when the queue is full, so that the order of
// frames follows from the order of groups alone.
type job struct {
	codec  Codec
	domain Domain
	ids    []ID
	raw    []byte // from the store's pool; the pages lie at its start
	// held are pages that are yet to be copied into raw; nil where that is done.
	held    []*[PageSize]byte
	payload []byte // from the store's pool, once it is compressed
	out     []byte
	err     error
	done    chan struct{}
}

// maxJobs is how many groups may be under way: so many that there is something to
// compress while the writer meets a window and makes its nodes. With 8 an incremental
// of 1 % of 1 GiB took 52 ms and 44 with 32 or 64, all else as it was.
const maxJobs = 32

// compressors work on the jobs of one writer, the oldest first.
type compressors struct {
	mu      sync.Mutex
	pending []*job // that nobody has begun
	running int
}

func (w *Writer) newJob(codec Codec) *job {
	return &job{codec: codec, domain: w.s.domain, ids: make([]ID, 0, GroupPages), done: make(chan struct{})}
}

func (w *Writer) release(j *job) {
	w.s.raws.Put(j.raw)
	w.s.frames.Put(j.payload)
	j.raw, j.payload = nil, nil
}

// submit queues j, which the writer owns from now on, and makes room in the
// queue first.
func (w *Writer) submit(j *job, st *IngestStats) error {
	for len(w.jobs) >= maxJobs {
		if err := w.collect(st); err != nil {
			w.release(j)
			return err
		}
	}
	w.jobs = append(w.jobs, j)
	c := &w.compress
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending = append(c.pending, j)
	// One alone is left to who collects it: a small take would wait for a goroutine
	// longer than it compresses.
	if c.running < w.o.Workers && len(c.pending) > 1 {
		c.running++
		go w.work()
	}
	return nil
}

// take gives j to the caller, if nobody has begun it.
func (c *compressors) take(j *job) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.pending) == 0 || c.pending[0] != j {
		return false
	}
	c.pending[0] = nil
	c.pending = c.pending[1:]
	return true
}

// next gives the oldest job that nobody has begun, nil where there is none and the
// caller ends.
func (c *compressors) next() *job {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.pending) == 0 {
		c.running--
		return nil
	}
	j := c.pending[0]
	c.pending[0] = nil
	c.pending = c.pending[1:]
	return j
}

// drop takes back the jobs that nobody has begun, which are the newest.
func (c *compressors) drop() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := len(c.pending)
	c.pending = nil
	return n
}

// work compresses until there is nothing left to. It lets others go first: the
// writer, and who hashes, would find all cores taken.
func (w *Writer) work() {
	for j := w.compress.next(); j != nil; j = w.compress.next() {
		w.do(j)
		runtime.Gosched()
	}
}

// do compresses a group.
func (w *Writer) do(j *job) {
	if j.held != nil {
		j.raw = w.s.raws.Get()
		for i, p := range j.held {
			copy(j.raw[i*PageSize:], p[:])
		}
		j.held = nil
	}
	j.payload = w.s.frames.Get()
	j.out, _, j.err = w.s.coder.AppendGroupIn(j.payload[:0], j.domain, j.codec, j.ids, j.raw[:len(j.ids)*PageSize])
	w.s.raws.Put(j.raw)
	j.raw = nil
	close(j.done)
}

// collect waits for the oldest job, or does it where nobody has begun it, and appends
// what it made.
func (w *Writer) collect(st *IngestStats) error {
	j := w.jobs[0]
	w.jobs[0] = nil
	w.jobs = w.jobs[1:]
	if w.compress.take(j) {
		w.do(j)
	}
	<-j.done
	defer w.release(j)
	if w.err == nil && j.err != nil {
		w.err = j.err
	}
	buf := j.payload
	j.payload = nil
	if err := w.append(seglog.KindGroup, j.domain, j.out, buf, j.ids); err != nil {
		return err
	}
	if st != nil {
		st.StoredBytes += uint64(len(j.out))
	}
	return nil
}

// drain collects all jobs.
func (w *Writer) drain(st *IngestStats) error {
	for len(w.jobs) > 0 {
		if err := w.collect(st); err != nil {
			return err
		}
	}
	return nil
}

// abandon waits for all jobs, and forgets them and what is in memory.
func (w *Writer) abandon() {
	begun := len(w.jobs) - w.compress.drop()
	for i, j := range w.jobs {
		if i < begun {
			<-j.done
		}
		w.release(j)
	}
	w.jobs = nil
	w.frames = nil
	w.giveBack()
}
