//go:build unix

// Commands of the scripts that make files and look at files and output.

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sbcast/sbcast/protocol"
)

// create makes a file of args, NAME and SIZE, from an endless source.
func create(ts *testscript.TestScript, args []string, source func(name string) io.Reader) error {
	if len(args) != 2 {
		return errors.New("usage: random|text FILE SIZE")
	}
	size, err := parseSize(args[1])
	if err != nil {
		return err
	}
	f, err := os.Create(ts.MkAbs(args[0]))
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.CopyN(f, source(args[0]), size)
	return err
}

func cmdRandom(ts *testscript.TestScript, args []string) error {
	return create(ts, args, func(name string) io.Reader {
		var seed [32]byte
		h := fnv.New128a()
		h.Write([]byte(name))
		h.Sum(seed[:0])
		return rand.NewChaCha8(seed)
	})
}

func cmdText(ts *testscript.TestScript, args []string) error {
	return create(ts, args, func(string) io.Reader { return &lines{} })
}

// lines is text without end.
type lines struct {
	n    int
	rest []byte
}

func (l *lines) Read(p []byte) (int, error) {
	for len(l.rest) < len(p) {
		l.n++
		l.rest = fmt.Appendf(l.rest, "%8d: one file, of any size, to many places at once\n", l.n)
	}
	n := copy(p, l.rest)
	l.rest = l.rest[n:]
	return n, nil
}

func cmdSame(ts *testscript.TestScript, args []string) error {
	if len(args) < 2 {
		return errors.New("usage: same FILE FILE...")
	}
	first, err := readFile(ts, args[0])
	if err != nil {
		return err
	}
	for _, name := range args[1:] {
		other, err := readFile(ts, name)
		if err != nil {
			return err
		}
		if !bytes.Equal(first, other) {
			n := 0
			for n < min(len(first), len(other)) && first[n] == other[n] {
				n++
			}
			return fmt.Errorf("%s (%d bytes) and %s (%d bytes) differ from byte %d on", args[0], len(first), name, len(other), n)
		}
	}
	return nil
}

// readFile is ts.ReadFile with an error in place of the end of the script.
func readFile(ts *testscript.TestScript, name string) ([]byte, error) {
	if name == "stdout" || name == "stderr" {
		return []byte(ts.ReadFile(name)), nil
	}
	return os.ReadFile(ts.MkAbs(name))
}

func cmdSameAttr(ts *testscript.TestScript, args []string) error {
	if len(args) != 2 {
		return errors.New("usage: sameattr FILE FILE")
	}
	var infos [2]fs.FileInfo
	for i, name := range args {
		var err error
		if infos[i], err = os.Stat(ts.MkAbs(name)); err != nil {
			return err
		}
	}
	a, b := infos[0], infos[1]
	if a.Mode() != b.Mode() || !a.ModTime().Equal(b.ModTime()) {
		return fmt.Errorf("%s is %v of %v, %s is %v of %v", args[0], a.Mode(), a.ModTime(), args[1], b.Mode(), b.ModTime())
	}
	return nil
}

// filesBeneath are the names of all regular files beneath a directory. Files
// that go away in the meantime do not count.
func filesBeneath(dir string) ([]string, error) {
	var files []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && path != dir {
			return nil
		}
		if err == nil && !d.IsDir() {
			files = append(files, path)
		}
		return err
	})
	return files, err
}

func cmdNoFiles(ts *testscript.TestScript, args []string) error {
	if len(args) == 0 {
		return errors.New("usage: nofiles DIR...")
	}
	for _, dir := range args {
		files, err := filesBeneath(ts.MkAbs(dir))
		if err != nil {
			return err
		}
		if len(files) > 0 {
			return fmt.Errorf("there are files beneath %s: %q", dir, files)
		}
	}
	return nil
}

