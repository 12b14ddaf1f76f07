//go:build !linux

package peer

import (
	"context"
	"fmt"
)

// Probe: loop devices and detached mounts are Linux's.
func (r reflink) Probe(context.Context) (string, error) {
	return "", fmt.Errorf("%s: %w: it needs Linux", r.fs, ErrAbsent)
}

// Create fails as Probe does.
func (r reflink) Create(ctx context.Context, _ string) (Store, error) {
	_, err := r.Probe(ctx)
	return nil, err
}
