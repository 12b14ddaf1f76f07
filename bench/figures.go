package bench

import (
	"fmt"
	"math"
	"slices"
)

// The two ways to make a ratio.
const (
	overLimit  = "value/limit"
	underLimit = "limit/value" // of times, so that 1 is at the limit and less is slower
)

const (
	more = "more"
	less = "less"
)

const (
	byRatio = "ratio"
	byValue = "value"
)

// Groups of figures, in the order in which they are shown.
const (
	groupMachine  = "machine"
	groupFull     = "full snapshot"
	groupTake     = "incremental take"
	groupRead     = "reading"
	groupGC       = "deleting and gc"
	groupMany     = "many canisters"
	groupSize     = "memory size"
	groupIndex    = "index"
	groupSpace    = "space"
	groupPeers    = "peers"
	groupImages   = "images"
	pipelineLimit = "hash + compress, no storage"
	takeLimit     = "hash + compress, then write + fdatasync"
)

// notAsked is why most figures of a short run were not measured.
const notAsked = "its workload was not asked for"

// Asked tells whether the figure's workload was run.
func (f *Figure) Asked() bool { return f.Verdict != NotMeasured || f.Reason != notAsked }

// Specs are all figures of a run, in order, with nothing measured yet.
func Specs() []Figure {
	return []Figure{
		{ID: "machine.memcpy", Group: groupMachine, Title: "copying memory, all cores", Unit: "MB/s", Better: more},
		{ID: "machine.pipeline", Group: groupMachine, Title: "hashing and compressing the image, no storage", Unit: "MB/s", Better: more},
		{ID: "machine.decode", Group: groupMachine, Title: "decompressing and hashing the image, no storage", Unit: "MB/s", Better: more},
		{ID: "machine.write", Group: groupMachine, Title: "sequential write and fsync", Unit: "MB/s", Better: more},
		{ID: "machine.read", Group: groupMachine, Title: "sequential read, cold", Unit: "MB/s", Better: more},
		{ID: "machine.fdatasync", Group: groupMachine, Title: "fdatasync of 4 KiB appended", Unit: "ms", Better: less},

		{ID: "full.speed", Group: groupFull, Title: "full snapshot, durable", Unit: "MB/s", Limit: pipelineLimit, RatioOf: overLimit, Judged: byRatio, Better: more, Bar: 0.65, Aim: 0.80},
		{ID: "full.own", Group: groupFull, Title: "full snapshot, durable, against its own codec", Unit: "MB/s", Limit: "hash + compress as the engine does + proof, no storage", RatioOf: overLimit, Better: more},
		{ID: "full.disk", Group: groupFull, Title: "full snapshot, durable, against the disk", Unit: "ms", Limit: "write + fsync of the compressed bytes", RatioOf: underLimit, Better: less},
		{ID: "full.written", Group: groupFull, Title: "bytes written, settled", Unit: "MB", Limit: "compressed", RatioOf: overLimit, Judged: byRatio, Better: less, Bar: 1.08, Aim: 1.05},
		{ID: "full.cpu", Group: groupFull, Title: "CPU of a full snapshot", Unit: "s", Limit: "CPU of " + pipelineLimit, RatioOf: overLimit, Better: less},
		{ID: "full.heap", Group: groupFull, Title: "memory alive beyond the image and the configured caches", Unit: "MiB", Judged: byValue, Better: less, Bar: 96, Aim: 64},
		{ID: "full.resident", Group: groupFull, Title: "growth of resident memory in a full snapshot", Unit: "MiB", Better: less},

		{ID: "take.p50", Group: groupTake, Title: "take of 1 %, durable, p50", Unit: "ms", Limit: takeLimit, RatioOf: underLimit, Judged: byRatio, Better: more, Bar: 0.75, Aim: 0.9},
		{ID: "take.p99", Group: groupTake, Title: "take of 1 %, durable, p99", Unit: "ms", Limit: "p99 of " + takeLimit, RatioOf: underLimit, Better: more},
		{ID: "take.max", Group: groupTake, Title: "slowest take of a repeat", Unit: "ms", Limit: "p50", RatioOf: overLimit, Judged: byRatio, Better: less, Bar: 3, Aim: 2},
		{ID: "take.pause", Group: groupTake, Title: "pause of a take of lent memory, p50", Unit: "ms", Better: less},
		{ID: "take.pause.p99", Group: groupTake, Title: "pause of a take of lent memory, p99", Unit: "ms", Better: less},
		{ID: "take.written", Group: groupTake, Title: "bytes written a take, log and index, 10 kept", Unit: "MB", Limit: "new pages compressed", RatioOf: overLimit, Judged: byRatio, Better: less, Bar: 1.30, Aim: 1.18},
		{ID: "take.log", Group: groupTake, Title: "bytes written a take, log alone, 10 kept", Unit: "MB", Limit: "new pages compressed", RatioOf: overLimit, Better: less},
		{ID: "take.counts.10", Group: groupTake, Title: "count changes, 10 kept", Unit: "a take", Limit: "pages and nodes born or died", RatioOf: overLimit, Judged: byRatio, Better: less, Bar: 1.5, Aim: 1.0},
		{ID: "take.counts.100", Group: groupTake, Title: "count changes, 100 kept", Unit: "a take", Limit: "pages and nodes born or died", RatioOf: overLimit, Judged: byRatio, Better: less, Bar: 1.5, Aim: 1.0},
		{ID: "take.background", Group: groupTake, Title: "CPU after a take, cleaning left out", Unit: "ms", Limit: "CPU in it", RatioOf: overLimit, Judged: byRatio, Better: less, Bar: 1.0, Aim: 0.3},
		{ID: "take.row", Group: groupTake, Title: "the last ten takes of a growing row of snapshots, each over its limit", Unit: "x", Limit: "the first ten", RatioOf: overLimit, Judged: byRatio, Better: less, Bar: 1.2, Aim: 1.05},

		{ID: "restore.warm", Group: groupRead, Title: "full restore, warm, verified", Unit: "MB/s", Limit: "decode + hash", RatioOf: overLimit, Judged: byRatio, Better: more, Bar: 0.6, Aim: 0.8},
		{ID: "restore.cold", Group: groupRead, Title: "full restore, cold, verified", Unit: "MB/s", Limit: "sequential read x compression ratio", RatioOf: overLimit, Judged: byRatio, Better: more, Bar: 0.6, Aim: 0.85},
		{ID: "restore.scattered", Group: groupRead, Title: "the same, of what takes of 1 % have scattered", Unit: "MB/s", Limit: "sequential read x compression ratio", RatioOf: overLimit, Better: more},
		{ID: "page.warm", Group: groupRead, Title: "one random page, warm, p50", Unit: "µs", Judged: byValue, Better: less, Bar: 50, Aim: 25},
		{ID: "page.cold", Group: groupRead, Title: "one random page, cold, p50", Unit: "µs", Better: less},
		{ID: "load.diff", Group: groupRead, Title: "load of a snapshot that differs in 1 %, durable", Unit: "ms", Limit: "decode + hash of as many pages, then fdatasync", RatioOf: underLimit, Better: more},

		{ID: "delete.p50", Group: groupGC, Title: "delete, acknowledged, p50", Unit: "ms", Limit: "fdatasync of 4 KiB appended", RatioOf: overLimit, Better: less},
		{ID: "gc.time", Group: groupGC, Title: "gc after deleting all snapshots but two", Unit: "s", Better: less},
		{ID: "gc.cpu", Group: groupGC, Title: "CPU of gc for each GB that it gives back, net", Unit: "s", Better: less},
		{ID: "gc.written", Group: groupGC, Title: "bytes written by gc", Unit: "MB", Limit: "bytes reclaimed, net", RatioOf: overLimit, Judged: byRatio, Better: less, Bar: 2.0, Aim: 1.5},
		{ID: "gc.left", Group: groupGC, Title: "log after gc", Unit: "MB", Limit: "live bytes", RatioOf: overLimit, Judged: byRatio, Better: less, Bar: 1.10},
		{ID: "gc.takes", Group: groupGC, Title: "p99 of takes while gc runs", Unit: "ms", Limit: "p99 without gc", RatioOf: overLimit, Judged: byRatio, Better: less, Bar: 1.5, Aim: 1.1},

		{ID: "small.takes", Group: groupMany, Title: "durable takes of ten pages, 8 takers, index work included", Unit: "1/s", Limit: "write + fdatasync of as much, one thread", RatioOf: overLimit, Judged: byRatio, Better: more, Bar: 1.0, Aim: 1.5},
		{ID: "small.p99", Group: groupMany, Title: "the same, p99 of a take", Unit: "ms", Better: less},
		{ID: "churn.operations", Group: groupMany, Title: "takes, replaces and deletes of 100 canisters", Unit: "1/s", Limit: "write + fdatasync of as much, one thread", RatioOf: overLimit, Better: more},
		{ID: "churn.p99", Group: groupMany, Title: "the same, p99 of a take or replace", Unit: "ms", Better: less},
		{ID: "churn.left", Group: groupMany, Title: "the same: log after gc", Unit: "MB", Limit: "live bytes", RatioOf: overLimit, Better: less},

		{ID: "size.16", Group: groupSize, Title: "take of a sparse 16 GiB, as many dirty pages, p50", Unit: "ms", Limit: "of 4 GiB", RatioOf: overLimit, Better: less},
		{ID: "size.64", Group: groupSize, Title: "take of a sparse 64 GiB, as many dirty pages, p50", Unit: "ms", Limit: "of 4 GiB", RatioOf: overLimit, Better: less},

		{ID: "index.rebuild", Group: groupIndex, Title: "rebuild of the index, log in memory", Unit: "s", Judged: byValue, Better: less, Bar: 1, Aim: 0.4},
		{ID: "index.rebuild.cold", Group: groupIndex, Title: "rebuild of the index, log on disk", Unit: "s", Limit: "sequential read of the log", RatioOf: overLimit, Better: less},
		{ID: "index.miss", Group: groupIndex, Title: "dedup miss, preloaded index, locks included", Unit: "µs", Judged: byValue, Better: less, Bar: 0.2, Aim: 0.05},
		{ID: "preload.take", Group: groupIndex, Title: "take of 1 %, preloaded index, p50", Unit: "ms", Limit: takeLimit, RatioOf: underLimit, Better: more},
		{ID: "preload.written", Group: groupIndex, Title: "bytes written a take, preloaded index", Unit: "MB", Limit: "new pages compressed", RatioOf: overLimit, Judged: byRatio, Better: less, Bar: 1.6, Aim: 1.3},

		{ID: "disk.ideal", Group: groupSpace, Title: "on disk after 11 snapshots, settled and cleaned", Unit: "MB", Limit: "exact dedup + zstd a page, no metadata", RatioOf: overLimit, Judged: byRatio, Better: less, Bar: 1.08, Aim: 1.00},
		{ID: "disk.recompressed", Group: groupSpace, Title: "the same after gc --recompress", Unit: "MB", Limit: "exact dedup + zstd a page, no metadata", RatioOf: overLimit, Judged: byRatio, Better: less, Bar: 1.08, Aim: 1.00},

		{ID: "peer.full", Group: groupPeers, Title: "full snapshot", Unit: "s", Limit: "fastest peer that dedups and compresses", RatioOf: underLimit, Judged: byRatio, Better: more, Bar: 3, Aim: 5},
		{ID: "peer.backup", Group: groupPeers, Title: "increment of 1 %", Unit: "s", Limit: "fastest backup peer", RatioOf: underLimit, Judged: byRatio, Better: more, Bar: 100, Aim: 200},
		{ID: "peer.reflink", Group: groupPeers, Title: "increment of 1 %", Unit: "s", Limit: "fastest reflink", RatioOf: underLimit, Judged: byRatio, Better: more, Bar: 6, Aim: 12},
	}
}

