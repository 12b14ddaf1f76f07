package chunk

import (
	"strings"
	"testing"
)

func TestSum(t *testing.T) {
	page := make([]byte, PageSize)
	if id := Sum(page); !id.IsZero() {
		t.Fatalf("zero page: got %v, want the zero ID", id)
	}
	if id := Sum(page[:PageSize-1]); id.IsZero() {
		t.Fatal("only a whole page of zeros has the zero ID")
	}
	// Every byte counts, the last one too.
	seen := map[ID]int{}
	for _, i := range []int{0, 1, 7, 8, 31, 32, 4087, PageSize - 1} {
		page[i] = 1
		id := Sum(page)
		page[i] = 0
		if id.IsZero() {
			t.Fatalf("byte %d set: zero ID", i)
		}
		if j, ok := seen[id]; ok {
			t.Fatalf("bytes %d and %d give one ID", i, j)
		}
		seen[id] = i
	}
	// The published BLAKE3 test vector for the empty input: unkeyed, 256 bits.
	const empty = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
	if got := Sum(nil).String(); got != empty {
		t.Fatalf("empty input: got %s, want %s", got, empty)
	}
}

func TestParseID(t *testing.T) {
	id := Sum([]byte("page"))
	got, err := ParseID(id.String())
	if err != nil || got != id {
		t.Fatalf("got %v, %v; want %v", got, err, id)
	}
	s := id.String()
	for _, bad := range []string{"", s[1:], s + "0", "g" + s[1:], strings.ToUpper(s), strings.Repeat("x", 1000)} {
		if _, err := ParseID(bad); err == nil {
			t.Errorf("ParseID(%.20q) accepted", bad)
		}
	}
}

func TestIDCompare(t *testing.T) {
	a, b := ID{1}, ID{1, 1}
	if a.Compare(b) >= 0 || b.Compare(a) <= 0 || a.Compare(a) != 0 || (ID{}).Compare(a) >= 0 {
		t.Fatal("Compare is not the byte order")
	}
}

func FuzzParseID(f *testing.F) {
	for _, s := range []string{"", "0", Sum(pageOf(1)).String(), ID{}.String(), "../../etc/x", "0x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := ParseID(s); err == nil && id.String() != s {
			t.Fatalf("%q is %v", s, id)
		}
	})
}
