package candid

import (
	"errors"
	"fmt"
	"math/big"
)

// ErrNumber: not a number, or not one of the type; test with errors.Is.
var ErrNumber = errors.New("not a number of this type")

// maxDigits is the longest text ParseNat and ParseInt read: parsing takes time
// in the square of it.
const maxDigits = 1024

// Nat is a natural number of any size. The zero value is 0. A Nat does not
// change, so copies may be shared.
type Nat struct {
	// v is nil for 0, so that equal numbers are deeply equal.
	v *big.Int
}

// NatFromUint64 returns x.
func NatFromUint64(x uint64) Nat {
	if x == 0 {
		return Nat{}
	}
	return Nat{v: new(big.Int).SetUint64(x)}
}

// NewNat returns a copy of x, and an error when x is negative. Nil is 0.
func NewNat(x *big.Int) (Nat, error) {
	switch {
	case x == nil || x.Sign() == 0:
		return Nat{}, nil
	case x.Sign() < 0:
		return Nat{}, fmt.Errorf("candid: a nat is not negative: %w", ErrNumber)
	}
	return Nat{v: new(big.Int).Set(x)}, nil
}

// ParseNat returns the number written in decimal.
func ParseNat(text string) (Nat, error) {
	x, err := parseBig(text)
	if err != nil {
		return Nat{}, err
	}
	return NewNat(x)
}

// Big returns a copy.
func (n Nat) Big() *big.Int { return bigOf(n.v) }

// Uint64 returns the number and whether it fits.
func (n Nat) Uint64() (uint64, bool) {
	if n.v == nil {
		return 0, true
	}
	return n.v.Uint64(), n.v.IsUint64()
}

// Cmp returns -1, 0 or 1: n is below, equal to or above m.
func (n Nat) Cmp(m Nat) int { return cmpBig(n.v, m.v) }

// String returns the number in decimal.
func (n Nat) String() string { return textOf(n.v) }

// Int is an integer of any size. The zero value is 0. An Int does not change,
// so copies may be shared.
type Int struct {
	v *big.Int // nil for 0, as in Nat
}

// IntFromInt64 returns x.
func IntFromInt64(x int64) Int {
	if x == 0 {
		return Int{}
	}
	return Int{v: big.NewInt(x)}
}

// NewInt returns a copy of x. Nil is 0.
func NewInt(x *big.Int) Int {
	if x == nil || x.Sign() == 0 {
		return Int{}
	}
	return Int{v: new(big.Int).Set(x)}
}

// ParseInt returns the number written in decimal.
func ParseInt(text string) (Int, error) {
	x, err := parseBig(text)
	if err != nil {
		return Int{}, err
	}
	return NewInt(x), nil
}

// Big returns a copy.
func (n Int) Big() *big.Int { return bigOf(n.v) }

// Int64 returns the number and whether it fits.
func (n Int) Int64() (int64, bool) {
	if n.v == nil {
		return 0, true
	}
	return n.v.Int64(), n.v.IsInt64()
}

// Cmp returns -1, 0 or 1: n is below, equal to or above m.
func (n Int) Cmp(m Int) int { return cmpBig(n.v, m.v) }

// String returns the number in decimal.
func (n Int) String() string { return textOf(n.v) }

func parseBig(text string) (*big.Int, error) {
	if len(text) > maxDigits {
		return nil, fmt.Errorf("candid: %d digits, at most %d: %w", len(text), maxDigits, ErrNumber)
	}
	x, ok := new(big.Int).SetString(text, 10)
	if !ok {
		return nil, fmt.Errorf("candid: %.90q: give a decimal number: %w", text, ErrNumber)
	}
	return x, nil
}

func bigOf(v *big.Int) *big.Int {
	if v == nil {
		return new(big.Int)
	}
	return new(big.Int).Set(v)
}

func cmpBig(a, b *big.Int) int { return orZero(a).Cmp(orZero(b)) }

func textOf(v *big.Int) string { return orZero(v).String() }

func orZero(v *big.Int) *big.Int {
	if v == nil {
		return new(big.Int)
	}
	return v
}
