package pagedelta

// A kind is a way to do the work. All kinds write the same bytes.
type kind uint8

const (
	portable kind = iota
	avx2
)

func (k kind) String() string {
	if k == avx2 {
		return "avx2"
	}
	return "portable"
}

// best is the fastest kind that this machine has. It costs a few loads.
func best() kind {
	if supported(avx2) {
		return avx2
	}
	return portable
}
