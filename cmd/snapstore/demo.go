package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/demodata"
	"github.com/snapstore/snapstore/internal/snapdir"
	"github.com/snapstore/snapstore/internal/ui"
)

type demoOptions struct {
	dir   string
	keep  bool
	steps int
}

func newDemoCommand(a *app) *cobra.Command {
	o := &demoOptions{}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show all of it on the memory of a real canister",
		Long: `Write successive images of the stable memory of a real ledger canister, which
come with this program, step by step into a canister, with a snapshot at each
step; load an old one and compare every byte; delete, collect, verify, export and
import. The store is a temporary one, unless --dir names a place for it.`,
		Example: `  snapstore demo
  snapstore demo --dir ./demo-store`,
		Args: args(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c.Context(), a) },
	}
	cmd.Flags().StringVar(&o.dir, "dir", "", "make the store here, and keep it")
	cmd.Flags().IntVar(&o.steps, "steps", 0, "use only so many of the images, at least 6 (default all)")
	cmd.Flags().BoolVar(&o.keep, "keep", false, "keep the temporary store")
	return cmd
}

// demoResult is the JSON of demo.
type demoResult struct {
	Store           string               `json:"store,omitempty"` // where it was kept
	Limit           int                  `json:"limit"`
	Steps           []demoStepResult     `json:"steps"`
	Loaded          snapshotLoadResult   `json:"loaded"`
	ComparedBytes   uint64               `json:"compared_bytes"` // with the original images, all equal
	Removed         []string             `json:"removed"`
	GC              gcResult             `json:"gc"`
	Verify          verifyResult         `json:"verify"`
	Exported        snapshotExportResult `json:"exported"`
	Imported        snapshotImportResult `json:"imported"`
	DurationSeconds seconds              `json:"duration_seconds"`
}

// demoStepResult is a line of the table.
type demoStepResult struct {
	Image        string      `json:"image"`
	Snapshot     string      `json:"snapshot"`
	Replaced     string      `json:"replaced,omitempty"`
	LogicalBytes uint64      `json:"logical_bytes"` // of all snapshots, as a tenant is charged
	UniqueBytes  uint64      `json:"unique_bytes"`  // distinct pages, uncompressed
	DiskBytes    uint64      `json:"disk_bytes"`    // log and index
	TakeSeconds  seconds     `json:"take_seconds"`
	Pages        pagesResult `json:"pages"`
}

func (r demoResult) ids() []string {
	var out []string
	for _, s := range r.Steps {
		out = append(out, s.Snapshot)
	}
	return out
}

func (r demoResult) text(w io.Writer) {
	var rows [][]string
	for _, s := range r.Steps {
		rows = append(rows, []string{
			s.Image, ui.Bytes(s.LogicalBytes), ui.Bytes(s.UniqueBytes), ui.Bytes(s.DiskBytes), s.TakeSeconds.String(),
			ui.Count(s.Pages.Hashed), ui.Count(s.Pages.New), ui.Count(s.Pages.Shared), ui.Count(s.Pages.Zero),
		})
	}
	fmt.Fprintln(w)
	table(w, []string{"STEP", ">LOGICAL", ">UNIQUE", ">ON DISK", ">TAKE", ">HASHED", ">NEW", ">SHARED", ">ZERO"}, rows)
	fmt.Fprintf(w, "\nall of it in %s\n", r.DurationSeconds)
	if r.Store != "" {
		fmt.Fprintf(w, "the store is in %s\n", r.Store)
	}
}

func (o *demoOptions) run(ctx context.Context, a *app) (err error) {
	images, err := demodata.MotokoLedger()
	if err != nil {
		return err
	}
	// With fewer the limit would not show.
	all := len(images.Infos())
	if o.steps != 0 && (o.steps <= demoLimit || o.steps > all) {
		return usageError(fmt.Sprintf("pass --steps with a number from %d to %d", demoLimit+1, all), "a demonstration of %d steps", o.steps)
	}
	if o.steps == 0 {
		o.steps = all
	}
	// The export is here for a moment, and the store unless it is kept.
	temp, err := os.MkdirTemp("", "snapstore-demo-")
	if err != nil {
		return err
	}
	dir := o.dir
	if dir == "" {
		dir = filepath.Join(temp, "store")
	}
	exports := filepath.Join(temp, "exports")
	defer func() {
		if o.dir == "" && o.keep {
			temp = exports
		}
		err = errors.Join(err, os.RemoveAll(temp))
	}()
	if err := os.Mkdir(exports, 0o700); err != nil {
		return err
	}
	eo := a.writing()
	eo.SnapshotLimit = demoLimit
	if err := engine.Create(dir, eo); err != nil {
		return err
	}
	a.store = dir
	return a.withStore(ctx, eo, func(e *engine.Engine) error {
		d := demo{ctx: ctx, a: a, e: e, exports: exports, images: images, steps: o.steps, r: demoResult{Limit: demoLimit, Steps: []demoStepResult{}, Removed: []string{}}}
		if o.dir != "" || o.keep {
			d.r.Store = dir
		}
		began := stopwatch()
		if err := d.run(); err != nil {
			return err
		}
		d.r.DurationSeconds = began()
		return a.emit(d.r)
	})
}

