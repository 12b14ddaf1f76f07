package index

import (
	"encoding/binary"
	"fmt"
)

// Every key starts with a byte that says what it is. Integers in keys are
// big-endian, so that keys sort as the numbers do.
const (
	kindEntry  = 'e' // domain, ID -> entry
	kindLimbo  = 'l' // domain, ID -> nothing
	kindMeta   = 'm' // one key -> version, store, watermark
	kindRecord = 'r' // canister key -> record
	kindState  = 's' // key -> value, both of the counting layer
	kindLive   = 'v' // segment -> live bytes
)

const (
	// domain is the dedup domain of every ID: the whole store. The key has room
	// for more domains without a change of format.
	domain = 0

	idKeySize   = 1 + 4 + len(ID{})
	liveKeySize = 1 + 8

	// maxKey bounds the keys that callers choose.
	maxKey = 1 << 10
)

// metaKey is the only key of its kind. It is a function, not a variable, so
// that nobody can change it.
func metaKey() []byte { return []byte{kindMeta} }

func appendIDKey(dst []byte, kind byte, id ID) []byte {
	dst = append(dst, kind)
	dst = binary.BigEndian.AppendUint32(dst, domain)
	return append(dst, id[:]...)
}

func appendEntryKey(dst []byte, id ID) []byte { return appendIDKey(dst, kindEntry, id) }
func appendLimboKey(dst []byte, id ID) []byte { return appendIDKey(dst, kindLimbo, id) }

func decodeIDKey(kind byte, key []byte) (ID, error) {
	if len(key) != idKeySize || key[0] != kind || binary.BigEndian.Uint32(key[1:]) != domain {
		return ID{}, fmt.Errorf("index: %q is no key of kind %q", key, kind)
	}
	return ID(key[5:]), nil
}

func appendLiveKey(dst []byte, segment uint64) []byte {
	return binary.BigEndian.AppendUint64(append(dst, kindLive), segment)
}

func decodeLiveKey(key []byte) (uint64, error) {
	if len(key) != liveKeySize || key[0] != kindLive {
		return 0, fmt.Errorf("index: %q is no key of kind %q", key, kindLive)
	}
	return binary.BigEndian.Uint64(key[1:]), nil
}

func appendRecordKey(dst, key []byte) []byte { return append(append(dst, kindRecord), key...) }
func appendStateKey(dst, key []byte) []byte  { return append(append(dst, kindState), key...) }

// prefixSpan returns the bounds of all keys that start with prefix. The upper one
// is nil, which is no bound, if prefix is all 0xff; no kind is.
func prefixSpan(prefix []byte) (lower, upper []byte) {
	upper = append([]byte(nil), prefix...)
	for i := len(upper) - 1; i >= 0; i-- {
		upper[i]++
		if upper[i] != 0 {
			return prefix, upper[:i+1]
		}
	}
	return prefix, nil
}

// kindSpan returns the bounds of all keys of a kind.
func kindSpan(kind byte) (lower, upper []byte) { return []byte{kind}, []byte{kind + 1} }
