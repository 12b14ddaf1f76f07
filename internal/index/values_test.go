package index

import (
	"bytes"
	"encoding/hex"
	"math"
	"testing"
)

func TestEntryEncoding(t *testing.T) {
	for _, c := range []struct {
		e    Entry
		want string
	}{
		{Entry{Location: Location{1, 64, 300, 0, 16}, Count: 1}, "00" + "01" + "40" + "ac02" + "00" + "10" + "01"},
		{Entry{Location: Location{300, 0, 1, 15, 16}, Count: 128, Node: true, Lost: true}, "03" + "ac02" + "00" + "01" + "0f" + "10" + "8001"},
		{Entry{Lost: true, Count: 2}, "01" + "0000000000" + "02"},
		{
			Entry{Location: Location{math.MaxUint64, math.MaxUint32, math.MaxUint32, 254, 255}, Count: math.MaxUint64},
			"00" + "ffffffffffffffffff01" + "ffffffff0f" + "ffffffff0f" + "fe01" + "ff01" + "ffffffffffffffffff01",
		},
	} {
		b := appendEntry(nil, c.e)
		if got := hex.EncodeToString(b); got != c.want {
			t.Errorf("%+v is %s, want %s", c.e, got, c.want)
		}
		if e, err := decodeEntry(b); err != nil || e != c.e {
			t.Errorf("%s is %+v %v", c.want, e, err)
		}
	}
	for _, s := range []string{
		"",
		"00",
		"04" + "0140ac02001001",        // unknown flag
		"00" + "0140ac0200100100",      // more after the end
		"00" + "0140ac020010",          // cut
		"00" + "8100" + "40ac02001001", // 1 in two bytes
		"00" + "0140ac02101001",        // slot 16 of 16
		"00" + "0040ac02001001",        // segment 0
		"00" + "000000000001",          // nowhere and not lost
		"00" + "01" + "8080808010" + "ac02001001", // offset above 32 bits
		"00" + "0140ac0200" + "8002" + "01",       // 256 slots
	} {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		if e, err := decodeEntry(b); err == nil {
			t.Errorf("%s is accepted as %+v", s, e)
		}
	}
}

func TestShareIsTheEntrysPartOfItsFrame(t *testing.T) {
	for _, c := range []struct {
		length uint32
		slots  uint8
		want   uint64
	}{{1000, 16, 63}, {1600, 16, 100}, {1, 16, 1}, {0, 16, 0}, {100, 1, 100}, {100, 0, 0}, {math.MaxUint32, 2, 1 << 31}} {
		e := Entry{Location: Location{Segment: 1, Length: c.length, Slots: c.slots}}
		if got := e.Share(); got != c.want {
			t.Errorf("%d bytes in %d slots: %d, want %d", c.length, c.slots, got, c.want)
		}
	}
}

// What a decoder accepts, it encodes to the same bytes.

func FuzzEntry(f *testing.F) {
	f.Add(appendEntry(nil, Entry{Location: page(5, 640, 3), Count: 9}))
	f.Add(appendEntry(nil, Entry{Lost: true, Count: 1}))
	f.Add([]byte{0, 0x81, 0, 1, 1, 0, 1, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, err := decodeEntry(b); err == nil && !bytes.Equal(appendEntry(nil, e), b) {
			t.Errorf("%x is accepted as %+v", b, e)
		}
	})
}

func FuzzRecord(f *testing.F) {
	f.Add(appendRecord(nil, Record{RecordSeq: 1, Segment: 2, Offset: 64, Length: 100, Payload: []byte("payload")}))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := decodeRecord(b); err == nil && !bytes.Equal(appendRecord(nil, r), b) {
			t.Errorf("%x is accepted as %+v", b, r)
		}
	})
}

func FuzzMeta(f *testing.F) {
	f.Add(appendMeta(nil, meta{store: [16]byte{1}, seq: 5, hash: hashOf(5), state: stateID{7, 9}}))
	f.Add([]byte{formatVersion})
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := decodeMeta(b); err == nil && !bytes.Equal(appendMeta(nil, m), b) {
			t.Errorf("%x is accepted as %+v", b, m)
		}
	})
}

func FuzzLive(f *testing.F) {
	f.Add(appendLive(nil, 300))
	f.Add([]byte{0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, err := decodeLive(b); err == nil && (n <= 0 || !bytes.Equal(appendLive(nil, n), b)) {
			t.Errorf("%x is accepted as %d", b, n)
		}
	})
}

func FuzzKeys(f *testing.F) {
	f.Add(appendEntryKey(nil, ID{1}))
	f.Add(appendLimboKey(nil, ID{2}))
	f.Add(appendLiveKey(nil, 7))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, kind := range []byte{kindEntry, kindLimbo} {
			if id, err := decodeIDKey(kind, b); err == nil && !bytes.Equal(appendIDKey(nil, kind, id), b) {
				t.Errorf("%x is accepted as %v", b, id)
			}
		}
		if s, err := decodeLiveKey(b); err == nil && !bytes.Equal(appendLiveKey(nil, s), b) {
			t.Errorf("%x is accepted as segment %d", b, s)
		}
	})
}

func FuzzCutPair(f *testing.F) {
	f.Add(appendPair(nil, []byte("key"), []byte("value")))
	f.Add([]byte{255, 255, 255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, b []byte) {
		k, v, rest, err := cutPair(b)
		if err == nil && !bytes.Equal(append(appendPair(nil, k, v), rest...), b) {
			t.Errorf("%x is accepted as %x %x %x", b, k, v, rest)
		}
	})
}
