//go:build weakhash

package chunk

// WeakHash says that IDs of pages are cut to 16 bits, as only the build tag
// weakhash does, so that tests meet collisions. A store that was written so is
// good for nothing else.
const WeakHash = true

// weaken cuts the IDs of pages that are not zeros.
func weaken(ids []ID) {
	for i, id := range ids {
		if !id.IsZero() {
			ids[i] = ID{0: id[0], 1: id[1], 31: 1}
		}
	}
}
