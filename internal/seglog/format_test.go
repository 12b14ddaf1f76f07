package seglog

import (
	"encoding/hex"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
)

// logFormat returns the part of docs/format.md that this package answers for.
func logFormat(t *testing.T) string {
	b, err := os.ReadFile("../../docs/format.md")
	if err != nil {
		t.Fatal(err)
	}
	_, part, ok := strings.Cut(string(b), "\n## The log\n")
	if !ok {
		t.Fatal(`docs/format.md has no part "The log"`)
	}
	if i := strings.Index(part, "\n## "); i >= 0 {
		part = part[:i]
	}
	return part
}

// table returns the rows of the first table after the given words.
func table(t *testing.T, doc, after string) [][]string {
	_, rest, ok := strings.Cut(doc, after)
	if !ok {
		t.Fatalf("docs/format.md has no %q", after)
	}
	var rows [][]string
	for line := range strings.Lines(rest) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") {
			if len(rows) > 0 {
				break
			}
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		rows = append(rows, cells)
	}
	if len(rows) < 3 {
		t.Fatalf("docs/format.md has no table after %q", after)
	}
	return rows[2:] // without head and rule
}

// A field is what the code says of a row: its name and where it starts.
type field struct {
	name string
	at   int
}

func TestFormatDoc(t *testing.T) {
	doc := logFormat(t)
	for _, c := range []struct {
		after  string
		size   int // of the fixed part
		fields []field
	}{
		{"The frame header:", headerSize, []field{
			{"magic", hdrMagic},
			{"kind", hdrKind},
			{"version", hdrVersion},
			{"stream", hdrStream},
			{"reserved", hdrReserved},
			{"length", hdrLength},
			{"offset", hdrOffset},
			{"segment", hdrSegment},
			{"epoch", hdrEpoch},
			{"sequence", hdrSequence},
			{"checksum", hdrSum},
			{"mac", hdrMAC},
		}},
		{"A record frame's payload;", recFixed, []field{
			{"key length", recKeyLen}, {"flags", recFlags}, {"reserved", recReserved}, {"record sequence", recSequence}, {"key", recFixed},
		}},
		{"A trailer's payload:", trlFixed, []field{
			{"sequence", trlSequence},
			{"epoch", trlEpoch},
			{"previous", trlPrevious},
			{"previous hash", trlPrevHash},
			{"header hash", trlHeaderHash},
			{"start", trlStart},
			{"end", trlEnd},
			{"frames", trlFrames},
			{"records", trlRecords},
			{"ranges", trlRanges},
			{"reserved", trlReserved},
			{"record entries", trlFixed},
			{"range entries", -1},
		}},
		{"A record entry:", trlRecFixed, []field{
			{"record sequence", trlRecSeq},
			{"offset", trlRecOffset},
			{"key length", trlRecKeyLen},
			{"flags", trlRecFlags},
			{"reserved", trlRecRsv},
			{"key", trlRecFixed},
		}},
		{"A range entry:", trlRangeSize, []field{{"segment", trlRangeSegment}, {"start", trlRangeStart}, {"end", trlRangeEnd}}},
		{"A directory's payload:", dirFixed, []field{
			{"first", dirFirst}, {"last", dirLast}, {"frames", dirFrames}, {"reserved", dirReserved}, {"directory entries", dirFixed},
		}},
		{"A directory entry:", dirEntSize, []field{
			{"offset", dirEntOffset}, {"length", dirEntLength}, {"checksum", dirEntSum}, {"kind", dirEntKind}, {"reserved", dirEntReserved},
		}},
		{"### ROOT", rootFixed, []field{
			{"magic", rootMagicAt},
			{"version", rootVersionAt},
			{"reserved", rootReserved},
			{"features", rootFeatures},
			{"generation", rootGeneration},
			{"store", rootStore},
			{"frame key", rootKey},
			{"epoch", rootEpoch},
			{"next segment", rootNextSeg},
			{"next sequence", rootNextSeq},
			{"floor", rootFloor},
			{"last", rootLastSeq},
			{"last hash", rootLastHash},
			{"segment size", rootSegSize},
			{"segments", rootSegments},
			{"reserved", rootReserved2},
			{"segment entries", rootFixed},
			{"hash", -1},
		}},
		{"A segment entry:", entSize, []field{
			{"number", entID},
			{"length", entLength},
			{"directory", entDirAt},
			{"first", entFirst},
			{"last", entLast},
			{"hash", entHash},
			{"stream", entStream},
			{"state", entState},
			{"flags", entFlags},
			{"reserved", entReserved},
		}},
	} {
		rows := table(t, doc, c.after)
		if len(rows) != len(c.fields) {
			t.Errorf("%s %d rows, want %d", c.after, len(rows), len(c.fields))
			continue
		}
		at := 0
		for i, row := range rows {
			f := c.fields[i]
			if row[2] != f.name {
				t.Errorf("%s row %d is %q, want %q", c.after, i, row[2], f.name)
			}
			if f.at < 0 {
				continue
			}
			if row[0] != strconv.Itoa(f.at) || at != f.at {
				t.Errorf("%s %s stands at %s in the document, at %d in the code, and the field before ends at %d", c.after, f.name, row[0], f.at, at)
			}
			if n, err := strconv.Atoi(row[1]); err == nil {
				at += n
			}
		}
		if at != c.size {
			t.Errorf("%s %d bytes, want %d", c.after, at, c.size)
		}
	}
	if frameVersion != 1 || rootVersion != 1 || rootFeaturesKnown != 1 || flagMoved != 1 || flagEmpty != 1 {
		t.Error("versions or flags differ from the document")
	}
	for _, want := range []string{
		"| 0 | 4 | magic | `" + frameMagic + "` |", "| 0 | 8 | magic | `" + rootMagic + "` |", "begins with `" + tornMagic + "`",
		fmt.Sprintf("| frames start at multiples of | %d |", frameAlign),
		fmt.Sprintf("| bytes of a payload, at most | %d |", MaxPayload),
		fmt.Sprintf("| bytes of a key, at most | %d |", MaxKey),
		fmt.Sprintf("| bytes of a batch, at most | %d |", maxBatch),
		fmt.Sprintf("| segments, at most | %d |", maxSegments),
		fmt.Sprintf("| 24 | %d x frames |", dirEntSize), fmt.Sprintf("| 168 | %d x segments |", entSize),
	} {
		if !strings.Contains(doc, want) {
			t.Errorf("docs/format.md lacks %q", want)
		}
	}
	var names []string
	for k := KindGroup; k.valid(); k++ {
		names = append(names, fmt.Sprintf("%s %d", k, k))
	}
	sameNames(t, "kinds", table(t, doc, "under ROOT's frame key |\n"), names)
	names = nil
	for s := StreamCommit; s <= StreamMoved; s++ {
		names = append(names, fmt.Sprintf("%s %d", s, s))
	}
	sameNames(t, "streams", table(t, doc, "says so in ROOT's features."), names)
	names = nil
	for s := stateOpen; s <= stateRecovered; s++ {
		names = append(names, fmt.Sprintf("%s %d", s, s))
	}
	sameNames(t, "states", table(t, doc, "1: holds nothing but trailers"+" |\n| 67 | 5 | reserved | 0 |\n"), names)

	if want := exampleDump(); !strings.Contains(doc, want) {
		t.Errorf("docs/format.md: the example should be\n%s", want)
	}
}

