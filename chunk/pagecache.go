package chunk

import (
	"sync"
	"sync/atomic"
)

// A cachedGroup is a decoded group. Its pages never change, so that readers copy
// from it without a lock while it may be evicted; the garbage collector ends it.
type cachedGroup struct {
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

// A pageCache keeps decoded groups, and finds them by the key of any of their
// pages: reading one page makes its neighbours cheap, without asking the index.
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
}

type cachedPage struct {
	g    *cachedGroup
	slot int
}

func newPageCache(limit int64) *pageCache {
	c := &pageCache{limit: limit}
	for i := range c.shards {
		c.shards[i].at = map[Key]cachedPage{}
	}
	return c
}

// get copies the page to dst if it is here and is what its ID names.
func (c *pageCache) get(id Key, dst []byte) bool {
	sh := &c.shards[id[0]%cacheShards]
	sh.mu.RLock()
	p, ok := sh.at[id]
	sh.mu.RUnlock()
	if !ok {
		return false
	}
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

// add takes over a group that is not used by anybody else.
func (c *pageCache) add(g *cachedGroup) {
	n := g.size()
	if n > c.limit {
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
		return
	}
}

func (c *pageCache) bytes() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.used
}
