package peer

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// syncStore makes everything under dir durable. It syncs the whole file
// system: for thousands of small files that is far quicker than one by one.
func syncStore(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(os.NewSyscallError("syncfs", unix.Syncfs(int(d.Fd()))), d.Close())
}
