package chunk

import (
	"sync"
	"sync/atomic"

	"github.com/snapstore/snapstore/internal/bufpool"
)

// A cachedGroup is a decoded part of a group. Readers copy from it without a lock while it
// may be evicted: each counts as a user, and so does the cache. Its pages do not
// change while it has one; whoever was the last gives their memory back.
type cachedGroup struct {
	users    atomic.Int32
	domain   Domain
	ids      []ID
	pages    []byte
	verified atomic.Uint32 // bit i: page i was compared with its ID
	used     atomic.Bool   // since the clock's hand passed
}

func (g *cachedGroup) page(slot int) []byte { return g.pages[slot*PageSize : (slot+1)*PageSize] }

// verify says whether page slot is what its ID names. It hashes it once.
func (g *cachedGroup) verify(slot int) bool {
	bit := uint32(1) << slot
	if g.verified.Load()&bit != 0 {
		return true
	}
	if Sum(g.page(slot)) != g.ids[slot] {
		return false
	}
	g.verified.Or(bit)
	return true
}

// size is what keeping the group costs, with its places in the directory.
func (g *cachedGroup) size() int64 { return int64(len(g.pages)) + int64(len(g.ids))*(2*idSize+32) + 64 }

const cacheShards = 64

// A pageCache keeps decoded parts of groups, and finds them by the key of any of
// their pages: reading one page makes its neighbours cheap, without asking the
// index.
// A page is compared with its ID before it is first served. What is evicted is
// what was not read since the hand of a clock passed it last.
type pageCache struct {
	limit  int64
	shards [cacheShards]struct {
		mu sync.RWMutex
		at map[Key]cachedPage
	}
	mu   sync.Mutex // of the clock; taken before a shard's
	ring []*cachedGroup
	hand int
	used int64
	// The memory of full groups, and of full parts of them. New memory for every
	// miss was most of what a miss cost.
	whole, partial bufpool.Pool
}

type cachedPage struct {
	g    *cachedGroup
	slot int
}

func newPageCache(limit int64) *pageCache {
	c := &pageCache{limit: limit, whole: bufpool.Pool{Size: maxRaw, Keep: keptGroups}, partial: bufpool.Pool{Size: partRaw, Keep: keptGroups}}
	for i := range c.shards {
		c.shards[i].at = map[Key]cachedPage{}
	}
	return c
}

// room returns memory for size bytes of pages, with any content: to be handed to
// add, or to giveBack.
func (c *pageCache) room(size int) []byte {
	if p := c.pool(size); p != nil {
		return p.Get()
	}
	return make([]byte, size)
}

func (c *pageCache) giveBack(pages []byte) {
	if p := c.pool(len(pages)); p != nil {
		p.Put(pages)
	}
}

func (c *pageCache) pool(size int) *bufpool.Pool {
	switch size {
	case c.whole.Size:
		return &c.whole
	case c.partial.Size:
		return &c.partial
	}
	return nil
}

func (c *pageCache) leave(g *cachedGroup) {
	if g.users.Add(-1) == 0 {
		c.giveBack(g.pages)
	}
}

// get copies the page to dst if it is here and is what its ID names.
func (c *pageCache) get(id Key, dst []byte) bool {
	sh := &c.shards[id[0]%cacheShards]
	sh.mu.RLock()
	p, ok := sh.at[id]
	if ok {
		p.g.users.Add(1) // the cache is still one: it leaves a group that nobody can find
	}
	sh.mu.RUnlock()
	if !ok {
		return false
	}
	defer c.leave(p.g)
	if !p.g.verify(p.slot) {
		c.drop(id, p.g)
		return false
	}
	if !p.g.used.Load() {
		p.g.used.Store(true)
	}
	copy(dst, p.g.page(p.slot))
	return true
}

// drop forgets that id is in g.
func (c *pageCache) drop(id Key, g *cachedGroup) {
	sh := &c.shards[id[0]%cacheShards]
	sh.mu.Lock()
	if sh.at[id].g == g {
		delete(sh.at, id)
	}
	sh.mu.Unlock()
}

// add keeps the pages of a group, of which those in verified are known to be what
// their IDs name. It takes over pages, which come from room.
func (c *pageCache) add(domain Domain, ids []ID, pages []byte, verified uint32) {
	g := &cachedGroup{domain: domain, ids: ids, pages: pages}
	g.verified.Store(verified)
	g.users.Store(1)
	n := g.size()
	if n > c.limit {
		c.leave(g)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.used+n > c.limit {
		c.evict()
	}
	c.used += n
	c.ring = append(c.ring, g)
	for slot := range g.ids {
		id := g.domain.Key(g.ids[slot])
		sh := &c.shards[id[0]%cacheShards]
		sh.mu.Lock()
		sh.at[id] = cachedPage{g, slot}
		sh.mu.Unlock()
	}
}

// evict removes one group. The ring is not empty.
func (c *pageCache) evict() {
	for {
		if c.hand >= len(c.ring) {
			c.hand = 0
		}
		g := c.ring[c.hand]
		if g.used.Swap(false) {
			c.hand++
			continue
		}
		last := len(c.ring) - 1
		c.ring[c.hand], c.ring[last] = c.ring[last], nil
		c.ring = c.ring[:last]
		c.used -= g.size()
		for _, id := range g.ids {
			c.drop(g.domain.Key(id), g)
		}
		c.leave(g)
		return
	}
}

func (c *pageCache) bytes() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.used
}
