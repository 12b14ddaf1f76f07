package ui

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// Bytes is a size with three significant digits: "512 B", "1.50 KiB",
// "33.0 MiB", "500 GiB".
func Bytes(n uint64) string {
	if n < 1024 {
		return strconv.FormatUint(n, 10) + " B"
	}
	v := float64(n)
	unit := -1
	// 1023.5 and up would round to "1024", a digit too many: the next unit.
	for v >= 1023.5 && unit < len(units)-1 {
		v /= 1024
		unit++
	}
	return digits(v) + " " + units[unit:][:1] + "iB"
}

const units = "KMGTPE"

// digits writes v in [0.9, 1024) with three significant digits.
func digits(v float64) string {
	switch {
	case v < 9.995:
		return strconv.FormatFloat(v, 'f', 2, 64)
	case v < 99.95:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 0, 64)
}

// Rate is n bytes in d as bytes a second, or "-" where that says nothing.
func Rate(n uint64, d time.Duration) string {
	if d <= 0 {
		return "-"
	}
	perSecond := float64(n) / d.Seconds()
	if perSecond >= math.MaxUint64 {
		return "-"
	}
	return Bytes(uint64(perSecond)) + "/s"
}

// Duration is a time span with what a person needs of it: "850 ns", "1.25 ms",
// "42.0 s", "3 min 07 s", "26 h 04 min".
func Duration(d time.Duration) string {
	switch {
	case d < 0:
		// The most negative value has no positive twin; being one off does not show.
		return "-" + Duration(-max(d, -math.MaxInt64))
	case d == 0:
		return "0 s"
	case d < time.Microsecond:
		return strconv.FormatInt(int64(d), 10) + " ns"
	case d < 999_500*time.Nanosecond:
		return digits(float64(d)/1e3) + " µs"
	case d < 999_500*time.Microsecond:
		return digits(float64(d)/1e6) + " ms"
	case d < 99_950*time.Millisecond:
		return digits(d.Seconds()) + " s"
	}
	s := int64(d.Round(time.Second) / time.Second)
	if s < 3600 {
		return fmt.Sprintf("%d min %02d s", s/60, s%60)
	}
	return fmt.Sprintf("%d h %02d min", s/3600, s%3600/60)
}

// Count is a number with commas between thousands: "8,448".
func Count(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// Percent is part of whole: "6.2 %", "100 %". It says "100 %" only where
// nothing is missing and "0 %" only where there is nothing.
func Percent(part, whole uint64) string {
	switch {
	case whole == 0:
		return "-"
	case part == 0:
		return "0 %"
	case part == whole:
		return "100 %"
	}
	v := 100 * float64(part) / float64(whole)
	if v < 100 {
		v = min(max(v, 0.1), 99.9)
	}
	return strconv.FormatFloat(v, 'f', 1, 64) + " %"
}