// recorder gathers the samples of figures.
type recorder struct {
	figures []Figure
	samples map[string][]sample
	reasons map[string]string
}

type sample struct{ value, limit float64 }

func newRecorder() *recorder {
	return &recorder{figures: Specs(), samples: map[string][]sample{}, reasons: map[string]string{}}
}

// add notes one repeat of a figure, and of its limit where it has one.
func (r *recorder) add(id string, value, limit float64) {
	r.samples[id] = append(r.samples[id], sample{value, limit})
}

// note says why a figure was not measured, or is judged as it is.
func (r *recorder) note(id, reason string) { r.reasons[id] = reason }

// define adds a figure that is not among Specs.
func (r *recorder) define(f Figure) { r.figures = append(r.figures, f) }

// results summarises what was gathered.
func (r *recorder) results() []Figure {
	out := make([]Figure, len(r.figures))
	for i, f := range r.figures {
		f.Reason = r.reasons[f.ID]
		f.summarise(r.samples[f.ID])
		out[i] = f
	}
	return out
}

func (f *Figure) summarise(samples []sample) {
	if len(samples) == 0 {
		f.Verdict = NotMeasured
		if f.Reason == "" {
			f.Reason = notAsked
		}
		return
	}
	var values, limits, ratios []float64
	for _, s := range samples {
		values = append(values, s.value)
		if f.Limit == "" || s.limit == 0 || s.value == 0 && f.RatioOf == underLimit {
			continue
		}
		limits = append(limits, s.limit)
		if f.RatioOf == underLimit {
			ratios = append(ratios, s.limit/s.value)
		} else {
			ratios = append(ratios, s.value/s.limit)
		}
	}
	f.Value, f.LimitValue, f.Ratio = spread(values), spread(limits), spread(ratios)
	f.judge()
}

