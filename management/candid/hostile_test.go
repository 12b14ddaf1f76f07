package candid

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// unhex reads hex with spaces.
func unhex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// didl is "DIDL".
const didl = "4449444c "

// Lengths as LEB128.
const (
	billion = "8094ebdc03 "
	tib     = "808080808020 " // 2^40
	huge    = "ffffffffffffffffff01 "
)

// bomb is 2^n nulls in records of two, n deep.
func bomb(n int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %02x 6c 02 00 7f 01 7f", didl, n)
	for i := range n - 1 {
		fmt.Fprintf(&b, "6c 02 00 %02x 01 %02x", i, i)
	}
	fmt.Fprintf(&b, "01 %02x", n-1)
	return b.String()
}

// cycle is a Go type that contains itself.
type cycle struct {
	Next *cycle `candid:"0"`
}

type (
	optCycle *optCycle
	vecCycle []vecCycle
)

// destinations are Go types for messages of anybody.
func destinations() map[string]func() []any {
	return map[string]func() []any{
		"nothing":   func() []any { return nil },
		"reserved":  func() []any { return []any{new(Reserved)} },
		"opt nat":   func() []any { return []any{new(*Nat)} },
		"vec null":  func() []any { return []any{new([]Null)} },
		"vec opt":   func() []any { return []any{new([]*Nat)} },
		"opt opt":   func() []any { return []any{new(optCycle)} },
		"vec vec":   func() []any { return []any{new(vecCycle)} },
		"record":    func() []any { return []any{new(cycle)} },
		"records":   func() []any { return []any{new([]everything)} },
		"vec blank": func() []any { return []any{new([]struct{})} },
		"optional": func() []any {
			return []any{new([]struct {
				A *everything `candid:"0"`
				B *[]Nat      `candid:"1"`
			})}
		},
		"blobs": func() []any { return []any{new([][]byte), new(Principal), new(string)} },
		"nats":  func() []any { return []any{new([]Nat), new([]Int)} },
		"list":  func() []any { return []any{new([]snapshot)} },
	}
}

// bombs are small messages that cost much to a careless reader.
func bombs() map[string]string {
	deep := didl + "01 6e 00 01 00" + strings.Repeat("01", 100000)
	return map[string]string{
		"record of itself":          didl + "01 6c 01 00 00 01 00",
		"records of each other":     didl + "02 6c 01 00 01 6c 01 00 00 01 00",
		"vec of records of itself":  didl + "02 6d 01 6c 01 00 01 01 00 01",
		"variant of itself":         didl + "01 6b 01 00 00 01 00" + strings.Repeat("00", 1000),
		"opt of itself":             deep,
		"opts of each other":        didl + "02 6e 01 6e 00 01 00" + strings.Repeat("01", 100000),
		"vec of itself":             didl + "01 6d 00 01 00" + strings.Repeat("01", 100000),
		"wide vec of itself":        didl + "01 6d 00 01 00" + strings.Repeat(billion, 1000),
		"future type of 2^40":       didl + "01 60" + tib + "00",
		"future type of 2^64":       didl + "01 60" + huge + "00",
		"future value of 2^40":      didl + "01 67 00 01 00" + tib + "00 00",
		"vec null":                  didl + "01 6d 7f 01 00" + billion,
		"vec null of 2^64":          didl + "01 6d 7f 01 00" + huge,
		"vec reserved":              didl + "01 6d 70 01 00" + billion,
		"vec reserved of 2^64":      didl + "01 6d 70 01 00" + huge,
		"vec empty record":          didl + "02 6d 01 6c 00 01 00" + billion,
		"vec empty record of 2^64":  didl + "02 6d 01 6c 00 01 00" + huge,
		"vec vec null":              didl + "02 6d 01 6d 7f 01 00 05" + strings.Repeat(billion, 5),
		"vec record of nulls":       didl + "04 6c 03 00 7f 01 01 02 02 6c 01 00 70 6c 00 6d 00 01 03" + billion,
		"vec opt record":            didl + "03 6d 01 6e 02 6c 00 01 00" + billion + strings.Repeat("01", 100000),
		"vec of blobs of 2^40":      didl + "02 6d 01 6d 7b 01 00" + billion + tib,
		"vec nat8 of 2^64":          didl + "01 6d 7b 01 00" + huge,
		"vec nat64 of 2^61":         didl + "01 6d 78 01 00 808080808080808020",
		"vec bool":                  didl + "01 6d 7e 01 00" + billion + "00",
		"vec nat":                   didl + "01 6d 7d 01 00" + billion + strings.Repeat("00", 100000),
		"text of 2^40":              didl + "00 01 71" + tib,
		"principal of 2^40":         didl + "00 01 68 01" + tib,
		"endless nat":               didl + "00 01 7d" + strings.Repeat("ff", 100000),
		"endless int":               didl + "00 01 7c" + strings.Repeat("80", 100000),
		"endless length":            didl + "01 6d 7b 01 00" + strings.Repeat("80", 100000),
		"type table of 2^30":        didl + billion,
		"type table of 2^64":        didl + huge,
		"record of 2^30 fields":     didl + "01 6c" + billion,
		"variant of 2^64 cases":     didl + "01 6b" + huge,
		"func of 2^30 parameters":   didl + "01 6a" + billion,
		"service of 2^30 methods":   didl + "01 69" + billion,
		"method name of 2^40":       didl + "01 69 01" + tib,
		"2^30 arguments":            didl + "00" + billion,
		"2^64 arguments":            didl + "00" + huge,
		"2^40 nulls":                bomb(40),
		"2^40 nulls beside nothing": bomb(41),
	}
}

