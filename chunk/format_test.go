package chunk

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// formatDoc returns the part of docs/format.md that this package answers for.
func formatDoc(t *testing.T) string {
	t.Helper()
	doc, err := os.ReadFile("../docs/format.md")
	if err != nil {
		t.Fatal(err)
	}
	_, part, ok := strings.Cut(string(doc), "\n### Groups\n")
	if !ok {
		t.Fatal("docs/format.md has no part \"Groups\"")
	}
	// Up to the next heading.
	if at := regexp.MustCompile(`(?m)^#{1,3} `).FindStringIndex(part); at != nil {
		part = part[:at[0]]
	}
	return part
}

// TestFormatTables holds the tables of the document to the constants of the code.
func TestFormatTables(t *testing.T) {
	rows := map[string][3]string{}
	for line := range strings.Lines(formatDoc(t)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) != 4 {
			continue
		}
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		rows[cells[2]] = [3]string{cells[0], cells[1], cells[3]}
	}
	n := func(i int) string { return fmt.Sprint(i) }
	for field, want := range map[string][3]string{
		"version":       {n(groupVersionAt), n(groupCodecAt - groupVersionAt), fmt.Sprintf("%d; %d with a domain behind the header", version, versionDomain)},
		"codec":         {n(groupCodecAt), n(groupCountAt - groupCodecAt), fmt.Sprintf("%d %v, %d %v, %d %v, %d %v, %d %v", CodecRaw, CodecRaw, CodecS2, CodecS2, CodecZstd, CodecZstd, CodecS2Parts, CodecS2Parts, CodecDelta, CodecDelta)},
		"count":         {n(groupCountAt), n(groupZeroAt - groupCountAt), fmt.Sprintf("pages, 1 to %d", GroupPages)},
		"reserved":      {n(groupZeroAt), n(groupRawAt - groupZeroAt), "0"},
		"raw length":    {n(groupRawAt), n(groupStoredAt - groupRawAt), fmt.Sprintf("%d x count", PageSize)},
		"stored length": {n(groupStoredAt), n(groupHeader - groupStoredAt), "bytes of data"},
		"IDs":           {n(groupHeader), fmt.Sprintf("%d x count", idSize), "in the order of the pages; none is zero"},
		"data":          {fmt.Sprintf("%d + %d x count", groupHeader, idSize), "stored length", "the pages side by side, through the codec"},
		"node version":  {n(nodesVersionAt), n(nodesCountAt - nodesVersionAt), fmt.Sprintf("%d; %d with a domain behind the header", version, versionDomain)},
		"node count":    {n(nodesCountAt), n(nodesZeroAt - nodesCountAt), fmt.Sprintf("nodes, 1 to %d", FrameNodes)},
		"node reserved": {n(nodesZeroAt), n(nodesHeader - nodesZeroAt), "0"},
		"lengths":       {n(nodesHeader), fmt.Sprintf("%d x node count", nodesLength), "bytes of each node"},
		"nodes":         {fmt.Sprintf("%d + %d x node count", nodesHeader, nodesLength), "sum of lengths", "side by side"},
	} {
		if rows[field] != want {
			t.Errorf("%s: the document says %q, the code %q", field, rows[field], want)
		}
	}
	text := strings.Join(strings.Fields(formatDoc(t)), " ")
	for _, phrase := range []string{
		fmt.Sprintf("A group frame holds 1 to %d pages", GroupPages),
		fmt.Sprintf("nodes of 1 to %d bytes", MaxNode),
		fmt.Sprintf("one block of s2 for each %d pages", partPages),
		fmt.Sprintf("more than %d pages", partPages),
		fmt.Sprintf("with two bytes, a number of which the lowest %d bits", methodBits),
		fmt.Sprintf("| %d | the page | | %d | the page as lines | | %d | a block of s2 |", methodRaw, methodDelta, methodS2),
		"minus a sixteenth of it, rounded down",
		fmt.Sprintf("windows of up to %d KiB", maxRaw>>10),
		fmt.Sprintf("stand %d bytes, the domain", domainSize),
		"`" + domainContext + "`",
	} {
		if !strings.Contains(text, phrase) {
			t.Errorf("the document does not say %q", phrase)
		}
	}
	if minSaving != 16 {
		t.Error("a sixteenth is something else now")
	}
}

// TestFormatExamples decodes the examples of the document. What is decoded must
// stay so for ever, whatever encoders make of the same pages later.
func TestFormatExamples(t *testing.T) {
	found := 0
	canister := []byte{0, 0, 0, 0, 0, 0, 0, 7, 1, 1}
	var in Domain // that of the examples that follow
	for line := range strings.Lines(formatDoc(t)) {
		f := strings.Fields(line)
		if len(f) != 2 {
			continue
		}
		b, err := hex.DecodeString(f[1])
		if err != nil {
			continue
		}
		found++
		switch f[0] {
		case "domain":
			if in = DedupCanister.Of(canister); !bytes.Equal(in[:], b) {
				t.Errorf("the domain is %x", in[:])
			}
			continue
		case "indexed":
			if key := in.Key(Sum(bytes.Repeat([]byte("a"), PageSize))); !bytes.Equal(key[:], b) {
				t.Errorf("the key is %v", key)
			}
			continue
		case "nodes":
			d, nodes, err := SplitNodes(b)
			if err != nil || d != in || len(nodes) != 2 || string(nodes[0]) != "one" || string(nodes[1]) != "three" {
				t.Errorf("nodes: %q, %v", nodes, err)
			}
			if again, err := AppendNodes(nil, in, nodes); err != nil || !bytes.Equal(again, b) {
				t.Errorf("nodes encode differently: %x, %v", again, err)
			}
			continue
		}
		g, err := parseGroup(b)
		if err != nil || g.codec.String() != f[0] || g.domain != in {
			t.Errorf("%s: %v, %v", f[0], g.codec, err)
			continue
		}
		want := bytes.Repeat([]byte("a"), PageSize)
		switch g.codec {
		case CodecDelta:
			second := bytes.Clone(want)
			copy(second[100:], "xyz")
			want = append(want, second...)
		case CodecS2Parts:
			for _, letter := range []string{"b", "c", "d", "e"} {
				want = append(want, strings.Repeat(letter, PageSize)...)
			}
		}
		pages, ids, err := DecodeGroup(nil, b)
		if err != nil || !bytes.Equal(pages, want) || ids[0] != Sum(pages[:PageSize]) {
			t.Errorf("%s: %v, %v", f[0], ids, err)
		}
	}
	if found != 9 {
		t.Errorf("%d examples", found)
	}
}
