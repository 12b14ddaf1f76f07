package engine

import (
	"context"
	"runtime"

	"golang.org/x/sync/errgroup"

	"github.com/snapstore/snapstore/chunk"
)

// maxPatchKept is how many pages of a load are kept from when they are verified to
// when they are written into live memory; the rest is read twice.
const maxPatchKept = 256 << 20 / PageSize

// keptBlock is how many pages are read at a time: so few that the last blocks of
// a diff of 1 % of 1 GiB, which is 20 of them, keep every core at work.
const keptBlock = 128

type keptPages [keptBlock * PageSize]byte

// A keeper reads and verifies pages into memory of its own, block by block,
// beside whoever finds them. Its methods are for one goroutine.
type keeper struct {
	e      *Engine
	from   *chunk.Store
	ctx    context.Context
	group  errgroup.Group
	left   int // pages that may still be kept
	blocks []*keptPages
	refs   []chunk.PageRef // of the last block
}

func (e *Engine) newKeeper(ctx context.Context, from *chunk.Store) *keeper {
	k := &keeper{e: e, from: from, ctx: ctx, left: e.patchKept}
	k.group.SetLimit(runtime.GOMAXPROCS(0))
	return k
}

// add asks for a page, and returns where it will be; nil for zeros, and where no
// more are kept. What is there counts after wait.
func (k *keeper) add(id chunk.ID) []byte {
	if id.IsZero() || k.left == 0 {
		return nil
	}
	k.left--
	if len(k.refs) == 0 {
		b, _ := k.e.blocks.Get().(*keptPages)
		if b == nil {
			b = new(keptPages)
		}
		k.blocks = append(k.blocks, b)
		k.refs = make([]chunk.PageRef, 0, keptBlock)
	}
	n := len(k.refs)
	dst := k.blocks[len(k.blocks)-1][n*PageSize : (n+1)*PageSize : (n+1)*PageSize]
	if k.refs = append(k.refs, chunk.PageRef{ID: id, Dst: dst}); len(k.refs) == keptBlock {
		k.start()
	}
	return dst
}

func (k *keeper) start() {
	refs := k.refs
	k.refs = nil
	if len(refs) > 0 {
		k.group.Go(func() error { return k.from.PagesOnce(k.ctx, refs) })
	}
}

// wait is for the end of all reads. What was asked for is there if it returns nil.
// More can be asked for afterwards.
func (k *keeper) wait() error {
	k.start()
	return k.group.Wait()
}

// release waits for what is under way, and gives the memory back.
func (k *keeper) release() {
	if k == nil {
		return
	}
	k.refs = nil
	_ = k.group.Wait() // nobody wants what was read
	for _, b := range k.blocks {
		k.e.blocks.Put(b)
	}
	k.blocks = nil
}
