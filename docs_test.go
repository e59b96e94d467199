//go:build unix

// The commands of the docs, run as they stand there.

package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/daemon/sink"
	"github.com/sbcast/sbcast/daemon/sink/youtubetest"
)

// docsBlock is a block of commands that is to be run: ```sh test [needs=PROGRAM,...].
var docsBlock = regexp.MustCompile("(?ms)^```sh test(?: needs=(\\S+))?\n(.*?)^```$")

// docsShell is what the commands of the docs find.
const docsShell = `
: > reader.log
address() { # waits until the reader says where it listens
	for i in $(seq 200); do
		sed -n 's/.*listening on \([^ ,]*\).*/\1/p' reader.log | grep . && return
		sleep 0.1
	done
	return 1
}
trap 'code=$?; kill $! 2>/dev/null || true; wait || true; exit $code' EXIT
`

// TestDocs runs blocks of the docs, each in a directory of its own, with a
// reader on a free port, a web server and a stand-in for YouTube. A block whose
// programs are not installed is skipped, and says so.
func TestDocs(t *testing.T) {
	page, err := os.ReadFile("docs/sinks.md")
	require.NoError(t, err)
	blocks := docsBlock.FindAllSubmatchIndex(page, -1)
	require.GreaterOrEqual(t, len(blocks), 6, "the blocks were not found")
	for _, at := range blocks {
		needs := ""
		if at[2] >= 0 {
			needs = string(page[at[2]:at[3]])
		}
		line := bytes.Count(page[:at[0]], []byte("\n")) + 1
		t.Run(fmt.Sprintf("sinks.md:%d", line), func(t *testing.T) {
			for _, program := range strings.Split(needs, ",") {
				if _, err := exec.LookPath(program); program != "" && err != nil {
					t.Skipf("SKIPPED, not run: %s is not installed", program)
				}
			}
			runDocs(t, string(page[at[4]:at[5]]))
		})
	}
}

// runDocs runs commands.
func runDocs(t *testing.T, commands string) {
	t.Helper()
	dir := t.TempDir()
	web := &receiver{dir: filepath.Join(dir, "web")}
	require.NoError(t, os.Mkdir(web.dir, 0o777))
	files := httptest.NewServer(web)
	defer files.Close()
	videos := youtubetest.New()
	tube := httptest.NewServer(videos)
	defer tube.Close()
	docsFiles(t, dir)
	t.Setenv("HOME", filepath.Join(dir, "home"))
	t.Setenv("XDG_CONFIG_HOME", filepath.Join(dir, "home", "config"))
	t.Setenv("XDG_STATE_HOME", filepath.Join(dir, "home", "state"))
	t.Setenv("GORACE", strings.TrimSpace("atexit_sleep_ms=0 exitcode=99 "+os.Getenv("GORACE")))
	t.Setenv("RCLONE_CONFIG_REMOTE_TYPE", "alias")
	t.Setenv("RCLONE_CONFIG_REMOTE_REMOTE", filepath.Join(dir, "cloud"))
	token, err := sink.DefaultYouTubeToken()
	require.NoError(t, err)
	require.NoError(t, grant(videos, tube.URL, token))

	script := strings.NewReplacer(
		"sbcast reader ", "sbcast reader --listen 127.0.0.1:0 ",
		" &\n", " 2>reader.log &\n",
		"localhost:7001", `"$(address)"`,
		"https://files.example.org", files.URL,
		"--sink youtube:", "--sink youtube:?endpoint="+tube.URL,
	).Replace(commands)
	ctx, cancel := context.WithTimeout(t.Context(), 3*scriptWait)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", docsShell+script)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	out, err := cmd.CombinedOutput()
	said, _ := os.ReadFile(filepath.Join(dir, "reader.log"))
	require.NoError(t, err, "%s\n%s\n%s", script, out, said)
	assert.Contains(t, string(out), "published  ", "no receipt")
	if strings.Contains(commands, "youtube:") {
		require.Len(t, videos.Videos(), 1)
		assert.Equal(t, "Our film.ts", videos.Videos()[0].Title)
	}
	if strings.Contains(commands, "files.example.org") {
		assert.FileExists(t, filepath.Join(web.dir, "in", "notes.txt"))
	}
}

// docsFiles makes the files that the docs push.
func docsFiles(t *testing.T, dir string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "site", "img"), 0o777))
	for _, name := range []string{"notes.txt", "site/index.html", "site/img/logo"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(strings.Repeat(name+"\n", 10_000)), 0o666))
	}
	film := filepath.Join(dir, "film.ts")
	cmd := exec.Command("ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc=duration=1:size=64x64", "-f", "lavfi", "-i", "sine=duration=1", film)
	if cmd.Run() != nil { // who has no ffmpeg pushes it, but does not look into it
		require.NoError(t, os.WriteFile(film, []byte("not much of a film"), 0o666))
	}
}
