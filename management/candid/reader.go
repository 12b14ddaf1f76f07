package candid

import (
	"encoding/binary"
	"fmt"
	"math/big"
	"slices"
	"unicode/utf8"
)

// maxLEB is the longest encoding of a length or an index: as many bytes as 64
// bits need. Shorter numbers may be padded up to it.
const maxLEB = 10

// reader takes a message apart. pos never passes the end.
type reader struct {
	data []byte
	pos  int
}

func (r *reader) left() int { return len(r.data) - r.pos }

// fail returns an *Error at the place reached.
func (r *reader) fail(kind error, format string, args ...any) error {
	return &Error{Offset: r.pos, Err: fmt.Errorf("%w: %s", kind, fmt.Sprintf(format, args...))}
}

func (r *reader) short() error { return r.fail(ErrMalformed, "it ends too early") }

func (r *reader) byte() (byte, error) {
	if r.pos == len(r.data) {
		return 0, r.short()
	}
	b := r.data[r.pos]
	r.pos++
	return b, nil
}

// bytes returns the next n bytes of the message itself.
func (r *reader) bytes(n uint64) ([]byte, error) {
	if n > uint64(r.left()) {
		return nil, r.fail(ErrMalformed, "it ends too early: %d bytes announced, %d are left", n, r.left())
	}
	b := r.data[r.pos : r.pos+int(n)]
	r.pos += int(n)
	return b, nil
}

// flag reads a byte that is 0 or 1.
func (r *reader) flag(what string) (bool, error) {
	b, err := r.byte()
	if err != nil {
		return false, err
	}
	if b > 1 {
		r.pos--
		return false, r.fail(ErrMalformed, "%s is %d, not 0 or 1", what, b)
	}
	return b == 1, nil
}

// uleb reads an unsigned number of at most 64 bits.
func (r *reader) uleb() (uint64, error) {
	var x uint64
	for i := range maxLEB {
		b, err := r.byte()
		if err != nil {
			return 0, err
		}
		if i == maxLEB-1 && b > 1 {
			break
		}
		x |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			return x, nil
		}
	}
	return 0, r.fail(ErrMalformed, "a length or an index of more than 64 bits")
}

// sleb reads a signed number of at most 64 bits.
func (r *reader) sleb() (int64, error) {
	var x int64
	for i := range maxLEB {
		b, err := r.byte()
		if err != nil {
			return 0, err
		}
		if i == maxLEB-1 && b != 0 && b != 0x7f {
			break
		}
		x |= int64(b&0x7f) << (7 * i)
		if b < 0x80 {
			if shift := 7 * (i + 1); shift < 64 && b&0x40 != 0 {
				x |= -1 << shift
			}
			return x, nil
		}
	}
	return 0, r.fail(ErrMalformed, "a type of more than 64 bits")
}

// leb returns the bytes of a number of any size, at most limit of them.
func (r *reader) leb(limit int) ([]byte, error) {
	for i := r.pos; i < len(r.data); i++ {
		if i-r.pos == limit {
			return nil, r.fail(ErrLimit, "a number of more than %d bytes", limit)
		}
		if r.data[i] < 0x80 {
			b := r.data[r.pos : i+1]
			r.pos = i + 1
			return b, nil
		}
	}
	r.pos = len(r.data)
	return nil, r.short()
}

// text reads a text as bytes of the message.
func (r *reader) text() ([]byte, error) {
	n, err := r.uleb()
	if err != nil {
		return nil, err
	}
	b, err := r.bytes(n)
	if err != nil {
		return nil, err
	}
	if !utf8.Valid(b) {
		r.pos -= len(b)
		return nil, r.fail(ErrMalformed, "text that is not UTF-8")
	}
	return b, nil
}

// principal reads a principal, or a service, as bytes of the message.
func (r *reader) principal() ([]byte, error) {
	transparent, err := r.flag("the tag of a reference")
	if err != nil {
		return nil, err
	}
	if !transparent {
		return nil, r.fail(ErrMalformed, "an opaque reference, and there are none beside the message")
	}
	n, err := r.uleb()
	if err != nil {
		return nil, err
	}
	if n > MaxPrincipal {
		return nil, r.fail(ErrMalformed, "a principal of %d bytes, more than %d", n, MaxPrincipal)
	}
	return r.bytes(n)
}

// unsignedLEB returns the number that leb read, nil for 0.
func unsignedLEB(b []byte) *big.Int {
	var x big.Int
	if len(b) <= 9 {
		var small uint64
		for i, c := range b {
			small |= uint64(c&0x7f) << (7 * i)
		}
		x.SetUint64(small)
	} else {
		raw := make([]byte, 0, len(b)+8)
		var acc uint64
		var bits int
		for _, c := range b {
			acc |= uint64(c&0x7f) << bits
			for bits += 7; bits >= 8; bits -= 8 {
				raw = append(raw, byte(acc))
				acc >>= 8
			}
		}
		raw = append(raw, byte(acc))
		slices.Reverse(raw)
		x.SetBytes(raw)
	}
	if x.Sign() == 0 {
		return nil
	}
	return &x
}

// signedLEB returns the number that leb read, nil for 0.
func signedLEB(b []byte) *big.Int {
	x := unsignedLEB(b)
	if b[len(b)-1]&0x40 == 0 {
		return x
	}
	x.Sub(x, new(big.Int).Lsh(big.NewInt(1), uint(7*len(b))))
	return x
}

// fixed reads size bytes as a little-endian number.
func (r *reader) fixed(size int) (uint64, error) {
	b, err := r.bytes(uint64(size))
	if err != nil {
		return 0, err
	}
	switch size {
	case 1:
		return uint64(b[0]), nil
	case 2:
		return uint64(binary.LittleEndian.Uint16(b)), nil
	case 4:
		return uint64(binary.LittleEndian.Uint32(b)), nil
	default:
		return binary.LittleEndian.Uint64(b), nil
	}
}