// TestBombs: each is refused, into whatever it is read, within the memory that
// the limits allow.
func TestBombs(t *testing.T) {
	limits := Limits{Decoded: 1 << 20}
	for name, text := range bombs() {
		data := unhex(t, text)
		for into, args := range destinations() {
			a := args()
			var err error
			got := allocated(func() { err = Unmarshal(data, limits, a...) })
			var e *Error
			if !errors.As(err, &e) || !strings.Contains(err.Error(), "Error decoding candid") {
				t.Errorf("%s into %s: %v", name, into, err)
			}
			if got > bound(limits) {
				t.Errorf("%s into %s: %d bytes allocated, want at most %d", name, into, got, bound(limits))
			}
		}
	}
}

// TestKinds: which of the errors it is.
func TestKinds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		hex  string
		into any
		want error
	}{
		{"record of itself", didl + "01 6c 01 00 00 01 00", new(cycle), ErrLimit},
		{"future type of 2^40", didl + "01 60" + tib + "00", new(cycle), ErrMalformed},
		{"vec null", didl + "01 6d 7f 01 00" + billion, new([]Null), ErrLimit},
		{"vec null to skip", didl + "01 6d 7f 01 00" + billion, new(Reserved), ErrLimit},
		{"nothing", "", new(Reserved), ErrMalformed},
		{"magic", "4441444c 00 01 7f", new(Reserved), ErrMalformed},
		{"trailing byte", didl + "00 01 7f 00", new(Null), ErrMalformed},
		{"bool 2", didl + "00 01 7e 02", new(bool), ErrMalformed},
		{"bool 2 in an opt", didl + "00 01 7e 02", new(*bool), ErrMalformed},
		{"bool 2 where nat is expected", didl + "00 01 7e 02", new(*Nat), ErrMalformed},
		{"bool 2 to skip", didl + "00 01 7e 02", new(Reserved), ErrMalformed},
		{"opt tag 2", didl + "01 6e 7e 01 00 02", new(*bool), ErrMalformed},
		{"opt tag 2 to skip", didl + "01 6e 7e 01 00 02", new(Reserved), ErrMalformed},
		{"principal tag 0", didl + "00 01 68 00", new(Principal), ErrMalformed},
		{"principal tag 2", didl + "00 01 68 02", new(Principal), ErrMalformed},
		{"principal of 30", didl + "00 01 68 01 1e" + strings.Repeat("00", 30), new(Principal), ErrMalformed},
		{"principal of 30 to skip", didl + "00 01 68 01 1e" + strings.Repeat("00", 30), new(Reserved), ErrMalformed},
		{"text not UTF-8", didl + "00 01 71 01 ff", new(string), ErrMalformed},
		{"surrogate", didl + "00 01 71 03 eda080", new(string), ErrMalformed},
		{"text not UTF-8 to skip", didl + "00 01 71 01 ff", new(Reserved), ErrMalformed},
		{"unsorted fields", didl + "01 6c 02 01 7f 00 7f 01 00", new(Reserved), ErrMalformed},
		{"fields twice", didl + "01 6c 02 01 7f 01 7f 01 00", new(Reserved), ErrMalformed},
		{"unsorted cases", didl + "01 6b 02 01 7f 00 7f 01 00 00", new(Reserved), ErrMalformed},
		{"field id of 33 bits", didl + "01 6c 01 8080808010 7f 01 00", new(Reserved), ErrMalformed},
		{"unknown case index", didl + "01 6b 01 00 7f 01 00 01", new(source), ErrMalformed},
		{"unknown case", didl + "01 6b 01 00 7f 01 00 00", new(source), ErrType},
		{"primitive in the table", didl + "01 7f 00 00", new(Reserved), ErrMalformed},
		{"principal in the table", didl + "01 68 00 00", new(Reserved), ErrMalformed},
		{"entry in the table", didl + "01 00 00", new(Reserved), ErrMalformed},
		{"opt outside the table", didl + "00 01 6e 00", new(Reserved), ErrMalformed},
		{"future outside the table", didl + "00 01 60 00 00", new(Reserved), ErrMalformed},
		{"entry out of range", didl + "01 6e 01 00", new(Reserved), ErrMalformed},
		{"unsorted methods", didl + "02 69 02 01 62 01 01 61 01 6a 00 00 00 00", new(Reserved), ErrMalformed},
		{"method that is no function", didl + "01 69 01 01 61 7f 00", new(Reserved), ErrMalformed},
		{"function annotation 4", didl + "01 6a 00 00 01 04 00", new(Reserved), ErrMalformed},
		{"references", didl + "01 67 00 01 00 00 01", new(Reserved), ErrMalformed},
		{"value of empty", didl + "00 01 6f", new(Nat), ErrMalformed},
		{"value of empty as empty", didl + "00 01 6f", new(Empty), ErrMalformed},
		{"value of empty in an opt", didl + "00 01 6f", new(*Nat), ErrMalformed},
		{"value of empty to skip", didl + "00 01 6f", new(Reserved), ErrMalformed},
		{"missing argument", didl + "00 00", new(Nat), ErrType},
		{"missing field", didl + "01 6c 00 01 00", new(listArgs), ErrType},
		{"int where nat is expected", didl + "00 01 7c 01", new(Nat), ErrType},
		{"nat where nat64 is expected", didl + "00 01 7d 01", new(uint64), ErrType},
		{"length of 11 bytes", didl + "8080808080808080808000 00", new(Reserved), ErrMalformed},
		{"length of 65 bits", didl + "80808080808080808002 00", new(Reserved), ErrMalformed},
		{"opcode of 65 bits", didl + "01 80808080808080808001 00 00", new(Reserved), ErrMalformed},
		{"long nat", didl + "00 01 7d" + strings.Repeat("80", 64) + "00", new(Nat), ErrLimit},
		{"no pointer", didl + "00 00", Nat{}, ErrUnsupported},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			data := unhex(t, c.hex)
			err := Unmarshal(data, Limits{}, c.into)
			if !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			// What is left out is not there, wherever it ends.
			if errors.Is(c.want, ErrType) {
				return
			}
			for n := range len(data) {
				if err := Unmarshal(data[:n], Limits{}, new(Nat), new(Nat)); err == nil {
					t.Errorf("the first %d bytes are a message", n)
				}
			}
		})
	}
}

