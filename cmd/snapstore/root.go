package main

import (
	"fmt"
	"maps"
	"strings"

	"github.com/spf13/cobra"
)

// storeEnv names the store where --store does not.
const storeEnv = "SNAPSTORE_DIR"

func newRootCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "snapstore",
		Short: "Content-addressed snapshots of canisters",
		Long: `snapstore keeps snapshots of canisters. Every distinct 4 KiB page is stored
once, so a snapshot costs what changed since the last one.

The store is the directory given by --store, or by ` + storeEnv + `.

Exit codes: 0 ok, 1 error, 2 usage, 3 finished but problems were found,
4 call rejected, 10 no store, 11 locked, 12 snapshot limit reached,
13 not found, 14 newer format, 130 interrupted.`,
		Example: `  snapstore init --store ./backups
  export SNAPSTORE_DIR=./backups
  snapstore canister create ryjl3-tyaaa-aaaaa-aaaba-cai
  snapstore canister write ryjl3-tyaaa-aaaaa-aaaba-cai --section stable-memory --from image.bin
  snapstore snapshot take ryjl3-tyaaa-aaaaa-aaaba-cai`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE:          missingVerb,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if a.json && a.quiet {
				return usageError("choose one of them", "--json and --quiet exclude each other")
			}
			if a.store == "" {
				a.store = a.getenv(storeEnv)
			}
			return nil
		},
	}
	f := cmd.PersistentFlags()
	f.StringVarP(&a.store, "store", "C", "", "directory of the store (default $"+storeEnv+")")
	f.BoolVar(&a.json, "json", false, "write one JSON document; see docs/cli-json.md")
	f.BoolVarP(&a.quiet, "quiet", "q", false, "write ids only")
	f.BoolVar(&a.noProgress, "no-progress", false, "draw no progress line")
	f.BoolVarP(&a.verbose, "verbose", "v", false, "log what the store does, to standard error")
	cmd.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError(helpHint(c), "%w", err)
	})
	cmd.SuggestionsMinimumDistance = suggestWithin
	cmd.CompletionOptions.DisableDefaultCmd = true
	cmd.SetHelpCommand(newHelpCommand())
	cmd.AddCommand(
		newInitCommand(a), newCanisterCommand(a), newSnapshotCommand(a),
		newVerifyCommand(a), newGCCommand(a), newStatsCommand(a), newRebuildIndexCommand(a),
		newInspectCommand(a), newCallCommand(a), newDemoCommand(a), newBenchCommand(a), newVersionCommand(a), newCompletionCommand(),
	)
	for _, leaf := range leaves(cmd) {
		if leaf.ValidArgs == nil && leaf.Name() != "init" {
			leaf.ValidArgsFunction = cobra.NoFileCompletions // ids, which no shell can know
		}
	}
	return cmd
}

// leaves lists the verbs by their path.
func leaves(c *cobra.Command) map[string]*cobra.Command {
	out := map[string]*cobra.Command{}
	for _, sub := range c.Commands() {
		if len(sub.Commands()) > 0 {
			maps.Copy(out, leaves(sub))
			continue
		}
		out[strings.TrimPrefix(sub.CommandPath(), "snapstore ")] = sub
	}
	return out
}

// suggestWithin is how many slips of the finger a suggestion forgives.
const suggestWithin = 2

// newGroup makes a command that only holds verbs.
func newGroup(use, short, example string, verbs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Example: example, Args: cobra.ArbitraryArgs, RunE: missingVerb,
		SuggestionsMinimumDistance: suggestWithin,
	}
	cmd.AddCommand(verbs...)
	return cmd
}

// missingVerb answers a command line that stops at a group, or names a verb
// that is not in it.
func missingVerb(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return usageError(helpHint(c), "%s needs a verb: %s", c.CommandPath(), strings.Join(verbs(c), ", "))
	}
	hint := helpHint(c)
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		hint = fmt.Sprintf("did you mean %q?", c.CommandPath()+" "+near[0])
	}
	return usageError(hint, "%s has no verb %q", c.CommandPath(), args[0])
}

func verbs(c *cobra.Command) []string {
	var out []string
	for _, v := range c.Commands() {
		if v.IsAvailableCommand() {
			out = append(out, v.Name())
		}
	}
	return out
}

func helpHint(c *cobra.Command) string {
	return fmt.Sprintf("run %q for its arguments", c.CommandPath()+" --help")
}

func newHelpCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "help [VERB]...",
		Short:   "Explain a verb",
		Example: "  snapstore help snapshot take",
		RunE: func(c *cobra.Command, args []string) error {
			target := c.Root()
			for _, name := range args {
				next, rest, err := target.Find([]string{name})
				if err != nil || len(rest) > 0 || next == target {
					return missingVerb(target, []string{name})
				}
				target = next
			}
			return target.Help()
		},
	}
}

// args makes a check of the number of arguments, at most max; max < 0 is any.
func args(least, most int, names string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return usageError(helpHint(c), "%s needs %s", c.CommandPath(), names)
		case most >= 0 && len(args) > most:
			return usageError(helpHint(c), "%s has no use for %q", c.CommandPath(), args[most])
		}
		return nil
	}
}
