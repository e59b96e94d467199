//go:build unix

// The command: what it is given, what its end means, and how it is ended.

package sink_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/daemon/sink"
	"github.com/sbcast/sbcast/protocol"
)

// command opens the store that runs script in a shell, in a directory of its own.
func command(t *testing.T, script string) sink.Store {
	t.Helper()
	t.Chdir(t.TempDir())
	store, err := sink.Open("exec:sh -c '"+script+"'", sink.Options{})
	require.NoError(t, err)
	return store
}

// alive makes the FIFO that a script keeps open for as long as any of its
// processes lives, and returns a channel that is closed when none does.
func alive(t *testing.T) (gone <-chan struct{}) {
	t.Helper()
	require.NoError(t, syscall.Mkfifo("alive", 0o666))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, err := os.ReadFile("alive") // until the last writer has gone
		assert.NoError(t, err)
	}()
	return ended
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	require.Eventually(t, is, patience, 5*time.Millisecond, "waited in vain: "+what)
}

func TestCommandGetsContentAndEnvironment(t *testing.T) {
	store := command(t, `cat > content; echo "$SBCAST_FILE_NAME $SBCAST_FILE_SIZE $SBCAST_TRANSFER_ID $KEPT" > env`)
	t.Setenv("KEPT", "kept")
	content := strings.Repeat("some content ", 50000)
	p, err := put(t, store, offer("a/f.txt", int64(len(content))), content)
	require.NoError(t, err)
	assert.Equal(t, sink.Published{Location: store.String()}, p)
	assertContent(t, "content", content)
	assertContent(t, "env", "a/f.txt 650000 0197-test kept\n")
}

// Slurm's sbcast reads variables of these names as orders, and the command
// may well run it.
func TestCommandEnvironmentHasNoNamesOfSlurm(t *testing.T) {
	store := command(t, `env > env`)
	_, err := put(t, store, offer("f", 4), "data")
	require.NoError(t, err)
	env, err := os.ReadFile("env")
	require.NoError(t, err)
	for _, name := range []string{"COMPRESS", "EXCLUDE", "FANOUT", "TREE_WIDTH", "FORCE", "PRESERVE", "SEND_LIBS", "SIZE", "TIMEOUT"} {
		assert.NotContains(t, "\n"+string(env), "\nSBCAST_"+name+"=")
	}
}

func TestCommandGetsUnknownSize(t *testing.T) {
	store := command(t, `echo $SBCAST_FILE_SIZE > size`)
	_, err := put(t, store, offer("f", -1), "data")
	require.NoError(t, err)
	assertContent(t, "size", "-1\n")
}

func TestCommandFails(t *testing.T) {
	store := command(t, `cat > /dev/null; echo no such bucket >&2; exit 3`)
	_, err := put(t, store, offer("f", 4), "data")
	assertCode(t, protocol.CodeCommand, err)
	assert.ErrorContains(t, err, "exit status 3: no such bucket")
}

func TestCommandErrorHasTheTailOfStderr(t *testing.T) {
	store := command(t, `cat > /dev/null; seq 1 5000 >&2; exit 1`)
	_, err := put(t, store, offer("f", 4), "data")
	assertCode(t, protocol.CodeCommand, err)
	assert.True(t, strings.HasSuffix(err.Error(), "\n4999\n5000"), "%q", err.Error())
	assert.Less(t, len(err.Error()), 2<<10)
}

// A command may end before its input does. Its exit status says whether it
// has what it wants.
func TestCommandEndsEarly(t *testing.T) {
	content := strings.Repeat("x", 1<<20) // more than any pipe holds
	t.Run("content", func(t *testing.T) {
		store := command(t, `head -c 3 > got`)
		_, err := put(t, store, offer("f", 1<<20), content)
		require.NoError(t, err)
		assertContent(t, "got", "xxx")
	})
	t.Run("failed", func(t *testing.T) {
		store := command(t, `echo quota >&2; exit 7`)
		_, err := put(t, store, offer("f", 1<<20), content)
		assertCode(t, protocol.CodeCommand, err)
		assert.ErrorContains(t, err, "exit status 7: quota")
	})
	t.Run("failed without reading", func(t *testing.T) {
		store := command(t, `exit 7`)
		_, err := put(t, store, offer("f", 1), "x") // the pipe takes it
		assertCode(t, protocol.CodeCommand, err)
	})
}

