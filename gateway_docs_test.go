//go:build unix

// docs/gateway.md, run as it stands.

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Every block of shell in the page runs, in order, against a fresh sbcast dev.
func TestGatewayDocs(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("SKIPPED: THE COMMANDS OF docs/gateway.md ARE NOT RUN, curl is not installed")
	}
	page, err := os.ReadFile("docs/gateway.md")
	require.NoError(t, err)
	blocks := regexp.MustCompile("(?ms)^```sh\n(.*?)^```$").FindAllStringSubmatch(string(page), -1)
	require.Greater(t, len(blocks), 5)

	dir := t.TempDir()
	dev := startDaemon(t, "gateway", "dev", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--dir", filepath.Join(dir, "dev"))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "films"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "films", "one"), []byte("a film"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "notes.txt"), []byte("some notes"), 0o644))
	video := []byte(strings.Repeat("a frame of a film\n", 50000))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "video.mp4"), video, 0o644))
	for _, block := range blocks {
		script := strings.ReplaceAll(block[1], "localhost:7080", dev.addr)
		cmd := exec.CommandContext(t.Context(), "sh", "-eu", "-c", script)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s\n%s", script, out)
	}
	for _, name := range []string{"video.mp4", "films/2026.mp4", "watched.mp4"} {
		got, err := os.ReadFile(filepath.Join(dir, "dev", "reader-2", name))
		if assert.NoError(t, err) {
			assert.Equal(t, len(video), len(got), name)
		}
	}
}
