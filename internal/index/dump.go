package index

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
)

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

// Dump writes all that the index holds as text, a line for each key in their
// order. Two indexes with the same content give the same text, however they
// came to it: what names the state of one index rather than its content is left
// out.
func (x *Index) Dump(w io.Writer) error {
	out := bufio.NewWriter(w)
	for kv, err := range x.scan(nil, nil) {
		if err != nil {
			return err
		}
		line, err := dumpLine(kv)
		if err != nil {
			return x.undecodable("key", kv.key, err)
		}
		if _, err := fmt.Fprintln(out, line); err != nil {
			return err
		}
	}
	return out.Flush()
}

func dumpLine(kv keyValue) (string, error) {
	switch kv.key[0] {
	case kindEntry:
		id, errID := decodeIDKey(kindEntry, kv.key)
		e, err := decodeEntry(kv.value)
		return fmt.Sprintf("entry %v %v count=%d lost=%t node=%t", id, e.Location, e.Count, e.Lost, e.Node), errors.Join(errID, err)
	case kindLimbo:
		id, err := decodeIDKey(kindLimbo, kv.key)
		return fmt.Sprintf("limbo %v", id), err
	case kindMeta:
		m, err := decodeMeta(kv.value)
		return fmt.Sprintf("meta version=%d store=%x seq=%d hash=%x", formatVersion, m.store, m.seq, m.hash), err
	case kindRecord:
		r, err := decodeRecord(kv.value)
		return fmt.Sprintf("record %x seq=%d %d:%d+%d payload=%x", kv.key[1:], r.RecordSeq, r.Segment, r.Offset, r.Length, r.Payload), err
	case kindState:
		return fmt.Sprintf("state %x %x", kv.key[1:], kv.value), nil
	case kindLive:
		segment, errKey := decodeLiveKey(kv.key)
		bytes, err := decodeLive(kv.value)
		return fmt.Sprintf("live %d %d", segment, bytes), errors.Join(errKey, err)
	}
	return "", fmt.Errorf("index: key of unknown kind %q", kv.key[0])
}
