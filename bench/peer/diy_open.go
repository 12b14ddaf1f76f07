package peer

import (
	"fmt"
	"runtime/debug"
)

// open opens the database in an empty directory.
func (d design) open(dir string) (database, error) {
	switch d {
	case pebbleDesign:
		return openPebble(dir)
	case bboltDesign:
		return openBolt(dir)
	}
	return nil, fmt.Errorf("no design is called %q", string(d))
}

// module gives the library and its version as they were built in.
func (d design) module() string {
	path := "github.com/cockroachdb/pebble/v2"
	if d == bboltDesign {
		path = "go.etcd.io/bbolt"
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == path {
				return m.Path + " " + m.Version
			}
		}
	}
	return path // tests are built without the versions
}
