package matrix

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// state is how far a run is, in a file.
type state struct {
	Version string              `json:"version"`
	Seed    uint64              `json:"seed"`
	Seconds float64             `json:"seconds"`
	Rows    map[string]rowState `json:"rows"`
}

type rowState struct {
	Next        int64     `json:"next"` // all cases below are in Tally
	Tally       Tally     `json:"tally"`
	Failures    []Failure `json:"failures,omitempty"`
	BusySeconds float64   `json:"busy_seconds"`
}

// load goes on where the state file says, if it is one of this run.
func (r *Runner) load() error {
	if r.o.State == "" {
		return nil
	}
	b, err := os.ReadFile(r.o.State)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var s state
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("%s is not the state of a run, remove it or name another: %w", r.o.State, err)
	}
	if s.Version != r.o.Version || s.Seed != r.o.Seed {
		r.o.Logf("%s is of version %s, seed %d: beginning anew", r.o.State, s.Version, s.Seed)
		return nil
	}
	r.spent = time.Duration(s.Seconds * float64(time.Second))
	for _, row := range r.rows {
		if have, ok := s.Rows[row.Name]; ok {
			row.next, row.folded, row.tally, row.failures = have.Next, have.Next, have.Tally, have.Failures
			row.busy = time.Duration(have.BusySeconds * float64(time.Second))
		}
	}
	return nil
}

// save writes the state file, whole or not at all. Rows that are not of this
// run keep what the file has of them.
func (r *Runner) save() error {
	if r.o.State == "" {
		return nil
	}
	s := state{Version: r.o.Version, Seed: r.o.Seed, Rows: map[string]rowState{}}
	if b, err := os.ReadFile(r.o.State); err == nil {
		var old state
		if json.Unmarshal(b, &old) == nil && old.Version == s.Version && old.Seed == s.Seed && old.Rows != nil {
			s.Rows = old.Rows
		}
	}
	r.mu.Lock()
	s.Seconds = (r.spent + time.Since(r.began)).Seconds()
	for _, row := range r.rows {
		s.Rows[row.Name] = rowState{Next: row.folded, Tally: row.tally, Failures: row.failures, BusySeconds: row.busy.Seconds()}
	}
	r.mu.Unlock()
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return replaceFile(r.o.State, append(b, '\n'))
}

func replaceFile(name string, b []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // what is left of a write that failed
		}
	}()
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}
