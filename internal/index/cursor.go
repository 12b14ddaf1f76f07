package index

import (
	"bytes"

	"github.com/cockroachdb/pebble/v2"
)

type keyValue struct{ key, value []byte }

// cursor walks the keys of one state in order: what is in memory, over what is in
// tables. Pebble's panics are its errors. Callbacks run outside of it, so that
// their panics stay theirs.
type cursor struct {
	x   *Index
	it  *pebble.Iterator
	mem *changes // nil: only tables are walked
	err error

	started          bool
	onTable, onMem   bool // which of the two the pair at hand comes from
	tableHas, memHas bool
	at               keyValue
}

// newCursor returns a cursor over tables alone.
func (x *Index) newCursor(r pebble.Reader, o *pebble.IterOptions) (c *cursor, err error) {
	defer x.trust.caught("scan", &err)
	it, err := r.NewIter(o)
	if err != nil {
		return nil, x.trust.judge(err)
	}
	return &cursor{x: x, it: it}, nil
}

// newScan returns a cursor over the keys within as they are now.
func (x *Index) newScan(in span) (*cursor, error) {
	x.mem.RLock()
	mem := x.mem.changes(in)
	c, err := x.newCursor(x.db, &pebble.IterOptions{LowerBound: in.lower, UpperBound: in.upper})
	x.mem.RUnlock()
	if err != nil {
		return nil, err
	}
	c.mem = mem
	return c, nil
}

// next moves to the next pair; false: there is none, or err says why.
func (c *cursor) next() bool {
	if !c.started {
		c.started, c.onTable, c.onMem = true, true, true
		c.tableHas = c.move(c.firstOfTable)
		if c.mem != nil {
			c.mem.sort() // here, where no lock is held
			c.memHas = c.mem.load()
		}
	} else {
		c.step()
	}
	for c.err == nil {
		order := 0
		switch {
		case !c.tableHas && !c.memHas:
			return false
		case !c.memHas:
			order = -1
		case !c.tableHas:
			order = 1
		default:
			order = bytes.Compare(c.it.Key(), c.mem.key)
		}
		c.onTable, c.onMem = order <= 0, order >= 0
		if !c.onMem {
			c.at = keyValue{c.it.Key(), c.it.Value()}
			return true
		}
		if !c.mem.isGone {
			c.at = keyValue{c.mem.key, c.mem.val}
			return true
		}
		c.step()
	}
	return false
}

func (c *cursor) firstOfTable() bool { return c.it.First() }

// step moves what the pair at hand comes from.
func (c *cursor) step() {
	if c.onTable && c.tableHas {
		c.tableHas = c.move(c.it.Next)
	}
	if c.onMem && c.memHas {
		c.mem.drop()
		c.memHas = c.mem.load()
	}
}

// find moves to exactly key, in tables alone.
func (c *cursor) find(key []byte) bool {
	ok := c.move(func() bool { return c.it.SeekPrefixGE(key) })
	if ok {
		c.at = keyValue{c.it.Key(), c.it.Value()}
	}
	return ok
}

func (c *cursor) move(step func() bool) (ok bool) {
	defer c.x.trust.caught("scan", &c.err)
	if c.err != nil {
		return false
	}
	if ok = step(); !ok {
		c.err = c.x.trust.judge(c.it.Error())
	}
	return ok
}

// kv is the pair at hand, until the next move.
func (c *cursor) kv() keyValue { return c.at }

// close returns what ended the cursor, if it was not the end.
func (c *cursor) close() (err error) {
	if c.x.trust.broken.Load() {
		return c.err
	}
	defer c.x.trust.caught("scan", &err)
	if err := c.it.Close(); c.err == nil {
		return c.x.trust.judge(err)
	}
	return c.err
}