func sameNames(t *testing.T, what string, rows [][]string, want []string) {
	t.Helper()
	var got []string
	for _, r := range rows {
		got = append(got, r[0]+" "+r[1])
	}
	if strings.Join(got, ",") != strings.Join(want, ",") {
		t.Errorf("%s are %v in the document, %v in the code", what, got, want)
	}
}

// exampleDump lays out the batch of the document's example.
func exampleDump() string {
	var key [32]byte
	for i := range key {
		key[i] = byte(i)
	}
	l := &Log{seal: newSealer(key), epoch: 1}
	r := &Request{
		Frames:  []NewFrame{{KindGroup, []byte("page")}},
		Records: []NewRecord{{Key: []byte("k"), RecordSeq: 7, Payload: []byte("state")}},
	}
	if err := l.prepare(r); err != nil {
		return err.Error()
	}
	l.build(newSegment(1, ""), &trailer{seq: 1, epoch: 1}, []*pending{{req: r}})
	var out strings.Builder
	out.WriteString("```\n")
	for off := 0; off < len(l.buf); {
		h, err := l.seal.parse(l.buf[off:])
		if err != nil {
			return err.Error()
		}
		fmt.Fprintf(&out, "%s at %d\n", h.kind, off)
		for b := l.buf[off : off+int(h.loc().Length)]; len(b) > 0; {
			n := min(len(b), 32)
			fmt.Fprintln(&out, hex.EncodeToString(b[:n]))
			b = b[n:]
		}
		off = int(h.end())
	}
	out.WriteString("```\n")
	return out.String()
}
