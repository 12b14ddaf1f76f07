package engine_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/snapstore/snapstore/engine"
)

// Example is the one in the README: keep the two alike.
func Example() {
	ctx := context.Background()
	tmp, _ := os.MkdirTemp("", "snapstore")
	defer os.RemoveAll(tmp)
	dir := filepath.Join(tmp, "store")

	engine.Create(dir, nil)
	e, _ := engine.Open(dir, nil)
	defer e.Close()
	id, _ := engine.ParseCanisterID("rrkah-fqaaa-aaaaa-aaaaq-cai")
	c, _ := e.CreateCanister(ctx, id)
	heap, _ := c.Memory(engine.WasmMemory)
	heap.Resize(1 << 20)
	heap.WriteAt([]byte("before"), 0)
	snap, _ := c.Take(ctx, engine.TakeOptions{})
	heap.WriteAt([]byte("after!"), 0)
	c.Load(ctx, snap.ID, engine.LoadOptions{})
	b := make([]byte, 6)
	heap.ReadAt(b, 0)

	fmt.Println(snap.ID, string(b))
	// Output: 000000000000000000000000000000010101 before
}
