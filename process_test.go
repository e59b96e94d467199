//go:build unix

// Commands of the scripts that run processes.

package main

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// scriptWait bounds every wait of a script. It is generous: only a script that
// fails waits for so long.
const scriptWait = time.Minute

// pollEvery is the pause between two tries of eventually.
const pollEvery = 20 * time.Millisecond

// processes are those that one script has started and not ended.
type processes struct {
	tb      testing.TB
	running map[string]*process
	started int
}

type processesKey struct{}

// newProcesses returns none. At the end of the script they are all interrupted.
func newProcesses(env *testscript.Env) *processes {
	ps := &processes{tb: env.T().(testing.TB), running: map[string]*process{}}
	env.Defer(ps.endAll)
	return ps
}

// process is a command in the background.
type process struct {
	name   string
	turn   int // how many the script had started, with this one
	cmd    *exec.Cmd
	stdout output
	stderr output
	notes  output        // what it told systemd, where a script plays that
	unit   unitFile      // what it is of, then
	done   chan struct{} // closed when it has ended
}

// launch starts a process, [<FILE] CMD [ARG...], that it lets prepare change.
func launch(ts *testscript.TestScript, name string, argv []string, prepare ...func(*process)) (*process, error) {
	stdin := ""
	if len(argv) > 0 && strings.HasPrefix(argv[0], "<") {
		stdin, argv = argv[0][1:], argv[1:]
	}
	if len(argv) == 0 {
		return nil, errors.New("there is no command to run")
	}
	env, err := environ(ts)
	if err != nil {
		return nil, err
	}
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return nil, err
	}
	p := &process{name: name, cmd: exec.Command(path, argv[1:]...), done: make(chan struct{})}
	p.cmd.Dir, p.cmd.Env = ts.MkAbs("."), env
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	p.cmd.WaitDelay = time.Second // for children that outlive it and keep its output open
	if stdin != "" {
		f, err := os.Open(ts.MkAbs(stdin))
		if err != nil {
			return nil, err
		}
		defer f.Close()
		p.cmd.Stdin = f
	}
	for _, f := range prepare {
		f(p)
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// inBackground starts a process that goes on until the script ends it.
func inBackground(ts *testscript.TestScript, name string, argv []string, prepare ...func(*process)) (*process, error) {
	ps := ts.Value(processesKey{}).(*processes)
	if ps.running[name] != nil {
		return nil, fmt.Errorf("%s is running already", name)
	}
	p, err := launch(ts, name, argv, prepare...)
	if err == nil {
		ps.started++
		p.turn, ps.running[name] = ps.started, p
	}
	return p, err
}

// environ is the environment that the script has made, which testscript shows
// to the programs it runs and to nobody else.
func environ(ts *testscript.TestScript) ([]string, error) {
	file := filepath.Join(ts.Getenv("WORK"), ".tmp", "environ")
	if err := ts.Exec("sh", "-c", "env -0 >"+file); err != nil {
		return nil, err
	}
	b, err := os.ReadFile(file)
	return strings.Split(strings.TrimRight(string(b), "\x00"), "\x00"), err
}

// code waits for the end of the process and returns its exit code.
func (p *process) code() (int, error) {
	select {
	case <-p.done:
	case <-time.After(scriptWait):
		_ = p.cmd.Process.Signal(syscall.SIGQUIT) // for a stack trace
		select {
		case <-p.done:
		case <-time.After(time.Second):
			_ = p.cmd.Process.Kill()
			<-p.done
		}
		return 0, fmt.Errorf("%s did not end in %v", p.name, scriptWait)
	}
	return p.cmd.ProcessState.ExitCode(), nil
}

// sound refuses a process that reported a race or a panic.
func (p *process) sound() error {
	for _, bad := range []string{"WARNING: DATA RACE", "panic: ", "fatal error: "} {
		if bytes.Contains(p.stderr.bytes(), []byte(bad)) {
			return fmt.Errorf("%s: %s", p.name, bad)
		}
	}
	return nil
}

// endAll ends what the script left running, one after the other, the last one
// first: a client that loses its daemon says so instead of being interrupted.
// It fails the test when that does not go well. After a failure it shows what
// the processes had to say.
func (ps *processes) endAll() {
	for _, p := range slices.SortedFunc(maps.Values(ps.running), func(a, b *process) int { return b.turn - a.turn }) {
		if ps.tb.Failed() {
			_ = p.cmd.Process.Kill()
		} else {
			_ = p.cmd.Process.Signal(os.Interrupt)
		}
		code, err := p.code()
		if err == nil && code != 130 && !ps.tb.Failed() {
			err = fmt.Errorf("%s exited with %d after an interrupt at the end of the script, want 130", p.name, code)
		}
		if err == nil {
			err = p.sound()
		}
		if err != nil {
			ps.tb.Error(err)
		}
	}
	for _, p := range ps.running {
		if ps.tb.Failed() {
			ps.tb.Logf("[stderr of %s]\n%s", p.name, p.stderr.bytes())
		}
	}
}

// output is what a process has written, and can be waited for.
type output struct {
	mu   sync.Mutex
	b    []byte
	news chan struct{} // closed and replaced at each write; nil until somebody waits
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.b = append(o.b, p...)
	if o.news != nil {
		close(o.news)
		o.news = nil
	}
	return len(p), nil
}

func (o *output) bytes() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return bytes.Clone(o.b)
}

