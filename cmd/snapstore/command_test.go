package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/snapdir"
	"github.com/snapstore/snapstore/manifest"
)

// openStore makes a store with one canister.
func openStore(t *testing.T) (*engine.Engine, *engine.Canister) {
	t.Helper()
	dir := t.TempDir()
	if err := engine.Create(dir, nil); err != nil {
		t.Fatal(err)
	}
	e, err := engine.Open(dir, &engine.Options{NoBackground: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	id, err := parseCanister(demoCanister)
	if err != nil {
		t.Fatal(err)
	}
	c, err := e.CreateCanister(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return e, c
}

func noise(n int, seed uint64) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed)})
	_, _ = r.Read(b)
	return b
}

func silent(int64, int64) {}

// exported writes a directory with a stable memory of that content.
func exported(t *testing.T, stable []byte) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "out")
	w, err := snapdir.Create(dir, snapdir.Metadata{StableMemorySize: uint64(len(stable))}, [32]byte{})
	if err != nil {
		t.Fatal(err)
	}
	p, err := w.Part(t.Context(), snapdir.Part{Kind: snapdir.StableMemory}, uint64(len(stable)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Write(stable); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(p.Close(), w.Commit()); err != nil {
		t.Fatal(err)
	}
	return dir
}

func snapshots(t *testing.T, e *engine.Engine, c *engine.Canister) []engine.SnapshotID {
	t.Helper()
	var out []engine.SnapshotID
	for s, err := range e.Snapshots(c.ID()) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, s.ID)
	}
	return out
}

func mustVerify(t *testing.T, e *engine.Engine) {
	t.Helper()
	r, err := verify(t.Context(), e, engine.VerifyOptions{})
	if err != nil || r.ProblemCount != 0 {
		t.Fatalf("%v, problems %v", err, r.Problems)
	}
}

// TestImportThatEndsEarly: wherever an import stops, by a signal or by content
// that is not what the checksums say, nothing of it stays, what it was to
// replace stays, and the same import succeeds after.
func TestImportThatEndsEarly(t *testing.T) {
	const size, flush = 4 << 20, 1 << 20
	good := exported(t, noise(size, 1))
	for _, c := range []struct {
		name  string
		after int64 // cancelled once so many bytes are in; 0: never
		spoil int64 // offset of a changed byte; negative: none
		want  error
	}{
		{"at once", 1, -1, context.Canceled},
		{"before the second flush", flush + 1, -1, context.Canceled},
		{"at the end", size, -1, context.Canceled},
		{"bad content", 0, 3 << 20, snapdir.ErrSumMismatch},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, can := openStore(t)
			taken, err := can.Take(t.Context(), engine.TakeOptions{})
			if err != nil {
				t.Fatal(err)
			}
			from := filepath.Join(t.TempDir(), "copy")
			if err := os.CopyFS(from, os.DirFS(good)); err != nil {
				t.Fatal(err)
			}
			if c.spoil >= 0 {
				f, err := os.OpenFile(filepath.Join(from, "stable_memory.bin"), os.O_RDWR, 0)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := f.WriteAt([]byte("spoilt"), c.spoil); err != nil {
					t.Fatal(err)
				}
				f.Close()
			}
			dir, err := snapdir.Open(from)
			if err != nil {
				t.Fatal(err)
			}
			defer dir.Close()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			_, err = importDir(ctx, e, can, dir, taken.ID, flush, func(done, _ int64) {
				if c.after > 0 && done >= c.after {
					cancel()
				}
			})
			if !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if left := snapshots(t, e, can); len(left) != 1 || left[0] != taken.ID {
				t.Fatalf("left: %v", left)
			}
			mustVerify(t, e)

			whole, err := snapdir.Open(good)
			if err != nil {
				t.Fatal(err)
			}
			defer whole.Close()
			r, err := importDir(t.Context(), e, can, whole, taken.ID, flush, silent)
			if err != nil {
				t.Fatal(err)
			}
			if left := snapshots(t, e, can); len(left) != 1 || left[0].String() != r.ID {
				t.Fatalf("left: %v, imported %s", left, r.ID)
			}
			if n := r.Pages.New + r.Pages.Shared; n != size/engine.PageSize {
				t.Errorf("%d pages, want %d", n, size/engine.PageSize)
			}
			mustVerify(t, e)
		})
	}
}

