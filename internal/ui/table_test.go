package ui

import (
	"errors"
	"strings"
	"testing"
)

func TestTable(t *testing.T) {
	for _, c := range []struct {
		name    string
		columns []Column
		rows    [][]string
		want    string
	}{
		{"empty", nil, nil, ""},
		{"titles only", []Column{{"ID", Left}, {"SIZE", Right}}, nil, "ID  SIZE\n"},
		{
			"aligned",
			[]Column{{"ID", Left}, {"SIZE", Right}, {"NOTE", Left}},
			[][]string{{"aaaaa-aa", "9 B", "µ"}, {"b", "1.00 MiB", ""}},
			"ID            SIZE  NOTE\naaaaa-aa       9 B  µ\nb         1.00 MiB\n",
		},
		{"characters, not bytes", []Column{{}, {}}, [][]string{{"µs", "x"}, {"abc", "y"}}, "µs   x\nabc  y\n"},
		{"missing and extra cells", []Column{{"A", Left}, {"B", Right}}, [][]string{{"1"}, {}, {"2", "3", "4"}}, "A  B\n1\n\n2  3\n"},
		{"empty in the middle", []Column{{}, {}, {}}, [][]string{{"a", "", "c"}, {"a", "b", "c"}}, "a     c\na  b  c\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			table := NewTable(c.columns...)
			for _, r := range c.rows {
				table.Row(r...)
			}
			var b strings.Builder
			n, err := table.WriteTo(&b)
			if err != nil || b.String() != c.want || n != int64(len(c.want)) {
				t.Errorf("%d, %v\n%q, want\n%q", n, err, b.String(), c.want)
			}
			if table.Len() != len(c.rows) {
				t.Errorf("Len %d, want %d", table.Len(), len(c.rows))
			}
		})
	}
}

type brokenWriter struct{}

var errBroken = errors.New("broken")

func (brokenWriter) Write([]byte) (int, error) { return 0, errBroken }

func TestTableWriteError(t *testing.T) {
	table := NewTable(Column{Title: "A"})
	if _, err := table.WriteTo(brokenWriter{}); !errors.Is(err, errBroken) {
		t.Errorf("got %v", err)
	}
}
