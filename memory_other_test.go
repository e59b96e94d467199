//go:build unix && !linux

package main

import "github.com/rogpeppe/go-internal/testscript"

// cmdPeak has nothing to look at here.
func cmdPeak(ts *testscript.TestScript, _ []string) error {
	ts.Logf("SKIPPED: this system does not tell how much memory a process has had")
	return nil
}