// TestAssignInSteps: more changes than may be held in memory become durable on
// the way, and the end is the same.
func TestAssignInSteps(t *testing.T) {
	e, c := openStore(t)
	content := noise(3<<20+77, 2)
	const limit = 1 << 20
	var most int
	m, err := c.Memory(engine.StableMemory)
	if err != nil {
		t.Fatal(err)
	}
	before := e.Sequence()
	r, err := assign(t.Context(), c, engine.StableMemory, bytes.NewReader(content), uint64(len(content)), limit, func(int64, int64) {
		most = max(most, m.DirtyPages())
	})
	if err != nil {
		t.Fatal(err)
	}
	if most > limit/engine.PageSize {
		t.Errorf("%d dirty pages were held, limit %d", most, limit/engine.PageSize)
	}
	if got := e.Sequence() - before; got < 3 {
		t.Errorf("%d batches, want one for each MiB", got)
	}
	if r.ChangedPages != 769 || r.Pages.Hashed != 769 || m.DirtyPages() != 0 {
		t.Errorf("%+v, %d pages dirty", r, m.DirtyPages())
	}
	have := make([]byte, len(content))
	if _, err := m.ReadAt(have, 0); err != nil || !bytes.Equal(have, content) {
		t.Errorf("%v: another content", err)
	}

	// An error of a step is the error of the whole.
	ctx, cancel := context.WithCancel(t.Context())
	_, err = assign(ctx, c, engine.StableMemory, bytes.NewReader(noise(len(content), 3)), uint64(len(content)), limit, func(done, _ int64) {
		if done >= limit {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	_, err = assign(t.Context(), c, engine.StableMemory, bytes.NewReader(content[:4096]), uint64(len(content)), limit, silent)
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a file that became shorter: got %v", err)
	}
	mustVerify(t, e)
}

// TestSnapdirNumbers: the directory's numbers are the manifest's.
func TestSnapdirNumbers(t *testing.T) {
	for k := manifest.WasmModule; k <= manifest.WasmChunk; k++ {
		s := engine.Section{Kind: k}
		if k == manifest.WasmChunk {
			s.Hash[0] = 1
		}
		if got := strings.ReplaceAll(toPart(s).Kind.String(), "_", "-"); got != k.String() || fromPart(toPart(s)) != s {
			t.Errorf("%v becomes %s", s, got)
		}
	}
	for k := manifest.GlobalI32; k <= manifest.GlobalV128; k++ {
		if got := snapdir.GlobalKind(k).String(); got != k.String() {
			t.Errorf("%v becomes %s", k, got)
		}
	}
	for h := manifest.HookConditionNotSatisfied; h <= manifest.HookExecuted; h++ {
		if got := snapdir.HookStatus(h).String(); got != h.String() {
			t.Errorf("%v becomes %s", h, got)
		}
	}
	if manifest.SourceTaken != manifest.Source(snapdir.SourceTaken) || manifest.SourceUploaded != manifest.Source(snapdir.SourceUploaded) {
		t.Error("sources differ")
	}
	var d engine.SnapshotDetail
	d.Metadata = engine.Metadata{
		Source: manifest.SourceUploaded, TakenAt: 5, CanisterVersion: 6, CertifiedData: []byte{7},
		Globals:     []manifest.Global{{Kind: manifest.GlobalF32, Lo: 0x7fc00001}, {Kind: manifest.GlobalV128, Lo: 1, Hi: 2}},
		GlobalTimer: manifest.Timer{Present: true, Active: true, Deadline: 8}, HookStatus: manifest.HookExecuted,
	}
	if back := fromDirMetadata(toDirMetadata(d)); fmt.Sprintf("%+v", back) != fmt.Sprintf("%+v", d.Metadata) {
		t.Errorf("%+v comes back as %+v", d.Metadata, back)
	}
}

func TestGlobals(t *testing.T) {
	for _, c := range []struct {
		g    manifest.Global
		want globalResult
	}{
		{manifest.Global{Kind: manifest.GlobalI32, Lo: 0xffffffff}, globalResult{"i32", "ffffffff", "-1"}},
		{manifest.Global{Kind: manifest.GlobalI64, Lo: 1 << 63}, globalResult{"i64", "8000000000000000", "-9223372036854775808"}},
		{manifest.Global{Kind: manifest.GlobalF32, Lo: 0x7fc00001}, globalResult{"f32", "7fc00001", "NaN"}},
		{manifest.Global{Kind: manifest.GlobalF64, Lo: 0xfff0000000000000}, globalResult{"f64", "fff0000000000000", "-Inf"}},
		{manifest.Global{Kind: manifest.GlobalV128, Lo: 3, Hi: 1}, globalResult{"v128", "00000000000000010000000000000003", "18446744073709551619"}},
	} {
		if got := toGlobal(c.g); got != c.want {
			t.Errorf("%+v: got %+v, want %+v", c.g, got, c.want)
		}
	}
}

// TestEveryErrorHasAHint: every error of the engine has an exit code and says
// what to do, and no hint of the engine is printed beside the command's.
func TestEveryErrorHasAHint(t *testing.T) {
	codes := map[error]exitCode{
		engine.ErrNoStore: exitNoStore, engine.ErrExists: exitError, engine.ErrLocked: exitLocked, engine.ErrNewerFormat: exitNewerFormat,
		engine.ErrRolledBack: exitError, engine.ErrNotFound: exitNotFound, engine.ErrSnapshotLimit: exitLimit, engine.ErrQuota: exitLimit, engine.ErrCollision: exitError, engine.ErrUnsafe: exitError, engine.ErrRunning: exitError,
		engine.ErrOpenCalls: exitError, engine.ErrOtherCanister: exitError, engine.ErrImmutable: exitError, engine.ErrNoSpace: exitError,
		engine.ErrDebt: exitError, engine.ErrIndex: exitError, engine.ErrCorrupt: exitError, engine.ErrDamaged: exitError, engine.ErrReadOnly: exitError,
		engine.ErrInvalid: exitUsage, engine.ErrClosed: exitError, io.ErrUnexpectedEOF: exitError,
		snapdir.ErrBusy: exitLocked, snapdir.ErrNewerFormat: exitNewerFormat, snapdir.ErrSize: exitError,
	}
	for sentinel, want := range codes {
		err := error(&engine.Error{Op: "take", Err: fmt.Errorf("deep down: %w", sentinel), Hint: "speak to the machine"})
		if errors.Is(sentinel, snapdir.ErrBusy) || errors.Is(sentinel, snapdir.ErrNewerFormat) || errors.Is(sentinel, snapdir.ErrSize) {
			err = fmt.Errorf("import: %w", &snapdir.Error{Path: "x", Err: sentinel})
		}
		f := explain(t.Context(), fmt.Errorf("outside: %w", err))
		if f.Code != want || f.Hint == "" || f.Message == "" || strings.Contains(f.Message, "machine") {
			t.Errorf("%v: %+v", sentinel, f)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	if f := explain(ctx, context.Canceled); f.Code != exitError {
		t.Errorf("cancelled by something else: %+v", f)
	}
	cancel()
	if f := explain(ctx, errors.Join(fmt.Errorf("x: %w", context.Canceled), io.EOF)); f.Code != exitInterrupted || f.Hint == "" {
		t.Errorf("%+v", f)
	}
}

// TestInterruptedBeforeItBegan: a signal that comes early is not lost.
func TestInterruptedBeforeItBegan(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errs bytes.Buffer
	a := &app{stdout: &out, stderr: &errs, getenv: func(string) string { return dir }}
	if code := run(ctx, []string{"canister", "ls"}, a); code != exitInterrupted || out.Len() != 0 {
		t.Errorf("code %d, %q, %q", code, &out, &errs)
	}
}

type fullWriter struct{}

var errFull = errors.New("nowhere to write")

func (fullWriter) Write([]byte) (int, error) { return 0, errFull }

// TestOutputThatCanNotBeWritten is an error in every mode, not a success
// without words.
func TestOutputThatCanNotBeWritten(t *testing.T) {
	dir := t.TempDir()
	for _, args := range [][]string{{"init"}, {"stats"}, {"stats", "--json"}, {"inspect", "root", "-q"}, {"version"}} {
		var errs bytes.Buffer
		a := &app{stdout: fullWriter{}, stderr: &errs, getenv: func(string) string { return dir }}
		if code := run(t.Context(), args, a); code != exitError || !strings.Contains(errs.String(), errFull.Error()) {
			t.Errorf("%q: code %d, %q", args, code, &errs)
		}
	}
}

func TestBytesValue(t *testing.T) {
	for _, c := range []struct {
		text string
		want uint64
		ok   bool
	}{
		{"0", 0, true},
		{"4096", 4096, true},
		{"64KiB", 64 << 10, true},
		{"1 MiB", 1 << 20, true},
		{"3GiB", 3 << 30, true},
		{"2TiB", 2 << 40, true},
		{"9223372036854775807", 1<<63 - 1, true},
		{"9223372036854775808", 0, false},
		{"8388607TiB", 8388607 << 40, true},
		{"8388608TiB", 0, false},
		{"", 0, false},
		{"KiB", 0, false},
		{"-1", 0, false},
		{"+1", 0, false},
		{"1.5KiB", 0, false},
		{"1KB", 0, false},
		{"1K", 0, false},
		{"0x10", 0, false},
		{"1KiBKiB", 0, false},
	} {
		var v bytesValue
		if err := v.Set(c.text); (err == nil) != c.ok || v.n != c.want || v.set != c.ok {
			t.Errorf("%q: %d, %v", c.text, v.n, err)
		}
	}
}

// TestProgressOnTerminal: long work draws a line where a person watches, and
// not one byte where --json, --quiet or --no-progress says so.
func TestProgressOnTerminal(t *testing.T) {
	dir := t.TempDir()
	if err := engine.Create(dir, nil); err != nil {
		t.Fatal(err)
	}
	e, err := engine.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	id, err := parseCanister(demoCanister)
	if err != nil {
		t.Fatal(err)
	}
	c, err := e.CreateCanister(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	// Two windows of pages, so that there is something to report between them.
	content := noise(8<<20, 4)
	if _, err := assign(t.Context(), c, engine.StableMemory, bytes.NewReader(content), uint64(len(content)), checkpointAfter, silent); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []string{"", "--json", "--quiet", "--no-progress"} {
		args := []string{"verify", "--store", dir, "--rate", "8MiB"}
		if mode != "" {
			args = append(args, mode)
		}
		drawn := onTerminal(t, args)
		if want := mode == ""; strings.Contains(drawn, "verify  ") != want || !want && drawn != "" {
			t.Errorf("%q draws %q", mode, drawn)
		}
	}
}

// onTerminal runs snapstore with a terminal as its standard error, and returns
// what was drawn.
func onTerminal(t *testing.T, args []string) string {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	defer master.Close()
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	terminal, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	path, err := exec.LookPath("snapstore")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, args...)
	cmd.Stderr = terminal
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	terminal.Close()
	drawn := make(chan string)
	go func() {
		var b strings.Builder
		_, _ = io.Copy(&b, master) // ends with an error when nobody has the terminal any more
		drawn <- b.String()
	}()
	if err := cmd.Wait(); err != nil {
		t.Errorf("%q: %v", args, err)
	}
	return <-drawn
}
