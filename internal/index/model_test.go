package index

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
)

// model is what an index should hold, as its keys and values.
type model struct {
	seed  uint64
	store [16]byte
	// at is the number of the last batch, which is also its serial.
	at   uint64
	keys map[string]string
	live map[uint64]int64
	ids  []ID
	// text is what dumpAt gave last, after batch dumped.
	text   string
	dumped uint64
}

func newModel(seed uint64, store [16]byte) *model {
	m := &model{seed: seed, store: store, ids: testIDs(seed, 4000)}
	m.reset()
	return m
}

func (m *model) reset() {
	m.at = 0
	m.keys = map[string]string{}
	m.live = map[uint64]int64{}
	m.mark(0)
}

func (m *model) mark(n uint64) {
	m.keys[string(metaKey())] = string(appendMeta(nil, meta{store: m.store, seq: seqOf(n), hash: hashOf(seqOf(n))}))
}

// Every other batch moves the watermark; the rest are steps between.
func seqOf(n uint64) uint64 { return n / 2 }

func hashOf(seq uint64) (h [32]byte) {
	if seq > 0 {
		binary.BigEndian.PutUint64(h[:], seq*0x9e3779b97f4a7c15)
	}
	return h
}

// step does the next batch to the model, and to b if that is not nil.
func (m *model) step(b *Batch) {
	m.at++
	n := m.at
	rng := rand.New(rand.NewPCG(m.seed, n))
	size := 1 + rng.IntN(40)
	switch rng.IntN(10) {
	case 0:
		size = 2000 // more than a memtable of a test takes
	case 1, 2, 3:
		size = rng.IntN(500) // few of which fit
	}
	for range size {
		id := m.ids[rng.IntN(len(m.ids))]
		switch rng.IntN(8) {
		case 0, 1, 2, 3:
			e := Entry{Location: page(1+rng.Uint64N(20), rng.Uint32()&^63, uint8(rng.IntN(16))), Count: rng.Uint64N(9), Node: rng.IntN(5) == 0}
			_, known := m.keys[string(appendEntryKey(nil, id))]
			m.keys[string(appendEntryKey(nil, id))] = string(appendEntry(nil, e))
			switch {
			case b == nil:
			case known || n%3 == 0:
				b.SetEntry(id, e)
			default:
				b.AddEntry(id, e)
			}
		case 4:
			delete(m.keys, string(appendEntryKey(nil, id)))
			if b != nil {
				b.DeleteEntry(id)
			}
		case 5:
			key := string(appendLimboKey(nil, id))
			if _, ok := m.keys[key]; ok {
				delete(m.keys, key)
				if b != nil {
					b.DeleteLimbo(id)
				}
			} else {
				m.keys[key] = ""
				if b != nil {
					b.PutLimbo(id)
				}
			}
		case 6:
			segment, delta := 1+rng.Uint64N(20), rng.Int64N(1000)
			if rng.IntN(3) == 0 {
				delta = -m.live[segment] // to zero
			}
			m.live[segment] += delta
			if b != nil {
				b.AddLive(segment, delta)
			}
		case 7:
			key, value := fmt.Appendf(nil, "key%d", rng.IntN(50)), make([]byte, rng.IntN(4000))
			if rng.IntN(2) == 0 {
				r := Record{RecordSeq: n, Segment: 1, Offset: 64, Length: 128, Payload: value}
				m.keys[string(appendRecordKey(nil, key))] = string(appendRecord(nil, r))
				if b != nil {
					b.PutRecord(key, r)
				}
			} else {
				m.keys[string(appendStateKey(nil, key))] = string(value)
				if b != nil {
					b.PutState(key, value)
				}
			}
		}
	}
	m.mark(n)
	if b != nil && seqOf(n) != seqOf(n-1) {
		b.SetWatermark(seqOf(n), hashOf(seqOf(n)))
	}
}

// dumpAt returns the text of an index after batch n, and leaves the model there. Tests
// ask for the same one hundreds of times.
func (m *model) dumpAt(n uint64) string {
	if n < m.at {
		m.reset()
	}
	for m.at < n {
		m.step(nil)
	}
	if m.text != "" && m.dumped == n {
		return m.text
	}
	keys := maps.Clone(m.keys)
	for segment, bytes := range m.live {
		if bytes != 0 {
			keys[string(appendLiveKey(nil, segment))] = string(appendLive(nil, bytes))
		}
	}
	var out strings.Builder
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		line, err := dumpLine(keyValue{[]byte(k), []byte(keys[k])})
		if err != nil {
			panic(err)
		}
		fmt.Fprintln(&out, line)
	}
	m.text, m.dumped = out.String(), n
	return m.text
}
