//go:build linux

// The script command that looks at a process's memory.

package main

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"

	"github.com/rogpeppe/go-internal/testscript"
)

// peakOf is the most memory that the process pid has had, in bytes.
func peakOf(pid int) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	match := regexp.MustCompile(`VmHWM:\s*(\d+) kB`).FindSubmatch(status)
	if match == nil {
		return 0, fmt.Errorf("no VmHWM of process %d", pid)
	}
	n, err := strconv.ParseInt(string(match[1]), 10, 64)
	return n << 10, err
}

func cmdPeak(ts *testscript.TestScript, args []string) error {
	if len(args) < 2 {
		return errors.New("usage: peak SIZE NAME...")
	}
	most, err := parseSize(args[0])
	if err != nil {
		return err
	}
	for _, name := range args[1:] {
		p := ts.Value(processesKey{}).(*processes).running[name]
		if p == nil {
			return fmt.Errorf("%s is not running", name)
		}
		peak, err := peakOf(p.cmd.Process.Pid)
		if err != nil {
			return err
		}
		ts.Logf("%s had %d MiB at most", name, peak>>20)
		if peak > most {
			return fmt.Errorf("%s had %d MiB at most, more than %s", name, peak>>20, args[0])
		}
	}
	return nil
}
