package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/snapstore/snapstore/internal/testkit/matrix"
)

func execute1(args ...string) (stdout, stderr string, err error) {
	var out, errs bytes.Buffer
	cmd := newCommand(&out, &errs)
	cmd.SetArgs(args)
	err = cmd.Execute()
	return out.String(), errs.String(), err
}

// Every row is listed with what must hold, and runs by name; what it showed is
// the JSON that is documented.
func TestListAndRun(t *testing.T) {
	out, _, err := execute1("list", "--json")
	if err != nil {
		t.Fatal(err)
	}
	var rows []rowInfo
	if err := json.Unmarshal([]byte(out), &rows); err != nil || len(rows) < 18 {
		t.Fatal(len(rows), err)
	}
	for _, r := range rows {
		if r.Row == "" || r.Fault == "" || r.Holds == "" || r.Fast < 0 || r.Full < max(r.Fast, 1) {
			t.Errorf("%+v", r)
		}
	}
	state := t.TempDir() + "/state"
	md := t.TempDir() + "/table.md"
	out, _, err = execute1("--rows", "ram,file", "--cases", "2", "--state", state, "--json", "--markdown", md)
	if err != nil {
		t.Fatal(err)
	}
	var rep matrix.Report
	if err := json.Unmarshal([]byte(out), &rep); err != nil || rep.Total.Cases != 4 || len(rep.Rows) != 2 || !rep.OK() {
		t.Fatal(out, err)
	}
	table, err := os.ReadFile(md)
	if err != nil || !strings.Contains(string(table), "| ram | 2 |") {
		t.Errorf("%s %v", table, err)
	}
	out, _, err = execute1("case", "ram", "1")
	if err != nil || !strings.Contains(out, "ram") {
		t.Error(out, err)
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{"what"}, {"--rows", "none"}, {"--for", "-1s"}, {"--cases", "1", "--fast"}, {"case", "ram"}, {"case", "ram", "-1"}, {"--no-such-flag"}} {
		var u *usageError
		if _, _, err := execute1(args...); !errors.As(err, &u) {
			t.Errorf("%v: %v", args, err)
		}
	}
}

// docs/cli-json.md has the fields of the report, in their order.
func TestDocumentedFields(t *testing.T) {
	b, err := os.ReadFile("../../docs/cli-json.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(b), "\n## snapstore-torture\n")
	if !ok {
		t.Fatal("no section")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	var have []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| ([a-z, ]+) \\|").FindAllStringSubmatch(section, -1) {
		have = append(have, m[1]+" "+m[2])
	}
	want := fields(reflect.TypeFor[matrix.Report](), "")
	if !slices.Equal(have, want) {
		t.Errorf("documented\n%s\nwritten\n%s", strings.Join(have, "\n"), strings.Join(want, "\n"))
	}
}

func fields(t reflect.Type, prefix string) (out []string) {
	kinds := map[reflect.Kind]string{reflect.String: "string", reflect.Float64: "number", reflect.Struct: "object", reflect.Slice: "array of object"}
	for i := range t.NumField() {
		f := t.Field(i)
		name, rest, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous {
			out = append(out, fields(f.Type, prefix)...)
			continue
		}
		kind := kinds[f.Type.Kind()]
		if kind == "" {
			kind = "integer"
		}
		if rest == "omitempty" {
			kind += ", optional"
		}
		out = append(out, fmt.Sprint(prefix, name, " ", kind))
		switch f.Type.Kind() {
		case reflect.Struct:
			out = append(out, fields(f.Type, prefix+name+".")...)
		case reflect.Slice:
			out = append(out, fields(f.Type.Elem(), prefix+name+"[].")...)
		}
	}
	return out
}
