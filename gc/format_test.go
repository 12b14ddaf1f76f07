package gc

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/snapstore/snapstore/internal/record"
	"github.com/snapstore/snapstore/internal/seglog"
	"github.com/snapstore/snapstore/manifest"
)

func doc(t *testing.T, heading string) string {
	t.Helper()
	all, err := os.ReadFile("../docs/format.md")
	if err != nil {
		t.Fatal(err)
	}
	_, part, ok := strings.Cut(string(all), "\n"+heading+"\n")
	if !ok {
		t.Fatalf("docs/format.md has no %q", heading)
	}
	part, _, _ = strings.Cut(part, "\n#")
	return part
}

// TestMoveFormatDoc compares the table with what is written.
func TestMoveFormatDoc(t *testing.T) {
	b := encodeMove(9, []seglog.Loc{{Segment: 3, Offset: 64, Length: 99}})
	le := binary.LittleEndian
	if b[0] != 1 || le.Uint32(b[4:]) != 1 || le.Uint64(b[8:]) != 9 || le.Uint64(b[16:]) != 3 || le.Uint32(b[24:]) != 64 || le.Uint32(b[28:]) != 99 || len(b) != 32 {
		t.Fatalf("%x", b)
	}
	text := doc(t, "### Move frames")
	for _, row := range []string{
		fmt.Sprintf("| 0 | 1 | version | %d |", moveVersion), "| 1 | 3 | reserved | 0 |", "| 4 | 4 | frames | how many, at most 2^24 |",
		"| 8 | 8 | victim |", fmt.Sprintf("| %d | %d x frames | places | segment (8), offset (4), length (4)", moveHead, moveEntry),
	} {
		if !strings.Contains(text, row) {
			t.Errorf("the document does not say %q", row)
		}
	}
	if maxMoved != 1<<24 {
		t.Error("the bound is another one")
	}
}

// TestStateFormatDoc takes an encoded state apart in the order of the document.
func TestStateFormatDoc(t *testing.T) {
	var fields []string
	for line := range strings.Lines(doc(t, "### Counting states")) {
		if cells := strings.Split(line, "|"); len(cells) >= 4 && !strings.HasPrefix(cells[1], "-") {
			fields = append(fields, strings.TrimSpace(cells[1]))
		}
	}
	want := []string{"field", "version", "record sequence", "damaged", "partial", "runs", "incarnation", "detached", "dropping", "cursor", "versions", "counter", "root", "dying"}
	if fmt.Sprint(fields) != fmt.Sprint(want) {
		t.Fatalf("the document lists %q", fields)
	}
	rs := fromRecord(&record.Record{Seq: 5, Incarnation: 6, Head: id(7)})
	place := manifest.Place{}.Encode()
	b := []byte{runsVersion, 5, 0, 0, 1, 6, 0, 0, byte(len(place))}
	b = append(b, place...)
	b = append(b, 1)
	b = binary.BigEndian.AppendUint64(b, headLocal)
	root := id(7)
	b = append(append(b, root[:]...), 0)
	if got := rs.encode(); string(got) != string(b) {
		t.Fatalf("got %x, want %x", got, b)
	}
}
