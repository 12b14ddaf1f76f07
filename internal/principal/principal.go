package principal

import (
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// MaxLen is the most bytes a principal has.
const MaxLen = 29

const (
	sumLen   = 4
	groupLen = 5
	// maxChars is the base32 length of a checksum and MaxLen bytes; maxText
	// adds the dashes. Parse allocates nothing for longer input.
	maxChars = ((sumLen+MaxLen)*8 + 4) / 5
	maxText  = maxChars + (maxChars-1)/groupLen
)

// Reasons Parse refuses a text; test with errors.Is.
var (
	// ErrLength: the text is too short or too long to be a principal.
	ErrLength = errors.New("wrong length")
	// ErrCharacter: a character outside a-z and 2-7.
	ErrCharacter = errors.New("character outside a-z and 2-7")
	// ErrGrouping: the dashes are not after every fifth character.
	ErrGrouping = errors.New("dashes must follow every five characters")
	// ErrChecksum: the text is well formed but its checksum does not match.
	ErrChecksum = errors.New("wrong checksum; check for a mistyped character")
	// ErrNotCanonical: the unused last bits are set; another text is the right
	// one for these bytes.
	ErrNotCanonical = errors.New("last character can not be right; check for a mistyped character")
)

// Error is what Parse returns: where in the text, and why.
type Error struct {
	// Offset is the byte of the text that is wrong, or -1 when it is the whole.
	Offset int
	Err    error
}

func (e *Error) Error() string {
	if e.Offset < 0 {
		return fmt.Sprintf("principal: %v", e.Err)
	}
	return fmt.Sprintf("principal: character %d: %v", e.Offset+1, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

const alphabet = "abcdefghijklmnopqrstuvwxyz234567"

// encoding returns the base32 of principals.
func encoding() *base32.Encoding {
	return base32.NewEncoding(alphabet).WithPadding(base32.NoPadding)
}

// Encode returns the text of a principal. It has a text for any bytes, but
// Parse reads it back only for at most MaxLen of them.
func Encode(b []byte) string {
	raw := make([]byte, sumLen, sumLen+len(b))
	binary.BigEndian.PutUint32(raw, crc32.ChecksumIEEE(b))
	raw = append(raw, b...)
	chars := encoding().AppendEncode(nil, raw)
	text := make([]byte, 0, len(chars)+len(chars)/groupLen)
	for i, c := range chars {
		if i > 0 && i%groupLen == 0 {
			text = append(text, '-')
		}
		text = append(text, c)
	}
	return string(text)
}

// Parse returns the bytes of a principal, at most MaxLen of them. Every error
// is an *Error.
func Parse(text string) ([]byte, error) {
	if len(text) > maxText {
		return nil, &Error{Offset: -1, Err: fmt.Errorf("%d characters, at most %d: %w", len(text), maxText, ErrLength)}
	}
	chars := make([]byte, 0, maxChars)
	for i := range len(text) {
		c := text[i]
		dashDue := i%(groupLen+1) == groupLen
		switch {
		case c == '-' && dashDue && i < len(text)-1:
			continue
		case c == '-' || dashDue:
			return nil, &Error{Offset: i, Err: ErrGrouping}
		case (c < 'a' || c > 'z') && (c < '2' || c > '7'):
			return nil, &Error{Offset: i, Err: ErrCharacter}
		}
		chars = append(chars, c)
	}
	raw, err := encoding().AppendDecode(nil, chars)
	if err != nil || len(raw) < sumLen {
		return nil, &Error{Offset: -1, Err: ErrLength}
	}
	b := raw[sumLen:]
	if binary.BigEndian.Uint32(raw) != crc32.ChecksumIEEE(b) {
		return nil, &Error{Offset: -1, Err: ErrChecksum}
	}
	// base32 ignores the unused bits of the last character, and lengths that
	// hold no whole byte more; the one text that encodes these bytes does not.
	if Encode(b) != text {
		return nil, &Error{Offset: len(text) - 1, Err: ErrNotCanonical}
	}
	return b, nil
}
