package index

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/bits"
	"os"
	"strconv"
	"strings"
	"testing"
)

// The tables of docs/format.md are held to the code here.

func formatSection(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../../docs/format.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(b), "\n## The index\n")
	if !ok {
		t.Fatal("docs/format.md has no section on the index")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	return section
}

// table returns the cells of the n-th table with the given head.
func table(t *testing.T, section, head string, n int) [][]string {
	t.Helper()
	var rows [][]string
	in, seen := false, -1
	for line := range strings.Lines(section) {
		line = strings.TrimSpace(line)
		switch {
		case line == head:
			seen++
			in = seen == n
		case in && strings.HasPrefix(line, "|---"):
		case in && strings.HasPrefix(line, "|"):
			var cells []string
			for _, c := range strings.Split(strings.Trim(line, "|"), "|") {
				cells = append(cells, strings.TrimSpace(c))
			}
			rows = append(rows, cells)
		default:
			in = false
		}
	}
	if len(rows) == 0 {
		t.Fatalf("no table %d with head %q", n, head)
	}
	return rows
}

const layoutHead = "| offset | bytes | field | value |"

// checkLayout compares a table of fixed fields with an encoding whose fields
// are given in order.
func checkLayout(t *testing.T, rows [][]string, encoded []byte, fields map[string][]byte) {
	t.Helper()
	at := 0
	for _, row := range rows {
		want, ok := fields[row[2]]
		if !ok {
			t.Fatalf("field %q is not in the code", row[2])
		}
		delete(fields, row[2])
		if row[0] != strconv.Itoa(at) || row[1] != strconv.Itoa(len(want)) {
			t.Errorf("%s is at %s of %s bytes, want %d of %d", row[2], row[0], row[1], at, len(want))
		}
		if at+len(want) > len(encoded) || !bytes.Equal(encoded[at:at+len(want)], want) {
			t.Errorf("%s is not at %d", row[2], at)
		}
		at += len(want)
	}
	if len(fields) > 0 || at != len(encoded) {
		t.Errorf("the table ends at %d of %d bytes and lacks %d fields", at, len(encoded), len(fields))
	}
}

func be64(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }
func le64(v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v) }
func le32(v uint32) []byte { return binary.LittleEndian.AppendUint32(nil, v) }

func TestFormatOfKeys(t *testing.T) {
	keys := map[string][2][]byte{
		"entry":  {appendEntryKey(nil, ID{}), appendEntryKey(nil, ID{})},
		"limbo":  {appendLimboKey(nil, ID{}), appendLimboKey(nil, ID{})},
		"meta":   {metaKey(), metaKey()},
		"record": {appendRecordKey(nil, []byte{0}), appendRecordKey(nil, make([]byte, maxKey))},
		"state":  {appendStateKey(nil, []byte{0}), appendStateKey(nil, make([]byte, maxKey))},
		"live":   {appendLiveKey(nil, 0), appendLiveKey(nil, 0)},
	}
	for _, row := range table(t, formatSection(t), "| kind | first byte | rest of the key | bytes of the key | value |", 0) {
		k, ok := keys[row[0]]
		if !ok {
			t.Fatalf("kind %q is not in the code", row[0])
		}
		delete(keys, row[0])
		if want := fmt.Sprintf("`%c`", k[0][0]); row[1] != want {
			t.Errorf("%s starts with %s, want %s", row[0], row[1], want)
		}
		want := strconv.Itoa(len(k[0]))
		if len(k[1]) != len(k[0]) {
			want += " to " + strconv.Itoa(len(k[1]))
		}
		if row[3] != want {
			t.Errorf("%s has %s bytes, want %s", row[0], row[3], want)
		}
	}
	if len(keys) > 0 {
		t.Errorf("%d kinds are not in the table", len(keys))
	}
}

func TestFormatOfVarintValues(t *testing.T) {
	const head = "| bytes | field | value |"
	section := formatSection(t)
	check := func(n int, encoded []byte, values map[string]uint64, rest string) {
		t.Helper()
		for _, row := range table(t, section, head, n) {
			switch row[0] {
			case "1":
				if uint64(encoded[0]) != values[row[1]] {
					t.Errorf("%s is %d", row[1], encoded[0])
				}
				encoded = encoded[1:]
			case "varint":
				v, size := binary.Uvarint(encoded)
				if size <= 0 || v != values[row[1]] {
					t.Errorf("%s is %d, want %d", row[1], v, values[row[1]])
				}
				encoded = encoded[size:]
			case "rest":
				if string(encoded) != rest {
					t.Errorf("%s is %q", row[1], encoded)
				}
				encoded = nil
			}
			delete(values, row[1])
		}
		if len(encoded) > 0 || len(values) > 0 {
			t.Errorf("table %d leaves %d bytes and %d fields", n, len(encoded), len(values))
		}
	}
	check(0, appendEntry(nil, Entry{Location: Location{1000, 2000, 3000, 4, 5}, Count: 6000, Lost: true, Node: true}),
		map[string]uint64{"flags": 3, "segment": 1000, "offset": 2000, "length": 3000, "slot": 4, "slots": 5, "count": 6000}, "")
	check(1, appendRecord(nil, Record{1000, 2000, 3000, 4000, []byte("payload")}),
		map[string]uint64{"record sequence": 1000, "segment": 2000, "offset": 3000, "length": 4000}, "payload")
	row := table(t, section, head, 0)[0]
	if want := fmt.Sprintf("%d: lost; %d: a node", flagLost, flagNode); row[2] != want {
		t.Errorf("flags are %q, want %q", row[2], want)
	}
}

