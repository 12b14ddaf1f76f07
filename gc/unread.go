package gc

import (
	"errors"
	"fmt"

	"github.com/snapstore/snapstore/internal/seglog"
)

var (
	// errLeft: a segment is left as it is, for another time.
	errLeft = errors.New("segment is left as it is")
	// errUnread: the file system did not give what is in it, which may well be
	// whole. It is a kind of errLeft.
	errUnread = fmt.Errorf("segment can not be read: %w", errLeft)
)

// unread tells whether a frame counts as damaged only because reading failed. Also
// where its file is not there: that can be put back, until a repair gives it up.
func unread(damage error) bool {
	var fe *seglog.FrameError
	return errors.As(damage, &fe) && fe.Err != nil
}
