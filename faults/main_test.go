package faults_test

import (
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

var (
	runs    = flag.Int("faults.runs", 0, "cuts, and bit flips, on each hop; 0: a few")
	hostile = flag.Int("faults.hostile", 300, "sessions that are recorded, spoilt and played again, of all kinds together")
	seed    = flag.Uint64("faults.seed", 0, "of everything that is random; 0: a new one")
)

func TestMain(m *testing.M) {
	flag.Parse()
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano()) % 1_000_000_000
	}
	fmt.Printf("faults: repeat with -faults.seed=%d\n", *seed)
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}
