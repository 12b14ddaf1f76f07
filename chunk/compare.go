package chunk

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
)

// ErrCollision: two different contents have one ID. With 256 bits nobody has
// ever seen that happen.
var ErrCollision = errors.New("two contents have the same hash")

// A CollisionError names content that can not be stored, since something else is
// stored under its ID. It is ErrCollision.
type CollisionError struct {
	ID   ID
	Node bool
	// Page is the index of the page that was to be stored.
	Page uint64
}

func (e *CollisionError) Error() string {
	if e.Node {
		return fmt.Sprintf("node %s: %v", e.ID, ErrCollision)
	}
	return fmt.Sprintf("page %d, chunk %s: %v", e.Page, e.ID, ErrCollision)
}

// Unwrap makes the error ErrCollision.
func (e *CollisionError) Unwrap() error { return ErrCollision }

// A comparer compares what a writer met with what it was given, byte by byte;
// what the writer itself is about to store, by another hash.
type comparer struct {
	s    *Store
	sums map[ID][sha256.Size]byte
	buf  [PageSize]byte
}

func newComparer(s *Store) *comparer {
	return &comparer{s: s, sums: map[ID][sha256.Size]byte{}}
}

// page compares a page with what its ID stands for. stored says that it is in
// the store, and not only in the writer. What can not be read there is not
// stored.
func (c *comparer) page(index uint64, id ID, page []byte, stored bool) (still bool, err error) {
	sum := sha256.Sum256(page)
	if have, ok := c.sums[id]; ok {
		if have != sum {
			return false, &CollisionError{ID: id, Page: index}
		}
		return stored, nil
	}
	if stored {
		err := c.s.Page(id, c.buf[:])
		switch {
		case Unreadable(err):
			stored = false
		case err != nil:
			return false, err
		case !bytes.Equal(c.buf[:], page):
			return false, &CollisionError{ID: id, Page: index}
		}
	}
	c.sums[id] = sum
	return stored, nil
}

// node is the same for a node that was met.
func (c *comparer) node(id ID, node []byte, stored bool) (still bool, err error) {
	sum := sha256.Sum256(node)
	if have, ok := c.sums[id]; ok {
		if have != sum {
			return false, &CollisionError{ID: id, Node: true}
		}
		return stored, nil
	}
	if stored {
		have, err := c.s.readNode(id, false, nil)
		switch {
		case Unreadable(err):
			stored = false
		case err != nil:
			return false, err
		case !bytes.Equal(have, node):
			return false, &CollisionError{ID: id, Node: true}
		}
	}
	c.sums[id] = sum
	return stored, nil
}
