package manifest

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/snapstore/snapstore/chunk"
)

// formatDoc is the part of the format's description that this package answers
// for.
func formatDoc(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../docs/format.md")
	if err != nil {
		t.Fatal(err)
	}
	const title = "### Nodes and manifests\n"
	_, part, ok := strings.Cut(string(b), title)
	if !ok {
		t.Fatalf("docs/format.md has no %q", strings.TrimSpace(title))
	}
	if i := regexp.MustCompile(`(?m)^#{1,3} `).FindStringIndex(part); i != nil {
		part = part[:i[0]]
	}
	return part
}

// The values that the description gives are those of the code.
func TestFormatValues(t *testing.T) {
	doc := formatDoc(t)
	row := func(name string, value any) {
		if line := fmt.Sprintf("| %s | %v |", name, value); !strings.Contains(doc, line) {
			t.Errorf("docs/format.md lacks %q", line)
		}
	}
	row("tree node", KindTree)
	row("manifest", KindManifest)
	row("version of tree nodes", treeVersion)
	row("version of manifests", manifestVersion)
	row("key context of tree nodes", "`"+treeContext+"`")
	row("key context of manifests", "`"+manifestContext+"`")
	row("children of a node", Fanout)
	row("levels of nodes, at most", MaxDepth)
	row("bytes of a tree node, at most", MaxNodeSize)
	row("bytes of a manifest, at most", MaxManifestSize)
	row("bytes of a section, at most", fmt.Sprintf("2^50 = %d", uint64(MaxSectionSize)))
	row("sections, at most", MaxSections)
	row("globals, at most", MaxGlobals)
	row("bytes of certified data, at most", MaxCertifiedData)
	row("bytes of a place, at most", MaxPlaceSize)
	for k := WasmModule; k.valid(); k++ {
		row(k.String(), uint8(k))
	}
	for s := SourceNone; s <= SourceUploaded; s++ {
		row(s.String(), uint8(s))
	}
	for k := GlobalI32; k <= GlobalV128; k++ {
		row(k.String(), fmt.Sprintf("%d | %d", k, k.width()))
	}
	for h := HookAbsent; h <= HookExecuted; h++ {
		row(h.String(), uint8(h))
	}
	row("timer absent", timerAbsent)
	row("timer inactive", timerInactive)
	row("timer active", timerActive)
	row("start", stageStart)
	row("in a section", stageSection)
	row("manifest place", stageManifest)
	row("end", stageEnd)
}

// The examples are what the code makes: whoever changes a byte of the format
// changes this description, and the version.
func TestFormatExamples(t *testing.T) {
	doc := formatDoc(t)
	one, two := chunk.Sum([]byte("one")), chunk.Sum([]byte("two"))
	emitted := 0
	b := NewBuilder(t.Context(), nil, SectionRoot{Section: testHeap}, 18*chunk.PageSize-1, func(id chunk.ID, node []byte) error {
		emitted++
		example(t, doc, fmt.Sprintf("node %d", emitted), node)
		example(t, doc, fmt.Sprintf("ID of node %d", emitted), id[:])
		return nil
	})
	if err := errors.Join(b.Set(0, one), b.Set(17, two)); err != nil {
		t.Fatal(err)
	}
	root := must(b.Finish())
	m := &Manifest{
		Sections: []SectionRoot{root, {Section: testStable, Size: 65536}, {Section: Section{WasmChunk, chunk.Sum([]byte("three"))}, Root: two, Size: 100}},
		Meta: Metadata{
			Source: SourceUploaded, TakenAt: 1_700_000_000_000_000_001, CanisterVersion: 42, CertifiedData: []byte("certified"),
			Globals:     []Global{{Kind: GlobalI32, Lo: 7}, {Kind: GlobalF64, Lo: 0x3ff0000000000000}, {Kind: GlobalV128, Lo: 1, Hi: 2}},
			GlobalTimer: Timer{true, true, 99}, HookStatus: HookReady,
		},
	}
	enc := must(m.Encode())
	id := must(NodeID(enc))
	example(t, doc, "manifest", enc)
	example(t, doc, "ID of the manifest", id[:])
	example(t, doc, "place", treePlace(testHeap, 2, 3).Encode())
}

func example(t *testing.T, doc, name string, want []byte) {
	t.Helper()
	_, block, ok := strings.Cut(doc, "\n"+name+":\n```\n")
	text, _, closed := strings.Cut(block, "```")
	got, err := hex.DecodeString(strings.Join(strings.Fields(text), ""))
	if !ok || !closed || err != nil || string(got) != string(want) {
		t.Errorf("docs/format.md, %q: want\n%s", name, hexLines(want))
	}
}

func hexLines(b []byte) string {
	var out strings.Builder
	for len(b) > 0 {
		n := min(32, len(b))
		fmt.Fprintf(&out, "%x\n", b[:n])
		b = b[n:]
	}
	return out.String()
}
