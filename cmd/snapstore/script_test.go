package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/zeebo/blake3"
	"golang.org/x/sys/unix"

	"github.com/snapstore/snapstore/chunk"
	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/seglog"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"snapstore": main,
		"holdstore": holdStore,
	})
}

func updating() bool { return flag.Lookup("update").Value.String() == "true" }

var _ = flag.Bool("update", false, "rewrite the expected output in the scripts")

// TestScripts runs testdata/script. Beside the commands of testscript there are:
//
//	exits CODE snapstore ARG...    run, and expect this exit code
//	golden VERB FILE               stdout is the JSON of VERB: exactly its fields; write it to FILE with
//	                               what differs from run to run made equal
//	failed CODE TEXT               stderr is one JSON object with this code and text in its message
//	hinted TEXT                    stderr is an error with a hint, and has this text
//	image FILE SIZE SEED           make a file of random bytes
//	poke FILE OFFSET HEX           change bytes of a file
//	same DIR DIR                   two directories hold the same, byte for byte
//	empty DIR                      a directory has nothing in it
//	locked DIR                     wait until another process has the store
//	interrupt SIGNAL ARG...        run snapstore, signal it when it has the store, expect 130
//	newer DIR                      make a store one of a newer format
//	rot DIR ID                     flip a bit in the stored bytes of a page or node
//	rot-record DIR CANISTER        flip a bit in the newest record of a canister
//	tree-page VAR                  stdout is of snapshot show --json: set VAR to the id of the first page of
//	                               the first section, and NODE, MANIFEST and SEGMENT to what leads there
//	tables DIR N                   the index has N table files
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       updating(),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv(storeEnv, filepath.Join(env.WorkDir, "store"))
			env.Setenv("A", "ryjl3-tyaaa-aaaaa-aaaba-cai") // 00000000000000020101
			env.Setenv("B", "rrkah-fqaaa-aaaaa-aaaaq-cai") // 00000000000000010101
			env.Setenv("A0", "000000000000000000000000000000020101")
			env.Setenv("A1", "000000000000000100000000000000020101")
			env.Setenv("A2", "000000000000000200000000000000020101")
			env.Setenv("B0", "000000000000000000000000000000010101")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "golden": golden, "failed": failed, "hinted": hinted, "image": image, "poke": poke, "same": same, "empty": empty,
			"locked": locked, "interrupt": interrupt, "newer": newer, "rot": rot, "rot-record": rotRecord, "tables": tables, "tree-page": treePage,
		},
	})
}

// holdStore is a program that has a store open until it is told to end.
func holdStore() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	e, err := engine.Open(os.Args[1], nil)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	<-ctx.Done()
	if err := e.Close(); err != nil {
		os.Exit(1)
	}
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARG...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var ee *exec.ExitError
	switch {
	case errors.As(err, &ee):
		got = ee.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

func golden(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: golden VERB FILE")
	}
	verb, file := strings.Join(args[:len(args)-1], " "), args[len(args)-1]
	out := ts.ReadFile("stdout")
	shape, ok := results()[verb]
	if !ok {
		ts.Fatalf("no JSON is known for %q", verb)
	}
	if err := checkShape(shape, []byte(out)); err != nil {
		ts.Fatalf("%s: %v", verb, err)
	}
	var v any
	dec := json.NewDecoder(strings.NewReader(out))
	dec.UseNumber() // 64 bits do not fit into a float
	ts.Check(dec.Decode(&v))
	b, err := json.MarshalIndent(steady(v, ts.Getenv("WORK")), "", "  ")
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(file), append(b, '\n'), 0o600))
}

// volatile are the keys whose values differ from run to run: times, what hangs
// on them, and what hangs on how far gc came in the background.
var volatile = regexp.MustCompile(`^(taken_at|.*_seconds|root|.*sequence|store_id|last_hash|generation|epoch|.*log_bytes|live_bytes|garbage_bytes|debt_bytes|index_bytes|cache_bytes|memtable_bytes|reclaimable_bytes|bytes_reclaimed|bytes_written|segments_dropped|segments_cleaned|chunks_destroyed|versions_dropped|pending_drops|pending_versions|shared|new|raw_bytes|stored_bytes|replayed_batches|syncs|segment|file|offset|length|waiting_batches|segments|limbo|count_changes|births|deaths|reason|go|platform|version|commit|modified|pages_per_second)$`)

