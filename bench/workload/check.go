package workload

import (
	"bytes"
	"errors"
	"fmt"
	"math"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
)

// ErrCheck: the generated data is not what it claims to be.
var ErrCheck = errors.New("generated data is not as stated")

// Checked is what Check found, as shares of the raw size.
type Checked struct {
	RandomZstd     float64 `json:"random_zstd"`     // page by page
	RandomGroup    float64 `json:"random_group"`    // 64 neighbours together
	StructuredZstd float64 `json:"structured_zstd"` // page by page
	StructuredS2   float64 `json:"structured_s2"`   // 16 neighbours together
	GroupGain      float64 `json:"group_gain"`      // zstd of 64 neighbours over page by page
}

// What structured pages must come to: the figures of the generator above, with
// room for versions of the codecs.
const (
	structuredZstdLow, structuredZstdHigh = 0.30, 0.39
	structuredS2Low, structuredS2High     = 0.47, 0.59
)

// Check makes pages of each kind from the seed, and an error unless random ones
// do not compress, alone or together, structured ones compress as stated, and
// neighbours have nothing to do with each other.
func Check(seed uint64) (Checked, error) {
	const n = 64
	random, structured := make([]byte, n*PageSize), make([]byte, n*PageSize)
	g := Pages{Seed: seed}
	for off := 0; off < n*PageSize; off += PageSize {
		g.Random(random[off : off+PageSize])
		g.Structured(structured[off : off+PageSize])
	}
	return check(random, structured)
}

func check(random, structured []byte) (Checked, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return Checked{}, err
	}
	defer enc.Close()
	each := func(b []byte, unit int) float64 {
		n := 0
		for off := 0; off < len(b); off += unit {
			n += len(enc.EncodeAll(b[off:min(off+unit, len(b))], nil))
		}
		return float64(n) / float64(len(b))
	}
	c := Checked{RandomZstd: each(random, PageSize), RandomGroup: each(random, len(random)), StructuredZstd: each(structured, PageSize)}
	const group = 16 * PageSize
	n := 0
	for off := 0; off < len(structured); off += group {
		n += len(s2.Encode(nil, structured[off:off+group]))
	}
	c.StructuredS2 = float64(n) / float64(len(structured))
	c.GroupGain = each(structured, len(structured)) / c.StructuredZstd
	switch {
	case c.RandomZstd < 0.99, c.RandomGroup < 0.99:
		return c, fmt.Errorf("%w: random pages compress to %.2f, and to %.2f together", ErrCheck, c.RandomZstd, c.RandomGroup)
	case c.StructuredZstd < structuredZstdLow || c.StructuredZstd > structuredZstdHigh:
		return c, fmt.Errorf("%w: zstd makes %.2f of structured pages", ErrCheck, c.StructuredZstd)
	case c.StructuredS2 < structuredS2Low || c.StructuredS2 > structuredS2High:
		return c, fmt.Errorf("%w: s2 makes %.2f of structured pages", ErrCheck, c.StructuredS2)
	}
	for _, b := range [][]byte{random, structured} {
		for off := PageSize; off < len(b); off += PageSize {
			if shift, ok := shiftedCopy(b[off-PageSize:off], b[off:off+PageSize]); ok {
				return c, fmt.Errorf("%w: page %d is the page before it, moved by %d bytes", ErrCheck, off/PageSize, shift)
			}
		}
	}
	return c, nil
}

// shiftedCopy tells whether most of b stands in a, moved by some bytes: of
// sixteen random words of b, four stand in a at one distance.
func shiftedCopy(a, b []byte) (int, bool) {
	const word, probes, enough = 16, 16, 4
	at := map[int]int{}
	for i := range probes {
		// A counter and a random word: they stand nowhere else by chance.
		off := i*len(b)/probes/object*object + 24
		if off+word > len(b) {
			continue
		}
		found := bytes.Index(a, b[off:off+word])
		if found < 0 {
			continue
		}
		if at[off-found]++; at[off-found] >= enough {
			return int(math.Abs(float64(off - found))), true
		}
	}
	return 0, false
}
