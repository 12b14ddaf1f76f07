package chunk

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/snapstore/snapstore/internal/bufpool"
	"github.com/snapstore/snapstore/internal/index"
	"github.com/snapstore/snapstore/internal/seglog"
)

// Lookup finds what the index knows of an ID. *index.Index is one. If it has a
// method Untrusted() error, what it says is met counts only while that is nil.
type Lookup interface {
	Get(index.ID) (index.Entry, bool, error)
	MayContain(index.ID) bool
	// MayContainEach sets may[i] to MayContain(ids[i]).
	MayContainEach(ids []index.ID, may []bool)
}

// Frames reads frames of the log. *seglog.Log is one.
type Frames interface {
	ReadFrame(seglog.Loc, []byte) (seglog.Kind, []byte, error)
	ReadPart(loc seglog.Loc, off int, buf []byte) error
	ReadOn(loc seglog.Loc, buf []byte, peek int) (seglog.Kind, []byte, seglog.Behind, error)
}

// StoreOptions say what a Store reads from. Zero sizes are defaults, negative
// ones turn a cache off.
type StoreOptions struct {
	Index  Lookup
	Log    Frames
	NodeID NodeID

	// Alive says whether the log still has a segment. An entry that points
	// elsewhere counts as absent. nil: all are alive.
	Alive func(segment uint64) bool

	PageCacheBytes int64 // decoded groups; 0 = 32 MiB
	NodeCacheBytes int64 // 0 = 32 MiB
	Workers        int   // 0 = GOMAXPROCS

	// OnLost is told of content that could not be read, after the second look, and
	// of pages that could, but from a damaged frame.
	// It runs in the goroutine that reads, which may hold locks of the caller's,
	// and several may run at once: it notes the ID and returns.
	OnLost func(Key, *CorruptionError)
}

const defaultCache = 32 << 20

// A Store reads what is stored in one domain, and knows what may not be
// destroyed in any. It is safe for concurrent use. It holds nothing that needs
// closing.
type Store struct {
	*shared
	domain Domain
}

// In returns the same store as it is seen from a domain: what is read through
// it, met through it and written through it is of that domain.
func (s *Store) In(d Domain) *Store { return &Store{s.shared, d} }

// Domain returns the one that is seen.
func (s *Store) Domain() Domain { return s.domain }

// shared is what all domains have in common. It goes by keys.
type shared struct {
	index   Lookup
	trust   interface{ Untrusted() error } // the index, or nil
	log     Frames
	nodeID  NodeID
	alive   func(segment uint64) bool
	onLost  func(Key, *CorruptionError)
	workers int

	coder   Coder
	frames  bufpool.Pool // payloads read
	raws    bufpool.Pool // decoded groups, and pages on their way in
	windows sync.Pool    // *window
	plans   sync.Pool    // *plan
	earlier sync.Pool    // *Earlier
	seed    uint64       // of plans
	stripes [stripeCount]stripe
	pages   *pageCache
	nodes   *nodeCache
	stats   counters
}

// Stats are counters since NewStore.
type Stats struct {
	PageHits, PageMisses uint64 // reads of single pages
	NodeHits, NodeMisses uint64
	Frames               uint64 // frames read
	Groups               uint64 // groups decoded
	Lookups              uint64 // questions to the index
	SecondLooks          uint64 // after damage
	Lost                 uint64
	CodecFaults          uint64 // groups stored raw because their codec failed
	PageCacheBytes       int64
	NodeCacheBytes       int64
	Published            int64 // placements waiting to be applied
}

type counters struct {
	pageHits, pageMisses, nodeHits, nodeMisses atomic.Uint64
	frames, groups, lookups, secondLooks, lost atomic.Uint64
	published                                  atomic.Int64
}

// NewStore returns a Store over an index and a log, in the domain of the whole
// store.
func NewStore(o StoreOptions) (*Store, error) {
	if o.Index == nil || o.Log == nil || o.NodeID == nil {
		return nil, errors.New("chunk: a store needs an index, a log and a node hash")
	}
	size := func(n int64) int64 {
		if n == 0 {
			return defaultCache
		}
		return max(n, 0)
	}
	s := &shared{
		index: o.Index, log: o.Log, nodeID: o.NodeID, alive: o.Alive, onLost: o.OnLost, workers: o.Workers,
		frames: bufpool.Pool{Size: rowBuffer, Keep: keptFrames}, raws: bufpool.Pool{Size: maxRaw, Keep: keptRaws},
		pages: newPageCache(size(o.PageCacheBytes)), nodes: newNodeCache(size(o.NodeCacheBytes)),
	}
	if s.workers <= 0 {
		s.workers = runtime.GOMAXPROCS(0)
	}
	s.seed = rand.Uint64()
	s.trust, _ = o.Index.(interface{ Untrusted() error })
	if s.alive == nil {
		s.alive = func(uint64) bool { return true }
	}
	if s.onLost == nil {
		s.onLost = func(Key, *CorruptionError) {}
	}
	for i := range s.stripes {
		s.stripes[i].init()
	}
	return &Store{shared: s}, nil
}

// NodeMisses is that of Stats, for who asks often.
func (s *Store) NodeMisses() uint64 { return s.stats.nodeMisses.Load() }

// Stats returns the counters.
func (s *Store) Stats() Stats {
	c := &s.stats
	return Stats{
		PageHits: c.pageHits.Load(), PageMisses: c.pageMisses.Load(),
		NodeHits: c.nodeHits.Load(), NodeMisses: c.nodeMisses.Load(),
		Frames: c.frames.Load(), Groups: c.groups.Load(), Lookups: c.lookups.Load(),
		SecondLooks: c.secondLooks.Load(), Lost: c.lost.Load(),
		CodecFaults:    uint64(s.coder.Faults()),
		PageCacheBytes: s.pages.bytes(), NodeCacheBytes: s.nodes.bytes(),
		Published: c.published.Load(),
	}
}

// Coder returns the store's coder, for those who read or write groups
// themselves.
func (s *Store) Coder() *Coder { return &s.coder }

// checkPage says whether b can hold a page.
func checkPage(b []byte) error {
	if len(b) != PageSize {
		return fmt.Errorf("chunk: page of %d bytes", len(b))
	}
	return nil
}
