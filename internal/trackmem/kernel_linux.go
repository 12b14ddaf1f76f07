//go:build linux && (amd64 || arm64)

package trackmem

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// From linux/userfaultfd.h and linux/fs.h. golang.org/x/sys has none of them.
const (
	uffdUserModeOnly = 1
	uffdAPI          = 0xAA

	ioctlAPI          = 0xC018AA3F
	ioctlRegister     = 0xC020AA00
	ioctlWriteProtect = 0xC018AA06
	ioctlScan         = 0xC0606610

	featureWPUnpopulated = 1 << 13
	featureWPAsync       = 1 << 15
	registerModeWP       = 1 << 1
	writeProtectModeWP   = 1 << 0

	scanWPMatching   = 1 << 0
	scanCheckWPAsync = 1 << 1

	pageIsWritten = 1 << 1
	pageIsPresent = 1 << 3
	pageIsSwapped = 1 << 4
	pageIsPFNZero = 1 << 5
)

type uffdAPIArg struct{ api, features, ioctls uint64 }

type uffdRegisterArg struct{ start, length, mode, ioctls uint64 }

type uffdWriteProtectArg struct{ start, length, mode uint64 }

type scanArg struct {
	size, flags, start, end, walkEnd uint64
	vec                              unsafe.Pointer
	vecLen, maxPages                 uint64
	inverted, mask, anyof, returned  uint64
}

type pageRegion struct{ start, end, _ uint64 }

// scanRanges is how many ranges one scan can return. More take another call.
const scanRanges = 4096

// kernel is the userfaultfd and the page map of this process. One serves all
// memories.
type kernel struct {
	// guard keeps the files open while they are used.
	guard   sync.RWMutex
	uffd    int
	pagemap int
	vecs    sync.Pool
}

func openKernel() (*kernel, error) {
	fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|unix.O_NONBLOCK|uffdUserModeOnly, 0, 0)
	if errno != 0 {
		return nil, fmt.Errorf("userfaultfd: %w", errno)
	}
	k := &kernel{uffd: int(fd), pagemap: -1}
	k.vecs.New = func() any { return new([scanRanges]pageRegion) }
	api := uffdAPIArg{api: uffdAPI, features: featureWPAsync | featureWPUnpopulated}
	err := ioctl(k.uffd, ioctlAPI, unsafe.Pointer(&api))
	if err != nil {
		// An unknown feature is refused as an invalid argument.
		return nil, errors.Join(fmt.Errorf("userfaultfd without asynchronous write-protection (Linux 6.7 has it): %w", err), k.close())
	}
	k.pagemap, err = unix.Open("/proc/self/pagemap", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open /proc/self/pagemap: %w", err), k.close())
	}
	return k, nil
}

func (k *kernel) close() error {
	k.guard.Lock()
	defer k.guard.Unlock()
	var errs []error
	for _, fd := range []*int{&k.uffd, &k.pagemap} {
		if *fd >= 0 {
			errs = append(errs, unix.Close(*fd))
			*fd = -1
		}
	}
	return errors.Join(errs...)
}

func ioctl(fd int, request uintptr, arg unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg))
		switch errno {
		case 0:
			return nil
		case unix.EAGAIN, unix.EINTR: // the address space was being changed
			runtime.Gosched()
		default:
			return errno
		}
	}
}

func address(b []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }

// register makes a mapping one whose pages can be armed. Nothing is armed yet.
func (k *kernel) register(mem []byte) error {
	k.guard.RLock()
	defer k.guard.RUnlock()
	arg := uffdRegisterArg{start: address(mem), length: uint64(len(mem)), mode: registerModeWP}
	if err := ioctl(k.uffd, ioctlRegister, unsafe.Pointer(&arg)); err != nil {
		return fmt.Errorf("register with userfaultfd: %w", err)
	}
	return nil
}

// arm write-protects all of mem, whether it is populated or not.
func (k *kernel) arm(mem []byte) error {
	k.guard.RLock()
	defer k.guard.RUnlock()
	arg := uffdWriteProtectArg{start: address(mem), length: uint64(len(mem)), mode: writeProtectModeWP}
	if err := ioctl(k.uffd, ioctlWriteProtect, unsafe.Pointer(&arg)); err != nil {
		return fmt.Errorf("write-protect: %w", err)
	}
	return nil
}

// written is the one question that the kernel answers on its fast path; with
// arming, what matches is armed again in the same step.
func written(arm bool) scanArg {
	q := scanArg{flags: scanCheckWPAsync, mask: pageIsWritten, returned: pageIsWritten}
	if arm {
		q.flags |= scanWPMatching
	}
	return q
}

// populated asks for pages with content of their own, and arms nothing.
var populated = scanArg{
	inverted: pageIsPFNZero, mask: pageIsPFNZero, anyof: pageIsPresent | pageIsSwapped, returned: pageIsPresent,
}

