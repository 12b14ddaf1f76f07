package snapdir

import (
	"errors"
	"strings"
)

// Reasons a directory is refused; test with errors.Is.
var (
	// ErrIncomplete: a download has not finished, or was cut off.
	ErrIncomplete = errors.New("download is not finished")
	// ErrBusy: another tool holds the directory's lock.
	ErrBusy = errors.New("directory is in use by another tool")
	// ErrMissing: a file that the metadata calls for is not there.
	ErrMissing = errors.New("file is missing")
	// ErrNotRegular: a symbolic link, a device, a pipe or the like stands
	// where a plain file or directory is expected.
	ErrNotRegular = errors.New("not a plain file or directory")
	// ErrMetadata: metadata.json is not what the tools write.
	ErrMetadata = errors.New("malformed metadata")
	// ErrGlobalLost: the value of a global can not be known, because JSON has
	// no NaN and no infinity and there are no sums to say which it was.
	ErrGlobalLost = errors.New("value of a global is lost")
	// ErrLimit: beyond what a canister can have.
	ErrLimit = errors.New("beyond the limits of a canister")
	// ErrSize: a file is shorter or longer than the metadata or the sums say.
	ErrSize = errors.New("wrong size")
	// ErrChunkHash: a chunk's SHA-256 is not the one in its name.
	ErrChunkHash = errors.New("chunk does not match the SHA-256 in its name")
	// ErrChunkList: the chunk store does not hold what the metadata lists.
	ErrChunkList = errors.New("chunk is not in the metadata")
	// ErrSums: snapstore.sums.json is malformed or of another snapshot.
	ErrSums = errors.New("malformed sums")
	// ErrSumMismatch: a file's content is not the one the sums were made of.
	ErrSumMismatch = errors.New("content does not match its checksum")
	// ErrNewerFormat: the sums were written by a newer version.
	ErrNewerFormat = errors.New("sums have a newer format than this version understands")
	// ErrExists: the target of an export is there already.
	ErrExists = errors.New("target exists and is not an empty directory")
	// ErrClosed: the Reader or Writer is closed.
	ErrClosed = errors.New("closed")
)

// Error names the file in the directory, the reason, and what to do next.
type Error struct {
	// Path is relative to the directory and uses slashes; empty is the
	// directory itself.
	Path string
	Err  error
	Hint string
}

func (e *Error) Error() string {
	var b strings.Builder
	if e.Path != "" {
		b.WriteString(e.Path)
		b.WriteString(": ")
	}
	b.WriteString(e.Err.Error())
	if e.Hint != "" {
		b.WriteString("; ")
		b.WriteString(e.Hint)
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.Err }

// fileError wraps err with the file's name once, and a hint where a person can
// do something about it.
func fileError(path string, err error) error {
	var have *Error
	if err == nil || errors.As(err, &have) {
		return err
	}
	return &Error{Path: path, Err: err, Hint: hint(err)}
}

func hint(err error) string {
	switch {
	case errors.Is(err, ErrIncomplete):
		return "resume the download with the tool that began it"
	case errors.Is(err, ErrBusy):
		return "wait for the other tool to finish"
	case errors.Is(err, ErrMissing), errors.Is(err, ErrSize), errors.Is(err, ErrChunkHash):
		return "download the snapshot again"
	case errors.Is(err, ErrNotRegular):
		return "copy the real file into the directory"
	case errors.Is(err, ErrGlobalLost):
		return "export the snapshot with snapstore, which keeps the exact bits in " + sumsName
	case errors.Is(err, ErrChunkList):
		return "remove it, or download the snapshot again"
	case errors.Is(err, ErrSumMismatch):
		return "copy the directory again from where it was exported"
	case errors.Is(err, ErrNewerFormat):
		return "read it with the version that wrote it, or a newer one"
	case errors.Is(err, ErrSums):
		return "remove the file to go without checksums"
	case errors.Is(err, ErrExists):
		return "name a directory that does not exist yet"
	}
	return ""
}
