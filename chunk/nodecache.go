package chunk

import (
	"bytes"
	"sync"
)

const nodeShards = 16

// A nodeCache keeps encoded nodes by key. It takes only what was verified, or what
// this process has just built. Nodes are shared with those who read them and never
// change. What is evicted is what was not read since the hand of a clock passed it
// last: a list in the order of use cost three more misses of the processor's cache for
// each read, and a take reads thousands of nodes.
type nodeCache struct {
	limit  int64 // of a shard
	shards [nodeShards]nodeShard
}

type nodeShard struct {
	mu   sync.Mutex
	at   map[Key]*cachedNode
	ring []*cachedNode
	hand int
	used int64
}

type cachedNode struct {
	id   Key
	node []byte
	read bool // since the hand passed
}

// size is what keeping a node costs, with its places in map and ring.
func (n *cachedNode) size() int64 { return int64(len(n.node)) + 3*idSize + 64 }

func newNodeCache(limit int64) *nodeCache {
	c := &nodeCache{limit: limit / nodeShards}
	for i := range c.shards {
		c.shards[i].at = map[Key]*cachedNode{}
	}
	return c
}

func (c *nodeCache) shard(id *Key) *nodeShard { return &c.shards[id[0]%nodeShards] }

func (c *nodeCache) get(id Key) []byte {
	sh := c.shard(&id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	n := sh.at[id]
	if n == nil {
		return nil
	}
	n.read = true
	return n.node
}

// add keeps node, which nobody changes from now on, unless it is here already, and
// returns what is here. It keeps nothing that is larger than a shard.
func (c *nodeCache) add(id Key, node []byte) []byte { return c.insert(id, node, false) }

// keep is add for a node whose memory is the caller's: what stays is a copy.
func (c *nodeCache) keep(id Key, node []byte) []byte { return c.insert(id, node, true) }

func (c *nodeCache) insert(id Key, node []byte, borrowed bool) []byte {
	sh := c.shard(&id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if have := sh.at[id]; have != nil {
		return have.node
	}
	if borrowed {
		node = bytes.Clone(node)
	}
	n := &cachedNode{id: id, node: node, read: true}
	if n.size() > c.limit {
		return node
	}
	for sh.used+n.size() > c.limit {
		sh.evict()
	}
	sh.at[id] = n
	sh.ring = append(sh.ring, n)
	sh.used += n.size()
	return node
}

// evict moves the hand to a node that was not read since it passed last, and lets go
// of it. There is one.
func (sh *nodeShard) evict() {
	for {
		if sh.hand >= len(sh.ring) {
			sh.hand = 0
		}
		n := sh.ring[sh.hand]
		if !n.read {
			break
		}
		n.read = false
		sh.hand++
	}
	old, last := sh.ring[sh.hand], len(sh.ring)-1
	sh.ring[sh.hand], sh.ring[last] = sh.ring[last], nil
	sh.ring = sh.ring[:last]
	delete(sh.at, old.id)
	sh.used -= old.size()
}

// keepNode keeps a node that was just built, for those who read it soon, and
// returns a copy that never changes. The ID is trusted.
func (s *Store) keepNode(id ID, node []byte) []byte {
	return s.nodes.keep(s.domain.Key(id), node)
}

func (c *nodeCache) bytes() int64 {
	var n int64
	for i := range c.shards {
		sh := &c.shards[i]
		sh.mu.Lock()
		n += sh.used
		sh.mu.Unlock()
	}
	return n
}