// scan calls each with the offsets in mem of what matches the question. On an
// error, matches may have been armed that each was not called for.
func (k *kernel) scan(mem []byte, question scanArg, each func(from, to uint64)) error {
	k.guard.RLock()
	defer k.guard.RUnlock()
	vec := k.vecs.Get().(*[scanRanges]pageRegion)
	defer k.vecs.Put(vec)
	base := address(mem)
	arg := question
	arg.size, arg.start, arg.end = uint64(unsafe.Sizeof(arg)), base, base+uint64(len(mem))
	arg.vec, arg.vecLen = unsafe.Pointer(vec), scanRanges
	for arg.start < arg.end {
		n, err := k.scanOnce(&arg)
		if err != nil {
			return fmt.Errorf("scan the page map: %w", err)
		}
		for _, r := range vec[:n] {
			each(r.start-base, min(r.end-base, uint64(len(mem))))
		}
		if n < scanRanges {
			return nil
		}
		// walkEnd may lag behind what was returned, so it is not used: all
		// before the last range's end has been looked at.
		arg.start = vec[n-1].end
	}
	return nil
}

func (k *kernel) scanOnce(arg *scanArg) (int, error) {
	for {
		n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(k.pagemap), ioctlScan, uintptr(unsafe.Pointer(arg)))
		switch errno {
		case 0:
			return int(n), nil
		case unix.EAGAIN:
			runtime.Gosched()
		default:
			return 0, errno
		}
	}
}

// collectKernel adds the pages of [0, end) written since they were armed, and
// arms them as how says.
//
// Regions are armed as a whole once something in them was touched. Until then
// they were all zeros when they were last looked at, but for the pages in loose.
func (m *Memory) collectKernel(d *DirtySet, end uint64, how arming) error {
	k := m.t.kernel
	var fresh DirtySet // pages in regions that are not armed
	at := uint64(0)
	for first, last := range m.touched.Ranges() {
		first, last = min(first*regionPages, end), min(last*regionPages, end)
		err := m.populated(&fresh, at, first)
		if err == nil && first < last {
			err = k.scan(m.res.bytes[first*PageSize:last*PageSize], written(how != armNothing), func(from, to uint64) {
				d.AddRange(first+from/PageSize, first+(to+PageSize-1)/PageSize)
			})
		}
		if err != nil {
			return err
		}
		at = last
	}
	if err := m.populated(&fresh, at, end); err != nil {
		return err
	}
	m.loose.RemoveFrom(end) // what is cut off is marked
	fresh.Union(&m.loose)
	d.Union(&fresh)
	if how == armNothing {
		m.loose = fresh
		return nil
	}
	var regions DirtySet
	for first, last := range fresh.Ranges() {
		regions.AddRange(first/regionPages, (last+regionPages-1)/regionPages)
	}
	for first, last := range regions.Ranges() {
		lo, hi := first*regionPages, last*regionPages
		if err := k.arm(m.res.bytes[lo*PageSize : min(hi*PageSize, uint64(len(m.res.bytes)))]); err != nil {
			return err
		}
		m.touched.AddRange(first, last)
		if how == armRunning {
			// What was written between the question and the arming is not
			// known, and can not be asked for: to the kernel an armed page that
			// never was looks like one that is swapped out.
			d.AddRange(lo, min(hi, end))
		}
	}
	m.loose = DirtySet{}
	return nil
}

// populated adds the pages of [first, end) that hold something.
func (m *Memory) populated(d *DirtySet, first, end uint64) error {
	if first >= end {
		return nil
	}
	return m.t.kernel.scan(m.res.bytes[first*PageSize:end*PageSize], populated, func(from, to uint64) {
		d.AddRange(first+from/PageSize, first+(to+PageSize-1)/PageSize)
	})
}

// probe tracks a few pages and compares, so that a kernel that accepts
// everything and tracks nothing is not believed.
func (k *kernel) probe() error {
	t := &Tracker{mode: ModeKernel, kernel: k}
	m, err := t.Reserve(2 * regionBytes)
	if err != nil {
		return err
	}
	defer m.Close()
	if err := m.Grow(2 * regionBytes); err != nil {
		return err
	}
	b, err := m.Borrow()
	if err != nil {
		return err
	}
	defer b.Release()
	step := uint64(max(os.Getpagesize()/PageSize, 1))
	// Twice: the first collect arms, the second reads what arming showed.
	for _, try := range [][]uint64{{0, 5 * step}, {5 * step, 7 * step, regionPages}, {}, {2 * step}} {
		for _, p := range try {
			b.Bytes()[p*PageSize]++
		}
		var got DirtySet
		if err := m.Collect(&got); err != nil {
			return err
		}
		for _, p := range try {
			if !got.Has(p) {
				return fmt.Errorf("a probe wrote page %d and it was not reported", p)
			}
		}
		if got.Len() > len(try)*int(step) {
			return fmt.Errorf("a probe wrote %d pages and %d were reported", len(try), got.Len())
		}
	}
	return nil
}