// TestPadding: numbers may be padded, within 10 bytes.
func TestPadding(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		didl + "80808080808080808000 01 7d ff00",
		didl + "00 81808080808080808000 7d ff8000",
		didl + "00 01 fdff7f ff00",
		didl + "00 01 7d" + "ff" + strings.Repeat("80", 62) + "00",
	} {
		var n Nat
		if err := Unmarshal(unhex(t, text), Limits{}, &n); err != nil {
			t.Errorf("%s: %v", text, err)
		} else if n.Cmp(NatFromUint64(127)) != 0 {
			t.Errorf("%s: %v, want 127", text, n)
		}
	}
}

// TestLimits: each limit holds where it is set, and not one below.
func TestLimits(t *testing.T) {
	t.Parallel()
	nested := didl + "01 6e 00 01 00 01 01 00" // opt opt null: 3 values
	for _, c := range []struct {
		name string
		hex  string
		into func() any
		ok   Limits
		bad  Limits
	}{
		{"depth", nested, func() any { return new(optCycle) }, Limits{Depth: 3}, Limits{Depth: 2}},
		{"skipped depth", nested, func() any { return new(Reserved) }, Limits{Depth: 3}, Limits{Depth: 2}},
		{"types", didl + "02 6e 7f 6e 7f 01 00 00", func() any { return new(*Null) }, Limits{Types: 2}, Limits{Types: 1}},
		{"fields", didl + "01 6c 02 00 7f 01 7f 01 00", func() any { return new(struct{}) }, Limits{Fields: 3}, Limits{Fields: 2}},
		{"number", didl + "00 01 7d 8000", func() any { return new(Nat) }, Limits{NumberBytes: 2}, Limits{NumberBytes: 1}},
		{"decoded", didl + "01 6d 7b 01 00 0a" + strings.Repeat("00", 10), func() any { return new([]byte) }, Limits{Decoded: 42}, Limits{Decoded: 41}},
		{"skipped", didl + "01 6d 7b 01 00 0a" + strings.Repeat("00", 10), func() any { return new(Reserved) }, Limits{Skipped: 11}, Limits{Skipped: 10}},
		{"skipped text", didl + "00 01 71 03 616263", func() any { return new(Reserved) }, Limits{Skipped: 5}, Limits{Skipped: 4}},
		{"skipped nulls", didl + "01 6d 7f 01 00 03", func() any { return new(Reserved) }, Limits{Skipped: 4}, Limits{Skipped: 3}},
		{"decoded opt", didl + "00 01 78 0000000000000000", func() any { return new(*uint64) }, Limits{Decoded: 72}, Limits{Decoded: 71}},
		{"decoded nat", didl + "00 01 7d 7f", func() any { return new(Nat) }, Limits{Decoded: 65}, Limits{Decoded: 64}},
		{"decoded text", didl + "00 01 71 03 616263", func() any { return new(string) }, Limits{Decoded: 35}, Limits{Decoded: 34}},
		{"decoded vec", didl + "01 6d 7f 01 00 03", func() any { return new([]*uint64) }, Limits{Decoded: 152}, Limits{Decoded: 151}},
		{"decoded case", didl + "01 6b 01 00 78 01 00 00 0000000000000000", func() any {
			return new(struct {
				Variant
				A *uint64 `candid:"0"`
			})
		}, Limits{Decoded: 72}, Limits{Decoded: 71}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if err := Unmarshal(unhex(t, c.hex), c.ok, c.into()); err != nil {
				t.Errorf("%v: %v", c.ok, err)
			}
			if err := Unmarshal(unhex(t, c.hex), c.bad, c.into()); !errors.Is(err, ErrLimit) {
				t.Errorf("%v: %v, want %v", c.bad, err, ErrLimit)
			}
		})
	}
	if err := Unmarshal(unhex(t, didl+"00 00"), Limits{Types: -1}); err == nil {
		t.Error("a negative limit is accepted")
	}
	if got := (Limits{Depth: 3}).String(); !strings.HasPrefix(got, "depth 3, types 1024, ") {
		t.Errorf("String: %s", got)
	}
}

