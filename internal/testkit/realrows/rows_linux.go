package realrows

import (
	"context"

	"github.com/snapstore/snapstore/internal/testkit/matrix"
)

// systemRows are the rows for which a Linux system is needed.
func systemRows() []matrix.Row {
	return append([]matrix.Row{powerRow(), fullRow(), memoryRow(), oomRow()}, hardRows()...)
}

// systemParts are what workers of those rows play.
func systemParts() map[string]part {
	return map[string]part{
		"power":  {1, func(ctx context.Context, args []string) error { return inMachine(ctx, args[0]) }},
		"hard":   {3, hard},
		"big":    {3, big},
		"greedy": {2, greedy},
	}
}
