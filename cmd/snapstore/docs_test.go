package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

// results is the JSON of every verb.
func results() map[string]any {
	return map[string]any{
		"init":            initResult{},
		"canister create": canisterCreateResult{},
		"canister ls":     canisterLsResult{},
		"canister info":   canisterInfoResult{},
		"canister write":  canisterWriteResult{},
		"canister rm":     canisterRmResult{},
		"snapshot take":   snapshotTakeResult{},
		"snapshot load":   snapshotLoadResult{},
		"snapshot ls":     snapshotLsResult{},
		"snapshot show":   snapshotShowResult{},
		"snapshot rm":     snapshotRmResult{},
		"snapshot diff":   diffResult{},
		"snapshot export": snapshotExportResult{},
		"snapshot import": snapshotImportResult{},
		"verify":          verifyRepairResult{},
		"gc":              gcResult{},
		"stats":           statsResult{},
		"rebuild-index":   rebuildIndexResult{},
		"inspect root":    inspectRootResult{},
		"inspect segment": inspectSegmentResult{},
		"inspect node":    inspectNodeResult{},
		"inspect chunk":   inspectChunkResult{},
		"call":            callResult{},
		"demo":            demoResult{},
		"bench run":       benchRunResult{},
		"bench compare":   benchCompareResult{},
		"bench report":    benchReportResult{},
		"version":         versionResult{},
	}
}

// withoutJSON are the verbs whose standard output is no result.
func withoutJSON() []string { return []string{"snapshot cat", "completion", "help"} }

// field is a line of docs/cli-json.md.
type field struct{ path, kind string }

// fields lists what a struct writes, in order: "pages.new", "sections[].root".
func fields(t reflect.Type, prefix string) []field {
	var out []field
	switch t.Kind() {
	case reflect.Slice:
		return fields(t.Elem(), prefix+"[]")
	case reflect.Pointer:
		return fields(t.Elem(), prefix)
	}
	for i := range t.NumField() {
		f := t.Field(i)
		tag, rest, _ := strings.Cut(f.Tag.Get("json"), ",")
		if tag == "-" {
			continue
		}
		if f.Anonymous && tag == "" {
			out = append(out, fields(f.Type, prefix)...)
			continue
		}
		if !f.IsExported() {
			continue
		}
		path := strings.TrimPrefix(prefix+"."+tag, ".")
		kind := kindOf(f.Type)
		if rest == "omitempty" {
			kind += ", optional"
		}
		out = append(out, field{path, kind})
		if inner := structIn(f.Type); inner != nil {
			suffix := ""
			if f.Type.Kind() == reflect.Slice {
				suffix = "[]"
			}
			out = append(out, fields(inner, path+suffix)...)
		}
	}
	return out
}

// structIn is the struct of an object or of a list of objects.
func structIn(t reflect.Type) reflect.Type {
	for t.Kind() == reflect.Slice || t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || t == reflect.TypeFor[time.Time]() {
		return nil
	}
	return t
}

func kindOf(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer:
		return kindOf(t.Elem())
	case reflect.String:
		return "string"
	case reflect.Bool:
		return "boolean"
	case reflect.Float64:
		return "number"
	case reflect.Slice:
		return "array of " + kindOf(t.Elem())
	case reflect.Struct:
		if t == reflect.TypeFor[time.Time]() {
			return "string"
		}
		return "object"
	}
	return "integer"
}

