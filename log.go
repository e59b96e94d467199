// The log of a daemon, on standard error.

package main

import (
	"bytes"
	"log/slog"

	"github.com/urfave/cli/v2"
)

func logFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "log-format", Value: "text", Usage: "text or json, where all that is said is a line with an object"},
		&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "log warnings and errors only"},
		&cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Usage: "log sessions too"},
	}
}

// newLog is the log that the flags ask for. In JSON, what is else said on
// standard error goes through it from then on.
func newLog(c *cli.Context) (*slog.Logger, error) {
	o := &slog.HandlerOptions{Level: slog.LevelInfo}
	if c.Bool("quiet") {
		o.Level = slog.LevelWarn
	} else if c.Bool("verbose") {
		o.Level = slog.LevelDebug
	}
	switch c.String("log-format") {
	case "text":
		return slog.New(slog.NewTextHandler(c.App.ErrWriter, o)), nil
	case "json":
		o.ReplaceAttr = inSeconds
		log := slog.New(slog.NewJSONHandler(c.App.ErrWriter, o))
		c.App.ErrWriter = &lineLog{log}
		return log, nil
	default:
		return nil, usagef("--log-format: want text or json")
	}
}

// inSeconds writes times as JSON has them elsewhere: 1.5, not 1500000000.
func inSeconds(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.Float64Value(a.Value.Duration().Seconds())
	}
	return a
}

// lineLog makes lines of the log of lines that are printed.
type lineLog struct{ log *slog.Logger }

// Write takes whole lines, as fmt.Fprintf writes them.
func (l *lineLog) Write(p []byte) (int, error) {
	for line := range bytes.Lines(p) {
		if line = bytes.TrimSpace(line); len(line) > 0 {
			l.log.Warn(string(line)) // such lines are never left out
		}
	}
	return len(p), nil
}