// steady makes equal what differs from run to run, and keeps its type.
func steady(v any, work string) any {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			switch e := e.(type) {
			case string:
				if volatile.MatchString(k) {
					v[k] = "-"
				} else {
					v[k] = strings.ReplaceAll(e, work, "$WORK")
				}
			case json.Number:
				if volatile.MatchString(k) {
					v[k] = -1
				}
			case bool:
				if volatile.MatchString(k) {
					v[k] = false
				}
			default:
				v[k] = steady(e, work)
			}
		}
	case []any:
		for i := range v {
			v[i] = steady(v[i], work)
		}
	}
	return v
}

func failed(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: failed CODE TEXT")
	}
	var f failure
	err := checkShape(failure{}, []byte(ts.ReadFile("stderr")))
	if err == nil {
		err = json.Unmarshal([]byte(ts.ReadFile("stderr")), &f)
	}
	if err != nil {
		ts.Fatalf("stderr is not one JSON object of an error: %v", err)
	}
	if f.Type != "exit_error" || strconv.Itoa(int(f.Code)) != args[0] || !strings.Contains(f.Message, args[1]) || f.Hint == "" {
		ts.Fatalf("type %q, code %d, message %q, hint %q", f.Type, f.Code, f.Message, f.Hint)
	}
}

func hinted(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: hinted TEXT")
	}
	text := ts.ReadFile("stderr")
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if len(lines) < 2 || !strings.HasPrefix(lines[0], "snapstore: ") || !regexp.MustCompile(`^hint: \S`).MatchString(lines[len(lines)-1]) {
		ts.Fatalf("not an error with a hint: %q", text)
	}
	if !strings.Contains(text, args[0]) {
		ts.Fatalf("%q is not in %q", args[0], text)
	}
}

func image(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: image FILE SIZE SEED")
	}
	var size bytesValue
	ts.Check(size.Set(args[1]))
	seed, err := strconv.ParseUint(args[2], 10, 64)
	ts.Check(err)
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	f, err := os.Create(ts.MkAbs(args[0]))
	ts.Check(err)
	_, err = io.CopyN(f, rand.NewChaCha8(key), int64(size.n))
	ts.Check(errors.Join(err, f.Close()))
}

func poke(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: poke FILE OFFSET HEX")
	}
	off, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	b, err := hex.DecodeString(args[2])
	ts.Check(err)
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_WRONLY, 0)
	ts.Check(err)
	_, err = f.WriteAt(b, off)
	ts.Check(errors.Join(err, f.Close()))
}

func same(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: same DIR DIR")
	}
	a, b := tree(ts, ts.MkAbs(args[0])), tree(ts, ts.MkAbs(args[1]))
	for name := range b {
		if _, ok := a[name]; !ok {
			a[name] = "missing"
		}
	}
	var differ []string
	for name, content := range a {
		if have, ok := b[name]; !ok || have != content {
			differ = append(differ, name)
		}
	}
	if (len(differ) == 0) == neg {
		ts.Fatalf("differing files: %q", differ)
	}
}

func tree(ts *testscript.TestScript, dir string) map[string]string {
	out := map[string]string{}
	ts.Check(filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil || d.IsDir() {
			out[name] = "directory"
			return err
		}
		b, err := os.ReadFile(path)
		out[name] = string(b)
		return err
	}))
	return out
}

func empty(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: empty DIR")
	}
	entries, err := os.ReadDir(ts.MkAbs(args[0]))
	ts.Check(err)
	if (len(entries) == 0) == neg {
		ts.Fatalf("%s holds %v", args[0], entries)
	}
}

// isLocked asks without taking the lock, so it is in nobody's way.
func isLocked(dir string) bool {
	f, err := os.OpenFile(filepath.Join(dir, "LOCK"), os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	l := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	return unix.FcntlFlock(f.Fd(), unix.F_GETLK, &l) == nil && l.Type != unix.F_UNLCK
}

func waitLocked(ts *testscript.TestScript, dir string) {
	for range 6000 {
		if isLocked(dir) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	ts.Fatalf("nobody opened %s", dir)
}

func locked(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: locked DIR")
	}
	waitLocked(ts, ts.MkAbs(args[0]))
}

func interrupt(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: interrupt SIGNAL ARG...")
	}
	sig, ok := map[string]os.Signal{"INT": syscall.SIGINT, "TERM": syscall.SIGTERM}[args[0]]
	if !ok {
		ts.Fatalf("signal %q", args[0])
	}
	path, err := exec.LookPath("snapstore")
	ts.Check(err)
	var stderr strings.Builder
	cmd := exec.Command(path, args[1:]...)
	cmd.Dir, cmd.Stderr = ts.MkAbs("."), &stderr
	cmd.Env = append(os.Environ(), storeEnv+"="+ts.Getenv(storeEnv))
	ts.Check(cmd.Start())
	waitLocked(ts, ts.Getenv(storeEnv))
	ts.Check(cmd.Process.Signal(sig))
	err = cmd.Wait()
	var ee *exec.ExitError
	if !errors.As(err, &ee) || ee.ExitCode() != int(exitInterrupted) {
		ts.Fatalf("%v, want exit code 130; stderr %q", err, stderr.String())
	}
	if !strings.Contains(stderr.String(), "interrupted") {
		ts.Fatalf("stderr %q", stderr.String())
	}
}

