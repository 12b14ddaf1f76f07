package candid

import (
	"encoding/hex"
	"errors"
	"math"
	"math/big"
	"reflect"
	"strings"
	"testing"
)

type listArgs struct {
	CanisterID Principal `candid:"canister_id"`
}

type snapshotID []byte

type snapshot struct {
	ID        snapshotID `candid:"id"`
	TakenAt   uint64     `candid:"taken_at_timestamp"`
	TotalSize uint64     `candid:"total_size"`
}

type source struct {
	Variant
	Taken    *Reserved `candid:"taken_from_canister"`
	Uploaded *Reserved `candid:"metadata_upload"`
}

type everything struct {
	Null      Null       `candid:"null"`
	Bool      bool       `candid:"bool"`
	Nat       Nat        `candid:"nat"`
	Int       Int        `candid:"int"`
	Nat8      uint8      `candid:"nat8"`
	Nat16     uint16     `candid:"nat16"`
	Nat32     uint32     `candid:"nat32"`
	Nat64     uint64     `candid:"nat64"`
	Int8      int8       `candid:"int8"`
	Int16     int16      `candid:"int16"`
	Int32     int32      `candid:"int32"`
	Int64     int64      `candid:"int64"`
	Float32   float32    `candid:"float32"`
	Float64   float64    `candid:"float64"`
	Text      string     `candid:"text"`
	Reserved  Reserved   `candid:"reserved"`
	OptEmpty  *Empty     `candid:"opt_empty"`
	Opt       *uint16    `candid:"opt"`
	OptOpt    **uint16   `candid:"opt_opt"`
	Vec       []snapshot `candid:"vec"`
	VecVec    [][]uint32 `candid:"vec_vec"`
	Blob      []byte     `candid:"blob"`
	Principal Principal  `candid:"principal"`
	Source    source     `candid:"source"`
	OptSource *source    `candid:"opt_source"`
	Empty     struct{}   `candid:"empty_record"`
	Seven     bool       `candid:"7"`
	Skipped   chan int   `candid:"-"`
}

func ptr[T any](v T) *T { return &v }

