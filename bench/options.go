package bench

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/snapstore/snapstore/bench/peer"
)

// Workload is a part of a run.
type Workload string

// The workloads.
const (
	IdealMix Workload = "ideal-mix" // full and incremental takes, reading, gc, space
	Row      Workload = "row"       // one canister whose snapshots grow to 1,000
	Sparse   Workload = "sparse"    // 4, 16 and 64 GiB of which little is there
	Small    Workload = "small"     // 1,000 canisters of 1 MiB
	Churn    Workload = "churn"     // takes, replaces and deletes of 100 canisters
	Preload  Workload = "preload"   // a take with ten million chunks in the index
	Images   Workload = "images"    // successive images of real memory
	Peers    Workload = "peers"     // the same versions, kept by other systems
)

// Workloads lists them in the order in which they run.
func Workloads() []Workload {
	return []Workload{IdealMix, Row, Sparse, Small, Churn, Preload, Images, Peers}
}

// ParseWorkload reads a workload's name.
func ParseWorkload(s string) (Workload, error) {
	if w := Workload(s); slices.Contains(Workloads(), w) {
		return w, nil
	}
	var names []string
	for _, w := range Workloads() {
		names = append(names, string(w))
	}
	return "", fmt.Errorf("%w: no workload %q: there are %s", ErrOptions, s, strings.Join(names, ", "))
}

// ErrOptions: the options of a run make no sense.
var ErrOptions = errors.New("benchmark options")

// Defaults of Options.
const (
	DefaultSeed    = 1
	DefaultRepeats = 5
	DefaultPreload = 10_000_000
	// QuickScale and QuickRepeats end within a minute.
	QuickScale   = 1.0 / 16
	QuickRepeats = 2
)

// Options of Run. The zero value measures everything that needs nothing from
// outside, at full size, below the system's temporary directory.
type Options struct {
	// Dir is where stores and files are made, in a directory of their own that
	// is gone at the end. What it is on is what is measured.
	Dir string
	// Seed of all that is generated; 0 is DefaultSeed.
	Seed uint64
	// Repeats of each measurement; 0 is DefaultRepeats.
	Repeats int
	// Scale shrinks the sizes and numbers of all workloads; 0 is 1. Bars are
	// made for 1.
	Scale float64
	// Workloads to run; empty are all but Preload, and Images where Images names
	// a directory.
	Workloads []Workload
	// Images is a directory with series of memory images.
	Images string
	// Preload is how many chunks the index holds in the workload of that name.
	Preload int
	// Systems stand beside the engine in the workload Peers; nil are all that
	// package peer knows.
	Systems []peer.Peer
	// Progress is told what is done; nil is nobody.
	Progress func(step string)
}

// normal checks the options and fills in what is left out.
func (o Options) normal() (Options, error) {
	if o.Seed == 0 {
		o.Seed = DefaultSeed
	}
	if o.Repeats == 0 {
		o.Repeats = DefaultRepeats
	}
	if o.Scale == 0 {
		o.Scale = 1
	}
	if o.Preload == 0 {
		o.Preload = int(DefaultPreload * min(o.Scale, 1))
	}
	if o.Systems == nil {
		o.Systems = peer.All()
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	if len(o.Workloads) == 0 {
		o.Workloads = []Workload{IdealMix, Row, Sparse, Small, Churn, Peers}
		if o.Images != "" {
			o.Workloads = append(o.Workloads, Images)
		}
	}
	for _, w := range o.Workloads {
		if _, err := ParseWorkload(string(w)); err != nil {
			return o, err
		}
	}
	switch {
	case o.Repeats < 1 || o.Repeats > 1000:
		return o, fmt.Errorf("%w: %d repeats: choose 1 to 1,000", ErrOptions, o.Repeats)
	case math.IsNaN(o.Scale) || o.Scale < minScale || o.Scale > 16:
		return o, fmt.Errorf("%w: scale %v: choose %v to 16", ErrOptions, o.Scale, minScale)
	case o.Preload < 1 || o.Preload > 1_000_000_000:
		return o, fmt.Errorf("%w: %d chunks in the index: choose 1 to 1,000,000,000", ErrOptions, o.Preload)
	case slices.Contains(o.Workloads, Images) && o.Images == "":
		return o, fmt.Errorf("%w: the workload images needs a directory of images", ErrOptions)
	}
	return o, nil
}

// minScale makes images of 4 MiB.
const minScale = 1.0 / 256

// sizes are what Scale makes of the workloads.
type sizes struct {
	image     int // bytes
	takes     int // measured in a repeat
	row       int // snapshots
	canisters int // of small
	churned   int // canisters of churn
	churn     int // operations
	sparse    int // dirty pages of a take
}

func (o Options) sizes() sizes {
	at := func(full int, least int) int { return max(least, int(float64(full)*o.Scale)) }
	few := min(1, math.Sqrt(o.Scale))
	return sizes{
		image:     at(1<<30, 4<<20) &^ (64<<10 - 1), // pages of WebAssembly
		takes:     max(5, int(40*few)),
		row:       min(1000, at(1000, 30)),
		canisters: at(1000, 16),
		churned:   at(100, 8),
		churn:     at(20_000, 200),
		sparse:    at(2621, 26),
	}
}
