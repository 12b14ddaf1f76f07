package index

import (
	"bytes"
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/cespare/xxhash/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	// runBlock is how much of a run is read at a time, and what one checksum
	// covers. A bigger item makes a bigger block.
	runBlock = 64 << 10
	// leastSort is what a sorter holds in memory at least.
	leastSort = runBlock / rebuildParts
	// maxFanIn is how many runs are merged at once: 16 MiB of blocks.
	maxFanIn = 256
	// itemOverhead is what an item takes in memory beside its bytes.
	itemOverhead = 16 + pairOverhead
	// pairOverhead is the lengths of key and value.
	pairOverhead = 2 + 4
)

// sorter sorts any number of key-value pairs in bounded memory: what does not
// fit is written to sorted runs, which are merged at the end. Equal keys stay in
// the order in which they came.
type sorter struct {
	fs     vfs.FS
	dir    string
	name   string
	memory int
	// combine, if set, makes one value of the values of equal keys, early. It
	// may return a or b or append to neither.
	combine func(a, b []byte) []byte
	// fanIn is how many runs are merged at once.
	fanIn int

	arena arena
	items []item
	runs  []string
	made  int
}

// item is a pair in the arena: lengths of key and value, key, value. prefix is
// the start of the key, which mostly settles a comparison.
type item struct {
	prefix uint64
	at     uint64
}

// An arena grows by blocks of arenaBlock, the first of which are smaller: a small
// index should not cost a large one's memory. One slice that grew by copying was
// more than a third of the work of a rebuild.
const (
	firstBlock = 16 << 10
	arenaBlock = 1 << 20
)

// arena holds pairs, each whole in one block.
type arena struct {
	blocks [][]byte
	last   int // the block that grows
	size   int // of all pairs
}

// add copies a pair and returns where it is: block and offset. Later places are
// higher.
func (a *arena) add(key, value []byte) (at uint64) {
	need := pairOverhead + len(key) + len(value)
	for a.last < len(a.blocks) && cap(a.blocks[a.last])-len(a.blocks[a.last]) < need {
		a.last++
	}
	if a.last == len(a.blocks) {
		a.blocks = append(a.blocks, make([]byte, 0, max(min(firstBlock<<min(2*a.last, 6), arenaBlock), need)))
	}
	b := &a.blocks[a.last]
	at = uint64(a.last)<<32 | uint64(len(*b))
	*b = appendPair(*b, key, value)
	a.size += need
	return at
}

// from returns the pair at a place, and what follows it.
func (a *arena) from(at uint64) []byte { return a.blocks[at>>32][at&(1<<32-1):] }

// reset empties the arena, and keeps its blocks.
func (a *arena) reset() {
	for i := range a.blocks {
		a.blocks[i] = a.blocks[i][:0]
	}
	a.last, a.size = 0, 0
}

func newSorter(fs vfs.FS, dir, name string, memory int64) *sorter {
	// A third is for the items, which grow by copying, and for the sort.
	return &sorter{fs: fs, dir: dir, name: name, fanIn: maxFanIn, memory: int(max(memory*2/3, leastSort))}
}

func prefixOf(key []byte) uint64 {
	if len(key) >= 8 {
		return binary.BigEndian.Uint64(key)
	}
	var b [8]byte
	copy(b[:], key)
	return binary.BigEndian.Uint64(b[:])
}

// add copies the pair. Keys are at most 64 KiB, values at most 1 GiB.
func (s *sorter) add(key, value []byte) error {
	if len(key) > 1<<16-1 || len(value) > 1<<30 {
		return fmt.Errorf("index: pair of %d and %d bytes is too big to sort", len(key), len(value))
	}
	need := len(key) + len(value) + itemOverhead
	if len(s.items) > 0 && s.used()+need > s.memory {
		if err := s.spill(); err != nil {
			return err
		}
	}
	if len(s.items) == cap(s.items) {
		s.items = slices.Grow(s.items, max(len(s.items), 1024)) // append alone copies each item five times
	}
	s.items = append(s.items, item{prefixOf(key), s.arena.add(key, value)})
	return nil
}

func (s *sorter) used() int { return s.arena.size + 16*len(s.items) }

func appendPair(dst, key, value []byte) []byte {
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(key)))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(value)))
	dst = append(dst, key...)
	return append(dst, value...)
}

// cutPair returns the first pair of b and what follows. The block it is in has
// passed its checksum.
func cutPair(b []byte) (key, value, rest []byte, err error) {
	if len(b) < pairOverhead {
		return nil, nil, nil, errRun
	}
	k, v := int(binary.LittleEndian.Uint16(b)), int(binary.LittleEndian.Uint32(b[2:]))
	if b = b[pairOverhead:]; k > len(b) || v > len(b)-k {
		return nil, nil, nil, errRun
	}
	return b[:k:k], b[k : k+v : k+v], b[k+v:], nil
}

