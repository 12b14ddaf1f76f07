package principal

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
)

// vectors are principals known from the public network.
var vectors = []struct{ hex, text string }{
	{"", "aaaaa-aa"},    // management canister
	{"04", "2vxsx-fae"}, // anonymous
	{"00000000000000020101", "ryjl3-tyaaa-aaaaa-aaaba-cai"}, // ledger
	{"00000000000000010101", "rrkah-fqaaa-aaaaa-aaaaq-cai"}, // governance
	{"00000000000000070101", "rdmx6-jaaaa-aaaaa-aaadq-cai"}, // internet identity
	{"abcd01", "em77e-bvlzu-aq"},                            // example of the interface spec
	{"80000000001000000101", "bnz7o-iuaaa-aaaaa-qaaaa-cai"}, // local networks
}

func TestVectors(t *testing.T) {
	for _, v := range vectors {
		b, err := hex.DecodeString(v.hex)
		if err != nil {
			t.Fatal(err)
		}
		if got := Encode(b); got != v.text {
			t.Errorf("Encode(%s) = %q, want %q", v.hex, got, v.text)
		}
		got, err := Parse(v.text)
		if err != nil || !bytes.Equal(got, b) {
			t.Errorf("Parse(%q) = %x, %v; want %s", v.text, got, err, v.hex)
		}
	}
}

func TestEveryLength(t *testing.T) {
	for n := range MaxLen + 3 {
		b := bytes.Repeat([]byte{0xa5}, n)
		text := Encode(b)
		got, err := Parse(text)
		if n > MaxLen {
			if !errors.Is(err, ErrLength) {
				t.Errorf("%d bytes: got %v, want ErrLength", n, err)
			}
			continue
		}
		if err != nil || !bytes.Equal(got, b) {
			t.Errorf("%d bytes: Parse(%q) = %x, %v", n, text, got, err)
		}
	}
	if n := len(Encode(make([]byte, MaxLen))); n != maxText {
		t.Errorf("longest text has %d characters, maxText says %d", n, maxText)
	}
}

func TestRefused(t *testing.T) {
	for _, c := range []struct {
		text string
		want error
	}{
		{"", ErrLength},
		{"a", ErrLength},
		{"aaaaa", ErrLength},
		{"aaaaa-a", ErrLength}, // 6 characters hold 3 bytes
		{strings.Repeat("aaaaa-", 5000), ErrLength},
		{"aaaaaaa", ErrGrouping},
		{"aaaaa-aa-", ErrGrouping},
		{"-aaaaa-aa", ErrGrouping},
		{"aaaa-aaa", ErrGrouping},
		{"aaaaa--aa", ErrGrouping},
		{"aaaaa-", ErrGrouping},
		{"ryjl3tyaaaaaaaaaaabacai", ErrGrouping},
		{"AAAAA-AA", ErrCharacter},
		{"Ryjl3-tyaaa-aaaaa-aaaba-cai", ErrCharacter},
		{"ryjl3-tyaaa-aaaaa-aaaba-ca1", ErrCharacter},
		{"ryjl3-tyaaa-aaaaa-aaaba-ca8", ErrCharacter},
		{" aaaaa-aa", ErrCharacter},
		{"aaaaa-aa\n", ErrCharacter},
		{"aaaaa-a\x00", ErrCharacter},
		{"aaaaa-a=", ErrCharacter},
		{"aaaaa-ä", ErrCharacter},
		{"baaaa-aa", ErrChecksum},
		{"ryjl3-tyaaa-aaaaa-aaabb-cai", ErrChecksum},
		{"aaaaa-ab", ErrNotCanonical},
		{"ryjl3-tyaaa-aaaaa-aaaba-caia", ErrChecksum},
	} {
		b, err := Parse(c.text)
		if !errors.Is(err, c.want) {
			t.Errorf("Parse(%.40q) = %x, %v; want %v", c.text, b, err, c.want)
		}
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("Parse(%.40q): %T is not *Error", c.text, err)
		}
	}
}

// TestMistyped: a CRC-32 catches every change of one character.
func TestMistyped(t *testing.T) {
	const text = "ryjl3-tyaaa-aaaaa-aaaba-cai"
	for i := range len(text) {
		for _, c := range []byte(alphabet + "-") {
			if c == text[i] {
				continue
			}
			if b, err := Parse(text[:i] + string(c) + text[i+1:]); err == nil {
				t.Errorf("character %d as %q: accepted as %x", i, c, b)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, v := range vectors {
		f.Add(v.text)
	}
	f.Add("aaaaa-ab")
	f.Add("aaaaa-a")
	f.Fuzz(func(t *testing.T, text string) {
		b, err := Parse(text)
		if err != nil {
			return
		}
		if len(b) > MaxLen {
			t.Fatalf("accepted %d bytes", len(b))
		}
		if back := Encode(b); back != text {
			t.Fatalf("%q parses but is written %q", text, back)
		}
	})
}

func FuzzEncode(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 2, 1, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > MaxLen {
			return
		}
		got, err := Parse(Encode(b))
		if err != nil || !bytes.Equal(got, b) {
			t.Fatalf("%x comes back as %x, %v", b, got, err)
		}
	})
}
