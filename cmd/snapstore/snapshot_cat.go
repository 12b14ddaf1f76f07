package main

import (
	"bufio"
	"context"
	"math"

	"github.com/spf13/cobra"

	"github.com/snapstore/snapstore/engine"
)

type snapshotCatOptions struct {
	section        string
	offset, length bytesValue
}

func newSnapshotCatCommand(a *app) *cobra.Command {
	o := &snapshotCatOptions{}
	cmd := &cobra.Command{
		Use:   "cat SNAPSHOT --section SECTION",
		Short: "Write the bytes of a section to standard output",
		Long:  "Write the bytes of a section to standard output, each page verified. --json and --quiet change only how errors look.",
		Example: `  snapstore snapshot cat 0000000000000001 --section stable-memory > stable.bin
  snapstore snapshot cat 0000000000000001 --section wasm-memory --offset 64KiB --length 4096 | xxd`,
		Args: args(1, 1, "a snapshot id"),
		RunE: func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, args[0]) },
	}
	f := cmd.Flags()
	sectionFlag(cmd, &o.section)
	f.Lookup("section").Usage += ", or wasm-chunk/<sha256>"
	f.Var(&o.offset, "offset", "first byte to write")
	f.Var(&o.length, "length", "how many bytes to write, at most (default all)")
	return cmd
}

func (o *snapshotCatOptions) run(ctx context.Context, a *app, name string) error {
	section, err := parseSection(o.section)
	if err != nil {
		return err
	}
	return a.withSnapshot(ctx, name, func(_ *engine.Engine, s *engine.Snapshot) error {
		r, err := s.Section(section)
		if err != nil {
			return err
		}
		if n := uint64(r.Size()); o.offset.n > n {
			return usageError("pass a smaller --offset", "offset %d is beyond the %d bytes of %s", o.offset.n, n, section)
		}
		length := uint64(math.MaxInt64)
		if o.length.set {
			length = o.length.n
		}
		w := bufio.NewWriterSize(a.stdout, 64<<10)
		if _, err := r.Copy(ctx, w, o.offset.n, length); err != nil {
			return err
		}
		return w.Flush()
	})
}
