package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

func newCompletionCommand() *cobra.Command {
	shells := []string{"bash", "zsh", "fish", "powershell"}
	return &cobra.Command{
		Use:       "completion " + strings.Join(shells, "|"),
		Short:     "Write the completion script of a shell",
		Long:      "Write the completion script of a shell to standard output, for the shell to read at its start.",
		Example:   "  snapstore completion bash > /etc/bash_completion.d/snapstore",
		ValidArgs: shells,
		Args:      args(1, 1, "the name of a shell: "+strings.Join(shells, ", ")),
		RunE: func(c *cobra.Command, args []string) error {
			root, w := c.Root(), c.OutOrStdout()
			switch slices.Index(shells, args[0]) {
			case 0:
				return root.GenBashCompletionV2(w, true)
			case 1:
				return root.GenZshCompletion(w)
			case 2:
				return root.GenFishCompletion(w, true)
			case 3:
				return root.GenPowerShellCompletionWithDesc(w)
			}
			return usageError("choose one of "+strings.Join(shells, ", "), "no completion for %q", clip(args[0]))
		},
	}
}
