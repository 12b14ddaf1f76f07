package chunk

import (
	"bytes"
	"context"
	"errors"
	"testing"
)

// Without the build tag no ID is ever cut.
func TestHashIsStrong(t *testing.T) {
	if WeakHash {
		t.Skip("built with the tag weakhash")
	}
	id := Sum(pageOf(1))
	zeros := 0
	for _, b := range id {
		if b == 0 {
			zeros++
		}
	}
	if zeros > 4 || id != idOf(1) {
		t.Errorf("the ID of a page is %v", id)
	}
}

// comparing gives a writer for the rest of the test that compares, or trusts IDs.
func (k *kit) comparing(compare bool) *Writer {
	pins := k.s.NewPins()
	k.t.Cleanup(pins.Release)
	w := k.s.NewWriter(WriterOptions{Pins: pins, Compare: compare})
	k.t.Cleanup(func() { w.Close() })
	return w
}

// Nodes that are met are compared too, whether they are stored or only on their
// way.
func TestNodesAreCompared(t *testing.T) {
	k := newKit(t, nil)
	id, node := testNode(3)
	other := append([]byte{}, node...)
	other[len(other)-1] ^= 1
	collides := func(err error) {
		t.Helper()
		var ce *CollisionError
		if !errors.Is(err, ErrCollision) || !errors.As(err, &ce) || !ce.Node || ce.ID != id {
			t.Errorf("other content under the ID of a node: %v", err)
		}
	}
	w := k.comparing(true)
	if err := errors.Join(w.AddNode(id, node), w.AddNode(id, node)); err != nil {
		t.Fatal(err)
	}
	k.x.apply(k.sync(w))
	w = k.comparing(true)
	if err := w.AddNode(id, node); err != nil {
		t.Fatal(err)
	}
	collides(w.AddNode(id, other))
	w = k.comparing(true)
	collides(w.AddNode(id, other))
	if err := w.AddNode(id, node); !errors.Is(err, ErrCollision) {
		t.Errorf("a writer that met a collision goes on: %v", err)
	}
}

// A node that was just built is compared itself, not what the node cache holds
// under its ID, and one that is refused does not get there.
func TestBuiltNodesAreCompared(t *testing.T) {
	k := newKit(t, nil)
	id, node := testNode(3)
	other := append([]byte{}, node...)
	other[len(other)-1] ^= 1
	w := k.comparing(true)
	if err := w.KeepNode(id, node); err != nil {
		t.Fatal(err)
	}
	k.x.apply(k.sync(w))
	holds := func(cached bool) {
		t.Helper()
		if n := k.s.Stats().NodeCacheBytes; n > 0 != cached {
			t.Errorf("%d bytes in the node cache", n)
		}
		if err := k.comparing(true).KeepNode(id, other); !errors.Is(err, ErrCollision) {
			t.Errorf("other content under the ID of a node: %v", err)
		}
		if got, err := k.s.Node(context.Background(), id); err != nil || !bytes.Equal(got, node) {
			t.Errorf("the node that is stored is read as %x, %v", got, err)
		}
	}
	holds(false)
	holds(true)
	// Who trusts IDs keeps what it built, stored or met.
	id, node = testNode(4)
	if err := k.comparing(false).KeepNode(id, node); err != nil || k.s.nodes.get(k.s.domain.Key(id)) == nil {
		t.Errorf("a node that was built is not at hand: %v", err)
	}
}
