package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/snapstore/snapstore/bench/workload"
)

// Schema is the version of Result's JSON. A reader refuses what is newer.
const Schema = 1

// Result is one run.
type Result struct {
	Schema          int              `json:"schema"`
	Began           time.Time        `json:"began"`
	DurationSeconds float64          `json:"duration_seconds"`
	Build           Build            `json:"build"`
	Machine         Machine          `json:"machine"`
	Settings        Settings         `json:"settings"`
	Data            workload.Checked `json:"data"`
	Figures         []Figure         `json:"figures"`
	Series          []Series         `json:"series"`
	Peers           []PeerResult     `json:"peers"`
}

// Build is the program that ran.
type Build struct {
	Version  string `json:"version"`
	Commit   string `json:"commit"`
	Modified bool   `json:"modified"` // built from files that were not committed
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// Machine is where it ran.
type Machine struct {
	CPU         string `json:"cpu"`
	Cores       int    `json:"cores"` // that the program could use
	Vectors     string `json:"vectors"`
	MemoryBytes uint64 `json:"memory_bytes"`
	Kernel      string `json:"kernel"`
	FileSystem  string `json:"file_system"`
	Tracking    string `json:"tracking"` // how writes to lent memory are noticed
}

// Settings are the options as they were used.
type Settings struct {
	Seed       uint64   `json:"seed"`
	Repeats    int      `json:"repeats"`
	Scale      float64  `json:"scale"`
	Workloads  []string `json:"workloads"`
	ImageBytes uint64   `json:"image_bytes"`
	Takes      int      `json:"takes"`     // incremental ones in a repeat
	Snapshots  int      `json:"snapshots"` // in the row that grows
	Preload    int      `json:"preload"`   // chunks in the index
	Series     []string `json:"series"`    // of images
}

// Spread is what the repeats of a figure gave.
type Spread struct {
	Samples int     `json:"samples"`
	Min     float64 `json:"min"`
	Median  float64 `json:"median"`
	Max     float64 `json:"max"`
}

// Verdict is what a figure's bar says of it.
type Verdict string

// The verdicts.
const (
	Aimed       Verdict = "aim"          // as good as was aimed at
	Met         Verdict = "met"          // the bar is met
	Missed      Verdict = "missed"       // it is not
	NoBar       Verdict = "no bar"       // measured, and there is no bar
	NotMeasured Verdict = "not measured" // see Reason
)

// Figure is one thing that was measured, or would have been.
type Figure struct {
	ID    string `json:"id"`
	Group string `json:"group"`
	Title string `json:"title"`
	Unit  string `json:"unit"`
	// Limit says what the second value is of; empty if there is none.
	Limit      string  `json:"limit"`
	Value      *Spread `json:"value,omitempty"`
	LimitValue *Spread `json:"limit_value,omitempty"`
	Ratio      *Spread `json:"ratio,omitempty"`
	// RatioOf says how the ratio is made: "value/limit" or "limit/value".
	RatioOf string `json:"ratio_of"`
	// Judged is what the bar is about: "ratio", "value", or empty.
	Judged  string  `json:"judged"`
	Better  string  `json:"better"` // "more" or "less"
	Bar     float64 `json:"bar,omitempty"`
	Aim     float64 `json:"aim,omitempty"`
	Verdict Verdict `json:"verdict"`
	Reason  string  `json:"reason,omitempty"`
}

// Series is a set of curves.
type Series struct {
	ID    string `json:"id"`
	Title string `json:"title"`
	X     string `json:"x"`
	Y     string `json:"y"`
	LogX  bool   `json:"log_x"`
	LogY  bool   `json:"log_y"`
	Lines []Line `json:"lines"`
}

// Line is one curve.
type Line struct {
	Name   string  `json:"name"`
	Points []Point `json:"points"`
}

// Point of a curve.
type Point struct {
	X float64 `json:"x"`
	Y float64 `json:"y"`
}

// PeerResult is one system on the versions of the peers' workload. The engine
// is the first.
type PeerResult struct {
	Name      string  `json:"name"`
	Kind      string  `json:"kind"` // snapstore, backup, reflink, copy or library
	Version   string  `json:"version"`
	Absent    string  `json:"absent,omitempty"` // why it was not measured
	Dedup     bool    `json:"dedup"`
	Compress  bool    `json:"compress"`
	Checksums bool    `json:"checksums"`
	Durable   bool    `json:"durable"`
	Note      string  `json:"note"`
	Full      *Spread `json:"full_seconds,omitempty"`
	Increment *Spread `json:"increment_seconds,omitempty"`
	Restore   *Spread `json:"restore_seconds,omitempty"`
	Delete    *Spread `json:"delete_seconds,omitempty"`
	// Bytes on disk after the first version, after all, and after the deletes.
	FullBytes    int64 `json:"full_bytes"`
	AllBytes     int64 `json:"all_bytes"`
	DeletedBytes int64 `json:"deleted_bytes"`
}

// ErrResult: a file is not the result of a run.
var ErrResult = errors.New("not the result of a benchmark")

// ReadResult reads the JSON of a run.
func ReadResult(r io.Reader) (Result, error) {
	var res Result
	if err := json.NewDecoder(r).Decode(&res); err != nil {
		return res, fmt.Errorf("%w: %w", ErrResult, err)
	}
	switch {
	case res.Schema > Schema:
		return res, fmt.Errorf("%w of this version: it has schema %d, and the newest known is %d", ErrResult, res.Schema, Schema)
	case res.Schema < 1 || len(res.Figures) == 0:
		return res, fmt.Errorf("%w: it has no figures", ErrResult)
	}
	for _, f := range res.Figures {
		if f.ID == "" || f.Verdict == "" || f.Verdict != NotMeasured && f.Value == nil {
			return res, fmt.Errorf("%w: figure %q is not whole", ErrResult, f.ID)
		}
	}
	return res, nil
}

// Figure finds a figure by its id.
func (r *Result) Figure(id string) (Figure, bool) {
	for _, f := range r.Figures {
		if f.ID == id {
			return f, true
		}
	}
	return Figure{}, false
}