// await waits until re matches what p has written to o.
func (p *process) await(o *output, re *regexp.Regexp) ([][]byte, error) {
	timeout := time.After(scriptWait)
	for {
		o.mu.Lock()
		match := re.FindSubmatch(o.b)
		if o.news == nil {
			o.news = make(chan struct{})
		}
		news := o.news
		o.mu.Unlock()
		if match != nil {
			return match, nil
		}
		select {
		case <-news:
		case <-p.done:
			if match = re.FindSubmatch(o.bytes()); match != nil {
				return match, nil
			}
			return nil, fmt.Errorf("%s ended (%v) without saying %q", p.name, p.cmd.ProcessState, re)
		case <-timeout:
			return nil, fmt.Errorf("%s did not say %q in %v", p.name, re, scriptWait)
		}
	}
}

// find returns the process called name.
func find(ts *testscript.TestScript, name string) (*process, error) {
	if p := ts.Value(processesKey{}).(*processes).running[name]; p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("no process %q is running", name)
}

func cmdStart(ts *testscript.TestScript, args []string) error {
	if len(args) < 3 {
		return errors.New("usage: start NAME sbcast reader|broadcaster|dev [ARG...]")
	}
	role := args[2]
	if role == "dev" {
		role = "broadcaster"
	}
	p, err := inBackground(ts, args[0], args[1:])
	if err != nil {
		return err
	}
	match, err := p.await(&p.stderr, regexp.MustCompile(`(?m)(?:^|"msg":")sbcast `+role+`: listening on ([^\s,"]+)`))
	if err != nil {
		return err
	}
	addr, err := loopback(string(match[1]))
	if err != nil {
		return err
	}
	ts.Setenv(args[0], addr)
	if gateway := regexp.MustCompile(`(?m)^sbcast gateway: listening on ([^\s,]+)`); slices.Contains(args, "--http") {
		if match, err = p.await(&p.stderr, gateway); err != nil {
			return err
		}
		if addr, err = loopback(string(match[1])); err != nil {
			return err
		}
		ts.Setenv(args[0]+"_http", "http://"+addr)
	}
	if slices.Contains(args, "--admin") {
		if match, err = p.await(&p.stderr, regexp.MustCompile(`(?m)^sbcast admin: listening on (\S+)`)); err != nil {
			return err
		}
		ts.Setenv(args[0]+"_admin", string(match[1]))
	}
	return nil
}

