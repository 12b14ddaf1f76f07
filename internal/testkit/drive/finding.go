package drive

import "errors"

// Harm says what a store that is not as it must be has done.
type Harm uint8

// The harms. What is none of the others is Other.
const (
	Other      Harm = iota
	Lost            // snapshots that were acknowledged are not there, or can not be read
	Silent          // wrong bytes, or what was deleted, and no error
	Leaked          // bytes that nothing reaches and gc does not give back
	FreedEarly      // chunks that are reached and were given back
)

// A Finding is an error that says what harm was done, and how much.
type Finding struct {
	Harm Harm
	N    int64
	Err  error
}

func (f *Finding) Error() string { return f.Err.Error() }

func (f *Finding) Unwrap() error { return f.Err }

func finding(h Harm, n int, err error) error {
	return &Finding{Harm: h, N: max(1, int64(n)), Err: err}
}

// HarmOf says what harm an error of this package tells of.
func HarmOf(err error) (Harm, int64) {
	var f *Finding
	if errors.As(err, &f) {
		return f.Harm, f.N
	}
	return Other, 0
}