// TestErrors: an error says where, and nothing has been changed.
func TestErrors(t *testing.T) {
	t.Parallel()
	type written struct {
		List []struct {
			Variant
			A *string `candid:"a"`
		} `candid:"list"`
	}
	type wanted struct {
		List []struct {
			Variant
			A *bool `candid:"a"`
		} `candid:"list"`
	}
	var in written
	in.List = append(in.List, struct {
		Variant
		A *string `candid:"a"`
	}{A: ptr("x")})
	data, err := Marshal(uint8(1), in)
	if err != nil {
		t.Fatal(err)
	}
	before := uint8(7)
	err = Unmarshal(data, Limits{}, &before, new(wanted))
	var e *Error
	// The text is a length and a byte.
	if !errors.As(err, &e) || e.Path != "argument 1.list[0].a" || e.Offset != len(data)-2 || !errors.Is(e, ErrType) {
		t.Errorf("%v (%+v)", err, e)
	}
	if before != 7 {
		t.Errorf("the first argument has become %d", before)
	}
}

// TestOwnMemory: what is read does not change with the message.
func TestOwnMemory(t *testing.T) {
	t.Parallel()
	data, err := Marshal([]byte("blob"), Principal("principal"), "text", [][]byte{[]byte("inner")})
	if err != nil {
		t.Fatal(err)
	}
	var (
		blob  []byte
		who   Principal
		text  string
		inner [][]byte
	)
	if err := Unmarshal(data, Limits{}, &blob, &who, &text, &inner); err != nil {
		t.Fatal(err)
	}
	clear(data)
	if string(blob) != "blob" || string(who) != "principal" || text != "text" || string(inner[0]) != "inner" {
		t.Errorf("%q %q %q %q", blob, who, text, inner)
	}
	if len(blob) != cap(blob) {
		t.Errorf("a blob of %d bytes has room for %d", len(blob), cap(blob))
	}
}

