package chunk

import "github.com/snapstore/snapstore/internal/seglog"

// A job compresses one group on a goroutine of its own. The writer keeps them in
// a queue and takes the result of the oldest when the queue is full, so that the
// order of frames follows from the order of groups alone.
type job struct {
	codec  Codec
	domain Domain
	ids    []ID
	raw    []byte // from the store's pool; the pages lie at its start
	// held are pages that the job has yet to copy into raw; nil where that is
	// done.
	held    []*[PageSize]byte
	payload []byte // likewise
	out     []byte
	err     error
	done    chan struct{}
}

// queueDepth is how many groups may be under way: enough to keep the workers
// busy while the writer looks up and appends, within maxJobs buffers.
func (w *Writer) queueDepth() int { return min(4*w.o.Workers, maxJobs) }

const maxJobs = 64

func (w *Writer) newJob(codec Codec) *job {
	return &job{codec: codec, domain: w.s.domain, ids: make([]ID, 0, GroupPages), raw: w.s.raws.get(), done: make(chan struct{})}
}

func (w *Writer) release(j *job) {
	w.s.raws.put(j.raw)
	w.s.frames.put(j.payload)
	j.raw, j.payload = nil, nil
}

// submit starts j, which the writer owns from now on, and makes room in the
// queue first.
func (w *Writer) submit(j *job, st *IngestStats) error {
	for len(w.jobs) >= w.queueDepth() {
		if err := w.collect(st); err != nil {
			w.release(j)
			return err
		}
	}
	j.payload = w.s.frames.get()
	w.jobs = append(w.jobs, j)
	go func() {
		defer close(j.done)
		for i, p := range j.held {
			copy(j.raw[i*PageSize:], p[:])
		}
		j.held = nil
		j.out, _, j.err = w.s.coder.AppendGroupIn(j.payload[:0], j.domain, j.codec, j.ids, j.raw[:len(j.ids)*PageSize])
	}()
	return nil
}

// collect waits for the oldest job and appends what it made.
func (w *Writer) collect(st *IngestStats) error {
	j := w.jobs[0]
	w.jobs[0] = nil
	w.jobs = w.jobs[1:]
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
	for _, j := range w.jobs {
		<-j.done
		w.release(j)
	}
	w.jobs = nil
	w.frames = nil
	w.giveBack()
}
