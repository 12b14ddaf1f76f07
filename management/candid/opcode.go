package candid

import "strconv"

// opcode is a type or a type constructor as it is written in a message.
type opcode int8

const (
	opNull opcode = -1 - iota
	opBool
	opNat
	opInt
	opNat8
	opNat16
	opNat32
	opNat64
	opInt8
	opInt16
	opInt32
	opInt64
	opFloat32
	opFloat64
	opText
	opReserved
	opEmpty
	opOpt
	opVec
	opRecord
	opVariant
	opFunc
	opService
	opPrincipal
	// opFuture stands for every type constructor below opPrincipal.
	opFuture
)

// primitive says whether the type is written in one byte wherever it is used;
// the others stand in the type table.
func (o opcode) primitive() bool { return o >= opEmpty && o <= opNull || o == opPrincipal }

// nullable says whether a missing field of this type is null.
func (o opcode) nullable() bool { return o == opOpt || o == opNull || o == opReserved }

// size is the number of bytes a value takes, where that is always the same and any
// bytes will do, else 0.
func (o opcode) size() int {
	switch o {
	case opNat8, opInt8:
		return 1
	case opNat16, opInt16:
		return 2
	case opNat32, opInt32, opFloat32:
		return 4
	case opNat64, opInt64, opFloat64:
		return 8
	default:
		return 0
	}
}

func (o opcode) String() string {
	names := [...]string{
		"null", "bool", "nat", "int", "nat8", "nat16", "nat32", "nat64", "int8", "int16", "int32", "int64",
		"float32", "float64", "text", "reserved", "empty", "opt", "vec", "record", "variant", "func", "service",
		"principal", "a type of a later Candid",
	}
	if i := -int(o) - 1; i >= 0 && i < len(names) {
		return names[i]
	}
	return "opcode " + strconv.Itoa(int(o))
}
