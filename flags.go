// Flags: where they may stand, and the values that are not plain numbers.

package main

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"
)

// permute moves the flags of a command before its arguments, as users write
// them anywhere and the flag package stops at the first argument. It also
// writes every flag by its long name, as cli refuses -r beside --reader.
func permute(app *cli.App, args []string) []string {
	if len(args) < 2 {
		return args
	}
	cmd := app.Command(args[1])
	if cmd == nil {
		return args
	}
	flags := append([]string(nil), args[:2]...)
	var rest []string
	for i := 2; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			rest = append(rest, args[i+1:]...)
			break
		}
		if arg == "-" || !strings.HasPrefix(arg, "-") {
			rest = append(rest, arg)
			continue
		}
		if arg == "--help" || arg == "-h" {
			return append(args[:2:2], "--help")
		}
		long, needsValue := longFlags(cmd, arg)
		if n := len(long) - 1; i+1 < len(args) && n >= 0 && isOptional(cmd, long[n], args[i+1]) {
			i++
			long[n] += "=" + args[i]
		}
		flags = append(flags, long...)
		if needsValue && i+1 < len(args) {
			i++
			flags = append(flags, args[i])
		}
	}
	return append(append(flags, "--"), rest...)
}

// longFlags is arg with long names: "-fpt=30" is "--force", "--preserve",
// "--timeout=30". What is no flag of cmd stays as it is, for cli to refuse.
func longFlags(cmd *cli.Command, arg string) (long []string, needsValue bool) {
	name, value, hasValue := strings.Cut(strings.TrimLeft(arg, "-"), "=")
	if hasValue {
		value = "=" + value
	}
	if f := findFlag(cmd, name); f != nil {
		return []string{"--" + f.Names()[0] + value}, !isBool(f) && !hasValue
	}
	if strings.HasPrefix(arg, "--") {
		return []string{arg}, false
	}
	for i, letter := range name {
		f := findFlag(cmd, string(letter))
		last := i == len(name)-1
		if f == nil || !last && !isBool(f) {
			return []string{arg}, false
		}
		if last {
			return append(long, "--"+f.Names()[0]+value), !isBool(f) && !hasValue
		}
		long = append(long, "--"+f.Names()[0])
	}
	return []string{arg}, false
}

func findFlag(cmd *cli.Command, name string) cli.Flag {
	for _, f := range cmd.Flags {
		for _, n := range f.Names() {
			if n == name {
				return f
			}
		}
	}
	return nil
}

func isBool(f cli.Flag) bool {
	if _, ok := f.(*cli.BoolFlag); ok {
		return true
	}
	_, ok := optional(f)
	return ok
}

// optionalValue is a flag whose value may be left out.
type optionalValue interface {
	IsBoolFlag() bool      // true: what the flag package asks
	takes(arg string) bool // the argument behind it is its value
}

func optional(f cli.Flag) (optionalValue, bool) {
	g, ok := f.(*cli.GenericFlag)
	if !ok {
		return nil, false
	}
	v, ok := g.Value.(optionalValue)
	return v, ok
}

// isOptional reports whether arg is the value of flag, which may be without.
func isOptional(cmd *cli.Command, flag, arg string) bool {
	f := findFlag(cmd, strings.TrimLeft(flag, "-"))
	if f == nil {
		return false
	}
	v, ok := optional(f)
	return ok && v.takes(arg)
}

// sizeValue is a flag of bytes: 1M is 1 MiB, 1MB is 10^6, a number is bytes.
type sizeValue struct {
	n   int64
	max int64 // 0: no limit
}

func (v *sizeValue) String() string {
	if v == nil || v.n == 0 {
		return ""
	}
	return strconv.FormatInt(v.n, 10)
}

func (v *sizeValue) Set(s string) (err error) {
	v.n, err = parseSize(s)
	if err == nil && v.max > 0 && v.n > v.max {
		err = fmt.Errorf("%q is more than %dM", s, v.max>>20)
	}
	return err
}

func parseSize(s string) (int64, error) {
	norm := strings.TrimSpace(s)
	if n := len(norm); n > 1 && strings.ContainsAny(norm[n-1:], "kKmMgGtTpPeE") {
		norm += "iB"
	}
	n, err := humanize.ParseBytes(norm)
	if err != nil || n > math.MaxInt64 {
		return 0, fmt.Errorf("%q is not a size: 1048576, 1M (MiB) or 1MB (10^6)", s)
	}
	return int64(n), nil
}

// secondsValue is a flag of time: 30 is 30 s, and 500ms, 2m work too.
type secondsValue struct{ d time.Duration }

func (v *secondsValue) String() string {
	if v == nil || v.d == 0 {
		return ""
	}
	return v.d.String()
}

func (v *secondsValue) Set(s string) error {
	if n, err := strconv.ParseFloat(s, 64); err == nil {
		s = strconv.FormatFloat(n, 'f', -1, 64) + "s"
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return fmt.Errorf("%q is not a time: 30 (seconds), 500ms or 2m", s)
	}
	if d <= 0 {
		return errors.New("must be more than 0")
	}
	v.d = d
	return nil
}

func sizeOf(c *cli.Context, name string) int64 {
	if v, ok := c.Generic(name).(*sizeValue); ok {
		return v.n
	}
	return 0
}

func timeOf(c *cli.Context, name string) time.Duration {
	if v, ok := c.Generic(name).(*secondsValue); ok {
		return v.d
	}
	return 0
}