func cmdParts(ts *testscript.TestScript, args []string) error {
	if len(args) == 0 {
		return errors.New("usage: parts DIR...")
	}
	for _, dir := range args {
		files, err := filesBeneath(ts.MkAbs(dir))
		if err != nil {
			return err
		}
		found := false
		for _, f := range files {
			found = found || strings.HasPrefix(filepath.Base(f), protocol.ReservedPrefix)
		}
		if !found {
			return fmt.Errorf("there is no unfinished file beneath %s", dir)
		}
	}
	return nil
}

func cmdComplains(ts *testscript.TestScript, args []string) error {
	if len(args) == 0 {
		return errors.New("usage: complains REGEXP...")
	}
	line, ok := strings.CutSuffix(ts.ReadFile("stderr"), "\n")
	if !ok || strings.Contains(line, "\n") {
		return fmt.Errorf("want one line on stderr, got %q", line)
	}
	if !strings.HasPrefix(line, "sbcast: ") {
		return fmt.Errorf("the line does not say that it is from sbcast: %s", line)
	}
	return matchAll(line, args, false)
}

// matchAll demands that text matches every one of the expressions.
func matchAll(text string, exprs []string, whole bool) error {
	for _, expr := range exprs {
		if whole {
			expr = `^(?s:` + expr + `)$`
		}
		re, err := regexp.Compile(expr)
		if err != nil {
			return err
		}
		if !re.MatchString(text) {
			return fmt.Errorf("%q does not match %s", text, re)
		}
	}
	return nil
}

// events reads the standard output as lines of JSON objects.
func events(ts *testscript.TestScript) ([]map[string]any, error) {
	var all []map[string]any
	for line := range strings.Lines(ts.ReadFile("stdout")) {
		var e map[string]any
		d := json.NewDecoder(strings.NewReader(line))
		d.UseNumber()
		if err := d.Decode(&e); err != nil {
			return nil, fmt.Errorf("not a JSON object: %q: %w", line, err)
		}
		all = append(all, e)
	}
	return all, nil
}

func cmdResult(ts *testscript.TestScript, args []string) error {
	if len(args) < 2 {
		return errors.New("usage: result FIELD VALUE...")
	}
	all, err := events(ts)
	if err != nil {
		return err
	}
	for i, e := range all {
		if last := i == len(all)-1; (e["type"] == "result") != last {
			return fmt.Errorf("line %d of %d has the type %v: want result in the last line and nowhere else", i+1, len(all), e["type"])
		}
	}
	if len(all) == 0 {
		return errors.New("there is no line on stdout")
	}
	return matchField(all[len(all)-1], args[0], args[1:])
}

func cmdEvent(ts *testscript.TestScript, args []string) error {
	if len(args) < 3 {
		return errors.New("usage: event TYPE FIELD VALUE...")
	}
	all, err := events(ts)
	if err != nil {
		return err
	}
	err = fmt.Errorf("no line has the type %s", args[0])
	for _, e := range all {
		if e["type"] == args[0] {
			if err = matchField(e, args[1], args[2:]); err == nil {
				return nil
			}
		}
	}
	return err
}

// matchField demands that a field, a path of names with dots, has the values.
func matchField(object map[string]any, path string, want []string) error {
	found := []any{object}
	for name := range strings.SplitSeq(path, ".") {
		var next []any
		for _, v := range found {
			o, ok := v.(map[string]any)
			if !ok {
				return fmt.Errorf("%s: nothing has a field %q", path, name)
			}
			inner, ok := o[name]
			if !ok {
				return fmt.Errorf("%s: there is no field %q", path, name)
			}
			if list, ok := inner.([]any); ok {
				next = append(next, list...)
			} else {
				next = append(next, inner)
			}
		}
		found = next
	}
	if len(found) != len(want) {
		return fmt.Errorf("%s has %d values: %v, want %d", path, len(found), found, len(want))
	}
	for i, v := range found {
		if err := matchAll(fmt.Sprint(v), want[i:i+1], true); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}
