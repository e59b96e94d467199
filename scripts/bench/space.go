//go:build linux

// The source file, and how large it may be.

package main

import (
	"bufio"
	"crypto/rand"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// source is a file of random bytes.
type source struct {
	path string
	size int64
}

const mib = 1 << 20

// tmpfsMagic is the type of a tmpfs in statfs(2).
const tmpfsMagic = 0x01021994

func defaultDir() string {
	if st, err := os.Stat("/dev/shm"); err == nil && st.IsDir() {
		return "/dev/shm"
	}
	return os.TempDir()
}

// isTmpfs says whether dir is on one.
func isTmpfs(dir string) bool {
	var st syscall.Statfs_t
	return syscall.Statfs(dir, &st) == nil && st.Type == tmpfsMagic
}

// space is how much may be written to dir: three quarters of what is free. On
// a tmpfs that is memory.
func space(dir string) (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("statfs %s: %w", dir, err)
	}
	free := int64(st.Bavail * uint64(st.Bsize))
	if isTmpfs(dir) {
		b, err := os.ReadFile("/proc/meminfo")
		if err != nil {
			return 0, err
		}
		free = min(free, procField(string(b), "MemAvailable")<<10)
	}
	return free / 4 * 3, nil
}

// fit returns sizes as near to size as space allows: that of the source for
// readers that discard, and that for copies readers that write files (none: 0
// copies). If they differ, there are two sources.
func fit(size, space int64, copies int) (plain, filed int64) {
	if size*int64(1+copies) <= space {
		return size, size
	}
	if copies == 0 {
		return roundDown(space), 0
	}
	plain = min(size, roundDown(space/2))
	return plain, min(size, roundDown((space-plain)/int64(1+copies)))
}

func roundDown(n int64) int64 { return n / mib * mib }

// makeSources makes the source file of each kind, and says what had to be
// smaller than asked for.
func makeSources(c config, work string) (map[kind]source, []string, error) {
	free, err := space(work)
	if err != nil {
		return nil, nil, err
	}
	copies := 0
	if slices.Contains(c.kinds, dir) {
		copies = slices.Max(c.readers)
	}
	plain, filed := fit(c.size, free, copies)
	sizes := map[kind]int64{discard: plain, dir: filed}
	made := map[int64]source{}
	sources := map[kind]source{}
	var notes []string
	for _, k := range c.kinds {
		size := sizes[k]
		if size < min(c.size, mib) {
			return nil, nil, fmt.Errorf("%s has too little space (%s); -dir takes another directory", c.dir, formatSize(free))
		}
		if size < c.size {
			notes = append(notes, fmt.Sprintf("%s has too little space for %s: %s runs use %s", c.dir, formatSize(c.size), k, formatSize(size)))
		}
		if made[size].path == "" {
			s := source{filepath.Join(work, fmt.Sprintf("source-%d", size)), size}
			if err := makeRandom(s); err != nil {
				return nil, nil, err
			}
			made[size] = s
		}
		sources[k] = made[size]
	}
	return sources, notes, nil
}

func makeRandom(s source) error {
	f, err := os.Create(s.path)
	if err != nil {
		return err
	}
	defer f.Close()
	var seed [32]byte
	_, _ = rand.Read(seed[:])
	w := bufio.NewWriterSize(f, bareBuffer)
	if _, err := io.CopyN(w, mathrand.NewChaCha8(seed), s.size); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return f.Close()
}

// parseSize reads 64K, 512M, 1G (powers of 1024, with or without "iB").
func parseSize(s string) (int64, error) {
	digits := strings.TrimRight(s, "KMGiB")
	shift, ok := map[string]int{"": 0, "K": 10, "M": 20, "G": 30}[strings.TrimSuffix(s[len(digits):], "iB")]
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || !ok || n < 1 || n > 1<<(60-shift) {
		return 0, fmt.Errorf("%q is not a size: 64K, 512M, 1G", s)
	}
	return n << shift, nil
}

// formatSize is parseSize's inverse, as near as it gets.
func formatSize(n int64) string {
	switch {
	case n >= 1<<30 && n%(1<<30) == 0:
		return fmt.Sprintf("%d GiB", n>>30)
	case n >= mib:
		return fmt.Sprintf("%d MiB", n/mib)
	default:
		return fmt.Sprintf("%d bytes", n)
	}
}
