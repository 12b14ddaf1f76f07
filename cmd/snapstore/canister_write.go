package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/ui"
)

type canisterWriteOptions struct {
	quotas
	section string
	from    string
}

func newCanisterWriteCommand(a *app) *cobra.Command {
	o := &canisterWriteOptions{}
	cmd := &cobra.Command{
		Use:   "write CANISTER --section SECTION --from FILE",
		Short: "Make a section equal to a file",
		Long: `Make a section of the live state equal to a file, in size and content. Only
the pages that differ are written. When the command ends well the new state is
durable; until then nothing of it is, unless more than ` + ui.Bytes(checkpointAfter) + ` differs: that is
made durable in steps, and an interrupted write leaves the section part old,
part new.`,
		Example: "  snapstore canister write ryjl3-tyaaa-aaaaa-aaaba-cai --section stable-memory --from stable.bin",
		Args:    args(1, 1, "a canister id"),
		RunE:    func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, args[0]) },
	}
	sectionFlag(cmd, &o.section)
	cmd.Flags().StringVar(&o.from, "from", "", "file with the new content")
	o.quotas.flags(cmd)
	return cmd
}

func sectionFlag(cmd *cobra.Command, p *string) {
	cmd.Flags().StringVar(p, "section", "", "wasm-module, wasm-memory or stable-memory")
	_ = cmd.RegisterFlagCompletionFunc("section", cobra.FixedCompletions(sectionNames(), cobra.ShellCompDirectiveNoFileComp)) // fails only for a flag that is not there
}

// checkpointAfter bounds the changed bytes that are held in memory.
const checkpointAfter = 1 << 30

// canisterWriteResult is the JSON of canister write.
type canisterWriteResult struct {
	ID              string      `json:"id"`
	Section         string      `json:"section"`
	SizeBytes       uint64      `json:"size_bytes"`
	SectionPages    uint64      `json:"section_pages"`
	ChangedPages    uint64      `json:"changed_pages"`
	Pages           pagesResult `json:"pages"`
	Root            string      `json:"root"`
	DurationSeconds seconds     `json:"duration_seconds"`
	Sequence        uint64      `json:"sequence"`
}

func (r canisterWriteResult) ids() []string { return []string{r.ID} }

func (r canisterWriteResult) text(w io.Writer) {
	fmt.Fprintf(w, "%s of %s is now %s; %s of %s pages changed in %s\n",
		r.Section, r.ID, ui.Bytes(r.SizeBytes), ui.Count(r.ChangedPages), ui.Count(r.SectionPages), r.DurationSeconds)
}

func (o *canisterWriteOptions) run(ctx context.Context, a *app, name string) error {
	id, err := parseCanister(name)
	if err != nil {
		return err
	}
	section, err := parseSection(o.section)
	if err != nil {
		return err
	}
	if section.Kind == engine.WasmChunk([32]byte{}).Kind {
		return usageError(`bring wasm chunks in with "snapstore snapshot import"`, "a wasm chunk can not be written")
	}
	if o.from == "" {
		return usageError("pass --from FILE", "no file was named")
	}
	f, n, err := openInput(o.from)
	if err != nil {
		return err
	}
	defer f.Close()
	return a.withStore(ctx, o.apply(a.writing()), func(e *engine.Engine) error {
		c, err := e.Canister(id)
		if err != nil {
			return err
		}
		p := a.progress("write " + section.String())
		r, err := assign(ctx, c, section, f, n, checkpointAfter, p.Update)
		p.Clear()
		if err != nil {
			return err
		}
		return a.emit(r)
	})
}

// assign makes a section equal to the n bytes of r, and durable. No more than
// limit changed bytes, and a little, are held in memory.
func assign(ctx context.Context, c *engine.Canister, section engine.Section, r io.Reader, n uint64, limit int, progress func(done, total int64)) (canisterWriteResult, error) {
	out := canisterWriteResult{ID: c.ID().String(), Section: section.String(), SizeBytes: n}
	m, err := c.Memory(section)
	if err != nil {
		return out, err
	}
	checkpoint := func() error {
		res, err := c.Checkpoint(ctx)
		if err != nil {
			return err
		}
		out.Pages.add(toPages(res.Pages))
		out.Root, out.Sequence = res.Root.String(), res.Sequence
		return nil
	}
	began := stopwatch()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	st, err := m.Assign(ctx, r, n, func(done int64) {
		progress(done, int64(n))
		if m.DirtyPages() >= limit/engine.PageSize {
			if err := checkpoint(); err != nil {
				cancel(err)
			}
		}
	})
	if cause := context.Cause(ctx); err != nil && cause != nil && errors.Is(err, context.Canceled) {
		err = cause
	}
	if err != nil {
		return out, err
	}
	if err := checkpoint(); err != nil {
		return out, err
	}
	out.SectionPages, out.ChangedPages, out.DurationSeconds = st.Pages, st.Changed, began()
	return out, nil
}

// openInput opens a plain file, whose size can be known before it is read.
func openInput(name string) (*os.File, uint64, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, 0, fail(exitError, "name a file that can be read", "%w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, 0, fail(exitError, "name a plain file: the section is resized to it first", "%s is not a plain file", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, 0, fail(exitError, "name a file that can be read", "%w", err)
	}
	if info, err = f.Stat(); err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, uint64(info.Size()), nil
}