// judge sets the verdict from the median.
func (f *Figure) judge() {
	judged := f.Value
	if f.Judged == byRatio {
		judged = f.Ratio
	}
	switch {
	case f.Judged == "":
		f.Verdict = NoBar
	case judged == nil:
		f.Verdict, f.Reason = NotMeasured, "its limit was not measured"
	case f.Aim != 0 && f.atLeast(judged.Median, f.Aim):
		f.Verdict = Aimed
	case f.atLeast(judged.Median, f.Bar):
		f.Verdict = Met
	default:
		f.Verdict = Missed
	}
}

// atLeast tells whether v is as good as want.
func (f *Figure) atLeast(v, want float64) bool {
	if f.Better == more {
		return v >= want
	}
	return v <= want
}

// spread is nil if there are no values.
func spread(v []float64) *Spread {
	if len(v) == 0 {
		return nil
	}
	v = slices.Sorted(slices.Values(v))
	n := len(v)
	return &Spread{Samples: n, Min: v[0], Median: (v[(n-1)/2] + v[n/2]) / 2, Max: v[n-1]}
}

// quantile of v by the nearest rank; 0 if there are none.
func quantile(v []float64, q float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	return v[min(len(v)-1, max(0, int(math.Ceil(q*float64(len(v))))-1))]
}

// String is a spread for people: the median, and the rest where it varies.
func (s *Spread) String() string {
	if s == nil {
		return "-"
	}
	if s.Samples < 2 || number(s.Min) == number(s.Max) {
		return number(s.Median)
	}
	return fmt.Sprintf("%s (%s to %s)", number(s.Median), number(s.Min), number(s.Max))
}

// number has three significant digits, and no more than are before the point.
func number(v float64) string {
	switch a := math.Abs(v); {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return "-"
	case a == 0:
		return "0"
	case a >= 99.95:
		return group(fmt.Sprintf("%.0f", v))
	case a >= 9.995:
		return fmt.Sprintf("%.1f", v)
	case a >= 0.0995:
		return fmt.Sprintf("%.2f", v)
	case a >= 0.00995:
		return fmt.Sprintf("%.3f", v)
	}
	return fmt.Sprintf("%.2g", v)
}

func group(s string) string {
	sign := ""
	if s[0] == '-' {
		sign, s = "-", s[1:]
	}
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return sign + s
}
