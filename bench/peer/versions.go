package peer

import (
	"errors"
	"fmt"
	"strings"
)

var (
	errName    = errors.New("a version's name has only a-z, 0-9 and -")
	errExists  = errors.New("there is such a version already")
	errUnknown = errors.New("there is no such version")
)

// versions are the names that a store has, each with what the peer calls it.
// A store is made, used and closed by one process, so they need not be read
// back from it.
type versions map[string]string

// free refuses a name that can not be added. Names become file names and
// arguments of programs, so nothing but what is promised gets through.
func (v versions) free(name string) error {
	if name == "" || name[0] == '-' || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return fmt.Errorf("%w: %q", errName, name)
	}
	if _, ok := v[name]; ok {
		return fmt.Errorf("%w: %s", errExists, name)
	}
	return nil
}

// find gives what the peer calls a version.
func (v versions) find(name string) (string, error) {
	id, ok := v[name]
	if !ok {
		return "", fmt.Errorf("%w: %q", errUnknown, name)
	}
	return id, nil
}
