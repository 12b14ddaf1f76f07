package main

import (
	"github.com/spf13/cobra"
)

func newBenchCommand(a *app) *cobra.Command {
	return newGroup("bench", "Measure the engine beside the limits of the machine", `  snapstore bench run --quick --out result.json
  snapstore bench report result.json`,
		newBenchRunCommand(a), newBenchCompareCommand(a), newBenchReportCommand(a))
}
