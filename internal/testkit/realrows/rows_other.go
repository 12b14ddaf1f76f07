//go:build !linux

package realrows

import "github.com/snapstore/snapstore/internal/testkit/matrix"

// systemRows and systemParts need Linux.
func systemRows() []matrix.Row { return nil }

func systemParts() map[string]part { return map[string]part{} }
