package chunk

import (
	"encoding/binary"
	"fmt"

	"github.com/zeebo/blake3"

	"github.com/snapstore/snapstore/internal/index"
)

// DedupDomain says among whom equal content is stored once. It is chosen when a
// store is made and never changes.
type DedupDomain uint8

const (
	// DedupStore shares among all canisters. It takes the least space, and lets
	// who can measure bytes or time learn whether a page that he can guess is
	// stored by anybody.
	DedupStore DedupDomain = iota
	// DedupCanister shares among the versions of one canister only: nothing that
	// a canister stores depends on what others have.
	DedupCanister
)

var dedupNames = [...]string{"store", "canister"}

// String returns "store" or "canister".
func (d DedupDomain) String() string {
	if int(d) < len(dedupNames) {
		return dedupNames[d]
	}
	return fmt.Sprintf("dedup-%d", uint8(d))
}

// ParseDedupDomain parses what String prints.
func ParseDedupDomain(s string) (DedupDomain, error) {
	for i, name := range dedupNames {
		if name == s {
			return DedupDomain(i), nil
		}
	}
	return 0, fmt.Errorf("chunk: dedup domain %q: want store or canister", clip(s))
}

// Valid says whether there is such a domain.
func (d DedupDomain) Valid() bool { return int(d) < len(dedupNames) }

// domainContext separates names of domains from every other hash.
const domainContext = "snapstore 2026-11-25 dedup domain of a canister v1"

// Of returns the domain of a canister, named by the key of its record. It is the
// same on every machine and after the canister was deleted and made again, so
// nothing has to be remembered of it.
func (d DedupDomain) Of(canister []byte) (out Domain) {
	if d == DedupCanister {
		blake3.DeriveKey(domainContext, canister, out[:])
	}
	return out
}

// A Domain is within what equal content is stored once. The zero Domain is the
// whole store. IDs, and so trees and roots, are the same in all domains; what is
// stored is found by its Key.
type Domain [32]byte

// IsZero reports whether d is the whole store.
func (d Domain) IsZero() bool { return d == Domain{} }

// A Key is an ID within a domain: what index, pins, counts and caches go by.
// Within one domain there is one key for each ID. Who wants two domains to have
// a key in common needs two IDs that differ by what the domains do, which is as
// hard as a collision of IDs.
type Key = index.ID

// Key returns the key of an ID in this domain. Zeros are zeros everywhere.
func (d Domain) Key(id ID) Key {
	if d.IsZero() || id.IsZero() {
		return Key(id)
	}
	return Key(d.mix(id))
}

// ID undoes Key.
func (d Domain) ID(k Key) ID {
	if d.IsZero() || k == (Key{}) {
		return ID(k)
	}
	return d.mix(ID(k))
}

// mix is its own inverse.
func (d Domain) mix(id ID) ID {
	for i := 0; i < len(id); i += 8 {
		word := binary.LittleEndian.Uint64(id[i:]) ^ binary.LittleEndian.Uint64(d[i:])
		binary.LittleEndian.PutUint64(id[i:], word)
	}
	return id
}

func (d Domain) keys(ids []ID) []Key {
	out := make([]Key, len(ids))
	for i := range ids {
		out[i] = d.Key(ids[i])
	}
	return out
}
