package bench

import (
	"fmt"
	"slices"
)

// Merge makes one result of several that the same program made on the same
// machine with the same sizes, each with workloads of its own. Where two have
// measured the same, the later in the list counts.
func Merge(results ...Result) (Result, error) {
	if len(results) == 0 {
		return Result{}, fmt.Errorf("%w: there is none", ErrResult)
	}
	out := results[0]
	out.Figures, out.Series = slices.Clone(out.Figures), slices.Clone(out.Series)
	out.Settings.Workloads, out.Settings.Series = slices.Clone(out.Settings.Workloads), slices.Clone(out.Settings.Series)
	for _, r := range results[1:] {
		a, b := out.Settings, r.Settings
		switch {
		case a.Seed != b.Seed || a.Scale != b.Scale || a.ImageBytes != b.ImageBytes || a.Takes != b.Takes || a.Snapshots != b.Snapshots:
			return out, fmt.Errorf("%w: seed %d at scale %v and seed %d at scale %v", ErrDifferentWork, a.Seed, a.Scale, b.Seed, b.Scale)
		case out.Machine.CPU != r.Machine.CPU || out.Machine.Cores != r.Machine.Cores || out.Machine.Kernel != r.Machine.Kernel:
			return out, fmt.Errorf("%w: one on %d x %s, one on %d x %s", ErrDifferentWork, out.Machine.Cores, out.Machine.CPU, r.Machine.Cores, r.Machine.CPU)
		case out.Build != r.Build:
			return out, fmt.Errorf("%w: one of commit %q, one of %q", ErrDifferentWork, out.Build.Commit, r.Build.Commit)
		}
		out.DurationSeconds += r.DurationSeconds
		if r.Machine.Tracking != "" {
			out.Machine.Tracking = r.Machine.Tracking
		}
		if slices.Contains(b.Workloads, string(Preload)) {
			out.Settings.Preload = b.Preload
		}
		for _, w := range b.Workloads {
			if !slices.Contains(out.Settings.Workloads, w) {
				out.Settings.Workloads = append(out.Settings.Workloads, w)
			}
		}
		for _, s := range b.Series {
			if !slices.Contains(out.Settings.Series, s) {
				out.Settings.Series = append(out.Settings.Series, s)
			}
		}
		for _, f := range r.Figures {
			i := slices.IndexFunc(out.Figures, func(g Figure) bool { return g.ID == f.ID })
			switch {
			case i < 0:
				out.Figures = append(out.Figures, f)
			case f.Asked():
				out.Figures[i] = f
			}
		}
		for _, s := range r.Series {
			if i := slices.IndexFunc(out.Series, func(x Series) bool { return x.ID == s.ID }); i >= 0 {
				out.Series[i] = s
			} else {
				out.Series = append(out.Series, s)
			}
		}
		if len(r.Peers) > 0 {
			out.Peers = r.Peers
		}
	}
	return out, nil
}
