package chunk

import (
	"bytes"
	"container/list"
	"sync"
)

const nodeShards = 16

// A nodeCache keeps encoded nodes by key: in each shard those used last. It takes
// only what was verified, or what this process has just built. Nodes are shared
// with those who read them and never change.
type nodeCache struct {
	limit  int64 // of a shard
	shards [nodeShards]nodeShard
}

type nodeShard struct {
	mu   sync.Mutex
	at   map[Key]*list.Element // of *cachedNode
	use  list.List             // front: used last
	used int64
}

type cachedNode struct {
	id   Key
	node []byte
}

// size is what keeping a node costs, with its places in map and list.
func (n *cachedNode) size() int64 { return int64(len(n.node)) + 4*idSize + 64 }

func newNodeCache(limit int64) *nodeCache {
	c := &nodeCache{limit: limit / nodeShards}
	for i := range c.shards {
		c.shards[i].at = map[Key]*list.Element{}
	}
	return c
}

func (c *nodeCache) get(id Key) []byte {
	sh := &c.shards[id[0]%nodeShards]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	e := sh.at[id]
	if e == nil {
		return nil
	}
	sh.use.MoveToFront(e)
	return e.Value.(*cachedNode).node
}

// add keeps node, which nobody changes from now on.
func (c *nodeCache) add(id Key, node []byte) {
	n := &cachedNode{id, node}
	if n.size() > c.limit {
		return
	}
	sh := &c.shards[id[0]%nodeShards]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if e := sh.at[id]; e != nil {
		sh.use.MoveToFront(e)
		return
	}
	for sh.used+n.size() > c.limit {
		last := sh.use.Back()
		old := sh.use.Remove(last).(*cachedNode)
		delete(sh.at, old.id)
		sh.used -= old.size()
	}
	sh.at[id] = sh.use.PushFront(n)
	sh.used += n.size()
}

// KeepNode is CacheNode, and returns a copy of the node that never changes, for
// who needs one as well.
func (s *Store) KeepNode(id ID, node []byte) []byte {
	key := s.domain.Key(id)
	if kept := s.nodes.get(key); kept != nil {
		return kept
	}
	kept := bytes.Clone(node)
	s.nodes.add(key, kept)
	return kept
}

func (c *nodeCache) has(id Key) bool {
	sh := &c.shards[id[0]%nodeShards]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.at[id] != nil
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
