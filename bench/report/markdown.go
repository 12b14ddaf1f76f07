package report

import (
	"fmt"
	"io"
	"strings"

	"github.com/snapstore/snapstore/bench"
)

// Markdown writes the figures that have a bar, and the peers, as tables for a
// README.
func Markdown(w io.Writer, r *bench.Result) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s. %s.", cell(r.Where()), cell(r.What()))
	if c := r.Caution(); c != "" {
		fmt.Fprintf(&b, " %s", c)
	}
	fmt.Fprintf(&b, "\n\n| figure | measured | limit, same run | ratio | bar | aim | |\n|---|---|---|---|---|---|---|\n")
	for _, f := range r.Figures {
		if f.Judged == "" && !strings.HasPrefix(f.ID, "size.") && !strings.HasPrefix(f.ID, "images.") || !f.Asked() {
			continue
		}
		if f.Verdict == bench.NotMeasured {
			fmt.Fprintf(&b, "| %s | - | | | %s | %s | not measured: %s |\n", cell(name(f)), f.BarText(), f.AimText(), cell(f.Reason))
			continue
		}
		limit, ratio := "", ""
		if f.LimitValue != nil {
			limit = fmt.Sprintf("%s: %s %s", f.Limit, median(f.LimitValue), f.Unit)
		}
		if f.Ratio != nil {
			ratio = f.Ratio.String()
		}
		fmt.Fprintf(&b, "| %s | %s %s | %s | %s | %s | %s | %s |\n", cell(name(f)), median(f.Value), f.Unit, cell(limit), ratio, f.BarText(), f.AimText(), mark(f.Verdict))
	}
	if len(r.Peers) > 1 {
		fmt.Fprintf(&b, "\n| system | full | 1 %% | restore | on disk after all | after deletes | |\n|---|---|---|---|---|---|---|\n")
		for _, p := range r.Peers {
			if p.Absent != "" {
				fmt.Fprintf(&b, "| %s | - | - | - | - | - | %s |\n", cell(p.Name), cell(p.Absent))
				continue
			}
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %d MB | %d MB | %s |\n", cell(p.Name), seconds(p.Full), seconds(p.Increment), seconds(p.Restore),
				p.AllBytes/1e6, p.DeletedBytes/1e6, cell(p.Note))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func name(f bench.Figure) string { return f.Group + ": " + f.Title }

func median(s *bench.Spread) string { return (&bench.Spread{Samples: 1, Median: s.Median}).String() }

func seconds(s *bench.Spread) string {
	if s == nil {
		return "-"
	}
	return shortSeconds(s.Median)
}

func mark(v bench.Verdict) string {
	switch v {
	case bench.Aimed:
		return "**aim**"
	case bench.NoBar:
		return ""
	}
	return string(v)
}

// cell keeps text from ending its cell, or beginning markup.
func cell(s string) string {
	return strings.NewReplacer("|", "\\|", "\n", " ", "<", "&lt;", "*", "\\*", "`", "'").Replace(s)
}