// TestDocumentedFields holds docs/cli-json.md to the structs: the same verbs,
// and for each the same fields of the same types in the same order.
func TestDocumentedFields(t *testing.T) {
	b, err := os.ReadFile("../../docs/cli-json.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string][]field{}
	verb := ""
	row := regexp.MustCompile("^\\| `([^`]+)` \\| ([a-z, ]+) \\| \\S.* \\|$")
	for i, line := range strings.Split(string(b), "\n") {
		if name, ok := strings.CutPrefix(line, "## "); ok {
			verb = strings.TrimPrefix(name, "snapstore ")
			if verb != name {
				documented[verb] = nil
			}
			continue
		}
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		m := row.FindStringSubmatch(line)
		if m == nil {
			t.Errorf("line %d: want | `field` | type | meaning |, have %s", i+1, line)
			continue
		}
		documented[verb] = append(documented[verb], field{m[1], m[2]})
	}
	want := map[string][]field{"Errors": fields(reflect.TypeFor[failure](), "")}
	for verb, r := range results() {
		want[verb] = fields(reflect.TypeOf(r), "")
	}
	for verb, w := range want {
		if have := documented[verb]; !slices.Equal(have, w) {
			var b strings.Builder
			for _, f := range w {
				mark := ""
				if !slices.Contains(have, f) {
					mark = "  <- not documented"
				}
				fmt.Fprintf(&b, "| `%s` | %s | |%s\n", f.path, f.kind, mark)
			}
			for _, f := range have {
				if !slices.Contains(w, f) {
					fmt.Fprintf(&b, "documented, and not there: %s %s\n", f.path, f.kind)
				}
			}
			t.Errorf("%s:\n%s", verb, b.String())
		}
	}
	for verb := range documented {
		if _, ok := want[verb]; !ok && verb != "Exit codes" && !strings.HasPrefix(verb, "snapstore-") {
			t.Errorf("%q is documented and writes no JSON", verb)
		}
	}
}

// TestDocumentedExitCodes holds the table of exit codes to the constants.
func TestDocumentedExitCodes(t *testing.T) {
	b, err := os.ReadFile("../../docs/cli-json.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(b), "\n## Exit codes\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var have []exitCode
	for _, m := range regexp.MustCompile(`(?m)^\| (\d+) \| \S.*\|$`).FindAllStringSubmatch(section, -1) {
		n, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		have = append(have, exitCode(n))
	}
	want := []exitCode{
		exitOK, exitError, exitUsage, exitProblems, exitReject, exitNoStore, exitLocked, exitLimit, exitNotFound, exitNewerFormat, exitInterrupted,
	}
	if !slices.Equal(have, want) {
		t.Errorf("documented %v, want %v", have, want)
	}
	if want := []exitCode{0, 1, 2, 3, 4, 10, 11, 12, 13, 14, 130}; !slices.Equal(have, want) {
		t.Errorf("exit codes %v, promised are %v", have, want)
	}
}

// checkShape tells whether a document is what the struct writes: no field too
// many, and none missing but those that may be left out.
func checkShape(shape any, doc []byte) error {
	p := reflect.New(reflect.TypeOf(shape))
	dec := json.NewDecoder(bytes.NewReader(doc))
	dec.DisallowUnknownFields()
	if err := dec.Decode(p.Interface()); err != nil {
		return err
	}
	if _, err := dec.Token(); err != io.EOF {
		return fmt.Errorf("more than one document")
	}
	// Written again by the struct it has the same keys.
	again, err := json.Marshal(p.Elem().Interface())
	if err != nil {
		return err
	}
	var a, b any
	if err := json.Unmarshal(doc, &a); err != nil {
		return err
	}
	if err := json.Unmarshal(again, &b); err != nil {
		return err
	}
	if !reflect.DeepEqual(a, b) {
		return fmt.Errorf("have %s, the struct writes %s", doc, again)
	}
	return nil
}

func testRoot() *cobra.Command {
	root := newRootCommand(&app{stdout: io.Discard, stderr: io.Discard, getenv: func(string) string { return "" }})
	root.InitDefaultHelpCmd()
	return root
}

// TestVerbs: every verb is there, says what it is for, and its examples are
// command lines that it understands.
func TestVerbs(t *testing.T) {
	have := leaves(testRoot())
	want := append(slices.Collect(maps.Keys(results())), withoutJSON()...)
	slices.Sort(want)
	if names := slices.Sorted(maps.Keys(have)); !slices.Equal(names, want) {
		t.Errorf("verbs %q, want %q", names, want)
	}
	for name, c := range have {
		if c.Short == "" || c.Example == "" || c.Args == nil && name != "help" {
			t.Errorf("%s: no description, no example or no check of arguments", name)
		}
		for _, line := range strings.Split(c.Example, "\n") {
			words := strings.Fields(line)
			if len(words) == 0 || words[0] != "snapstore" {
				t.Errorf("%s: example %q", name, line)
				continue
			}
			if i := slices.IndexFunc(words, func(w string) bool { return w == ">" || w == "|" || strings.HasPrefix(w, "$(") }); i > 0 {
				words = words[:i]
			}
			target, rest, err := testRoot().Find(words[1:])
			if err != nil || target.CommandPath() != c.CommandPath() {
				t.Errorf("%s: example %q is of another verb", name, line)
				continue
			}
			if err := target.ParseFlags(rest); err != nil {
				t.Errorf("%s: example %q: %v", name, line, err)
			}
		}
	}
}
