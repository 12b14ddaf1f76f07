//go:build unix && !linux

package trackmem

const mapNoReserve = 0

func adviseHuge([]byte, bool) {}

// drop makes the pages of [from, to) zeros. Giving them back does not promise
// zeros here.
func (r *reservation) drop(from, to uint64) error {
	clear(r.bytes[from:min(to, uint64(len(r.bytes)))])
	return nil
}
