package realrows

import (
	"testing"

	"github.com/anishathalye/porcupine"

	"github.com/snapstore/snapstore/internal/testkit"
)

// TestCanisterModel: the model takes right histories for right, and finds what
// a store must not tell.
func TestCanisterModel(t *testing.T) {
	const none = testkit.NoSnapshot
	at := func(from, to int64, c call, r reply) porcupine.Operation {
		return porcupine.Operation{Input: c, Output: r, Call: from, Return: to}
	}
	take := func(from, to int64, n int, local uint64) []porcupine.Operation {
		return []porcupine.Operation{
			at(from, to, call{kind: callSeal, take: n, replace: none}, reply{}),
			at(from, to, call{kind: callCommit, take: n, replace: none}, reply{local: local}),
		}
	}
	set := func(from, to int64, section int, v uint64) porcupine.Operation {
		return at(from, to, call{kind: callWrite, section: section, value: v}, reply{})
	}
	read := func(from, to int64, local, a, b uint64) porcupine.Operation {
		return at(from, to, call{kind: callRead, local: local}, reply{values: [2]uint64{a, b}})
	}
	list := func(from, to int64, locals ...uint64) porcupine.Operation {
		return at(from, to, call{kind: callList}, reply{locals: locals})
	}
	load := func(from, to int64, local uint64) porcupine.Operation {
		return at(from, to, call{kind: callLoad, local: local}, reply{})
	}
	look := func(from, to int64, v uint64) porcupine.Operation {
		return at(from, to, call{kind: callLook}, reply{values: [2]uint64{v, 0}})
	}
	gone := func(from, to int64, kind callKind, local uint64) porcupine.Operation {
		return at(from, to, call{kind: kind, local: local}, reply{refused: testkit.NotFound})
	}
	remove := func(from, to int64, local uint64) porcupine.Operation {
		return at(from, to, call{kind: callDelete, local: local}, reply{})
	}
	for _, c := range []struct {
		name    string
		right   bool
		history []porcupine.Operation
	}{
		{"a take shows what was written before", true, append(take(3, 4, 1, 0), set(1, 2, 0, 7), read(5, 6, 0, 7, 0))},
		{"a take shows nothing", false, append(take(3, 4, 1, 0), set(1, 2, 0, 7), read(5, 6, 0, 0, 0))},
		{"a write beside a take is in it", true, append(take(1, 9, 1, 0), set(2, 3, 0, 7), read(10, 11, 0, 7, 0))},
		{"or is not", true, append(take(1, 9, 1, 0), set(2, 3, 0, 7), read(10, 11, 0, 0, 0))},
		{"the later of two writes without the earlier", false, append(take(1, 9, 1, 0), set(2, 3, 0, 7), set(4, 5, 1, 8), read(10, 11, 0, 0, 8))},
		{"sealed early and seen late", true, append(take(1, 9, 1, 0), set(2, 3, 0, 7), list(4, 5), read(10, 11, 0, 0, 0))},
		{"seen after it was not", false, append(take(1, 2, 1, 0), list(3, 4))},
		{"seen, and then not", false, append(take(1, 9, 1, 0), list(2, 3, 0), list(4, 5))},
		{"a load brings back", true, append(take(3, 4, 1, 0), set(1, 2, 0, 7), set(5, 6, 0, 8), load(7, 8, 0), look(9, 10, 7))},
		{"a load brings back nothing", false, append(take(3, 4, 1, 0), set(1, 2, 0, 7), set(5, 6, 0, 8), load(7, 8, 0), look(9, 10, 8))},
		{"a delete is for good", true, append(take(1, 2, 1, 0), remove(3, 4, 0), gone(5, 6, callRead, 0), gone(5, 6, callLoad, 0))},
		{"a deleted snapshot reads", false, append(take(1, 2, 1, 0), remove(3, 4, 0), read(5, 6, 0, 0, 0))},
		{"one that is there is not found", false, append(take(1, 2, 1, 0), gone(3, 4, callLoad, 0))},
		{"two takes of one id", false, append(take(1, 2, 1, 0), take(3, 4, 2, 0)...)},
	} {
		if got := porcupine.CheckOperations(canisterModel(), c.history); got != c.right {
			t.Errorf("%s: %t, want %t", c.name, got, c.right)
		}
	}
}
