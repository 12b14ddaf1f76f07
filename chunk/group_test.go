package chunk

import (
	"bytes"
	"testing"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
)

var codecs = []Codec{CodecRaw, CodecS2, CodecZstd, CodecS2Parts, CodecDelta}

// Every number of pages under every codec comes back, and nothing is written
// beyond the pages.
func TestGroupRoundTrip(t *testing.T) {
	var c Coder
	r := newRand(t)
	for _, codec := range codecs {
		for n := 1; n <= GroupPages; n++ {
			ids, pages := fillPages(r.Uint64()%1000, n)
			prefix := []byte("what stood there before")
			out, used, err := c.AppendGroup(bytes.Clone(prefix), codec, ids, pages)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.HasPrefix(out, prefix) {
				t.Fatal("append changed what was there")
			}
			payload := out[len(prefix):]
			want := codec
			if codec == CodecS2Parts && n <= partPages {
				want = CodecS2
			}
			if n > 2 && used != want {
				t.Errorf("%v of %d pages: stored as %v", codec, n, used)
			}
			_, got, err := GroupIDs(payload)
			if err != nil || len(got) != n {
				t.Fatalf("ids: %v, %v", got, err)
			}
			// The guard behind the pages lies in the capacity of dst.
			dst := bytes.Repeat([]byte{0xee}, maxRaw+PageSize)
			back, ids2, err := c.DecodeGroup(dst[:0], payload)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(back, pages) {
				t.Fatalf("%v of %d pages: other pages came back", codec, n)
			}
			if &back[0] != &dst[0] || cap(back) != len(pages) {
				t.Fatal("pages are not in dst, or reach beyond themselves")
			}
			if !bytes.Equal(dst[len(pages):], bytes.Repeat([]byte{0xee}, len(dst)-len(pages))) {
				t.Fatalf("%v of %d pages: wrote beyond the pages", codec, n)
			}
			for i := range ids {
				if ids[i] != ids2[i] || ids[i] != got[i] {
					t.Fatalf("id %d differs", i)
				}
			}
			if back, _, err := DecodeGroup(nil, payload); err != nil || !bytes.Equal(back, pages) {
				t.Fatalf("without dst: %v", err)
			}
		}
	}
	if c.Faults() != 0 {
		t.Fatalf("%d faults", c.Faults())
	}
}

func TestGroupRawWhereItDoesNotPay(t *testing.T) {
	pages := make([]byte, 3*PageSize)
	var ids []ID
	for i := range 3 {
		p := pages[i*PageSize : (i+1)*PageSize]
		fill(p, uint64(3*i)) // does not compress
		ids = append(ids, Sum(p))
	}
	for _, codec := range codecs {
		out, used, err := AppendGroup(nil, codec, ids, pages)
		if err != nil || used != CodecRaw {
			t.Fatalf("%v: used %v, %v", codec, used, err)
		}
		if len(out) != groupHeader+3*idSize+3*PageSize {
			t.Fatalf("raw group of %d bytes", len(out))
		}
	}
	// The border: saving a sixteenth pays, one byte less does not.
	if !pays(15*PageSize, maxRaw) || pays(15*PageSize+1, maxRaw) {
		t.Fatal("the border is elsewhere")
	}
}

