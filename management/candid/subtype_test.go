package candid

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

// TestSubtypes: what is read as what. The messages are written by hand, after
// the rules of the specification; a nil want is a type error.
func TestSubtypes(t *testing.T) {
	t.Parallel()
	type (
		optFields struct {
			A opt[Nat] `candid:"0"`
			B Null     `candid:"1"`
			C Reserved `candid:"2"`
		}
		one struct {
			A Nat `candid:"1"`
		}
		pair struct {
			A opt[struct {
				B choice `candid:"0"`
			}] `candid:"0"`
			B opt[opt[choice]] `candid:"1"`
		}
	)
	five := NatFromUint64(5)
	for _, c := range []struct {
		name string
		hex  string
		want any // of the type that is read
		fail bool
	}{
		{"nat as int", didl + "00 01 7d 05", IntFromInt64(5), false},
		{"int as nat", didl + "00 01 7c 05", Nat{}, true},
		{"nat8 as nat", didl + "00 01 7b 05", Nat{}, true},
		{"nat as opt", didl + "00 01 7d 05", &five, false},
		{"nat as opt opt", didl + "00 01 7d 05", ptr(&five), false},
		{"opt as what is in it", didl + "01 6e 7d 01 00 01 05", Nat{}, true},
		{"null as null", didl + "00 01 7f", Null{}, false},
		{"null as opt", didl + "00 01 7f", (*Nat)(nil), false},
		{"null as opt opt", didl + "00 01 7f", (**Nat)(nil), false},
		{"null as opt null", didl + "00 01 7f", (*Null)(nil), false},
		{"opt null as opt opt", didl + "01 6e 7f 01 00 01", ptr((*Nat)(nil)), false},
		{"reserved as opt", didl + "00 01 70", (*Nat)(nil), false},
		{"reserved as null", didl + "00 01 70", Null{}, true},
		{"bool as null", didl + "00 01 7e 01", Null{}, true},
		{"bool as reserved", didl + "00 01 7e 01", Reserved{}, false},
		{"nothing as opt", didl + "00 00", (*Nat)(nil), false},
		{"nothing as null", didl + "00 00", Null{}, false},
		{"nothing as reserved", didl + "00 00", Reserved{}, false},
		{"nothing as nat", didl + "00 00", Nat{}, true},
		{"text as opt nat", didl + "00 01 71 01 78", (*Nat)(nil), false},
		{"opt text as opt nat", didl + "01 6e 71 01 00 01 01 78", (*Nat)(nil), false},
		{"text as principal", didl + "00 01 71 01 78", Principal{}, true},
		{"service as principal", didl + "01 69 00 01 00 01 02 0102", Principal{1, 2}, false},
		{"principal as blob", didl + "00 01 68 01 02 0102", []byte{}, true},
		{"func as opt", didl + "01 6a 01 7d 00 01 01 01 00 01 01 01 04 01 6d", (*Nat)(nil), false},
		{"future as opt", didl + "01 67 03 414243 01 00 05 00 68656c6c6f", (*Nat)(nil), false},
		{"future as reserved", didl + "01 60 00 01 00 00 00", Reserved{}, false},
		{"future as nat", didl + "01 67 00 01 00 00 00", Nat{}, true},
		{"empty vec of another type", didl + "01 6d 71 01 00 00", []Nat(nil), false},
		{"vec of another type", didl + "01 6d 71 01 00 01 01 78", []Nat(nil), true},
		{"empty vec as blob", didl + "01 6d 71 01 00 00", []byte(nil), false},
		{"blob as vec", didl + "01 6d 7b 01 00 02 0102", []*uint8{ptr(uint8(1)), ptr(uint8(2))}, false},
		{"vec null as vec opt", didl + "01 6d 7f 01 00 02", []*Nat{nil, nil}, false},
		{"vec text as vec opt nat", didl + "01 6d 71 01 00 02 01 78 01 79", []*Nat{nil, nil}, false},
		{"fields that may miss", didl + "01 6c 00 01 00", optFields{}, false},
		{"one of three", didl + "01 6c 01 00 7d 01 00 05", optFields{A: &five}, false},
		{"fields before and after", didl + "01 6c 03 00 71 01 7d 02 7e 01 00 01 78 05 01", one{A: five}, false},
		{"another field", didl + "01 6c 01 02 7d 01 00 05", one{}, true},
		{"record as tuple", didl + "01 6c 03 00 7d 01 71 02 7e 01 00 05 01 78 01", tuple{A: five, B: "x", C: true}, false},
		{"empty record as variant", didl + "01 6c 00 01 00", choice{}, true},
		{"known case", didl + "01 6b 02 00 7d 01 71 01 00 00 05", choice{A: &five}, false},
		{"unknown case", didl + "01 6b 02 00 7d 01 71 01 00 01 01 78", choice{}, true},
		{"unknown case in an opt", didl + "02 6e 01 6b 02 00 7d 01 71 01 00 01 01 01 78", (*choice)(nil), false},
		{"unknown case in an opt opt", didl + "03 6e 01 6e 02 6b 02 00 7d 01 71 01 00 01 01 01 01 78", ptr((*choice)(nil)), false},
		{"unknown case in the innermost opt", didl + "02 6c 02 00 01 01 01 6b 01 00 71 01 00" + "00 01 78" + "00 01 79", pair{B: ptr((*choice)(nil))}, false},
		{"extra arguments", didl + "01 6d 00 03 7d 71 00 05 01 78 01 00", five, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			into := reflect.New(reflect.TypeOf(c.want))
			err := Unmarshal(unhex(t, c.hex), Limits{}, into.Interface())
			switch got := into.Elem().Interface(); {
			case c.fail && !errors.Is(err, ErrType):
				t.Errorf("read as %v: %v, want %v", got, err, ErrType)
			case !c.fail && err != nil:
				t.Error(err)
			case !c.fail && !reflect.DeepEqual(got, c.want):
				t.Errorf("read as %#v, want %#v", got, c.want)
			}
		})
	}
}

// TestAfterMismatch: what did not fit is consumed, so that what follows is read
// from its place; and it was checked.
func TestAfterMismatch(t *testing.T) {
	t.Parallel()
	type wanted struct {
		A opt[choice] `candid:"0"`
		B opt[[]Nat]  `candid:"1"`
		Z uint8       `candid:"9"`
	}
	message := didl + "06" +
		"6c 03 00 01 01 04 09 7b" + // 0: the record
		"6e 02" + "6b 01 05 03" + "6d 71" + // 1, 2, 3
		"6e 05" + "6d 7c" + // 4, 5
		"01 00" +
		"01 00 02 01 78 01 79" + // opt variant: two texts
		"01 03 01 02 7f" + // opt vec int: 1, 2, -1
		"2a"
	var got wanted
	if err := Unmarshal(unhex(t, message), Limits{}, &got); err != nil {
		t.Fatal(err)
	}
	if got.A != nil || got.B != nil || got.Z != 42 {
		t.Errorf("%+v", got)
	}
	damaged := strings.Replace(message, "01 78 01 79", "01 78 01 ff", 1)
	if err := Unmarshal(unhex(t, damaged), Limits{}, &got); !errors.Is(err, ErrMalformed) {
		t.Errorf("text that is not UTF-8 where nothing fits: %v", err)
	}
}

type choice struct {
	Variant
	A *Nat `candid:"0"`
}
