package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/snapstore/snapstore/engine"
)

type initOptions struct {
	segmentSize bytesValue
	dedup       string
}

func newInitCommand(a *app) *cobra.Command {
	o := &initOptions{}
	cmd := &cobra.Command{
		Use:   "init [DIR]",
		Short: "Make an empty store",
		Long:  "Make an empty store in DIR, or in the directory that --store or " + storeEnv + " names. The directory is made where it is missing.",
		Example: `  snapstore init ./backups
  snapstore init --store ./backups --segment-size 8MiB
  snapstore init ./tenants --dedup canister`,
		Args: args(0, 1, "at most one directory"),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				a.store = args[0]
			}
			return o.run(c.Context(), a)
		},
	}
	cmd.Flags().Var(&o.segmentSize, "segment-size", "size of the log's files, 64KiB to 1GiB (default 32MiB)")
	cmd.Flags().StringVar(&o.dedup, "dedup", engine.DedupStore.String(), "store equal content once in the whole \"store\", or for each \"canister\" apart, so that none can find out what others have; never changes")
	return cmd
}

// initResult is the JSON of init.
type initResult struct {
	Store    string `json:"store"`
	StoreID  string `json:"store_id"`
	Dedup    string `json:"dedup_domain"`
	Sequence uint64 `json:"sequence"`
}

func (r initResult) ids() []string { return nil }

func (r initResult) text(w io.Writer) { fmt.Fprintf(w, "made an empty store in %s\n", r.Store) }

func (o *initOptions) run(ctx context.Context, a *app) error {
	dedup, err := engine.ParseDedupDomain(o.dedup)
	if err != nil {
		return usageError("pass --dedup store or --dedup canister", "there is no dedup domain %q", clip(o.dedup))
	}
	dir, err := a.storeDir()
	if err != nil {
		return err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	eo := a.reading()
	eo.SegmentSize, eo.DedupDomain = int64(o.segmentSize.n), dedup
	if err := engine.Create(dir, eo); err != nil {
		return err
	}
	a.store = dir
	// Opening it proves that it can be opened, and settles its first files.
	return a.withStore(ctx, eo, func(e *engine.Engine) error {
		return a.emit(initResult{Store: dir, StoreID: e.Log().StoreID().String(), Dedup: e.DedupDomain().String(), Sequence: e.Sequence()})
	})
}
