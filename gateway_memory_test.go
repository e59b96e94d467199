//go:build linux

// The memory of a gateway, as the system counts it.

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	uploadSize = 512 << 20
	heldMost   = 64 << 20  // of an upload that no reader takes: windows on three hops, socket buffers
	peakMost   = 192 << 20 // of the broadcaster: half of it without the race detector
)

// zeros is content of which the part that was asked for is counted.
type zeros struct {
	left int64
	read atomic.Int64
}

func (z *zeros) Read(p []byte) (int, error) {
	if z.left == 0 {
		return 0, io.EOF
	}
	n := min(int64(len(p)), z.left)
	clear(p[:n])
	z.left -= n
	z.read.Add(n)
	return int(n), nil
}

// A reader that takes nothing holds the HTTP client up, and the broadcaster's
// memory is the same for a file that is much larger.
func TestGatewayMemory(t *testing.T) {
	dir := t.TempDir()
	gate := filepath.Join(dir, "go")
	slow := filepath.Join(dir, "slow")
	require.NoError(t, os.WriteFile(slow, fmt.Appendf(nil, "#!/bin/sh\nuntil [ -e %s ]; do sleep 0.1; done\nexec cat >/dev/null\n", gate), 0o755))
	reader := startDaemon(t, "reader", "reader", "-q", "--listen", "127.0.0.1:0", "--sink", "exec:"+slow)
	hub := startDaemon(t, "gateway", "broadcaster", "-q", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--reader", "slow="+reader.addr)

	content := &zeros{left: uploadSize}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+hub.addr+"/broadcast/zeros?compress=none", content)
	require.NoError(t, err)
	done := make(chan error, 1)
	var answer struct {
		Status  int
		Message string
	}
	go func() {
		res, err := http.DefaultClient.Do(req)
		if err == nil {
			err = json.NewDecoder(res.Body).Decode(&answer)
			res.Body.Close()
		}
		done <- err
	}()

	last := int64(0)
	require.Eventually(t, func() bool { // it stands still
		now := content.read.Load()
		still := now > 0 && now == last
		last = now
		return still
	}, scriptWait, 500*time.Millisecond)
	assert.Less(t, last, int64(heldMost), "the client was not held up")
	require.NoError(t, os.WriteFile(gate, nil, 0o600))
	require.NoError(t, <-done)
	require.Equal(t, 200, answer.Status, answer.Message)
	assert.Equal(t, int64(uploadSize), content.read.Load())
	peak := hub.peak(t)
	t.Logf("held up at %d MiB, peak %d MiB", last>>20, peak>>20)
	assert.Less(t, peak, int64(peakMost))
}

// peak is the most memory that the process has had, in bytes.
func (r running) peak(t *testing.T) int64 {
	n, err := peakOf(r.cmd.Process.Pid)
	require.NoError(t, err)
	return n
}