func mustNat(t *testing.T, text string) Nat {
	t.Helper()
	n, err := ParseNat(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func mustInt(t *testing.T, text string) Int {
	t.Helper()
	n, err := ParseInt(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func full(t *testing.T) everything {
	return everything{
		Bool: true, Nat: mustNat(t, "340282366920938463463374607431768211455"), Int: mustInt(t, "-170141183460469231731687303715884105728"),
		Nat8: math.MaxUint8, Nat16: math.MaxUint16, Nat32: math.MaxUint32, Nat64: math.MaxUint64,
		Int8: math.MinInt8, Int16: math.MinInt16, Int32: math.MinInt32, Int64: math.MinInt64,
		Float32: -0.5, Float64: math.Inf(-1), Text: "snö ☃",
		Opt: ptr(uint16(7)), OptOpt: ptr(ptr(uint16(8))),
		Vec: []snapshot{{ID: snapshotID{1, 2}, TakenAt: 3, TotalSize: 4}, {}}, VecVec: [][]uint32{{1}, nil, {2, 3}},
		Blob: []byte{9}, Principal: Principal{4},
		Source: source{Taken: &Reserved{}}, OptSource: &source{Uploaded: &Reserved{}}, Seven: true,
	}
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	for _, in := range []everything{full(t), {Source: source{Uploaded: &Reserved{}}, OptOpt: ptr((*uint16)(nil))}} {
		data, err := Marshal(in, uint32(5), (*uint16)(nil))
		if err != nil {
			t.Fatal(err)
		}
		var (
			out   everything
			five  uint32
			none  = ptr(uint16(1))
			extra *uint64
			more  Reserved
		)
		if err := Unmarshal(data, Limits{}, &out, &five, &none, &extra, &more); err != nil {
			t.Fatalf("%v\n%x", err, data)
		}
		if !reflect.DeepEqual(in, out) || five != 5 || none != nil || extra != nil {
			t.Errorf("got\n%+v, want\n%+v\n%d %v %v", out, in, five, none, extra)
		}
		again, err := Marshal(out, uint32(5), (*uint16)(nil))
		if err != nil || string(again) != string(data) {
			t.Errorf("the second encoding differs: %v\n%x\n%x", err, data, again)
		}
	}
}

// TestWellKnown holds bytes that others write.
func TestWellKnown(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		hex  string
		want any
	}{
		{"nothing", "4449444c0000", nil},
		{"record", "4449444c016c01b3c4b1f20468010001" + "0104", listArgs{CanisterID: Principal{4}}},
		{"text", "4449444c00017105" + hex.EncodeToString([]byte("hello")), "hello"},
		{"int", "4449444c00017c" + "bf7f", IntFromInt64(-65)},
		{"nat", "4449444c00017d" + "808098f4e9b5ca6a", NatFromUint64(60000000000000000)},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var args []any
			if c.want != nil {
				args = []any{c.want}
			}
			data, err := Marshal(args...)
			if err != nil || hex.EncodeToString(data) != c.hex {
				t.Errorf("Marshal: %x, %v; want %s", data, err, c.hex)
			}
		})
	}
}

func TestLabelID(t *testing.T) {
	t.Parallel()
	for label, want := range map[string]uint32{
		"canister_id": 1313628723, "id": 23515, "0": 0, "4294967295": math.MaxUint32, "name": 1224700491,
	} {
		if got, err := labelID(label); got != want || err != nil {
			t.Errorf("%q: %d, %v; want %d", label, got, err, want)
		}
	}
	for _, label := range []string{"", "4294967296", "1x"} {
		if _, err := labelID(label); err == nil {
			t.Errorf("%q has an id", label)
		}
	}
}

func TestNumbers(t *testing.T) {
	t.Parallel()
	one := big.NewInt(1)
	for bits := range uint(300) {
		edge := new(big.Int).Lsh(one, bits)
		for _, delta := range []int64{-1, 0, 1} {
			x := new(big.Int).Add(edge, big.NewInt(delta))
			n, err := NewNat(x)
			if err != nil {
				t.Fatal(err)
			}
			in := struct {
				N Nat `candid:"0"`
				P Int `candid:"1"`
				M Int `candid:"2"`
			}{n, NewInt(x), NewInt(new(big.Int).Neg(x))}
			out := in
			out.N, out.P, out.M = Nat{}, Int{}, Int{}
			data, err := Marshal(in)
			if err != nil {
				t.Fatal(err)
			}
			if err := Unmarshal(data, Limits{}, &out); err != nil {
				t.Fatalf("2^%d%+d: %v", bits, delta, err)
			}
			if in.N.Cmp(out.N) != 0 || in.P.Cmp(out.P) != 0 || in.M.Cmp(out.M) != 0 {
				t.Fatalf("2^%d%+d: %v", bits, delta, out)
			}
		}
	}
	if _, err := NewNat(big.NewInt(-1)); !errors.Is(err, ErrNumber) {
		t.Errorf("a negative Nat: %v", err)
	}
	for _, text := range []string{"", "x", "1.5", strings.Repeat("9", 2000)} {
		if _, err := ParseInt(text); !errors.Is(err, ErrNumber) {
			t.Errorf("ParseInt(%.10q): %v", text, err)
		}
	}
	if n, ok := NatFromUint64(math.MaxUint64).Uint64(); !ok || n != math.MaxUint64 {
		t.Errorf("Uint64: %d, %v", n, ok)
	}
	if _, ok := mustNat(t, "18446744073709551616").Uint64(); ok {
		t.Error("2^64 is a uint64")
	}
	if n, ok := IntFromInt64(math.MinInt64).Int64(); !ok || n != math.MinInt64 {
		t.Errorf("Int64: %d, %v", n, ok)
	}
}

// TestFloatBits holds that NaNs keep their payload: globals of a canister are
// restored bit for bit.
func TestFloatBits(t *testing.T) {
	t.Parallel()
	type (
		f32 float32
		f64 float64
	)
	for _, bits := range []uint32{0x7fa00001, 0xffc00002, 0x7f800000, 0x80000000} {
		data, err := Marshal(f32(math.Float32frombits(bits)), f64(math.Float64frombits(uint64(bits)<<32|5)))
		if err != nil {
			t.Fatal(err)
		}
		var (
			a f32
			b f64
		)
		if err := Unmarshal(data, Limits{}, &a, &b); err != nil {
			t.Fatal(err)
		}
		again, err := Marshal(a, b)
		if err != nil || string(again) != string(data) {
			t.Errorf("%#x became %x, from %x", bits, again, data)
		}
	}
}
