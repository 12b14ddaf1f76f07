package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"syscall"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/snapdir"
)

// exitCode is what the process ends with. Scripts rely on the numbers; a
// number that is not listed is a failure.
type exitCode int

const (
	exitOK          exitCode = 0
	exitError       exitCode = 1   // failed; the message says why
	exitUsage       exitCode = 2   // the arguments make no sense; nothing was done
	exitProblems    exitCode = 3   // finished, and found problems
	exitReject      exitCode = 4   // the management canister rejected the call
	exitNoStore     exitCode = 10  // the directory holds no store
	exitLocked      exitCode = 11  // another process has the store open
	exitLimit       exitCode = 12  // the canister has all the snapshots it may have, or it or the store all the bytes
	exitNotFound    exitCode = 13  // no such canister, snapshot, section or chunk
	exitNewerFormat exitCode = 14  // the store was written by a newer version
	exitInterrupted exitCode = 130 // by a signal
)

// failure is an error as the user meets it. Every failure has a hint: what to
// do next.
type failure struct {
	Type    string   `json:"message_type"` // always "exit_error"
	Code    exitCode `json:"code"`
	Message string   `json:"message"`
	Hint    string   `json:"hint"`

	err error
}

func (f *failure) Error() string { return f.Message }
func (f *failure) Unwrap() error { return f.err }

func (f *failure) writeText(w io.Writer) {
	fmt.Fprintf(w, "snapstore: %s\nhint: %s\n", f.Message, f.Hint)
}

func (f *failure) writeJSON(w io.Writer) {
	b, err := json.Marshal(f)
	if err != nil {
		f.writeText(w)
		return
	}
	fmt.Fprintf(w, "%s\n", b)
}

// fail makes an error with a code and hint of its own.
func fail(code exitCode, hint, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return &failure{Code: code, Message: err.Error(), Hint: hint, err: err}
}

// usageError says that the arguments make no sense. An empty hint points to
// the help of the verb.
func usageError(hint, format string, args ...any) error {
	return fail(exitUsage, hint, format, args...)
}

// explain turns any error into what is printed and the exit code.
func explain(ctx context.Context, err error) *failure {
	f := &failure{Type: "exit_error", Message: message(err), err: err}
	var own *failure
	var dir *snapdir.Error
	switch {
	case ctx.Err() != nil && errors.Is(err, ctx.Err()):
		f.Code, f.Message = exitInterrupted, "interrupted"
		f.Hint = "the store is as it was after the last step that finished; run the command again to go on"
	case errors.As(err, &own):
		f.Code, f.Hint = own.Code, own.Hint
	case errors.As(err, &dir):
		f.Code, f.Message, f.Hint = classifyDir(dir)
	default:
		f.Code, f.Hint = classify(err)
	}
	if f.Hint == "" {
		f.Hint = `run "snapstore help" for the verbs, "snapstore help VERB" for one of them`
	}
	return f
}

// message is the error without the hint of the engine, which speaks to
// programmers; the command has its own.
func message(err error) string {
	text := err.Error()
	var e *engine.Error
	if errors.As(err, &e) && e.Hint != "" {
		text = strings.TrimSuffix(text, ": "+e.Hint)
	}
	return text
}

// classifyDir is for a directory of icp or dfx that was refused.
func classifyDir(e *snapdir.Error) (exitCode, string, string) {
	code, text, hint := exitError, e.Err.Error(), e.Hint
	if e.Path != "" {
		text = e.Path + ": " + text
	}
	switch {
	case errors.Is(e, snapdir.ErrNewerFormat):
		code = exitNewerFormat
	case errors.Is(e, snapdir.ErrBusy):
		code = exitLocked
	}
	if hint == "" {
		hint = "only directories as icp, dfx and snapstore write them can be read"
	}
	return code, text, hint
}

// classify gives the exit code and the hint for an error of the engine.
func classify(err error) (exitCode, string) {
	// A lock that may not be taken is not one that somebody has.
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		return exitError, "the account that runs this must be able to read and to write the store"
	}
	for _, c := range []struct {
		is   error
		code exitCode
		hint string
	}{
		{engine.ErrNoStore, exitNoStore, `name the store with --store or SNAPSTORE_DIR, or make one with "snapstore init"`},
		{engine.ErrLocked, exitLocked, "wait until the other process that uses the store has ended, then try again"},
		{engine.ErrUnsafe, exitError, `take the right to write from others ("chmod -R go-w DIR"), and put files where links are`},
		{engine.ErrNewerFormat, exitNewerFormat, "use the version of snapstore that wrote the store, or a newer one"},
		{engine.ErrSnapshotLimit, exitLimit, `pass --replace ID to replace a snapshot, delete one with "snapstore snapshot rm", or allow more with --limit`},
		{engine.ErrQuota, exitLimit, `delete snapshots with "snapstore snapshot rm", pass --replace ID, or allow more with --canister-quota or --store-quota`},
		{engine.ErrCollision, exitError, "keep both contents: nothing was changed, and no collision of BLAKE3 is known so far"},
		{engine.ErrNotFound, exitNotFound, `"snapstore canister ls" and "snapstore snapshot ls" list what is there`},
		{engine.ErrExists, exitError, "use what is there, or choose another name"},
		{engine.ErrOtherCanister, exitError, "pass --from-other to load it all the same"},
		{engine.ErrRunning, exitError, "stop the canister first, or leave out --refuse-running"},
		{engine.ErrImmutable, exitError, "import it again as a new snapshot"},
		{engine.ErrNoSpace, exitError, `make room on the disk: "snapstore snapshot rm" still works, "snapstore gc" then gives the space back`},
		{engine.ErrDebt, exitError, `run "snapstore gc" to give back what was deleted, then try again`},
		{engine.ErrReadOnly, exitError, "look after the disk; the store is as it was before the failed write"},
		{engine.ErrRolledBack, exitError, "restore the newer copy of the store"},
		{engine.ErrIndex, exitError, "run it again: the index is built anew, and nothing is lost by that"},
		{engine.ErrDamaged, exitError, `run "snapstore verify" to see all that is damaged; "snapstore canister rm" can delete a damaged canister`},
		{engine.ErrCorrupt, exitError, `run "snapstore verify" to see all that is damaged; snapshots that do not use the damaged page still load`},
		{engine.ErrInvalid, exitUsage, ""},
	} {
		if errors.Is(err, c.is) {
			return c.code, c.hint
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return exitError, "name a file or directory that is there"
	}
	return exitError, `run "snapstore verify" if you doubt the store; --verbose tells more of what happened`
}
