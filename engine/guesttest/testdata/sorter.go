// Command sorter is a guest that builds maps and sorts, compiled to wasip1 by
// the tests.
package main

import "slices"

var (
	counts = map[uint64][]uint64{}
	state  = uint64(1)
)

//go:wasmexport step
func step(n uint32) uint64 {
	for range n {
		state = state*6364136223846793005 + 1442695040888963407
		k := state >> 44 % 997
		counts[k] = append(counts[k], state>>20)
	}
	all := make([]uint64, 0, n)
	for _, v := range counts {
		all = append(all, v...)
	}
	slices.Sort(all)
	for k := range counts {
		if k%7 == state%7 {
			delete(counts, k)
		}
	}
	return all[len(all)/2]
}

func main() {}
