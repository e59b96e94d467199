//go:build unix

// What the tests of the gateway share: daemons that run while a test does.

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// running is a daemon of a test, and where it listens.
type running struct {
	*process
	addr string
}

// startDaemon starts sbcast until the end of the test, and waits until it
// listens as role.
func startDaemon(t *testing.T, role string, args ...string) running {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	bin := filepath.Join(t.TempDir(), "sbcast") // the name makes the test binary be sbcast
	require.NoError(t, os.Symlink(self, bin))
	p := &process{name: args[0], cmd: exec.Command(bin, args...), done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0 exitcode=99")
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	require.NoError(t, p.cmd.Start())
	go func() { _ = p.cmd.Wait(); close(p.done) }()
	t.Cleanup(func() {
		_ = p.cmd.Process.Signal(os.Interrupt)
		code, err := p.code()
		if err == nil {
			err = p.sound()
		}
		if assert.NoError(t, err) {
			assert.Equal(t, 130, code)
		}
	})
	match, err := p.await(&p.stderr, regexp.MustCompile(`(?m)^sbcast `+role+`: listening on ([^\s,]+)`))
	require.NoError(t, err)
	return running{p, string(match[1])}
}
