// Command latency counts the round trips of a push, and of the same file by
// curl and by a bare TCP connection, over links that take their time:
//
//	go run ./scripts/latency -sbcast bin/sbcast
//	go run ./scripts/latency -sbcast bin/sbcast -rtt 200ms -sizes 1,65536
//
// Daemons and pushes are real processes. The links are proxies that hold back
// what goes each way for half the round trip, the first bytes for the
// handshake too, and limit nothing else: no bandwidth, no slow start. The
// first push finds daemons that have just started, the later ones do not.
//
// First byte is from the start of the push to the first byte of content in the
// reader's command, done until the push has ended with its receipt. Both
// include the start of a process, which is printed first.
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

var (
	rtt    = flag.Duration("rtt", 50*time.Millisecond, "round trip `time` of a link")
	sizes  = flag.String("sizes", "1,16384,1048576", "`bytes` of the files")
	fresh  = flag.Int("fresh", 3, "times that daemons are started, of whose first pushes the fastest is printed")
	rounds = flag.Int("rounds", 3, "later pushes to each, of which the fastest is printed")
	binary = flag.String("sbcast", "bin/sbcast", "the `program` to measure")
)

// times is how long one push took.
type times struct{ first, done time.Duration }

func main() {
	log.SetFlags(0)
	if role(os.Args[1:]) {
		return
	}
	flag.Parse()
	dir, err := os.MkdirTemp("", "latency-")
	check(err)
	defer os.RemoveAll(dir)
	fmt.Printf("round trip %v; the fastest of %d first and %d later pushes, for noise only adds; in the times: start of sbcast %v, of curl %v\n",
		*rtt, *fresh, *fresh**rounds, startTime(*binary, "version").Round(time.Millisecond), startTime("curl", "--version").Round(time.Millisecond))
	for text := range strings.SplitSeq(*sizes, ",") {
		size, err := strconv.Atoi(text)
		check(err)
		file := filepath.Join(dir, text)
		check(os.WriteFile(file, noise(size), 0o600))
		fmt.Printf("\n%d bytes%s first byte             done\n", size, strings.Repeat(" ", max(0, 41-len(text))))
		for _, w := range ways {
			measure(dir, file, w)
		}
	}
}

// measure prints how long it takes to get file one way.
func measure(dir, file string, w way) {
	var first, later []times
	for range *fresh {
		send, stop := w.start(dir, file)
		first = append(first, send())
		for range *rounds {
			later = append(later, send())
		}
		stop()
	}
	report(w.name, "first", first)
	report("", "later", later)
}

func report(name, which string, all []times) {
	first := fastest(all, func(t times) time.Duration { return t.first })
	done := fastest(all, func(t times) time.Duration { return t.done })
	trips := func(d time.Duration) string {
		return fmt.Sprintf("%5d ms %5.1f trips", d.Milliseconds(), float64(d)/float64(*rtt))
	}
	fmt.Printf("%-38s %-6s %s %s\n", name, which, trips(first), trips(done))
}

func fastest(all []times, of func(times) time.Duration) time.Duration {
	var values []time.Duration
	for _, t := range all {
		values = append(values, of(t))
	}
	return slices.Min(values)
}

func check(err error) {
	if err != nil {
		log.Fatal("latency: ", err)
	}
}
