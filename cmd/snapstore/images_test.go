package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/snapstore/snapstore/internal/demodata"
)

// TestSeriesThroughExportAndImport sends successive memory images of real
// canisters through write, take, export, import and cat, each a command of its
// own, and rebuilds the index between: those that come with the module, and
// those of the directory that SNAPSTORE_IMAGES names (*.mem).
func TestSeriesThroughExportAndImport(t *testing.T) {
	dir := t.TempDir()
	var files []string
	if named := os.Getenv("SNAPSTORE_IMAGES"); named != "" {
		found, err := filepath.Glob(filepath.Join(named, "*.mem"))
		if err != nil || len(found) == 0 {
			t.Fatalf("no *.mem in %s: %v", named, err)
		}
		slices.Sort(found)
		files = found
	} else if testing.Short() {
		t.Skip("SKIPPED: long")
	} else {
		series, err := demodata.MotokoLedger()
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for image, err := range series.Images() {
			if err != nil {
				t.Fatal(err)
			}
			if n++; n%7 != 1 {
				continue
			}
			name := filepath.Join(dir, fmt.Sprintf("image%02d", n))
			if err := os.WriteFile(name, image.Bytes, 0o600); err != nil {
				t.Fatal(err)
			}
			files = append(files, name)
		}
	}
	store := filepath.Join(dir, "store")
	call := func(args ...string) []byte {
		t.Helper()
		var out, errs bytes.Buffer
		a := &app{stdout: &out, stderr: &errs, getenv: func(string) string { return store }}
		if code := run(t.Context(), args, a); code != exitOK {
			t.Fatalf("%q: exit code %d: %s", args, code, &errs)
		}
		return out.Bytes()
	}
	takes := func(canister string) []string {
		t.Helper()
		var list []struct{ ID string }
		if err := json.Unmarshal(call("snapshot", "ls", canister, "--json"), &list); err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, s := range list {
			ids = append(ids, s.ID)
		}
		return ids
	}
	call("init")
	const other = "r7inp-6aaaa-aaaaa-aaabq-cai"
	call("canister", "create", demoCanister)
	call("canister", "create", other)
	for i, f := range files {
		want, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		call("canister", "write", demoCanister, "--section", "wasm-memory", "--from", f)
		call("snapshot", "take", demoCanister)
		ids := takes(demoCanister)
		id := ids[len(ids)-1]
		out := filepath.Join(dir, "export")
		call("snapshot", "export", id, "--output", out)
		if got, err := os.ReadFile(filepath.Join(out, "wasm_memory.bin")); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%s: exported otherwise than it was taken: %v", f, err)
		}
		call("snapshot", "import", other, "--input", out)
		if i%5 == 4 || i == len(files)-1 {
			call("rebuild-index")
		}
		ids = takes(other)
		back := ids[len(ids)-1]
		if got := call("snapshot", "cat", back, "--section", "wasm-memory"); !bytes.Equal(got, want) {
			t.Fatalf("%s: imported otherwise than it was exported", f)
		}
		if err := os.RemoveAll(out); err != nil {
			t.Fatal(err)
		}
		if len(ids) > 3 {
			call("snapshot", "rm", ids[0])
			call("snapshot", "rm", takes(demoCanister)[0])
		}
	}
	call("gc")
	call("verify")
}
