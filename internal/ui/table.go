package ui

import (
	"io"
	"strings"
	"unicode/utf8"
)

// Align says on which side of its column a cell stands.
type Align uint8

// Text stands left, numbers right.
const (
	Left Align = iota
	Right
)

// Column of a table.
type Column struct {
	Title string
	Align Align
}

// Table gathers rows of plain text and writes them in aligned columns, two
// spaces apart, with no space at line ends. Not safe for concurrent use.
type Table struct {
	columns []Column
	rows    [][]string
}

// NewTable starts a table. When no column has a title there is no title line.
func NewTable(columns ...Column) *Table {
	return &Table{columns: columns}
}

// Row adds a row. Missing cells are empty, cells beyond the columns are dropped.
func (t *Table) Row(cells ...string) {
	row := make([]string, len(t.columns))
	copy(row, cells)
	t.rows = append(t.rows, row)
}

// Len is the number of rows.
func (t *Table) Len() int { return len(t.rows) }

// WriteTo writes the table. A cell's width is its number of characters.
func (t *Table) WriteTo(w io.Writer) (int64, error) {
	titles := make([]string, len(t.columns))
	titled := false
	for i, c := range t.columns {
		titles[i] = c.Title
		titled = titled || c.Title != ""
	}
	lines := t.rows
	if titled {
		lines = append([][]string{titles}, t.rows...)
	}
	widths := make([]int, len(t.columns))
	for _, line := range lines {
		for i, cell := range line {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	for _, line := range lines {
		pending := 0 // spaces owed before the next cell, dropped at the line's end
		for i, cell := range line {
			gap := widths[i] - utf8.RuneCountInString(cell)
			if t.columns[i].Align == Right {
				pending += gap
				gap = 0
			}
			if cell != "" {
				b.WriteString(strings.Repeat(" ", pending))
				b.WriteString(cell)
				pending = 0
			}
			pending += gap + 2
		}
		b.WriteByte('\n')
	}
	n, err := io.WriteString(w, b.String())
	return int64(n), err
}