func TestUnsupported(t *testing.T) {
	t.Parallel()
	type renamed Nat
	for _, v := range []any{
		int(1), uint(1),
		map[string]bool{},
		[2]byte{},
		make(chan int), complex(1, 1), func() {}, nil,
		renamed{},
		struct{ A bool }{},
		struct {
			a bool `candid:"a"`
		}{},
		struct {
			A bool `candid:""`
		}{},
		struct {
			A bool `candid:"0"`
			B bool `candid:"0"`
		}{},
		struct {
			Variant
			A Null `candid:"a"`
		}{},
		struct {
			A []struct {
				B *int `candid:"b"`
			} `candid:"a"`
		}{},
	} {
		if _, err := Marshal(v); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "Error encoding candid, argument 0") {
			t.Errorf("%T: %v", v, err)
		}
		if v == nil {
			continue
		}
		p := ptr(v) // a pointer to an interface
		if err := Unmarshal(nil, Limits{}, p); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%T: %v", v, err)
		}
	}
	if err := Unmarshal(nil, Limits{}, (*Nat)(nil)); !errors.Is(err, ErrUnsupported) {
		t.Errorf("a nil pointer: %v", err)
	}
}

// TestNoSuchValue: Go values that are none of their type.
func TestNoSuchValue(t *testing.T) {
	t.Parallel()
	loop := &cycle{}
	loop.Next = loop
	for _, c := range []struct {
		v    any
		want error
	}{
		{source{}, ErrType},
		{source{Taken: &Reserved{}, Uploaded: &Reserved{}}, ErrType},
		{Empty{}, ErrType},
		{"\xff", ErrType},
		{make(Principal, 30), ErrType},
		{loop, ErrLimit},
	} {
		if _, err := Marshal(c.v); !errors.Is(err, c.want) {
			t.Errorf("%T: %v, want %v", c.v, err, c.want)
		}
	}
}