// newer patches what every version of ROOT keeps: version and hash.
func newer(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: newer DIR")
	}
	const versionAt, hashSize = 8, 32
	for _, name := range []string{"ROOT-A", "ROOT-B"} {
		path := filepath.Join(ts.MkAbs(args[0]), name)
		b, err := os.ReadFile(path)
		ts.Check(err)
		binary.LittleEndian.PutUint32(b[versionAt:], binary.LittleEndian.Uint32(b[versionAt:])+1)
		sum := blake3.Sum256(b[:len(b)-hashSize])
		copy(b[len(b)-hashSize:], sum[:])
		ts.Check(os.WriteFile(path, b, 0o600))
	}
}

func rot(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: rot DIR ID")
	}
	id, err := chunk.ParseID(args[1])
	ts.Check(err)
	dir := ts.MkAbs(args[0])
	e, err := engine.Open(dir, &engine.Options{NoBackground: true})
	ts.Check(err)
	en, ok, err := e.Entry(id)
	ts.Check(errors.Join(err, e.Close()))
	if !ok {
		ts.Fatalf("%s is not in the store", id)
	}
	flip(ts, dir, frameOf(en.Location))
}

// flip changes a bit in the last byte of a frame.
func flip(ts *testscript.TestScript, dir string, at seglog.Loc) {
	f, err := os.OpenFile(filepath.Join(dir, segmentFile(uint64(at.Segment))), os.O_RDWR, 0)
	ts.Check(err)
	var b [1]byte
	last := int64(at.Offset) + int64(at.Length) - 1
	_, err = f.ReadAt(b[:], last)
	ts.Check(err)
	b[0] ^= 0x10
	_, err = f.WriteAt(b[:], last)
	ts.Check(errors.Join(err, f.Close()))
}

func rotRecord(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: rot-record DIR CANISTER")
	}
	id, err := parseCanister(args[1])
	ts.Check(err)
	dir := ts.MkAbs(args[0])
	e, err := engine.Open(dir, &engine.Options{NoBackground: true})
	ts.Check(err)
	var newest uint64
	var at seglog.Loc
	for f, err := range e.Log().Scan(context.Background()) {
		ts.Check(err)
		if f.Kind != seglog.KindRecord {
			continue
		}
		key, seq, _, err := e.Log().ReadRecord(f.Loc)
		ts.Check(err)
		if bytes.Equal(key, id.Bytes()) && seq >= newest {
			newest, at = seq, f.Loc
		}
	}
	ts.Check(e.Close())
	if at.IsZero() {
		ts.Fatalf("no record of %s", id)
	}
	flip(ts, dir, at)
}

func tables(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: tables DIR N")
	}
	var found []string
	for name := range tree(ts, filepath.Join(ts.MkAbs(args[0]), "index")) {
		if strings.HasSuffix(name, ".sst") {
			found = append(found, name)
		}
	}
	if (strconv.Itoa(len(found)) == args[1]) == neg {
		ts.Fatalf("%d tables: %q", len(found), found)
	}
}

func treePage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: tree-page VAR")
	}
	var shown snapshotShowResult
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &shown))
	root, err := chunk.ParseID(shown.Sections[0].Root)
	ts.Check(err)
	e, err := engine.Open(ts.Getenv(storeEnv), &engine.Options{NoBackground: true})
	ts.Check(err)
	defer e.Close()
	node, err := inspectNode(context.Background(), e, root)
	ts.Check(err)
	page, err := chunk.ParseID(node.Children[0].ID)
	ts.Check(err)
	en, ok, err := e.Entry(page)
	if err != nil || !ok {
		ts.Fatalf("%s: %v, %v", page, ok, err)
	}
	ts.Setenv(args[0], page.String())
	ts.Setenv("NODE", root.String())
	ts.Setenv("MANIFEST", shown.Root)
	ts.Setenv("SEGMENT", strconv.FormatUint(en.Segment, 10))
}
