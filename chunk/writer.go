package chunk

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/snapstore/snapstore/internal/seglog"
)

// A Spill appends frames to segments of its own. *seglog.Spill is one.
type Spill interface {
	Append(seglog.Kind, []byte) (seglog.Loc, error)
	Flush() error
	Ranges() []seglog.Range
	Close() error
}

// WriterOptions say what a Writer does with what it is given.
type WriterOptions struct {
	Codec Codec
	// Spill opens a place for what is too much for the commit stream: more than
	// SpillAfter bytes of payload (0 = 2 MiB). It is written while the rest is
	// still being compressed, for the price of one more sync. nil: everything goes
	// with the commit, from memory.
	Spill      func() (Spill, error)
	SpillAfter int64
	// Pins take what is met in the store; nil or NoDedup: nothing is looked for
	// there, only within the writer.
	Pins    *Pins
	NoDedup bool
	Workers int // 0 = the store's
	// Compare reads what was met, and compares: a CollisionError ends the writer.
	// Pages equal to the base are compared too. Others must not write meanwhile,
	// since two writers do not see each other's content.
	Compare bool
	// Heal looks up pages that are equal to the base as well, and writes those
	// whose content was lost.
	Heal bool
}

const defaultSpillAfter = 2 << 20

// lentWhole is how many frames of a writer lie in buffers of the store's however short
// they are: all of a small take. Others are copied where they would waste half of one.
const lentWhole = 4

// A Writer gathers what one take, load, upload or cleaning brings. What it was
// given is durable once a commit with what Finish returned has succeeded, and
// garbage that nobody sees until then. It is for one goroutine.
//
// Frames are appended in the order in which their first page or node came,
// groups apart from nodes, whatever the number of workers.
type Writer struct {
	s   *Store
	o   WriterOptions
	err error // the first failure to append; nothing is appended after it

	// seen are the IDs that this writer appended or met.
	seen idSet

	compare *comparer // nil: what was met is taken for equal

	frames   []seglog.NewFrame // in memory, for the commit stream
	lent     [][]byte          // buffers of the store's that frames lie in
	buffered int64
	spill    Spill
	finished bool
	closed   bool
	placed   []placedFrame // all frames in order; those in memory first

	jobs     []*job // groups being compressed, the oldest first
	compress compressors

	nodes [][]byte
	names []ID // of nodes
}

type placedFrame struct {
	loc    seglog.Loc // zero while in memory
	node   bool
	domain Domain
	ids    []ID
}

// NewWriter returns a writer. The caller closes it.
func (s *Store) NewWriter(o WriterOptions) *Writer {
	if o.SpillAfter == 0 {
		o.SpillAfter = defaultSpillAfter
	}
	if o.Workers <= 0 {
		o.Workers = s.workers
	}
	w := &Writer{s: s, o: o, seen: newIDSet(s.seed)}
	if o.Compare {
		w.compare = newComparer(s)
	}
	return w
}

func (w *Writer) ready() error {
	switch {
	case w.closed:
		return fmt.Errorf("chunk: writer: %w", ErrReleased)
	case w.err != nil:
		return w.err
	case w.finished:
		return errors.New("chunk: writer is finished")
	}
	return nil
}

// meet is Store.Meet for those ids that the writer has not seen. met says which
// need not be written; the others count as seen from now on, and the caller
// writes them.
func (w *Writer) meet(ids []ID, met []bool) error {
	ask := make([]ID, 0, len(ids))
	for i := range ids {
		if met[i] = !w.seen.add(&ids[i]); !met[i] {
			ask = append(ask, ids[i])
		}
	}
	if w.o.NoDedup || w.o.Pins == nil || len(ask) == 0 {
		return nil
	}
	found := make([]bool, len(ask))
	if err := w.s.Meet(w.o.Pins, ask, found); err != nil {
		return err
	}
	k := 0
	for i := range ids {
		if !met[i] {
			met[i] = found[k]
			k++
		}
	}
	return nil
}

// meetNode is meet for one node, most of which are new.
func (w *Writer) meetNode(id ID) (met bool, err error) {
	if w.o.NoDedup || w.o.Pins == nil || w.s.absent(id) {
		return !w.seen.add(&id), nil
	}
	var one [1]bool
	err = w.meet([]ID{id}, one[:])
	return one[0], err
}

// append takes over a frame, and buf, of the store's, in which its payload lies.
func (w *Writer) append(kind seglog.Kind, d Domain, payload, buf []byte, ids []ID) error {
	defer func() { w.s.frames.Put(buf) }()
	if w.err != nil {
		return w.err
	}
	f := placedFrame{node: kind == seglog.KindNodes, domain: d, ids: ids}
	if w.spill == nil {
		if buf == nil || len(payload) < frameBuffer/2 && len(w.lent) >= lentWhole {
			payload = bytes.Clone(payload)
		} else {
			w.lent = append(w.lent, buf)
			buf = nil
		}
		w.frames = append(w.frames, seglog.NewFrame{Kind: kind, Payload: payload})
		w.placed = append(w.placed, f)
		w.buffered += int64(len(payload))
		if w.o.Spill != nil && w.buffered > w.o.SpillAfter {
			w.err = w.spillOver()
		}
		return w.err
	}
	f.loc, w.err = w.spill.Append(kind, payload)
	if w.err == nil {
		w.placed = append(w.placed, f)
	}
	return w.err
}

// spillOver opens the spill and moves there what is in memory.
func (w *Writer) spillOver() error {
	var err error
	if w.spill, err = w.o.Spill(); err != nil {
		w.spill = nil
		return err
	}
	for i, f := range w.frames {
		if w.placed[i].loc, err = w.spill.Append(f.Kind, f.Payload); err != nil {
			return err
		}
		w.frames[i].Payload = nil
	}
	w.frames, w.buffered = nil, 0
	w.giveBack()
	return nil
}