var errRun = errors.New("index: sorted run is damaged")

func (s *sorter) sort() {
	key := func(it item) []byte {
		b := s.arena.from(it.at)
		return b[pairOverhead:][:binary.LittleEndian.Uint16(b)]
	}
	slices.SortFunc(s.items, func(a, b item) int {
		switch {
		case a.prefix < b.prefix:
			return -1
		case a.prefix > b.prefix:
			return 1
		}
		if c := bytes.Compare(key(a), key(b)); c != 0 {
			return c
		}
		if a.at < b.at {
			return -1
		}
		return 1
	})
}

// buffered yields what is in memory, sorted and combined.
func (s *sorter) buffered() func() (key, value []byte, err error) {
	s.sort()
	i := 0
	return func() (key, value []byte, err error) {
		if i == len(s.items) {
			return nil, nil, io.EOF
		}
		key, value, _, err = cutPair(s.arena.from(s.items[i].at))
		i++
		return key, value, err
	}
}

// combining joins the equal keys that next yields one after the other.
func (s *sorter) combining(next func() ([]byte, []byte, error)) func() ([]byte, []byte, error) {
	if s.combine == nil {
		return next
	}
	nextKey, nextValue, err := next()
	var key, value []byte
	return func() ([]byte, []byte, error) {
		if err != nil {
			return nil, nil, err
		}
		key = append(key[:0], nextKey...)
		value = append(value[:0], nextValue...)
		for {
			nextKey, nextValue, err = next()
			if err != nil || !bytes.Equal(nextKey, key) {
				break
			}
			value = append(value[:0], s.combine(value, nextValue)...)
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, nil, err
		}
		return key, value, nil
	}
}

// spill writes what is in memory to a run.
func (s *sorter) spill() error {
	if len(s.items) == 0 {
		return nil
	}
	run, err := s.writeRun(s.combining(s.buffered()))
	if err != nil {
		return err
	}
	s.runs = append(s.runs, run)
	s.items = s.items[:0]
	s.arena.reset()
	return nil
}

// writeRun writes pairs that come in order to a new run and returns its path.
// Runs are not synced: they do not outlive the process.
func (s *sorter) writeRun(next func() ([]byte, []byte, error)) (path string, err error) {
	if s.made == 0 {
		if err := s.fs.MkdirAll(s.dir, 0o700); err != nil {
			return "", err
		}
	}
	s.made++
	path = s.fs.PathJoin(s.dir, fmt.Sprintf("%s-%06d.run", s.name, s.made))
	f, err := s.fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	block := make([]byte, runHeader, runBlock+runBlock/4)
	flush := func() error {
		if len(block) == runHeader {
			return nil
		}
		sealBlock(block)
		_, err := f.Write(block)
		block = block[:runHeader]
		return err
	}
	for {
		key, value, err := next()
		if errors.Is(err, io.EOF) {
			return path, flush()
		}
		if err != nil {
			return "", err
		}
		block = appendPair(block, key, value)
		if len(block) >= runBlock {
			if err := flush(); err != nil {
				return "", err
			}
		}
	}
}

// A block of a run is its length, its checksum and its pairs.
const runHeader = 4 + 8

func sealBlock(block []byte) {
	binary.LittleEndian.PutUint32(block, uint32(len(block)-runHeader))
	binary.LittleEndian.PutUint64(block[4:], xxhash.Sum64(block[runHeader:]))
}

// runReader reads a run from its start.
type runReader struct {
	f     vfs.File
	left  int64
	block []byte
	rest  []byte
}

func openRun(fs vfs.FS, path string) (*runReader, error) {
	f, err := fs.Open(path, vfs.SequentialReadsOption)
	if err != nil {
		return nil, err
	}
	stat, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &runReader{f: f, left: stat.Size()}, nil
}

// next returns the next pair, valid until the call after, or io.EOF.
func (r *runReader) next() (key, value []byte, err error) {
	if len(r.rest) == 0 {
		if r.left == 0 {
			return nil, nil, io.EOF
		}
		if err := r.readBlock(); err != nil {
			return nil, nil, err
		}
	}
	key, value, r.rest, err = cutPair(r.rest)
	return key, value, err
}

