//go:build unix

// Commands of the scripts that play Docker: they start what docker-compose.yml
// says, with no engine.

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
	"go.yaml.in/yaml/v3"
)

// composeFile is found before a script changes the directory.
var composeFile, _ = filepath.Abs("docker-compose.yml")

// composed is what the tests need to know of a service.
type composed struct {
	Command     []string
	Environment map[string]string
	Volumes     []string
	Healthcheck struct{ Test []string }
}

// serviceOf reads the service that args, one name, say.
func serviceOf(args []string) (*composed, error) {
	if len(args) != 1 {
		return nil, errors.New("usage: compose|healthy|picky SERVICE")
	}
	b, err := os.ReadFile(composeFile)
	if err != nil {
		return nil, err
	}
	var file struct{ Services map[string]*composed }
	if err := yaml.Unmarshal(b, &file); err != nil {
		return nil, err
	}
	s := file.Services[args[0]]
	if s == nil {
		return nil, fmt.Errorf("docker-compose.yml has no service %q", args[0])
	}
	return s, nil
}

// argv is the command line of the service, with its volume below the script's directory.
func (s *composed) argv(ts *testscript.TestScript) []string {
	argv := append([]string{"sbcast"}, s.Command...)
	for _, v := range s.Volumes {
		volume, path, _ := strings.Cut(v, ":")
		for i := range argv {
			argv[i] = strings.ReplaceAll(argv[i], path, ts.MkAbs(volume))
		}
	}
	return argv
}

func cmdCompose(ts *testscript.TestScript, args []string) error {
	s, err := serviceOf(args)
	if err != nil {
		return err
	}
	for name, value := range s.Environment {
		for _, host := range []string{"reader1", "reader2"} { // the names of its network
			value = strings.ReplaceAll(value, host+":7001", host+"="+ts.Getenv(host))
		}
		ts.Setenv(name, value)
	}
	// Their own ports may be taken on the machine that runs the tests.
	return cmdStart(ts, append(append([]string{args[0]}, s.argv(ts)...), "--listen", "127.0.0.1:0"))
}

func cmdHealthy(ts *testscript.TestScript, args []string) error {
	s, err := serviceOf(args)
	if err != nil {
		return err
	}
	test := s.Healthcheck.Test
	if len(test) < 3 || test[0] != "CMD" || test[1] != "/sbcast" {
		return fmt.Errorf("there is no shell in the image, and no other program: %q", test)
	}
	port := map[string]string{"broadcaster": "7000", "reader": "7001"}[s.Command[0]]
	own, here := "127.0.0.1:"+port, ts.Getenv(args[0])
	if strings.Count(strings.Join(test, " "), own) != 1 {
		return fmt.Errorf("%q does not ask %s", test, own)
	}
	argv := strings.Fields(strings.ReplaceAll(strings.Join(test[2:], " "), own, here))
	return ts.Exec("sbcast", argv...)
}

func cmdPicky(ts *testscript.TestScript, args []string) error {
	s, err := serviceOf(args)
	if err != nil {
		return err
	}
	for name := range s.Environment {
		p, err := launch(ts, args[0], s.argv(ts), func(p *process) { p.cmd.Env = append(p.cmd.Env, name+"=a:b:c") })
		if err != nil {
			return err
		}
		if err := reap(ts, p, fmt.Sprint(exitConfig)); err != nil {
			return fmt.Errorf("%s=a:b:c: %w", name, err)
		}
		if !strings.Contains(string(p.stderr.bytes()), name) {
			return fmt.Errorf("%s=a:b:c: nobody says what is wrong: %s", name, p.stderr.bytes())
		}
	}
	return nil
}
