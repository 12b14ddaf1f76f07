package bench

import (
	"bufio"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"

	"golang.org/x/sys/cpu"
)

// thisBuild reads what the Go tool put into the program.
func thisBuild() Build {
	b := Build{Version: "unknown", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if info.Main.Version != "" {
		b.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}

// thisMachine describes where the program runs, as far as it can be known.
func thisMachine(dir string) Machine {
	m := Machine{
		CPU: procField("/proc/cpuinfo", "model name"), Cores: runtime.GOMAXPROCS(0), Vectors: "portable",
		Kernel: firstLine("/proc/sys/kernel/osrelease"), FileSystem: fileSystem(dir),
	}
	switch {
	case cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512VL:
		m.Vectors = "AVX-512"
	case cpu.X86.HasAVX2:
		m.Vectors = "AVX2"
	}
	if kib, err := strconv.ParseUint(strings.TrimSuffix(procField("/proc/meminfo", "MemTotal"), " kB"), 10, 64); err == nil {
		m.MemoryBytes = kib << 10
	}
	return m
}

// procField is the value of the first "name: value" line of a file.
func procField(file, name string) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if k, v, ok := strings.Cut(s.Text(), ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func firstLine(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return line
}

// kib reads a field of /proc/self/status in bytes; 0 where there is none.
func kib(name string) int64 {
	n, err := strconv.ParseInt(strings.TrimSuffix(procField("/proc/self/status", name), " kB"), 10, 64)
	if err != nil {
		return 0
	}
	return n << 10
}

// resetPeak makes the most of resident memory start anew. It is false where the
// system has no such thing.
func resetPeak() bool { return os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) == nil }

// written is how many bytes of files this process has made dirty, and read how
// many came from the disk; false where the system does not count them.
func ioCounters() (written, read int64, ok bool) {
	w, err1 := strconv.ParseInt(procField("/proc/self/io", "write_bytes"), 10, 64)
	c, err2 := strconv.ParseInt(procField("/proc/self/io", "cancelled_write_bytes"), 10, 64)
	r, err3 := strconv.ParseInt(procField("/proc/self/io", "read_bytes"), 10, 64)
	_ = c // what was written and truncated again was written all the same
	return w, r, err1 == nil && err2 == nil && err3 == nil
}
