package gc

import (
	"errors"

	"github.com/snapstore/snapstore/internal/seglog"
)

// errUnread: the file system did not give what is in a segment, which may well
// be whole. The segment is left as it is, for another time.
var errUnread = errors.New("segment can not be read")

// unread tells whether a frame counts as damaged only because reading failed.
func unread(damage error) bool {
	var fe *seglog.FrameError
	return errors.As(damage, &fe) && fe.Err != nil
}
