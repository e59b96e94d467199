//go:build unix

// The units as systemd itself judges them, and a watchdog that can be missed.
// What daemons do under systemd is in testdata/script/systemd_*.txtar.

package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// maxExposure is the worst score of systemd-analyze security that a unit may
// have: 0 is a service that can do nothing, 10 one that can do all.
const maxExposure = 1.5

// judge runs systemd-analyze, which must like what it sees.
func judge(t *testing.T, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("SKIPPED: there is no systemd-analyze, so nobody has looked at the units (apt-get install systemd)")
	}
	cmd := exec.Command("systemd-analyze", args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "SYSTEMD_PAGER=", "GORACE=")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return string(out)
}

// unitNames are the files in scripts/systemd of a kind.
func unitNames(t *testing.T, kind string, want int) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(unitsDir, "*."+kind))
	require.NoError(t, err)
	require.Len(t, names, want)
	return names
}

func TestUnitsVerify(t *testing.T) {
	// The units run /usr/bin/sbcast, which need not be here.
	bin, err := os.Executable()
	require.NoError(t, err)
	dir := t.TempDir()
	var copies []string
	for _, path := range append(unitNames(t, "service", 2), unitNames(t, "socket", 3)...) {
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		file := filepath.Join(dir, filepath.Base(path))
		require.NoError(t, os.WriteFile(file, []byte(strings.ReplaceAll(string(b), "/usr/bin/sbcast", bin)), 0o644))
		copies = append(copies, file)
	}
	out := judge(t, append([]string{"verify", "--man=no"}, copies...)...)
	assert.NotContains(t, out, "sbcast")
}

func TestUnitsExposure(t *testing.T) {
	exposure := regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`)
	for _, path := range unitNames(t, "service", 2) {
		match := exposure.FindStringSubmatch(judge(t, "security", "--offline=yes", "--no-pager", path))
		require.NotNil(t, match)
		score, err := strconv.ParseFloat(match[1], 64)
		require.NoError(t, err)
		assert.LessOrEqual(t, score, maxExposure, filepath.Base(path))
	}
}

// What no tool of systemd can know of the daemons.
func TestUnitsFit(t *testing.T) {
	for _, path := range unitNames(t, "service", 2) {
		u, err := readUnit(filepath.Base(path))
		require.NoError(t, err)
		for option, want := range map[string]string{
			"Type":                     "notify",
			"SuccessExitStatus":        fmt.Sprint((&signalError{syscall.SIGTERM}).code()),
			"RestartPreventExitStatus": fmt.Sprint(exitUsage, " ", exitConfig),
		} {
			got, err := u.one(option)
			require.NoError(t, err)
			assert.Equal(t, want, got, "%s: %s", filepath.Base(path), option)
		}
		stop, err := u.one("TimeoutStopSec")
		require.NoError(t, err)
		seconds, err := strconv.Atoi(stop)
		require.NoError(t, err)
		assert.Greater(t, time.Duration(seconds)*time.Second, drainTimeout+publishTimeout, "time to drain")
	}
	for _, path := range unitNames(t, "socket", 3) {
		u, err := readUnit(filepath.Base(path))
		require.NoError(t, err)
		name, err := u.one("FileDescriptorName")
		require.NoError(t, err)
		found := false
		for _, known := range socketNames {
			found = found || known == name
		}
		assert.True(t, found, "%s: FileDescriptorName=%s is a socket that nobody listens on", filepath.Base(path), name)
	}
}

// publishTimeout is what a publish under way has when its daemon stops
// (docs/operations.md).
const publishTimeout = 5 * time.Second

// An accept loop that does not come back for the next connection is noticed,
// one that waits for a connection is not.
func TestWatchdogSeesAcceptLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := &oneConn{conns: make(chan net.Conn, 1)}
		v := &supervisor{every: time.Second}
		d := v.watch(nil, ln)
		stuck, over := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(over)
			_, _ = d.Accept()
			<-stuck
			_, _ = d.Accept()
		}()
		time.Sleep(time.Hour) // of fake time
		assert.True(t, v.open(), "nobody came for an hour")
		ln.conns <- nil
		synctest.Wait()
		assert.True(t, v.open(), "somebody came just now")
		time.Sleep(v.every + 1)
		assert.False(t, v.open(), "the loop is stuck")
		close(stuck)
		synctest.Wait()
		assert.True(t, v.open(), "the loop is back")
		close(ln.conns)
		<-over
	})
}

// oneConn is a listener of connections that a test hands it.
type oneConn struct {
	net.Listener
	conns chan net.Conn
}

func (l *oneConn) Accept() (net.Conn, error) { return <-l.conns, nil }
