package bench

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/snapstore/snapstore/internal/ui"
)

// WriteText writes a run as tables for eyes, one a group of figures.
func (r *Result) WriteText(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n%s\n", r.Where(), r.What())
	if note := r.Caution(); note != "" {
		fmt.Fprintln(&b, note)
	}
	left := 0
	for i := 0; i < len(r.Figures); {
		group := r.Figures[i].Group
		t := ui.NewTable(ui.Column{Title: strings.ToUpper(group)}, ui.Column{Title: "MEASURED"}, ui.Column{Title: "LIMIT"}, ui.Column{Title: "RATIO"}, ui.Column{Title: "BAR"}, ui.Column{Title: "AIM"}, ui.Column{})
		for ; i < len(r.Figures) && r.Figures[i].Group == group; i++ {
			f := r.Figures[i]
			if !f.Asked() {
				left++
				continue
			}
			if f.Verdict == NotMeasured {
				t.Row(f.Title, "-", "", "", f.BarText(), f.AimText(), string(f.Verdict)+": "+f.Reason)
				continue
			}
			limit := ""
			if f.LimitValue != nil {
				limit = f.LimitValue.String()
			}
			t.Row(f.Title, f.Value.String()+" "+f.Unit, limit, ratioText(f.Ratio), f.BarText(), f.AimText(), verdictText(f))
		}
		if t.Len() > 0 {
			fmt.Fprintln(&b)
			_, _ = t.WriteTo(&b) // a Builder does not fail
		}
	}
	if left > 0 {
		fmt.Fprintf(&b, "\n%d figures belong to workloads that were not asked for\n", left)
	}
	if len(r.Peers) > 0 {
		fmt.Fprintln(&b)
		peersTable(&b, r.Peers)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func ratioText(s *Spread) string {
	if s == nil {
		return ""
	}
	return s.String()
}

func verdictText(f Figure) string {
	out := ""
	if f.Verdict != NoBar {
		out = string(f.Verdict)
	}
	if f.Reason != "" {
		if out != "" {
			out += "; "
		}
		out += f.Reason
	}
	return out
}

// BarText is the bar with its direction, or nothing.
func (f *Figure) BarText() string { return f.threshold(f.Bar) }

// AimText is the aim with its direction, or nothing.
func (f *Figure) AimText() string { return f.threshold(f.Aim) }

func (f *Figure) threshold(v float64) string {
	if v == 0 {
		return ""
	}
	sign := "≤ "
	if f.Better == more {
		sign = "≥ "
	}
	if f.Judged == byValue {
		return sign + number(v) + " " + f.Unit
	}
	return sign + number(v)
}

// Where says on what machine the run was.
func (r *Result) Where() string {
	m := r.Machine
	parts := []string{fmt.Sprintf("%d x %s", m.Cores, orUnknown(m.CPU)), m.Vectors}
	if m.MemoryBytes > 0 {
		parts = append(parts, ui.Bytes(m.MemoryBytes))
	}
	if m.FileSystem != "" {
		parts = append(parts, m.FileSystem)
	}
	if m.Kernel != "" {
		parts = append(parts, "kernel "+m.Kernel)
	}
	return strings.Join(append(parts, r.Build.Go), ", ")
}

// What says what was run and when.
func (r *Result) What() string {
	commit := r.Build.Version
	if len(r.Build.Commit) >= 12 {
		commit = r.Build.Commit[:12]
	}
	if r.Build.Modified {
		commit += ", modified"
	}
	return fmt.Sprintf("%s, snapstore %s, seed %d, %d repeats, scale %s, %s: %s", r.Began.UTC().Format("2006-01-02 15:04 UTC"), commit,
		r.Settings.Seed, r.Settings.Repeats, number(r.Settings.Scale), ui.Duration(time.Duration(r.DurationSeconds*1e9)), strings.Join(r.Settings.Workloads, ", "))
}

// Caution says what takes weight from the figures; empty is nothing.
func (r *Result) Caution() string {
	if r.Settings.Scale != 1 {
		return "The bars are made for scale 1; at another they only show that everything was measured."
	}
	return ""
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown processor"
	}
	return s
}

func peersTable(w io.Writer, peers []PeerResult) {
	right := func(title string) ui.Column { return ui.Column{Title: title, Align: ui.Right} }
	t := ui.NewTable(ui.Column{Title: "SYSTEM"}, right("FULL"), right("1 %, P50"), right("RESTORE"), right("DELETE, P50"),
		right("AFTER FULL"), right("AFTER ALL"), right("AFTER DELETES"), ui.Column{})
	for _, p := range peers {
		if p.Absent != "" {
			t.Row(p.Name, "-", "-", "-", "-", "-", "-", "-", p.Absent)
			continue
		}
		t.Row(p.Name, secondsText(p.Full), secondsText(p.Increment), secondsText(p.Restore), secondsText(p.Delete),
			ui.Bytes(uint64(p.FullBytes)), ui.Bytes(uint64(p.AllBytes)), ui.Bytes(uint64(p.DeletedBytes)), p.Version)
	}
	_, _ = t.WriteTo(w) // as above
}

func secondsText(s *Spread) string {
	if s == nil {
		return "-"
	}
	return ui.Duration(time.Duration(s.Median * 1e9))
}
