// Package matrix is the fault matrix: rows of faults, each a number of cases
// that replay from a seed and an index.
//
// A Row says what is broken, what must hold then, and how to play one case of
// it. A Runner plays the cases of many rows on all cores, until a time or a
// number of cases is reached, keeps how far it is in a file, and tells each
// case that failed with what replays it. What rows there are is for others to
// say; this package knows nothing of the store.
package matrix

import (
	"context"
	"math/rand/v2"
)

// Tally is what cases showed. The zero value is none.
type Tally struct {
	Cases        int64 `json:"cases"`
	Points       int64 `json:"points"`       // fault points: states of a store that were opened and held against what must hold
	Acknowledged int64 `json:"acknowledged"` // snapshots that were acknowledged and had to be there
	Lost         int64 `json:"lost"`         // of them, not there
	Silent       int64 `json:"silent"`       // wrong bytes, or less than there was, and no error
	Leaked       int64 `json:"leaked"`       // bytes that nothing reaches and that gc does not give back
	FreedEarly   int64 `json:"freed_early"`  // chunks that are reached and were given back
	Named        int64 `json:"named"`        // damage that was found and named
	Harmless     int64 `json:"harmless"`     // damage after which the store holds all it held
}

// Add adds what other cases showed.
func (t *Tally) Add(o Tally) {
	t.Cases += o.Cases
	t.Points += o.Points
	t.Acknowledged += o.Acknowledged
	t.Lost += o.Lost
	t.Silent += o.Silent
	t.Leaked += o.Leaked
	t.FreedEarly += o.FreedEarly
	t.Named += o.Named
	t.Harmless += o.Harmless
}

// Env is what a case may use.
type Env struct {
	Seed uint64 // of the run
	Dir  string // scratch, removed afterwards
	Self string // this program, for rows that start processes of it; "" where there is none
	Logf func(string, ...any)
}

// Rand gives the generator of a case: the same seed, row and index give the
// same numbers, and no two cases share theirs.
func (e *Env) Rand(row string, index int64) *rand.Rand {
	h := uint64(14695981039346656037)
	for i := range len(row) {
		h = (h ^ uint64(row[i])) * 1099511628211
	}
	return rand.New(rand.NewPCG(e.Seed^h, uint64(index)))
}

// Row is one fault.
type Row struct {
	Name  string       // "crash", "crash-open", "flip", ...
	Fault string       // for people
	Holds string       // what must hold
	Fast  int64        // cases in tests
	Full  int64        // cases in a full run
	Needs func() error // nil, or why the row can not run here
	// Run plays the case; the same seed and index give the same case. An error
	// is a case that failed: what must hold did not.
	Run func(ctx context.Context, env *Env, index int64) (Tally, error)
}