func TestGroupRefusesBadInput(t *testing.T) {
	ids, pages := fillPages(0, GroupPages+1)
	for name, f := range map[string]func() error{
		"none":     func() error { _, _, err := AppendGroup(nil, CodecS2, nil, nil); return err },
		"many":     func() error { _, _, err := AppendGroup(nil, CodecS2, ids, pages); return err },
		"short":    func() error { _, _, err := AppendGroup(nil, CodecS2, ids[:1], pages[:7]); return err },
		"codec":    func() error { _, _, err := AppendGroup(nil, lastCodec+1, ids[:1], pages[:PageSize]); return err },
		"zero id":  func() error { _, _, err := AppendGroup(nil, CodecS2, make([]ID, 1), pages[:PageSize]); return err },
		"sum":      func() error { return SumPages(ids, pages[1:]) },
		"no nodes": func() error { _, err := AppendNodes(nil, Domain{}, nil); return err },
		"nodes":    func() error { _, err := AppendNodes(nil, Domain{}, make([][]byte, 17)); return err },
		"big node": func() error { _, err := AppendNodes(nil, Domain{}, [][]byte{make([]byte, MaxNode+1)}); return err },
		"empty":    func() error { _, err := AppendNodes(nil, Domain{}, [][]byte{{}}); return err },
	} {
		if f() == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// A codec that compresses wrongly is found out before anything is stored.
func TestCodecThatFails(t *testing.T) {
	ids, pages := fillPages(1, GroupPages)
	for _, codec := range []Codec{CodecS2, CodecZstd, CodecS2Parts, CodecDelta} {
		c := Coder{spoil: func(b []byte) { b[len(b)/2] ^= 1 }}
		out, used, err := c.AppendGroup(nil, codec, ids, pages)
		if err != nil || used != CodecRaw || c.Faults() != 1 {
			t.Fatalf("%v: used %v, %d faults, %v", codec, used, c.Faults(), err)
		}
		back, _, err := DecodeGroup(nil, out)
		if err != nil || !bytes.Equal(back, pages) {
			t.Fatalf("%v: not stored raw: %v", codec, err)
		}
	}
}

// TestMaxCompressed holds the bound that buffers are made for.
func TestMaxCompressed(t *testing.T) {
	if n := s2.MaxEncodedLen(maxRaw); n > maxCompressed {
		t.Fatalf("s2 needs %d", n)
	}
	if n := 2*(maxParts-1) + maxParts*s2.MaxEncodedLen(partRaw); n > maxCompressed {
		t.Fatalf("s2 in parts needs %d", n)
	}
	enc, _ := zstd.NewWriter(nil)
	if n := enc.MaxEncodedSize(maxRaw); n > maxCompressed {
		t.Fatalf("zstd needs %d", n)
	}
	if _, err := seglogRoom(frameBuffer); err != nil {
		t.Fatal(err)
	}
}

func seglogRoom(n int) (int, error) {
	ids, pages := fillPages(0, GroupPages)
	out, _, err := AppendGroup(nil, CodecRaw, ids, pages)
	if err == nil && 64+len(out) > n {
		return n, errLength
	}
	return n, err
}

// bombs are groups whose data decompresses to more than, or less than, they say.
func bombs() [][]byte {
	var out [][]byte
	enc, _ := zstd.NewWriter(nil)
	page := pageOf(1)
	id := Sum(page)
	for _, n := range []int{0, 1, PageSize - 1, PageSize + 1, 16 * PageSize, 1 << 20, 64 << 20} {
		src := bytes.Repeat([]byte{7}, n)
		for codec, data := range map[Codec][]byte{CodecS2: s2.Encode(nil, src), CodecZstd: enc.EncodeAll(src, nil)} {
			out = append(out, craft(codec, []ID{id}, data))
		}
	}
	// Two frames of zstd, one page each, where one page is declared.
	one := enc.EncodeAll(bytes.Repeat([]byte{7}, PageSize), nil)
	out = append(out, craft(CodecZstd, []ID{id}, append(one, one...)))
	// A length that is declared and not there.
	out = append(out, craft(CodecS2, []ID{id}, []byte{0xff, 0xff, 0xff, 0xff, 0x0f, 0}))
	return out
}

// craft makes a payload with any data.
func craft(codec Codec, ids []ID, data []byte) []byte { return craftIn(Domain{}, codec, ids, data) }

func craftIn(d Domain, codec Codec, ids []ID, data []byte) []byte {
	b := []byte{versionOf(d), byte(codec), byte(len(ids)), 0}
	for _, n := range []int{len(ids) * PageSize, len(data)} {
		b = append(b, byte(n), byte(n>>8), byte(n>>16), byte(n>>24))
	}
	b = appendDomain(b, d)
	for _, id := range ids {
		b = append(b, id[:]...)
	}
	return append(b, data...)
}

func TestBombs(t *testing.T) {
	var c Coder
	for i, b := range bombs() {
		dst := bytes.Repeat([]byte{0xee}, maxRaw)
		if _, _, err := c.DecodeGroup(dst[:0], b); err == nil {
			t.Errorf("bomb %d: no error", i)
		}
		if !bytes.Equal(dst[PageSize:], bytes.Repeat([]byte{0xee}, maxRaw-PageSize)) {
			t.Errorf("bomb %d: wrote beyond the page", i)
		}
		if n := testing.AllocsPerRun(1, func() { c.DecodeGroup(dst[:0], b) }); n > 50 {
			t.Errorf("bomb %d: %v allocations", i, n)
		}
	}
	// And the coder still works.
	ids, pages := fillPages(1, 4)
	for _, codec := range codecs {
		out, _, _ := c.AppendGroup(nil, codec, ids, pages)
		if back, _, err := c.DecodeGroup(nil, out); err != nil || !bytes.Equal(back, pages) {
			t.Fatalf("%v after bombs: %v", codec, err)
		}
	}
}

// Any byte of any group changed, or cut off, or added, gives an error or other
// pages or other IDs: never the same pages under the same IDs with a lie in
// between that nobody sees. (The frame's checksum finds it before.)
func TestGroupDamageIsFound(t *testing.T) {
	var c Coder
	for _, codec := range codecs {
		ids, pages := fillPages(1, 2)
		payload, _, err := c.AppendGroup(nil, codec, ids, pages)
		if err != nil {
			t.Fatal(err)
		}
		for i := range payload {
			bad := bytes.Clone(payload)
			bad[i] ^= byte(1 << (i % 8))
			got, gotIDs, err := c.DecodeGroup(nil, bad)
			if err != nil {
				continue
			}
			wrong := 0
			for k, id := range gotIDs {
				if Sum(got[k*PageSize:(k+1)*PageSize]) != id {
					wrong++
				}
			}
			same := bytes.Equal(got, pages)
			if wrong == 0 && !same {
				t.Fatalf("%v: byte %d: damage passes every check", codec, i)
			}
		}
		for _, bad := range [][]byte{payload[:len(payload)-1], append(bytes.Clone(payload), 0), payload[:groupHeader+5], payload[:3], nil} {
			if _, _, err := c.DecodeGroup(nil, bad); err == nil {
				t.Fatalf("%v: %d bytes of %d decode", codec, len(bad), len(payload))
			}
		}
	}
}

func FuzzGroup(f *testing.F) {
	for _, codec := range codecs {
		for _, n := range []int{1, 2, GroupPages} {
			ids, pages := fillPages(4, n)
			b, _, _ := AppendGroup(nil, codec, ids, pages)
			f.Add(b)
			b, _, _ = new(Coder).AppendGroupIn(nil, DedupCanister.Of([]byte("a")), codec, ids, pages)
			f.Add(b)
		}
	}
	for _, b := range bombs() {
		f.Add(b)
	}
	var c Coder
	f.Fuzz(func(t *testing.T, b []byte) {
		_, ids, err := GroupIDs(b)
		dst := make([]byte, maxRaw+64)
		guard := bytes.Repeat([]byte{0xee}, len(dst))
		copy(dst, guard)
		pages, ids2, err2 := c.DecodeGroup(dst[:0], b)
		if err != nil && err2 == nil {
			t.Fatalf("decodes, and has no ids: %v", err)
		}
		n := len(ids) * PageSize
		if !bytes.Equal(dst[n:], guard[n:]) {
			t.Fatal("wrote beyond the pages")
		}
		if err2 != nil {
			return
		}
		if len(ids) != len(ids2) || len(pages) != n {
			t.Fatal("ids and pages do not agree")
		}
		// Header and table are the one way to say this; the data may be any
		// that decompresses to the pages.
		g, err := parseGroup(b)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(craftIn(g.domain, g.codec, ids, g.data), b) {
			t.Fatal("encodes differently")
		}
		again, _, err := c.AppendGroupIn(nil, g.domain, g.codec, ids, pages)
		if err != nil {
			t.Fatal(err)
		}
		if back, _, err := c.DecodeGroup(nil, again); err != nil || !bytes.Equal(back, pages) {
			t.Fatal("does not come back")
		}
	})
}

func FuzzNodes(f *testing.F) {
	_, a := testNode(1)
	_, b := testNode(77)
	for _, nodes := range [][][]byte{{a}, {a, b}, {b, a, a, b}} {
		p, _ := AppendNodes(nil, Domain{}, nodes)
		f.Add(p)
		p, _ = AppendNodes(nil, DedupCanister.Of([]byte("a")), nodes)
		f.Add(p)
	}
	f.Add([]byte{1, 16, 0, 0, 255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, p []byte) {
		d, nodes, err := SplitNodes(p)
		if err != nil {
			return
		}
		again, err := AppendNodes(nil, d, nodes)
		if err != nil || !bytes.Equal(again, p) {
			t.Fatalf("encodes differently: %v", err)
		}
	})
}

func TestNodesRoundTrip(t *testing.T) {
	for n := 1; n <= FrameNodes; n++ {
		var nodes [][]byte
		for i := range n {
			_, node := testNode(i * n)
			nodes = append(nodes, node)
		}
		nodes[n-1] = bytes.Repeat([]byte{9}, MaxNode)
		p, err := AppendNodes([]byte("x"), Domain{}, nodes)
		if err != nil {
			t.Fatal(err)
		}
		_, back, err := SplitNodes(p[1:])
		if err != nil || len(back) != n {
			t.Fatalf("%d nodes: %v", len(back), err)
		}
		for i := range nodes {
			if !bytes.Equal(back[i], nodes[i]) || cap(back[i]) != len(back[i]) {
				t.Fatalf("node %d differs, or reaches into the next", i)
			}
		}
		for cut := 0; cut < len(p)-1; cut += 1 + cut/100 {
			if _, _, err := SplitNodes(p[1 : 1+cut]); err == nil {
				t.Fatalf("%d bytes of %d split", cut, len(p)-1)
			}
		}
		if _, _, err := SplitNodes(append(p[1:], 0)); err == nil {
			t.Fatal("a byte too many")
		}
	}
}

func TestCodecNames(t *testing.T) {
	for _, c := range codecs {
		got, err := ParseCodec(c.String())
		if err != nil || got != c {
			t.Fatalf("%v: %v, %v", c, got, err)
		}
	}
	for _, s := range []string{"", "S2", "lz4", "codec(1)"} {
		if _, err := ParseCodec(s); err == nil {
			t.Errorf("%q parses", s)
		}
	}
}

// zstd writes ahead of what it returns where it has room. Pages that end in a
// match make it do so (2,217 of 3,000 groups, if it is given the room), and it
// must not reach the bytes behind the group.
func TestNothingIsWrittenAhead(t *testing.T) {
	var c Coder
	r := newRand(t)
	for range 200 {
		n := 1 + r.IntN(4)
		pages := make([]byte, n*PageSize)
		for i := 0; i < len(pages); {
			back, run := 0, 1+r.IntN(10)
			if i > 100 && r.IntN(3) > 0 {
				back, run = 1+r.IntN(i), 3+r.IntN(60)
			}
			for ; run > 0 && i < len(pages); run-- {
				if pages[i] = byte(r.Uint32()); back > 0 {
					pages[i] = pages[i-back]
				}
				i++
			}
		}
		ids := make([]ID, n)
		if err := SumPages(ids, pages); err != nil {
			t.Fatal(err)
		}
		for _, codec := range codecs {
			payload, _, err := c.AppendGroup(nil, codec, ids, pages)
			if err != nil {
				t.Fatal(err)
			}
			dst := bytes.Repeat([]byte{0xee}, len(pages)+PageSize)
			if _, _, err := c.DecodeGroup(dst, payload); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(dst[:len(pages)], pages) {
				t.Fatalf("%v: other pages", codec)
			}
			if !bytes.Equal(dst[len(pages):], bytes.Repeat([]byte{0xee}, PageSize)) {
				t.Fatalf("%v: wrote beyond the pages", codec)
			}
		}
	}
}
