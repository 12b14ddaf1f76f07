//go:build weakhash

package engine_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/snapstore/snapstore/chunk"
	"github.com/snapstore/snapstore/engine"
)

// numbered is a page that there is once.
func numbered(n int) []byte {
	p := make([]byte, engine.PageSize)
	binary.LittleEndian.PutUint64(p[8:], uint64(n)+1)
	return p
}

const (
	weakPages = 10_000
	weakBatch = 100
)

// With hashes of 16 bits hundreds of 10,000 pages collide. A store that compares
// finds and names every one of them, changes nothing then, and keeps the rest; one
// that does not takes the later page for the earlier one, and verify is content.
func TestWeakHash(t *testing.T) {
	if !chunk.WeakHash {
		t.Fatal("built with the tag and strong")
	}
	first := map[chunk.ID]int{}
	collide := map[int]int{} // page -> the one that it is taken for
	for i := range weakPages {
		id := chunk.Sum(numbered(i))
		if at, ok := first[id]; ok {
			collide[i] = at
		} else {
			first[id] = i
		}
	}
	if len(collide) < 500 || len(collide) > 1000 {
		t.Fatalf("%d of %d pages collide", len(collide), weakPages)
	}
	t.Run("compared", func(t *testing.T) {
		e, reopen := memStore(t, engine.Options{CompareOnHit: true})
		c := must(e.CreateCanister(bg, canisterID(t, 1)))
		m := must(c.Memory(engine.WasmMemory))
		must0(m.Resize(weakPages * engine.PageSize))
		found := map[int]bool{}
		var last engine.TakeResult
		for i := 0; i < weakPages; i += weakBatch {
			for k := i; k < i+weakBatch; k++ {
				must(m.WriteAt(numbered(k), int64(k)*engine.PageSize))
			}
			for {
				before := e.Stats()
				res, err := c.Take(bg, engine.TakeOptions{Replace: last.ID})
				if err == nil {
					last = res
					break
				}
				var ce *engine.CollisionError
				if !errors.Is(err, engine.ErrCollision) || !errors.As(err, &ce) {
					t.Fatal(err)
				}
				page := int(ce.Page)
				if _, really := collide[page]; !really || found[page] || ce.ID != chunk.Sum(numbered(page)) {
					t.Fatalf("page %d is said to collide: %v", page, err)
				}
				if after := e.Stats(); after.PagesNew != before.PagesNew || after.ChargedBytes != before.ChargedBytes || after.Snapshots != before.Snapshots {
					t.Fatal("a refused take changed something")
				}
				found[page] = true
				must(m.WriteAt(make([]byte, engine.PageSize), int64(page)*engine.PageSize))
			}
		}
		if len(found) != len(collide) {
			t.Errorf("%d collisions found, there are %d", len(found), len(collide))
		}
		for range 2 {
			got := content(t, e, last.ID, engine.WasmMemory)
			for i := range weakPages {
				want := numbered(i)
				if found[i] {
					clear(want)
				}
				if !bytes.Equal(got[i*engine.PageSize:(i+1)*engine.PageSize], want) {
					t.Fatalf("page %d is lost", i)
				}
			}
			sound(t, e)
			e = reopen()
		}
		// A page that is put in the place of one it collides with, and two in one
		// take, and pages that come back.
		c = must(e.Canister(c.ID()))
		m = must(c.Memory(engine.WasmMemory))
		for page, at := range collide {
			must(m.WriteAt(numbered(page), int64(at)*engine.PageSize))
			if _, err := c.Checkpoint(bg); !errors.Is(err, engine.ErrCollision) {
				t.Errorf("page %d over page %d, which has its hash: %v", page, at, err)
			}
			must(m.WriteAt(numbered(at), int64(at)*engine.PageSize))
			must(m.WriteAt(numbered(at), int64(page)*engine.PageSize))
			if _, err := c.Checkpoint(bg); err != nil {
				t.Errorf("the same page twice: %v", err)
			}
			break
		}
	})
	t.Run("trusted", func(t *testing.T) {
		e, _ := memStore(t, engine.Options{})
		c := must(e.CreateCanister(bg, canisterID(t, 1)))
		m := must(c.Memory(engine.WasmMemory))
		must0(m.Resize(weakPages * engine.PageSize))
		for i := range weakPages {
			must(m.WriteAt(numbered(i), int64(i)*engine.PageSize))
		}
		taken := must(c.Take(bg, engine.TakeOptions{}))
		got := content(t, e, taken.ID, engine.WasmMemory)
		for i := range weakPages {
			want := numbered(i)
			if at, ok := collide[i]; ok {
				want = numbered(at)
			}
			if !bytes.Equal(got[i*engine.PageSize:(i+1)*engine.PageSize], want) {
				t.Fatalf("page %d is neither itself nor what it collides with", i)
			}
		}
		sound(t, e)
	})
}
