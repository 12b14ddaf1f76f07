package index

import "sync/atomic"

const (
	// minLayer is the least capacity of a layer: 224 KiB.
	minLayer = 64 << 10
	// maxLayers is how many layers a filter has before it is built anew as one.
	// Each layer adds its false positives and a cache miss.
	maxLayers = 2
)

// filter holds every ID of the index from some sequence on. It grows by layers
// and never forgets, so an ID that is gone makes a false positive, no more.
//
// Only the committer and the builder of this filter add, under Index.commit and
// before the IDs are in Pebble. Readers need no lock.
type filter struct {
	// base is the serial of the state that the filter was started from. It holds
	// all IDs of that state and all that came later; an ID that was gone by then
	// it may not hold.
	base   uint64
	seed   uint64
	layers atomic.Pointer[[]*bloomLayer]
}

func newFilter(base, seed, capacity uint64) *filter {
	f := &filter{base: base, seed: seed}
	f.layers.Store(&[]*bloomLayer{newLayer(max(capacity, minLayer))})
	return f
}

func (f *filter) mayContain(id *ID) bool {
	for _, l := range *f.layers.Load() {
		if l.has(id, f.seed) {
			return true
		}
	}
	return false
}

// mayContainEach sets may[i] to mayContain(&ids[i]). A large filter is in no cache, so
// it asks for the memory of some IDs together before it looks at any: one after the
// other they waited for it each on its own.
func (f *filter) mayContainEach(ids []ID, may []bool) {
	const together = 16
	for len(ids) > 0 {
		n := min(together, len(ids))
		for _, l := range *f.layers.Load() {
			for i := range n {
				l.touch(&ids[i], f.seed)
			}
		}
		for i := range n {
			may[i] = f.mayContain(&ids[i])
		}
		ids, may = ids[n:], may[n:]
	}
}

// add is called by one goroutine at a time, except that a builder may run
// addOld beside it.
func (f *filter) add(id *ID) {
	layers := *f.layers.Load()
	last := layers[len(layers)-1]
	if last.full() {
		grown := append(layers[:len(layers):len(layers)], newLayer(max(f.capacity()/2, minLayer)))
		f.layers.Store(&grown)
		last = grown[len(grown)-1]
	}
	for _, l := range layers {
		if l != last && l.has(id, f.seed) {
			return
		}
	}
	last.add(id, f.seed)
}

// addOld adds an ID found in the index to the first layer, which was made for
// them.
func (f *filter) addOld(id *ID) { (*f.layers.Load())[0].add(id, f.seed) }

// crowded says that the filter should be built anew.
func (f *filter) crowded() bool { return len(*f.layers.Load()) > maxLayers }

func (f *filter) capacity() (n uint64) {
	for _, l := range *f.layers.Load() {
		n += l.capacity
	}
	return n
}

func (f *filter) added() (n uint64) {
	for _, l := range *f.layers.Load() {
		n += l.added.Load()
	}
	return n
}

func (f *filter) bytes() (n uint64) {
	for _, l := range *f.layers.Load() {
		n += l.blocks * blockBytes
	}
	return n
}

// roomFor returns the capacity of a filter for n IDs: half as much again before
// it takes a second layer.
func roomFor(n uint64) uint64 { return n + n/2 }
