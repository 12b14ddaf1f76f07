package testkit

import (
	"errors"
	"fmt"
	"path"
	"strings"
)

// OpKind says what a process asks of a file system.
type OpKind uint16

// The kinds of file operations, as a set.
const (
	OpCreate OpKind = 1 << iota
	OpLink
	OpRemove
	OpRename
	OpMkdir
	OpWrite
	OpTruncate
	OpReserve
	OpSync
	OpOpen
	OpRead
	OpList

	// Mutating operations are those that a crash may come between.
	Mutating = OpCreate | OpLink | OpRemove | OpRename | OpMkdir | OpWrite | OpTruncate | OpReserve | OpSync
	// AnyOp is every kind.
	AnyOp = Mutating | OpOpen | OpRead | OpList
)

func (k OpKind) String() string {
	names := []string{"create", "link", "remove", "rename", "mkdir", "write", "truncate", "reserve", "sync", "open", "read", "list"}
	var out []string
	for i, n := range names {
		if k&(1<<i) != 0 {
			out = append(out, n)
		}
	}
	return strings.Join(out, "|")
}

// FileOp is one operation of a process on its file system.
type FileOp struct {
	Kind OpKind
	Path string
	Size int
	// N counts the mutating operations of the view, from 1; 0 for others.
	N int64
}

func (o FileOp) String() string { return fmt.Sprintf("%d %s %s (%d)", o.N, o.Kind, o.Path, o.Size) }

// A Fault makes operations fail. Its fields are not changed once it is armed.
type Fault struct {
	// Kind, Under and Name choose operations: of a kind, at or below a path, and
	// on files with that in their name.
	Kind        OpKind
	Under, Name string
	// After lets so many of them pass; Times is how many fail then, 0 all.
	After, Times int
	// Err is what they return.
	Err error
	// Torn lets a write leave its first half behind.
	Torn bool
	// Met, when not nil, is called when an operation is made to fail.
	Met func()

	met int
}

func (f *Fault) String() string {
	times := "for ever"
	if f.Times > 0 {
		times = fmt.Sprintf("%d times", f.Times)
	}
	return fmt.Sprintf("%v under %q after %d, %s: %v, torn %t", f.Kind, f.Under, f.After, times, f.Err, f.Torn)
}

func (f *Fault) hit(op FileOp) bool {
	if f.Kind&op.Kind == 0 || !under(op.Path, f.Under) || !strings.Contains(path.Base(op.Path), f.Name) {
		return false
	}
	f.met++
	return f.met > f.After && (f.Times == 0 || f.met <= f.After+f.Times)
}

func under(name, dir string) bool {
	name, dir = path.Clean("/"+name), path.Clean("/"+dir)
	return dir == "/" || name == dir || strings.HasPrefix(name, dir+"/")
}

var (
	// ErrInjected is what faults return when they are given no error.
	ErrInjected = errors.New("injected fault")
	// ErrKilled is what every operation of a killed process returns.
	ErrKilled = errors.New("process was killed")
)
