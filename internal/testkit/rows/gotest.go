package rows

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/snapstore/snapstore/internal/testkit"
	"github.com/snapstore/snapstore/internal/testkit/drive"
)

// GoTest writes a history as a test that fails as it did. call is what plays
// "ops", with or without "r", a new run of "cfg".
func GoTest(cfg drive.Config, ops []testkit.Op, call string, failure error) string {
	var b strings.Builder
	first, _, _ := strings.Cut(failure.Error(), "\n")
	fmt.Fprintf(&b, "// It failed with: %s\n", first)
	fmt.Fprintf(&b, "func TestHistoryOfSeed%d(t *testing.T) {\n", cfg.Seed)
	fmt.Fprintf(&b, "\tcfg := drive.Config{Seed: %d", cfg.Seed)
	if cfg.Canisters > 0 {
		fmt.Fprintf(&b, ", Canisters: %d", cfg.Canisters)
	}
	if cfg.Limit > 0 {
		fmt.Fprintf(&b, ", Limit: %d", cfg.Limit)
	}
	if cfg.Faulty {
		b.WriteString(", Faulty: true")
	}
	if cfg.Options != nil {
		o := drive.Options(cfg.Seed)
		cfg.Options(&o)
		fmt.Fprintf(&b, ", Options: func(o *engine.Options) {\n\t\to.SegmentSize, o.MemTable, o.Ballast, o.NoCompression, o.CleanBelow = %d, %d, %d, %t, %v\n", o.SegmentSize, o.MemTable, o.Ballast, o.NoCompression, o.CleanBelow)
		fmt.Fprintf(&b, "\t\to.IdleSync, o.NoBackground, o.BulkAfter, o.CountStep, o.Codec = %d, %t, %d, %d, %d\n", o.IdleSync, o.NoBackground, o.BulkAfter, o.CountStep, o.Codec)
		fmt.Fprintf(&b, "\t\to.PageCache, o.NodeCache, o.IndexCache = %d, %d, %d\n", o.PageCache, o.NodeCache, o.IndexCache)
		fmt.Fprintf(&b, "\t\to.DirectLeast, o.NoDirectIO = %d, %t\n\t}", o.DirectLeast, o.NoDirectIO)
	}
	b.WriteString("}\n\tops := []testkit.Op{\n")
	for _, o := range ops {
		fmt.Fprintf(&b, "\t\t%s,\n", strings.TrimPrefix(literal(reflect.ValueOf(o)), "testkit.Op"))
	}
	b.WriteString("\t}\n")
	if strings.HasPrefix(call, "r.") {
		b.WriteString("\tr, err := drive.New(cfg)\n\tif err != nil {\n\t\tt.Fatal(err)\n\t}\n\tdefer r.Close()\n")
	}
	fmt.Fprintf(&b, "\tif err := %s; err != nil {\n\t\tt.Fatal(err)\n\t}\n}\n", call)
	return b.String()
}

// literal writes a value as Go does, without fields that are zero.
func literal(v reflect.Value) string {
	if v.CanInterface() {
		switch x := v.Interface().(type) {
		case syscall.Errno:
			switch x {
			case syscall.EIO:
				return "syscall.EIO"
			case syscall.ENOSPC:
				return "syscall.ENOSPC"
			}
			return fmt.Sprintf("syscall.Errno(%d)", uintptr(x))
		case uint64:
			if x == testkit.NoSnapshot {
				return "testkit.NoSnapshot"
			}
		case []byte:
			return fmt.Sprintf("[]byte(%q)", x)
		}
	}
	name := strings.TrimPrefix(v.Type().String(), "*")
	switch v.Kind() {
	case reflect.Interface, reflect.Pointer:
		return literal(v.Elem())
	case reflect.String:
		return fmt.Sprintf("%q", v.String())
	case reflect.Struct:
		var fields []string
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() && !v.Field(i).IsZero() && f.Type.Kind() != reflect.Func {
				fields = append(fields, f.Name+": "+literal(v.Field(i)))
			}
		}
		return name + "{" + strings.Join(fields, ", ") + "}"
	case reflect.Slice:
		items := make([]string, v.Len())
		for i := range items {
			items[i] = strings.TrimPrefix(literal(v.Index(i)), v.Type().Elem().String())
		}
		return name + "{" + strings.Join(items, ", ") + "}"
	case reflect.Map:
		var items []string
		for _, k := range v.MapKeys() {
			items = append(items, strings.TrimPrefix(literal(k), v.Type().Key().String())+": "+literal(v.MapIndex(k)))
		}
		slices.Sort(items)
		return name + "{" + strings.Join(items, ", ") + "}"
	}
	switch {
	case v.CanInt():
		return strconv.FormatInt(v.Int(), 10)
	case v.CanUint():
		return strconv.FormatUint(v.Uint(), 10)
	}
	return fmt.Sprint(v)
}
