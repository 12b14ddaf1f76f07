package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func newVersionCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Show the version of this program",
		Example: "  snapstore version --json",
		Args:    args(0, 0, ""),
		RunE:    func(*cobra.Command, []string) error { return a.emit(buildVersion()) },
	}
}

// versionResult is the JSON of version.
type versionResult struct {
	Version  string `json:"version"`
	Commit   string `json:"commit"`
	Modified bool   `json:"modified"` // built from files that were not committed
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func (r versionResult) ids() []string { return []string{r.Version} }

func (r versionResult) text(w io.Writer) {
	fmt.Fprintf(w, "snapstore %s", r.Version)
	if r.Commit != "" {
		fmt.Fprintf(w, " (%.12s", r.Commit)
		if r.Modified {
			fmt.Fprint(w, ", modified")
		}
		fmt.Fprint(w, ")")
	}
	fmt.Fprintf(w, ", %s, %s\n", r.Go, r.Platform)
}

// buildVersion reads what the Go tool put into the program.
func buildVersion() versionResult {
	r := versionResult{Version: "unknown", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return r
	}
	if info.Main.Version != "" {
		r.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			r.Commit = s.Value
		case "vcs.modified":
			r.Modified = s.Value == "true"
		}
	}
	return r
}
