package management

import (
	"cmp"
	"math"
	"math/big"
	"math/bits"
)

// Cycles are an amount, 128 bits. Comparable; the zero value is none.
// Arithmetic saturates at both ends, so no amount ever wraps around.
type Cycles struct{ hi, lo uint64 }

// NewCycles makes an amount.
func NewCycles(n uint64) Cycles { return Cycles{lo: n} }

// MaxCycles is the largest amount.
func MaxCycles() Cycles { return Cycles{math.MaxUint64, math.MaxUint64} }

// CyclesFromBig converts; what does not fit saturates.
func CyclesFromBig(n *big.Int) Cycles {
	switch {
	case n == nil || n.Sign() <= 0:
		return Cycles{}
	case n.BitLen() > 128:
		return MaxCycles()
	}
	var b [16]byte
	n.FillBytes(b[:])
	return cyclesFromBytes(b)
}

func cyclesFromBytes(b [16]byte) Cycles {
	var c Cycles
	for i := range 8 {
		c.hi, c.lo = c.hi<<8|uint64(b[i]), c.lo<<8|uint64(b[8+i])
	}
	return c
}

// Big converts to a new integer.
func (c Cycles) Big() *big.Int {
	n := new(big.Int).SetUint64(c.hi)
	return n.Lsh(n, 64).Or(n, new(big.Int).SetUint64(c.lo))
}

// String is decimal.
func (c Cycles) String() string { return c.Big().String() }

// IsZero tells whether there are none.
func (c Cycles) IsZero() bool { return c == Cycles{} }

// Cmp orders amounts.
func (c Cycles) Cmp(d Cycles) int {
	return cmp.Or(cmp.Compare(c.hi, d.hi), cmp.Compare(c.lo, d.lo))
}

// Less tells whether c is smaller.
func (c Cycles) Less(d Cycles) bool { return c.Cmp(d) < 0 }

// Add saturates at the top.
func (c Cycles) Add(d Cycles) Cycles {
	lo, carry := bits.Add64(c.lo, d.lo, 0)
	hi, over := bits.Add64(c.hi, d.hi, carry)
	if over != 0 {
		return MaxCycles()
	}
	return Cycles{hi, lo}
}

// Sub stops at zero.
func (c Cycles) Sub(d Cycles) Cycles {
	lo, borrow := bits.Sub64(c.lo, d.lo, 0)
	hi, under := bits.Sub64(c.hi, d.hi, borrow)
	if under != 0 {
		return Cycles{}
	}
	return Cycles{hi, lo}
}

// Mul saturates at the top.
func (c Cycles) Mul(n uint64) Cycles {
	carry, lo := bits.Mul64(c.lo, n)
	over, mid := bits.Mul64(c.hi, n)
	hi, more := bits.Add64(mid, carry, 0)
	if over != 0 || more != 0 {
		return MaxCycles()
	}
	return Cycles{hi, lo}
}

// Div rounds down. Dividing by zero saturates.
func (c Cycles) Div(n uint64) Cycles {
	if n == 0 {
		return MaxCycles()
	}
	hi, rest := c.hi/n, c.hi%n
	lo, _ := bits.Div64(rest, c.lo, n)
	return Cycles{hi, lo}
}

// saturated arithmetic of byte counts, which come from outside.
func addBytes(a uint64, more ...uint64) uint64 {
	for _, b := range more {
		if a += b; a < b {
			return math.MaxUint64
		}
	}
	return a
}

func subBytes(a, b uint64) uint64 {
	if b > a {
		return 0
	}
	return a - b
}

func mulBytes(a, b uint64) uint64 {
	if over, p := bits.Mul64(a, b); over == 0 {
		return p
	}
	return math.MaxUint64
}

// mulDiv is a*b/c without overflow; c is not zero. It saturates.
func mulDiv(a, b, c uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	if hi >= c {
		return math.MaxUint64
	}
	q, _ := bits.Div64(hi, lo, c)
	return q
}