// giveBack gives back the buffers of frames that are of no use any more.
func (w *Writer) giveBack() {
	for _, b := range w.lent {
		w.s.frames.Put(b)
	}
	w.lent = nil
}

// AddNode adds an encoded node under its ID, unless it is stored already; then
// it is pinned. node is copied.
func (w *Writer) AddNode(id ID, node []byte) error {
	return w.addNode(id, node, false)
}

// KeepNode is AddNode for a node that was just built: those who read it soon find
// it in the node cache. A writer that compares keeps nothing there. Its IDs are
// not trusted, and the cache would give others a node that nothing stores under
// that ID.
func (w *Writer) KeepNode(id ID, node []byte) error {
	return w.addNode(id, node, w.compare == nil)
}

func (w *Writer) addNode(id ID, node []byte, keep bool) error {
	if err := w.ready(); err != nil {
		return err
	}
	if err := checkNode(len(node)); err != nil {
		return err
	}
	if id.IsZero() {
		return errors.New("chunk: node with the zero id")
	}
	met := false
	if met, w.err = w.meetNode(id); w.err == nil && w.compare != nil {
		met, w.err = w.compare.node(id, node, met)
	}
	if w.err != nil {
		return w.err
	}
	if keep {
		node = w.s.keepNode(id, node)
	} else if !met {
		node = bytes.Clone(node)
	}
	if met {
		return nil
	}
	w.nodes, w.names = append(w.nodes, node), append(w.names, id)
	if len(w.nodes) == FrameNodes {
		return w.flushNodes()
	}
	return nil
}

func (w *Writer) flushNodes() error {
	if len(w.nodes) == 0 {
		return nil
	}
	buf := w.s.frames.Get()
	payload, err := AppendNodes(buf[:0], w.s.domain, w.nodes)
	if err != nil {
		w.s.frames.Put(buf)
		return err
	}
	if &payload[0] != &buf[0] {
		// Larger than buffers are, and nobody else's.
		w.s.frames.Put(buf)
		buf = nil
	}
	names := w.names
	clear(w.nodes)
	w.nodes, w.names = w.nodes[:0], nil
	return w.append(seglog.KindNodes, w.s.domain, payload, buf, names)
}

// AddNodes adds encoded nodes of a domain as one frame, without looking for them
// in the store. It is for who moves nodes, and has compared them with their IDs.
func (w *Writer) AddNodes(d Domain, ids []ID, nodes [][]byte) error {
	if err := w.ready(); err != nil {
		return err
	}
	if len(ids) != len(nodes) {
		return fmt.Errorf("chunk: %d ids of %d nodes", len(ids), len(nodes))
	}
	payload, err := AppendNodes(nil, d, nodes)
	if err != nil {
		return err
	}
	return w.append(seglog.KindNodes, d, payload, nil, slices.Clone(ids))
}

// AddGroup adds pages of a domain that lie side by side, as one group, without
// looking for them in the store. It is for who moves pages: the caller has
// compared them with their IDs. ids and pages are copied.
func (w *Writer) AddGroup(d Domain, codec Codec, ids []ID, pages []byte) error {
	if err := w.ready(); err != nil {
		return err
	}
	if len(ids) < 1 || len(ids) > GroupPages || len(pages) != len(ids)*PageSize {
		return fmt.Errorf("chunk: group of %d ids and %d bytes", len(ids), len(pages))
	}
	j := w.newJob(codec)
	j.domain, j.ids, j.raw = d, append(j.ids, ids...), w.s.raws.Get()
	copy(j.raw, pages)
	return w.submit(j, nil)
}

// Finish appends what is still under way. What it returns belongs into the
// commit: frames, in this order and before any others, or, if the data was
// spilled, the ranges it is in. After an error the writer is only good for
// Close.
func (w *Writer) Finish() (frames []seglog.NewFrame, ranges []seglog.Range, err error) {
	if err := w.ready(); err != nil {
		return nil, nil, err
	}
	if err := w.drain(nil); err != nil {
		return nil, nil, err
	}
	if err := w.flushNodes(); err != nil {
		w.err = err
		return nil, nil, err
	}
	w.finished, w.seen = true, idSet{}
	if w.spill == nil {
		return w.frames, nil, nil
	}
	if err := w.spill.Flush(); err != nil {
		w.err = err
		return nil, nil, err
	}
	return nil, w.spill.Ranges(), nil
}

// Placements says where everything is that the writer appended. locs are where
// the commit placed the frames that Finish returned, and none if there were
// none; frames without one are left out. Where Finish returned frames it comes
// after the commit, since it gives their memory back.
func (w *Writer) Placements(locs []seglog.Loc) []Placement {
	w.frames = nil // in the log by now
	w.giveBack()
	n := 0
	for _, f := range w.placed {
		n += len(f.ids)
	}
	out := make([]Placement, 0, n)
	for i, f := range w.placed {
		loc := f.loc
		if loc.IsZero() && i < len(locs) {
			loc = locs[i]
		}
		if loc.IsZero() {
			continue
		}
		for slot, id := range f.ids {
			out = append(out, Placement{Key: f.domain.Key(id), Loc: slotLocation(loc, slot, len(f.ids)), Node: f.node})
		}
	}
	return out
}

// Close gives back what the writer holds: buffers and the spill. The writer's
// answers stay valid. It may be called again, after success or failure.
func (w *Writer) Close() error {
	if w.closed {
		return nil
	}
	w.closed = true
	w.abandon()
	w.nodes, w.seen = nil, idSet{}
	if w.spill == nil {
		return nil
	}
	return w.spill.Close()
}