func TestCommandInputEndsAtPublish(t *testing.T) {
	store := command(t, `cat > got; mv got done`)
	f, _, err := store.Create(t.Context(), request(offer("f", 4)))
	require.NoError(t, err)
	require.NoError(t, fill(t, f, "data"))
	eventually(t, "the content to arrive", func() bool {
		got, _ := os.ReadFile("got")
		return string(got) == "data"
	})
	assert.False(t, exists("done"))
	_, err = f.Publish(t.Context())
	require.NoError(t, err)
	assertContent(t, "done", "data")
}

func TestCommandDiscardKillsAllOfIt(t *testing.T) {
	for _, staged := range []bool{false, true} {
		store := command(t, `exec 3> alive; (sleep 1000) & cat > got; touch done; wait`)
		gone := alive(t)
		f, _, err := store.Create(t.Context(), request(offer("f", 4)))
		require.NoError(t, err)
		if staged {
			require.NoError(t, fill(t, f, "data"))
		}
		eventually(t, "the command to run", func() bool { return exists("got") })
		within(t, "Discard", func() { f.Discard(false) })
		receive(t, gone, "the end of the command's child")
		assert.False(t, exists("done"), "the command saw the end of its input")
	}
}

func TestCommandEndsWithItsContext(t *testing.T) {
	store := command(t, `exec 3> alive; touch running; sleep 1000`)
	gone := alive(t)
	ctx, cancel := context.WithCancel(t.Context())
	f, _, err := store.Create(ctx, request(offer("f", -1)))
	require.NoError(t, err)
	eventually(t, "the command to run", func() bool { return exists("running") })
	written := make(chan error, 1)
	go func() {
		for {
			if _, err := f.Write(make([]byte, 64<<10)); err != nil {
				written <- err
				return
			}
		}
	}()
	cancel()
	require.Error(t, receive(t, written, "the Write under way to return"))
	receive(t, gone, "the end of the command")
	within(t, "Discard", func() { f.Discard(false) })
}

func TestCommandPublishEndsWithItsContext(t *testing.T) {
	store := command(t, `exec 3> alive; cat > /dev/null; touch done; sleep 1000`)
	gone := alive(t)
	f, _, err := store.Create(t.Context(), request(offer("f", 4)))
	require.NoError(t, err)
	require.NoError(t, fill(t, f, "data"))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	published := make(chan error, 1)
	go func() {
		_, err := f.Publish(ctx)
		published <- err
	}()
	eventually(t, "the end of input", func() bool { return exists("done") })
	cancel()
	assertCode(t, protocol.CodeCommand, receive(t, published, "Publish to return"))
	receive(t, gone, "the end of the command")
	f.Discard(false)
}

// What the command leaves behind, a server say, is its own business: the exit
// status is what counts.
func TestCommandThatLeavesAChildBehind(t *testing.T) {
	store := command(t, `cat > got; read line < stop &`)
	require.NoError(t, syscall.Mkfifo("stop", 0o666))
	t.Cleanup(func() {
		if stop, err := os.OpenFile("stop", os.O_WRONLY|syscall.O_NONBLOCK, 0); err == nil { // somebody reads
			stop.Close()
		}
	})
	_, err := put(t, store, offer("f", 4), "data")
	require.NoError(t, err)
	assertContent(t, "got", "data")
}

func TestCommandLines(t *testing.T) {
	for line, text := range map[string]string{
		"":                           "not a command line",
		"  ":                         "not a command line",
		"sh -c 'open":                "not a command line",
		"/nonexistent/program --now": "no such file",
		"no-such-program-anywhere":   "not found",
	} {
		_, err := sink.Open("exec:"+line, sink.Options{})
		require.ErrorContains(t, err, text, "%q", line)
	}
	store, err := sink.Open(`exec:sh -c "exit 0"  a\ b`, sink.Options{})
	require.NoError(t, err)
	assert.Equal(t, `exec:sh -c "exit 0"  a\ b`, store.String())
}

// No shell reads the line, so what would mean something to one must be
// refused rather than left out.
func TestCommandLineWithShellSyntax(t *testing.T) {
	for _, line := range []string{"cat > file", "cat | gzip", "cat; exit 0", "cat &", "cat < /dev/null", "cat 2>file"} {
		_, err := sink.Open("exec:"+line, sink.Options{})
		assert.Error(t, err, "%q", line)
	}
}

func TestCommandThatCannotStart(t *testing.T) {
	program := filepath.Join(t.TempDir(), "program")
	require.NoError(t, os.WriteFile(program, []byte("#!/bin/sh\n"), 0o777))
	store, err := sink.Open("exec:"+program, sink.Options{})
	require.NoError(t, err)
	require.NoError(t, os.Remove(program))
	_, _, err = store.Create(t.Context(), request(offer("f", 4)))
	assertCode(t, protocol.CodeCommand, err)
}