func (r *runReader) readBlock() error {
	var head [runHeader]byte
	if _, err := io.ReadFull(r.f, head[:]); err != nil {
		return fmt.Errorf("%w: %w", errRun, err)
	}
	n := int64(binary.LittleEndian.Uint32(head[:]))
	if r.left -= runHeader + n; r.left < 0 || n == 0 {
		return errRun
	}
	if int64(cap(r.block)) < n {
		r.block = make([]byte, n)
	}
	r.block = r.block[:n]
	if _, err := io.ReadFull(r.f, r.block); err != nil {
		return fmt.Errorf("%w: %w", errRun, err)
	}
	if binary.LittleEndian.Uint64(head[4:]) != xxhash.Sum64(r.block) {
		return errRun
	}
	r.rest = r.block
	return nil
}

func (r *runReader) close() error { return r.f.Close() }

// merged is the end of a sort: a stream of pairs in order.
type merged struct {
	next  func() (key, value []byte, err error)
	close func() error
}

// merge ends the adding and returns all pairs in order, equal keys combined. The
// sorter's memory and files last until the close of what it returns.
func (s *sorter) merge() (*merged, error) {
	if len(s.runs) == 0 {
		return &merged{s.combining(s.buffered()), func() error { return nil }}, nil
	}
	if err := s.spill(); err != nil {
		return nil, err
	}
	s.items, s.arena = nil, arena{}
	for len(s.runs) > s.fanIn {
		// The first runs become one in their place, which keeps equal keys in
		// order.
		m, err := s.open(s.runs[:s.fanIn])
		if err != nil {
			return nil, err
		}
		run, err := s.writeRun(s.combining(m.next))
		if err = errors.Join(err, m.close()); err != nil {
			return nil, err
		}
		for _, old := range s.runs[:s.fanIn] {
			if err := s.fs.Remove(old); err != nil {
				return nil, err
			}
		}
		s.runs = append([]string{run}, s.runs[s.fanIn:]...)
	}
	m, err := s.open(s.runs)
	if err != nil {
		return nil, err
	}
	m.next = s.combining(m.next)
	return m, nil
}

// countCursor walks the end of a sort of counts.
type countCursor struct {
	m    *merged
	id   ID
	n    int64
	more bool // there is a count at hand
}

func (c *countCursor) next() error {
	k, v, err := c.m.next()
	if c.more = err == nil; c.more {
		c.id, c.n = ID(k), decodeCount(v)
	}
	if err == io.EOF {
		return nil
	}
	return err
}

// discard frees memory and removes the runs.
func (s *sorter) discard() error {
	var errs []error
	for _, run := range s.runs {
		errs = append(errs, s.fs.Remove(run))
	}
	s.items, s.arena, s.runs = nil, arena{}, nil
	return errors.Join(errs...)
}

// open returns the pairs of runs, merged.
func (s *sorter) open(runs []string) (*merged, error) {
	h := &mergeHeap{}
	var readers []*runReader
	closeAll := func() error {
		var errs []error
		for _, r := range readers {
			errs = append(errs, r.close())
		}
		return errors.Join(errs...)
	}
	for i, path := range runs {
		r, err := openRun(s.fs, path)
		if err != nil {
			return nil, errors.Join(err, closeAll())
		}
		readers = append(readers, r)
		src := &mergeSource{reader: r, rank: i}
		if err := src.advance(); err == io.EOF {
			continue
		} else if err != nil {
			return nil, errors.Join(err, closeAll())
		}
		*h = append(*h, src)
	}
	heap.Init(h)
	started := false
	next := func() ([]byte, []byte, error) {
		if started && len(*h) > 0 {
			switch err := (*h)[0].advance(); err {
			case nil:
				heap.Fix(h, 0)
			case io.EOF:
				heap.Pop(h)
			default:
				return nil, nil, err
			}
		}
		started = true
		if len(*h) == 0 {
			return nil, nil, io.EOF
		}
		return (*h)[0].key, (*h)[0].value, nil
	}
	return &merged{next, closeAll}, nil
}

// mergeSource is the head of one run.
type mergeSource struct {
	reader     *runReader
	rank       int
	prefix     uint64
	key, value []byte
}

func (m *mergeSource) advance() (err error) {
	if m.key, m.value, err = m.reader.next(); err == nil {
		m.prefix = prefixOf(m.key)
	}
	return err
}

type mergeHeap []*mergeSource

func (h mergeHeap) Len() int { return len(h) }
func (h mergeHeap) Less(i, j int) bool {
	if h[i].prefix != h[j].prefix {
		return h[i].prefix < h[j].prefix
	}
	if c := bytes.Compare(h[i].key, h[j].key); c != 0 {
		return c < 0
	}
	return h[i].rank < h[j].rank
}
func (h mergeHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *mergeHeap) Push(v any)   { *h = append(*h, v.(*mergeSource)) }
func (h *mergeHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}
