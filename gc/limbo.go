package gc

import (
	"bytes"
	"maps"
	"slices"
	"sync"

	"github.com/snapstore/snapstore/chunk"
	"github.com/snapstore/snapstore/internal/index"
)

const (
	// limboBatch is how many IDs are suspected together: for each of these batches
	// all operations that are under way are waited for.
	limboBatch = 8192
	// destroyStep is how many of them are destroyed at once, in some ten
	// milliseconds under the counter's lock, which who applies a take waits for.
	destroyStep = 2048
)

// suspects are IDs seen in limbo at one moment. One that leaves limbo leaves
// the set too, so what is left has been there all the time.
type suspects struct {
	mu  sync.Mutex
	ids map[chunk.Key]struct{}
}

func newSuspects() *suspects { return &suspects{ids: map[chunk.Key]struct{}{}} }

func (s *suspects) clear(id chunk.Key) {
	s.mu.Lock()
	delete(s.ids, id)
	s.mu.Unlock()
}

func (s *suspects) set(ids []chunk.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.ids)
	for _, id := range ids {
		s.ids[id] = struct{}{}
	}
}

// list gives all of them, in order: neighbours lie side by side in the index.
func (s *suspects) list() []chunk.Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.SortedFunc(maps.Keys(s.ids), func(a, b chunk.Key) int { return bytes.Compare(a[:], b[:]) })
}

// left takes those that are none any more out of ids.
func (s *suspects) left(ids []chunk.Key) []chunk.Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(ids, func(id chunk.Key) bool {
		_, ok := s.ids[id]
		return !ok
	})
}

// Suspect notes the next IDs in limbo after the given one and returns how many
// there are and where to go on. They may be destroyed by Destroy once every
// operation that is under way now has ended.
func (c *Counter) Suspect(after chunk.Key) (n int, next chunk.Key, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.idx.Untrusted(); err != nil {
		return 0, after, err
	}
	ids, err := c.idx.Limbo(after, limboBatch)
	if err != nil || len(ids) == 0 {
		return 0, after, err
	}
	c.limbo.set(ids)
	return len(ids), ids[len(ids)-1], nil
}

// Destroy removes the entries of the suspects that are still at zero and
// unpinned, and returns how many. The caller has seen every operation end
// that was under way at Suspect. between is called after each step, without a lock.
func (c *Counter) Destroy(between func()) (destroyed int, err error) {
	for some := range slices.Chunk(c.limbo.list(), min(destroyStep, c.step)) {
		n, err := c.destroy(some)
		destroyed += n
		if err != nil {
			return destroyed, err
		}
		between()
	}
	return destroyed, nil
}

// destroy is a step of Destroy. What left limbo since the last one is no suspect any
// more.
func (c *Counter) destroy(some []chunk.Key) (destroyed int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.idx.Untrusted(); err != nil {
		return 0, err
	}
	some = c.limbo.left(some)
	err = c.store.Destroy(some, func(ids []chunk.Key) error {
		// What it frees can be given back though the index is not written.
		out := c.idx.NewBatch().Over(2)
		sorted := toIndex(ids)
		err := c.idx.GetSorted(sorted, func(i int, e index.Entry, ok bool) error {
			out.DeleteLimbo(sorted[i])
			if !ok || e.Count != 0 {
				return nil
			}
			out.DeleteEntry(sorted[i])
			unplace(out, &e)
			destroyed++
			return nil
		})
		if err != nil {
			return err
		}
		return out.Commit()
	})
	if err != nil && !noSpace(err) { // else the same may be tried again
		c.limbo.set(nil)
		c.idx.MarkUntrusted(err)
	}
	if err != nil {
		return 0, err // nothing was applied
	}
	for _, id := range some {
		c.limbo.clear(id)
	}
	return destroyed, nil
}
