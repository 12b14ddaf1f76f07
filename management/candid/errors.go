package candid

import (
	"errors"
	"fmt"
)

// What an Error is about; test with errors.Is.
var (
	// ErrMalformed: the bytes are no Candid message.
	ErrMalformed = errors.New("not a Candid message")
	// ErrType: a Candid message, but not of the types that were asked for; or,
	// on the way out, a Go value that is none of its type.
	ErrType = errors.New("wrong type")
	// ErrLimit: reading on would pass one of Limits.
	ErrLimit = errors.New("over the limit")
	// ErrUnsupported: a Go type that stands for no Candid type; the caller's
	// mistake, whatever the message.
	ErrUnsupported = errors.New("Go type without a Candid type")
)

// errMismatch is ErrType inside an opt, where nobody will read more: the value
// becomes null. It is one value, so that a message can not make many.
var errMismatch = errors.New("does not fit the opt")

// Error is every error of Marshal and Unmarshal.
type Error struct {
	// Offset is the byte of the message at which reading stopped, or -1 where
	// no byte is to blame.
	Offset int
	// Path leads to the value: "argument 0.settings.controllers[3]". It is
	// empty for the message's header.
	Path string
	Err  error

	encoding bool
}

func (e *Error) Error() string {
	verb, at, path := "decoding", "", ""
	if e.encoding {
		verb = "encoding"
	}
	if e.Offset >= 0 {
		at = fmt.Sprintf(" at byte %d", e.Offset)
	}
	if e.Path != "" {
		path = ", " + e.Path
	}
	return fmt.Sprintf("Error %s candid%s%s: %v", verb, at, path, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// within says that err happened inside a part of a value: a field after ".",
// or any other part after "".
func within(err error, sep, part string) error {
	var e *Error
	if errors.As(err, &e) {
		e.Path = sep + part + e.Path
	}
	return err
}
