package ui

import (
	"math"
	"testing"
	"time"
)

func TestBytes(t *testing.T) {
	for _, c := range []struct {
		n    uint64
		want string
	}{
		{0, "0 B"},
		{1, "1 B"},
		{1023, "1023 B"},
		{1024, "1.00 KiB"},
		{1536, "1.50 KiB"},
		{10239, "10.0 KiB"},
		{10240, "10.0 KiB"},
		{102399, "100 KiB"},
		{1<<20 - 1, "1.00 MiB"},
		{1023 << 10, "1023 KiB"},
		{1023<<10 + 511, "1023 KiB"},
		{1023<<10 + 512, "1.00 MiB"},
		{33 << 20, "33.0 MiB"},
		{500 << 30, "500 GiB"},
		{1 << 40, "1.00 TiB"},
		{1 << 50, "1.00 PiB"},
		{math.MaxUint64, "16.0 EiB"},
	} {
		if got := Bytes(c.n); got != c.want {
			t.Errorf("Bytes(%d) = %q, want %q", c.n, got, c.want)
		}
	}
}

func TestDuration(t *testing.T) {
	for _, c := range []struct {
		d    time.Duration
		want string
	}{
		{0, "0 s"},
		{1, "1 ns"},
		{850, "850 ns"},
		{999, "999 ns"},
		{1000, "1.00 µs"},
		{999_499, "999 µs"},
		{999_500, "1.00 ms"},
		{1_250_000, "1.25 ms"},
		{999_499_999, "999 ms"},
		{999_500_000, "1.00 s"},
		{42 * time.Second, "42.0 s"},
		{99_949 * time.Millisecond, "99.9 s"},
		{99_950 * time.Millisecond, "1 min 40 s"},
		{119_600 * time.Millisecond, "2 min 00 s"},
		{187 * time.Second, "3 min 07 s"},
		{3599600 * time.Millisecond, "1 h 00 min"},
		{26*time.Hour + 4*time.Minute, "26 h 04 min"},
		{-2 * time.Second, "-2.00 s"},
		{math.MinInt64, "-2562047 h 47 min"},
	} {
		if got := Duration(c.d); got != c.want {
			t.Errorf("Duration(%d) = %q, want %q", int64(c.d), got, c.want)
		}
	}
}

func TestRateCountPercent(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{Rate(1<<20, time.Second), "1.00 MiB/s"},
		{Rate(1<<20, 2*time.Second), "512 KiB/s"},
		{Rate(0, time.Second), "0 B/s"},
		{Rate(5, 0), "-"},
		{Rate(5, -1), "-"},
		{Rate(math.MaxUint64, 1), "-"},
		{Count(0), "0"},
		{Count(999), "999"},
		{Count(1000), "1,000"},
		{Count(1234567), "1,234,567"},
		{Count(math.MaxUint64), "18,446,744,073,709,551,615"},
		{Percent(0, 0), "-"},
		{Percent(0, 7), "0 %"},
		{Percent(7, 7), "100 %"},
		{Percent(1, 16), "6.2 %"},
		{Percent(1, 1_000_000), "0.1 %"},
		{Percent(999_999, 1_000_000), "99.9 %"},
		{Percent(3, 2), "150.0 %"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}