const (
	demoLimit    = 5
	demoCanister = "ryjl3-tyaaa-aaaaa-aaaba-cai" // where the ledger lives
	demoCopy     = "rrkah-fqaaa-aaaaa-aaaaq-cai"
)

// demo is a run of it.
type demo struct {
	ctx     context.Context
	a       *app
	e       *engine.Engine
	c       *engine.Canister
	exports string
	images  *demodata.Series
	steps   int
	// taken are the snapshots that are there and the images they are of.
	taken []demoSnapshot
	r     demoResult
}

type demoSnapshot struct {
	id    engine.SnapshotID
	image int
}

// say tells a person what happens.
func (d *demo) say(format string, args ...any) {
	if !d.a.json && !d.a.quiet {
		fmt.Fprintf(d.a.stdout, format+"\n", args...)
	}
}

func (d *demo) run() error {
	for _, part := range []func() error{d.takeAll, d.load, d.remove, d.verify, d.move} {
		if err := part(); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) create(name string) (*engine.Canister, error) {
	id, err := parseCanister(name)
	if err != nil {
		return nil, err
	}
	return d.e.CreateCanister(d.ctx, id)
}

// takeAll writes the images one after another and takes a snapshot of each.
func (d *demo) takeAll() error {
	infos := d.images.Infos()[:d.steps]
	d.say("%d images of the stable memory of a ledger, %s to %s; at most %d snapshots",
		len(infos), ui.Bytes(uint64(infos[0].Size)), ui.Bytes(uint64(infos[len(infos)-1].Size)), demoLimit)
	var err error
	if d.c, err = d.create(demoCanister); err != nil {
		return err
	}
	n := 0
	for image, err := range d.images.Images() {
		if err != nil {
			return err
		}
		if err := d.take(n, image); err != nil {
			return err
		}
		if n++; n == d.steps {
			break
		}
	}
	return nil
}

func (d *demo) take(n int, image *demodata.Image) error {
	m, err := d.c.Memory(engine.StableMemory)
	if err != nil {
		return err
	}
	st, err := m.Assign(d.ctx, bytes.NewReader(image.Bytes), uint64(len(image.Bytes)), nil)
	if err != nil {
		return err
	}
	if st.Changed != uint64(len(image.Pages)) {
		return fmt.Errorf("image %s: %d pages were written, %d differ", image.Name, st.Changed, len(image.Pages))
	}
	res, err := d.c.Take(d.ctx, engine.TakeOptions{})
	var leaves engine.SnapshotID
	if errors.Is(err, engine.ErrSnapshotLimit) {
		if len(d.taken) == demoLimit && n == demoLimit {
			d.say("image %s  refused: %s; from here on each take replaces the oldest", image.Name, message(err))
		}
		leaves = d.taken[0].id
		res, err = d.c.Take(d.ctx, engine.TakeOptions{Replace: leaves})
		d.taken = d.taken[1:]
	}
	if err != nil {
		return err
	}
	d.taken = append(d.taken, demoSnapshot{res.ID, n})
	// The dump goes nowhere; it is made when the index has all that is durable.
	if err := d.e.DumpIndex(io.Discard); err != nil {
		return err
	}
	usage, err := d.e.Usage(d.ctx)
	if err != nil {
		return err
	}
	s := d.e.Stats()
	d.r.Steps = append(d.r.Steps, demoStepResult{
		Image: image.Name, Snapshot: res.ID.String(), Replaced: replaced(leaves), LogicalBytes: s.LogicalBytes,
		UniqueBytes: usage.UniqueBytes, DiskBytes: uint64(s.LogBytes + s.IndexBytes),
		TakeSeconds: toSeconds(res.Duration), Pages: toPages(res.Pages),
	})
	d.say("image %s  %s written, %s of %s pages; took %s in %s%s", image.Name, ui.Bytes(st.Changed*engine.PageSize),
		ui.Count(st.Changed), ui.Count(st.Pages), res.ID, toSeconds(res.Duration), replacedText(replaced(leaves)))
	return nil
}

// load goes back to the oldest snapshot and compares every byte with the image
// that it was taken of.
func (d *demo) load() error {
	old := d.taken[0]
	res, err := d.c.Load(d.ctx, old.id, engine.LoadOptions{})
	if err != nil {
		return err
	}
	d.r.Loaded = snapshotLoadResult{
		ID: old.id.String(), Canister: old.id.Canister.String(), ChangedPages: res.Pages,
		DurationSeconds: toSeconds(res.Duration), Sequence: res.Sequence,
	}
	d.say("\nloaded %s: %s pages changed in %s", old.id, ui.Count(res.Pages), toSeconds(res.Duration))
	m, err := d.c.Memory(engine.StableMemory)
	if err != nil {
		return err
	}
	return d.compare("the live memory", old.image, m, m.Size())
}

// compare reads n bytes and refuses any that is not the image's.
func (d *demo) compare(what string, image int, have io.ReaderAt, n uint64) error {
	at := 0
	for want, err := range d.images.Images() {
		if err != nil {
			return err
		}
		if at++; at-1 != image {
			continue
		}
		if n != uint64(len(want.Bytes)) {
			return fmt.Errorf("%s has %d bytes, image %s has %d", what, n, want.Name, len(want.Bytes))
		}
		buf := make([]byte, 1<<20)
		for off := 0; off < len(want.Bytes); off += len(buf) {
			if err := d.ctx.Err(); err != nil {
				return err
			}
			buf = buf[:min(len(buf), len(want.Bytes)-off)]
			if _, err := have.ReadAt(buf, int64(off)); err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			if !bytes.Equal(buf, want.Bytes[off:off+len(buf)]) {
				return fmt.Errorf("%s differs from image %s in the MiB at %d", what, want.Name, off)
			}
		}
		d.r.ComparedBytes += n
		d.say("%s is image %s: all %s bytes are equal", what, want.Name, ui.Count(n))
		return nil
	}
	return fmt.Errorf("there is no image %d", image)
}

// remove deletes all snapshots but the one that was loaded and waits for the
// space to come back.
func (d *demo) remove() error {
	for _, s := range d.taken[1:] {
		if err := d.e.Delete(d.ctx, s.id); err != nil {
			return err
		}
		d.r.Removed = append(d.r.Removed, s.id.String())
	}
	d.taken = d.taken[:1]
	before := d.e.Stats()
	r, err := collect(d.ctx, d.e, engine.GCOptions{}, func(int64, int64) {})
	if err != nil {
		return err
	}
	d.r.GC = r
	d.say("deleted %s; gc in %s: the log went from %s to %s", plural(len(d.r.Removed), "snapshot"), r.DurationSeconds,
		ui.Bytes(uint64(before.LogBytes)), ui.Bytes(uint64(r.LogBytes)))
	return nil
}

func (d *demo) verify() error {
	r, err := verify(d.ctx, d.e, engine.VerifyOptions{})
	if err != nil {
		return err
	}
	d.r.Verify = r
	if r.ProblemCount > 0 {
		for _, p := range r.Problems {
			d.say("%s", p)
		}
		return fail(exitProblems, "this is a bug or a broken machine; keep the store and report it", "%s found", plural(r.ProblemCount, "problem"))
	}
	d.say("verified in %s: no problems", r.DurationSeconds)
	return nil
}

// move exports the snapshot, imports it into a second canister and compares.
func (d *demo) move() error {
	old := d.taken[0]
	s, err := d.e.Snapshot(d.ctx, old.id)
	if err != nil {
		return err
	}
	defer s.Close()
	target := filepath.Join(d.exports, "snapshot-"+strconv.FormatUint(old.id.Local, 10))
	if d.r.Exported, err = export(d.ctx, s, target, func(int64, int64) {}); err != nil {
		return err
	}
	d.say("exported %s in %s", ui.Bytes(d.r.Exported.Bytes), d.r.Exported.DurationSeconds)
	c, err := d.create(demoCopy)
	if err != nil {
		return err
	}
	dir, err := snapdir.Open(target)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := dir.Verify(d.ctx, nil); err != nil {
		return err
	}
	if d.r.Imported, err = importDir(d.ctx, d.e, c, dir, engine.SnapshotID{}, flushAfter, func(int64, int64) {}); err != nil {
		return err
	}
	p := d.r.Imported.Pages
	d.say("imported into %s in %s: %s pages, %s of them new", c.ID(), d.r.Imported.DurationSeconds, ui.Count(p.Hashed), ui.Count(p.New))
	id, err := engine.ParseSnapshotID(d.r.Imported.ID)
	if err != nil {
		return err
	}
	in, err := d.e.Snapshot(d.ctx, id)
	if err != nil {
		return err
	}
	defer in.Close()
	if !slices.Equal(s.Sections(), in.Sections()) {
		return fmt.Errorf("the imported sections differ from the exported ones")
	}
	r, err := in.Section(engine.StableMemory)
	if err != nil {
		return err
	}
	return d.compare("the imported snapshot", old.image, r, uint64(r.Size()))
}
