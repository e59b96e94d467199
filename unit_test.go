//go:build unix

// Commands of the scripts that play systemd: they start what the units in
// scripts/systemd say, with sockets, credentials and a watchdog.

package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/coreos/go-systemd/v22/unit"
	"github.com/mattn/go-shellwords"
	"github.com/rogpeppe/go-internal/testscript"
)

// watchdogUsec is the watchdog's patience here: WatchdogSec= is too long for a test.
const watchdogUsec = "WATCHDOG_USEC=200000"

// unitsDir is found before a script changes the directory.
var unitsDir, _ = filepath.Abs("scripts/systemd")

// unitFile is a unit: the values of each option, in order.
type unitFile map[string][]string

func readUnit(name string) (unitFile, error) {
	f, err := os.Open(filepath.Join(unitsDir, name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	options, err := unit.DeserializeOptions(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	u := unitFile{}
	for _, o := range options {
		u[o.Name] = append(u[o.Name], o.Value)
	}
	return u, nil
}

// one is the value of an option that is to be there once.
func (u unitFile) one(option string) (string, error) {
	if len(u[option]) != 1 {
		return "", fmt.Errorf("the unit has %d times %s=", len(u[option]), option)
	}
	return u[option][0], nil
}

// environment is what Environment= and EnvironmentFile= give.
func (u unitFile) environment(root string) (map[string]string, error) {
	vars := map[string]string{}
	set := func(line string) error {
		words, err := shellwords.Parse(line)
		for _, w := range words {
			name, value, _ := strings.Cut(w, "=")
			vars[name] = inside(root, value)
		}
		return err
	}
	for _, line := range u["Environment"] {
		if err := set(line); err != nil {
			return nil, err
		}
	}
	for _, file := range u["EnvironmentFile"] {
		b, err := os.ReadFile(inside(root, strings.TrimPrefix(file, "-")))
		if err != nil && !(errors.Is(err, os.ErrNotExist) && strings.HasPrefix(file, "-")) {
			return nil, err
		}
		for line := range strings.Lines(strings.ReplaceAll(string(b), "\\\n", "")) {
			if strings.HasPrefix(line, "#") {
				continue
			}
			if err := set(line); err != nil {
				return nil, err
			}
		}
	}
	return vars, nil
}

// command is ExecStart= with $NAME split into words.
func (u unitFile) command(vars map[string]string) ([]string, error) {
	line, err := u.one("ExecStart")
	if err != nil {
		return nil, err
	}
	var argv []string
	for _, word := range strings.Fields(line) {
		if name, ok := strings.CutPrefix(word, "$"); ok {
			words, err := shellwords.Parse(vars[name])
			if err != nil {
				return nil, err
			}
			argv = append(argv, words...)
			continue
		}
		argv = append(argv, word)
	}
	argv[0] = filepath.Base(argv[0]) // the sbcast of scripts
	return argv, nil
}

// credentials puts what LoadCredential= names where systemd does. It leaves
// out what is not there, as systemd does for names without a path.
func (u unitFile) credentials(root, dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, c := range u["LoadCredential"] {
		id, name, _ := strings.Cut(c, ":")
		if strings.Contains(name, "/") {
			return fmt.Errorf("LoadCredential=%s: without that file the unit would not start", c)
		}
		b, err := os.ReadFile(filepath.Join(root, "etc/credstore", name))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, id), b, 0o400)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// inside moves the paths in s that belong to the system below root.
func inside(root, s string) string {
	return regexp.MustCompile(`(^|[\s:=])/(etc|run|var)/`).ReplaceAllString(s, "${1}"+root+"/$2/")
}

// openSocket opens what a socket unit asks for, on loopback.
func openSocket(name string) (f *os.File, fdName, addr string, err error) {
	u, err := readUnit(name)
	if err != nil {
		return nil, "", "", err
	}
	if fdName, err = u.one("FileDescriptorName"); err != nil {
		return nil, "", "", err
	}
	if _, err = u.one("ListenStream"); err != nil {
		return nil, "", "", err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", "", err
	}
	defer ln.Close()
	f, err = ln.(*net.TCPListener).File()
	return f, fdName, ln.Addr().String(), err
}

// hear makes a socket for sd_notify and gathers what comes in p.notes.
func hear(ts *testscript.TestScript, p *process) (path string) {
	dir, err := os.MkdirTemp("", "sbcast") // short: a socket's path has room for 100 bytes
	ts.Check(err)
	ts.Defer(func() { os.RemoveAll(dir) })
	path = filepath.Join(dir, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	ts.Check(err)
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		b := make([]byte, 4096)
		for {
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			_, _ = p.notes.Write(append(b[:n:n], '\n'))
		}
	}()
	ts.Defer(func() { conn.Close(); <-heard })
	return path
}

func cmdUnit(ts *testscript.TestScript, args []string) error {
	if len(args) < 2 {
		return errors.New("usage: unit NAME UNIT [SOCKET...]")
	}
	name, root := args[0], ts.Getenv("WORK")
	u, err := readUnit(args[1])
	if err != nil {
		return err
	}
	vars, err := u.environment(root)
	if err != nil {
		return err
	}
	argv, err := u.command(vars)
	if err != nil {
		return err
	}
	vars["CREDENTIALS_DIRECTORY"] = filepath.Join(root, "run/credentials", args[1])
	if err := u.credentials(root, vars["CREDENTIALS_DIRECTORY"]); err != nil {
		return err
	}
	if len(u["StateDirectory"]) > 0 {
		vars["STATE_DIRECTORY"] = filepath.Join(root, "var/lib", u["StateDirectory"][0])
		if err := os.MkdirAll(vars["STATE_DIRECTORY"], 0o755); err != nil {
			return err
		}
	}
	var files []*os.File
	var fdNames []string
	for _, socket := range args[2:] {
		f, fdName, addr, err := openSocket(socket)
		if err != nil {
			return err
		}
		defer f.Close()
		files, fdNames = append(files, f), append(fdNames, fdName)
		if fdName == "sbcast" {
			ts.Setenv(name, addr)
		} else {
			ts.Setenv(name+"_"+fdName, addr)
		}
	}
	// LISTEN_PID is that of the daemon: only the process itself knows it in time.
	argv = append([]string{"sh", "-c", `LISTEN_PID=$$ WATCHDOG_PID=$$ exec "$@"`, "sh"}, argv...)
	_, err = inBackground(ts, name, argv, func(p *process) {
		p.unit, p.cmd.ExtraFiles = u, files
		p.cmd.Env = append(p.cmd.Env, watchdogUsec, "NOTIFY_SOCKET="+hear(ts, p),
			fmt.Sprintf("LISTEN_FDS=%d", len(files)), "LISTEN_FDNAMES="+strings.Join(fdNames, ":"))
		for k, v := range vars {
			p.cmd.Env = append(p.cmd.Env, k+"="+v)
		}
	})
	return err
}

func cmdTold(ts *testscript.TestScript, args []string) error {
	if len(args) != 2 {
		return errors.New("usage: told NAME REGEXP")
	}
	return says(ts, args[0], "(?ms)"+args[1], func(p *process) *output { return &p.notes })
}

func cmdReload(ts *testscript.TestScript, args []string) error {
	if len(args) != 1 {
		return errors.New("usage: reload NAME")
	}
	p, err := find(ts, args[0])
	if err != nil {
		return err
	}
	line, err := p.unit.one("ExecReload")
	if err != nil {
		return err
	}
	argv := strings.Fields(strings.ReplaceAll(line, "$MAINPID", fmt.Sprint(p.cmd.Process.Pid)))
	return ts.Exec(argv[0], argv[1:]...)
}