// loopback is an address that a daemon listens on, as one to connect to.
func loopback(addr string) (string, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", err
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port), nil
}

func cmdBackground(ts *testscript.TestScript, args []string) error {
	if len(args) < 2 {
		return errors.New("usage: background NAME [<FILE] CMD...")
	}
	_, err := inBackground(ts, args[0], args[1:])
	return err
}

func cmdLogged(ts *testscript.TestScript, args []string) error {
	if len(args) != 2 {
		return errors.New("usage: logged NAME REGEXP")
	}
	return says(ts, args[0], "(?m)"+args[1], func(p *process) *output { return &p.stderr })
}

// says waits until what process name says somewhere matches pattern.
func says(ts *testscript.TestScript, name, pattern string, where func(*process) *output) error {
	p, err := find(ts, name)
	if err != nil {
		return err
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return err
	}
	_, err = p.await(where(p), re)
	return err
}

func cmdSignal(ts *testscript.TestScript, args []string) error {
	if len(args) != 2 {
		return errors.New("usage: signal NAME INT|TERM|HUP|KILL")
	}
	p, err := find(ts, args[0])
	if err != nil {
		return err
	}
	sig, ok := map[string]os.Signal{"INT": os.Interrupt, "TERM": syscall.SIGTERM, "HUP": syscall.SIGHUP, "KILL": os.Kill}[args[1]]
	if !ok {
		return fmt.Errorf("unknown signal %s", args[1])
	}
	return p.cmd.Process.Signal(sig)
}

func cmdEnds(ts *testscript.TestScript, args []string) error {
	if len(args) != 2 {
		return errors.New("usage: ends NAME CODE")
	}
	p, err := find(ts, args[0])
	if err != nil {
		return err
	}
	delete(ts.Value(processesKey{}).(*processes).running, p.name)
	return reap(ts, p, args[1])
}

func cmdEnd(ts *testscript.TestScript, args []string) error {
	if len(args) < 2 || len(args) > 3 {
		return errors.New("usage: end NAME INT|TERM|HUP|KILL [CODE]")
	}
	if err := cmdSignal(ts, args[:2]); err != nil {
		return err
	}
	return cmdEnds(ts, []string{args[0], append(args, "-1")[2]}) // -1: killed
}

func cmdExits(ts *testscript.TestScript, args []string) error {
	if len(args) < 2 {
		return errors.New("usage: exits CODE [<FILE] CMD...")
	}
	p, err := launch(ts, "the command", args[1:])
	if err != nil {
		return err
	}
	return reap(ts, p, args[0])
}

// reap waits for the end of p, checks its exit code, and makes what it wrote
// the standard output and error that the script looks at.
func reap(ts *testscript.TestScript, p *process, want string) error {
	code, err := p.code()
	_, _ = ts.Stdout().Write(p.stdout.bytes())
	_, _ = ts.Stderr().Write(p.stderr.bytes())
	if err == nil && strconv.Itoa(code) != want {
		err = fmt.Errorf("%s exited with %d, want %s", p.name, code, want)
	}
	if err == nil {
		err = p.sound()
	}
	return err
}

func cmdEventually(ts *testscript.TestScript, args []string) error {
	if len(args) == 0 {
		return errors.New("usage: eventually CMD...")
	}
	check := checks[args[0]]
	if check == nil {
		check = func(ts *testscript.TestScript, args []string) error { return ts.Exec(args[0], args[1:]...) }
	} else {
		args = args[1:]
	}
	for deadline := time.Now().Add(scriptWait); ; time.Sleep(pollEvery) {
		err := check(ts, args)
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not in %v: %w", scriptWait, err)
		}
	}
}

func cmdHTTP(ts *testscript.TestScript, args []string) error {
	if len(args) != 1 {
		return errors.New("usage: http NAME")
	}
	s := httptest.NewServer(http.NotFoundHandler())
	ts.Defer(s.Close)
	ts.Setenv(args[0], s.Listener.Addr().String())
	return nil
}
