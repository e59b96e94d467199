//go:build unix

// What make install puts in place, and what the image runs.

package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestInstall(t *testing.T) {
	if _, err := exec.LookPath("make"); err != nil {
		t.Skip("SKIPPED: there is no make")
	}
	dest, bin := t.TempDir(), filepath.Join(t.TempDir(), "sbcast")
	install := func() {
		out, err := exec.Command("make", "install", "PREFIX=/opt", "DESTDIR="+dest, "BIN="+bin).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	install()

	for file, want := range map[string]string{
		"opt/share/man/man1/sbcast.1":                           "(?m)^\\.TH sbcast 1",
		"opt/share/bash-completion/completions/sbcast":          "complete .* -F _sbcast sbcast",
		"opt/share/zsh/site-functions/_sbcast":                  "^#compdef sbcast",
		"opt/share/fish/vendor_completions.d/sbcast.fish":       "complete -c sbcast",
		"opt/lib/systemd/system/sbcast-broadcaster.service":     "(?m)^ExecStart=/opt/bin/sbcast broadcaster",
		"opt/lib/systemd/system/sbcast-reader.service":          "(?m)^ExecStart=/opt/bin/sbcast reader",
		"opt/lib/systemd/system/sbcast-broadcaster.socket":      "(?m)^ListenStream=7000",
		"opt/lib/systemd/system/sbcast-broadcaster-http.socket": "(?m)^Service=sbcast-broadcaster.service",
		"opt/lib/systemd/system/sbcast-reader.socket":           "(?m)^ListenStream=7001",
		"etc/sbcast/broadcaster.env":                            "(?m)^BROADCASTER_OPTIONS=",
		"etc/sbcast/reader.env":                                 "(?m)^READER_OPTIONS=",
	} {
		b, err := os.ReadFile(filepath.Join(dest, file))
		if assert.NoError(t, err) {
			assert.Regexp(t, want, string(b), file)
		}
	}
	out, err := exec.Command(filepath.Join(dest, "opt/bin/sbcast"), "version").CombinedOutput()
	require.NoError(t, err)
	assert.Regexp(t, "^sbcast ", string(out))

	// Again, it leaves the options alone that somebody has written.
	env := filepath.Join(dest, "etc/sbcast/reader.env")
	require.NoError(t, os.WriteFile(env, []byte("mine"), 0o600))
	install()
	b, err := os.ReadFile(env)
	require.NoError(t, err)
	assert.Equal(t, "mine", string(b))
}

// The image has one program, and no shell to find another.
func TestDockerfile(t *testing.T) {
	b, err := os.ReadFile("Dockerfile")
	require.NoError(t, err)
	argv := func(re string) (argv []string) {
		match := regexp.MustCompile(`(?m)^` + re + ` (\[.*\])$`).FindSubmatch(b)
		require.NotNil(t, match, re)
		require.NoError(t, json.Unmarshal(match[1], &argv))
		return argv
	}
	assert.Equal(t, []string{"/sbcast"}, argv("ENTRYPOINT"))
	assert.Equal(t, []string{"/sbcast", "status", "127.0.0.1:7000"}, argv("HEALTHCHECK .*CMD"))
	out, err := exec.Command("sbcast", argv("CMD")...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.Contains(t, string(out), "COMMANDS")

	mod, err := os.ReadFile("go.mod")
	require.NoError(t, err)
	golang := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindSubmatch(mod)
	require.NotNil(t, golang)
	assert.Contains(t, string(b), " golang:"+string(golang[1])+" ")
}