func TestFormatOfMeta(t *testing.T) {
	m := meta{store: [16]byte{1, 15: 2}, seq: 3, hash: hashOf(4), state: stateID{5, 6}}
	checkLayout(t, table(t, formatSection(t), layoutHead, 0), appendMeta(nil, m), map[string][]byte{
		"version": {formatVersion}, "store": m.store[:], "sequence": be64(3), "hash": m.hash[:], "session": be64(5), "serial": be64(6),
	})
}

func TestFormatOfFilter(t *testing.T) {
	section := formatSection(t)
	h := filterHeader{store: [16]byte{1, 15: 2}, opened: stateID{3, 4}, session: 5, covers: 7}
	f := &filter{base: 6, seed: 8}
	f.layers.Store(&[]*bloomLayer{newLayer(9)})
	ids := testIDs(1, 9)
	for i := range ids {
		f.add(&ids[i])
	}
	var b bytes.Buffer
	if err := writeFilter(&b, h, f); err != nil {
		t.Fatal(err)
	}
	head, rest := b.Bytes()[:filterHeaderSize], b.Bytes()[filterHeaderSize:]
	checkLayout(t, table(t, section, layoutHead, 1), head, map[string][]byte{
		"magic": []byte(filterMagic), "version": le32(filterVersion), "layers": le32(1), "store": h.store[:],
		"opened session": le64(3), "opened serial": le64(4), "session": le64(5), "base": le64(6), "covers": le64(7), "seed": le64(8),
	})
	layer := table(t, section, layoutHead, 2)
	if last := layer[len(layer)-1]; last[0] != strconv.Itoa(layerHeaderSize) || last[1] != fmt.Sprint(blockBytes, " each") {
		t.Errorf("blocks are at %s, %s", last[0], last[1])
	}
	checkLayout(t, layer[:len(layer)-1], rest[:layerHeaderSize], map[string][]byte{
		"blocks": le64(1), "capacity": le64(9), "added": le64(f.added()),
	})
	// The bits, by the words of the page.
	words := make([]uint64, 8)
	for _, id := range ids {
		var w [4]uint64
		for i := range w {
			w[i] = binary.LittleEndian.Uint64(id[8*i:])
		}
		x := w[0] ^ bits.RotateLeft64(w[2], 17) ^ 8
		y := (w[1] ^ bits.RotateLeft64(w[3], 31)) + 8
		hi, lo := bits.Mul64(y^bits.RotateLeft64(x, 29), 0xd6e8feb86659fd93)
		for i := range words {
			words[i] |= 1 << ((hi ^ lo) >> (6 * i) & 63)
		}
	}
	for i, w := range words {
		if got := binary.LittleEndian.Uint64(rest[layerHeaderSize+8*i:]); got != w {
			t.Errorf("word %d is %x, want %x", i, got, w)
		}
	}
}

func TestFormatExamples(t *testing.T) {
	var id ID
	for i := range id {
		id[i] = byte(i + 1)
	}
	want := map[string][2][]byte{
		"entry": {appendEntryKey(nil, id), appendEntry(nil, Entry{Location: Location{5, 32768, 300, 3, 16}, Count: 1})},
		"lost":  {appendEntryKey(nil, id), appendEntry(nil, Entry{Lost: true, Node: true, Count: 2})},
		"live":  {appendLiveKey(nil, 5), appendLive(nil, 1000)},
	}
	_, examples, _ := strings.Cut(formatSection(t), "### Examples")
	for line := range strings.Lines(examples) {
		w := strings.Fields(line)
		if len(w) != 3 || len(want[w[0]][0]) == 0 {
			continue
		}
		for i := range 2 {
			if got := hex.EncodeToString(want[w[0]][i]); got != w[1+i] {
				t.Errorf("%s: %s, the page has %s", w[0], got, w[1+i])
			}
		}
		delete(want, w[0])
	}
	if len(want) > 0 {
		t.Errorf("%d examples are missing", len(want))
	}
}
