//go:build linux

// What else the machine did meanwhile: figures of a busy machine scatter.

package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// ticksPerSecond is the unit of /proc/stat, the same on all that Go runs on.
const ticksPerSecond = 100

// cpuTimes are those of the whole machine, in seconds.
type cpuTimes struct {
	busy  float64 // in processes, whoever's
	steal float64 // when another guest of the same host had the CPU
	all   float64
	ours  float64 // in this process and in its children that have ended
}

func readCPUTimes() (t cpuTimes) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return t
	}
	t = parseCPUTimes(string(b))
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var ru syscall.Rusage
		if syscall.Getrusage(who, &ru) == nil {
			t.ours += float64(ru.Utime.Nano()+ru.Stime.Nano()) / 1e9
		}
	}
	return t
}

// parseCPUTimes reads the first line of /proc/stat: user nice system idle
// iowait irq softirq steal, and guests, which are part of user.
func parseCPUTimes(stat string) (t cpuTimes) {
	line, _, _ := strings.Cut(stat, "\n")
	f := strings.Fields(line)
	if len(f) < 9 || f[0] != "cpu" {
		return t
	}
	for i, s := range f[1:9] {
		n, _ := strconv.ParseFloat(s, 64)
		n /= ticksPerSecond
		t.all += n
		switch i {
		case 0, 1, 2:
			t.busy += n
		case 7:
			t.steal += n
		}
	}
	return t
}

// since says what else there was since before.
func (t cpuTimes) since(before cpuTimes) string {
	all := t.all - before.all
	if all <= 0 {
		return "What else the machine did meanwhile is not known."
	}
	others := max(0, (t.busy-before.busy)-(t.ours-before.ours))
	return fmt.Sprintf("Other processes had %.0f%% of the machine's CPU time meanwhile, other machines on the same host %.0f%%: the less, the better the figures.",
		100*others/all, 100*(t.steal-before.steal)/all)
}
