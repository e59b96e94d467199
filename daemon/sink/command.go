// The store that feeds files to a command.

package sink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/mattn/go-shellwords"

	"github.com/sbcast/sbcast/protocol"
)

const (
	// killDelay is how long a command that was told to end has before it is killed.
	killDelay = time.Second
	// stderrTail is how much of a command's standard error goes into an error.
	stderrTail = 1 << 10
)

// command runs a program for each file, with the content on standard input.
// The end of input is held back until commit; an abort kills the program.
type command struct {
	spec string
	argv []string
}

func newCommand(line string) (*command, error) {
	parser := shellwords.NewParser()
	argv, err := parser.Parse(line)
	if err != nil || len(argv) == 0 {
		return nil, fmt.Errorf("sink exec:%s: not a command line", line)
	}
	if parser.Position >= 0 {
		return nil, fmt.Errorf("sink exec:%s: there is no shell to understand %q: write exec:sh -c '...'", line, line[parser.Position:])
	}
	if _, err := exec.LookPath(argv[0]); err != nil {
		return nil, fmt.Errorf("sink exec:%s: %w", line, err)
	}
	return &command{spec: "exec:" + line, argv: argv}, nil
}

func (c *command) String() string { return c.spec }

func (c *command) serial() {}

func (c *command) Create(ctx context.Context, r Request) (File, Have, error) {
	cmd := exec.CommandContext(ctx, c.argv[0], c.argv[1:]...)
	// Names of their own: SBCAST_SIZE and the like mean something to Slurm's
	// sbcast, which the command may well run.
	cmd.Env = append(os.Environ(),
		"SBCAST_FILE_NAME="+string(r.Name),
		"SBCAST_FILE_SIZE="+strconv.FormatInt(r.Size, 10),
		"SBCAST_TRANSFER_ID="+r.ID,
	)
	f := &commandFile{spec: c.spec, cmd: cmd}
	cmd.Stdout = os.Stderr
	cmd.Stderr = io.MultiWriter(os.Stderr, &f.tail)
	cmd.Cancel = func() error { return killGroup(cmd) }
	cmd.WaitDelay = killDelay
	ownGroup(cmd)
	var err error
	if f.stdin, err = cmd.StdinPipe(); err != nil {
		return nil, Have{}, err
	}
	if err := cmd.Start(); err != nil {
		return nil, Have{}, protocol.Errorf(protocol.CodeCommand, "%s: %w", c.spec, err)
	}
	return f, Have{}, nil
}

type commandFile struct {
	spec  string
	cmd   *exec.Cmd
	stdin io.WriteCloser
	tail  tail
	ended bool // the command has, before its input
}

// Write feeds the command. One that stops reading may be content with what it
// has, like head: its exit status says.
func (f *commandFile) Write(p []byte) (int, error) {
	if f.ended {
		return len(p), nil
	}
	n, err := f.stdin.Write(p)
	if err == nil {
		return n, nil
	}
	if errors.Is(err, syscall.EPIPE) || errors.Is(err, os.ErrClosed) {
		if err = f.wait(); err == nil {
			return len(p), nil
		}
	}
	return n, err
}

func (f *commandFile) Stage(context.Context, protocol.Digest) error { return nil }

func (f *commandFile) Publish(ctx context.Context) (Published, error) {
	if f.ended {
		return Published{Location: f.spec}, nil
	}
	stop := context.AfterFunc(ctx, func() { _ = killGroup(f.cmd) })
	defer stop()
	f.stdin.Close()
	if err := f.wait(); err != nil {
		return Published{}, err
	}
	return Published{Location: f.spec}, nil
}

func (f *commandFile) Discard(bool) {
	if f.ended {
		return
	}
	_ = killGroup(f.cmd) // before its input ends, which it could take for the file's
	f.stdin.Close()
	_ = f.wait()
}

// wait waits for the command to end and turns its exit status into an error.
func (f *commandFile) wait() error {
	f.ended = true
	err := f.cmd.Wait()
	if err == nil || errors.Is(err, exec.ErrWaitDelay) && f.cmd.ProcessState.Success() { // a child of it lives on
		return nil
	}
	text := strings.TrimSpace(f.tail.String())
	if text != "" {
		text = ": " + text
	}
	return protocol.Errorf(protocol.CodeCommand, "%s: %v%s", f.spec, err, text)
}

// tail keeps the last bytes written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if extra := len(t.b) - stderrTail; extra > 0 {
		t.b = t.b[:copy(t.b, t.b[extra:])]
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.ToValidUTF8(t.b, []byte("?")))
}
