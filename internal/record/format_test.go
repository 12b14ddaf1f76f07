package record

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/snapstore/snapstore/chunk"
)

// section returns a part of docs/format.md up to the next heading.
func section(t *testing.T, heading string) string {
	t.Helper()
	doc, err := os.ReadFile("../../docs/format.md")
	if err != nil {
		t.Fatal(err)
	}
	_, part, ok := strings.Cut(string(doc), "\n"+heading+"\n")
	if !ok {
		t.Fatalf("docs/format.md has no %q", heading)
	}
	part, _, _ = strings.Cut(part, "\n#")
	return part
}

// TestFormatDoc encodes a record and finds every field where the document says.
func TestFormatDoc(t *testing.T) {
	r := full()
	b, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	le := func(n int, v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v)[:n] }
	id := func(id chunk.ID) []byte { return id[:] }
	last := r.Snapshots[1]
	want := map[string][]byte{
		"version": {Version}, "deleted": {0}, "snapshots": le(2, 2), "sequence": le(8, r.Seq), "incarnation": le(8, r.Incarnation),
		"next snapshot": le(8, r.NextLocal), "head": id(r.Head), "head logical": le(8, r.HeadLogical), "host bytes": le(4, uint64(len(r.Host))),
		"counter": le(8, last.Local), "root": id(last.Root), "logical": le(8, last.Logical), "taken at": le(8, last.TakenAt),
		"source": {byte(last.Source)}, "mutable": {1},
	}
	head, entry, ok := strings.Cut(section(t, "### Canister records"), "An entry:")
	if !ok {
		t.Fatal("no table of an entry")
	}
	n := 0
	for i, part := range []string{head, entry} {
		base := 0
		if i == 1 {
			base = headSize + snapSize // the second entry
		}
		for line := range strings.Lines(part) {
			cells := strings.Split(line, "|")
			if len(cells) < 5 {
				continue
			}
			field := strings.TrimSpace(cells[3])
			off, err1 := strconv.Atoi(strings.TrimSpace(cells[1]))
			size, err2 := strconv.Atoi(strings.TrimSpace(cells[2]))
			if err1 != nil || err2 != nil {
				continue
			}
			v, known := want[field]
			if !known || len(v) != size || !bytes.Equal(b[base+off:base+off+size], v) {
				t.Errorf("%q: the document says %d bytes at %d, the code writes %x", field, size, off, v)
			}
			delete(want, field)
			n++
		}
	}
	for field := range want {
		t.Errorf("the document lacks %q", field)
	}
	for _, phrase := range []string{
		fmt.Sprintf("| %d | %d x snapshots | entries |", headSize, snapSize),
		fmt.Sprintf("| %d + %d x snapshots | host bytes | host blob |", headSize, snapSize),
		fmt.Sprintf("how many, at most %d", MaxSnapshots), fmt.Sprintf("at most %d |", MaxHost),
	} {
		if !strings.Contains(head, phrase) {
			t.Errorf("the document does not say %q", phrase)
		}
	}
}
