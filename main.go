// Command sbcast sends one file, of any size, to many places at once.
//
// Package main is the command line and nothing else: flags become Options,
// signals end contexts, errors become exit codes. Each command has a file of
// its own.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/sbcast/sbcast/protocol"
)

func main() { os.Exit(run(os.Args)) }

// version is set by the linker in releases.
var version = ""

// agent is what peers are told of this end.
func agent() string { return "sbcast/" + versionString() }

func versionString() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return strings.TrimPrefix(info.Main.Version, "v")
	}
	return "0.1.0-dev"
}

// run is main with its arguments and without the exit.
func run(args []string) int {
	app := newApp()
	if completing(args) {
		return report(os.Stderr, complete(app, args))
	}
	if err := noCommand(app, args[1:]); err != nil {
		return report(os.Stderr, err)
	}
	ctx, stop := signalContext()
	defer stop()
	err := app.RunContext(ctx, permute(app, args))
	return report(app.ErrWriter, err) // which --log-format may have replaced
}

func newApp() *cli.App {
	app := &cli.App{
		Name:                 "sbcast",
		Usage:                "send one file to many places at once",
		UsageText:            "sbcast COMMAND [flags] [arguments]\n\n   sbcast push FILE... HOST     send files to all readers of a broadcaster\n   sbcast dev                   a broadcaster and two readers to try it with",
		Version:              versionString(),
		HideVersion:          true, // there is a command for it, and -v is push's
		HideHelpCommand:      true,
		EnableBashCompletion: true,
		Writer:               os.Stdout,
		ErrWriter:            os.Stderr,
		ExitErrHandler:       func(*cli.Context, error) {}, // report does it
		OnUsageError:         usageError,
		Commands: []*cli.Command{
			pushCommand(), broadcasterCommand(), readerCommand(), devCommand(),
			statusCommand(), ncCommand(), caCommand(), youtubeCommand(), versionCommand(), manCommand(), completionCommand(),
		},
	}
	for _, c := range app.Commands {
		c.HideHelpCommand = true
		c.OnUsageError = usageError
	}
	app.Setup()
	return app
}

func versionCommand() *cli.Command {
	return &cli.Command{
		Name:  "version",
		Usage: "print the version",
		Action: func(c *cli.Context) error {
			fmt.Fprintln(c.App.Writer, "sbcast", versionString())
			return nil
		},
	}
}

// noCommand answers arguments that do not begin with a command, above all the
// form of Slurm's command of the same name.
func noCommand(app *cli.App, args []string) error {
	var words []string
	for _, arg := range args {
		if !strings.HasPrefix(arg, "-") {
			words = append(words, arg)
		}
	}
	switch {
	case len(args) == 0:
		cli.HelpPrinter(app.ErrWriter, cli.AppHelpTemplate, app)
		return &exitError{code: exitUsage}
	case app.Command(args[0]) != nil, args[0] == "--help", args[0] == "-h":
		return nil
	case len(words) > 1:
		return usagef("that looks like Slurm's sbcast SRC DEST; this sbcast is another program, which pushes files to readers: "+
			"sbcast push %s HOST sends it to the readers behind HOST, which know where to put it", words[len(words)-2])
	default:
		return usagef("no command %q; sbcast --help lists them", args[0])
	}
}

func usageError(c *cli.Context, err error, _ bool) error {
	text := err.Error()
	if flag, ok := strings.CutPrefix(text, "flag provided but not defined: "); ok {
		return usagef("unknown flag %s; sbcast %s --help lists them", flag, c.Command.Name)
	}
	if strings.Contains(text, "from environment variable") {
		return configError(err)
	}
	return usagef("%s", strings.NewReplacer("for flag -", "for flag --", "invalid boolean value", "invalid value", " for -", " for --").Replace(text))
}

// signalContext ends with the cause of the first signal; a second one ends the
// process at once.
func signalContext() (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	done := make(chan struct{})
	go func() {
		select {
		case s := <-signals:
			cancel(&signalError{s})
		case <-done:
			return
		}
		select {
		case s := <-signals:
			os.Exit((&signalError{s}).code())
		case <-done:
		}
	}()
	return ctx, func() { signal.Stop(signals); close(done); cancel(nil) }
}

// signalError is the cause of a context that a signal ended.
type signalError struct{ os.Signal }

func (e *signalError) Error() string { return e.String() }

// Unwrap makes an interrupt take a push back; SIGTERM leaves what helps to resume.
func (e *signalError) Unwrap() error {
	if e.Signal == os.Interrupt {
		return protocol.ErrForget
	}
	return nil
}

func (e *signalError) code() int {
	if e.Signal == syscall.SIGTERM {
		return 143
	}
	return 130
}

// report prints err, if it has something to say, and returns the exit code.
func report(w io.Writer, err error) int {
	if err == nil {
		return 0
	}
	var quiet *exitError
	if !errors.As(err, &quiet) || quiet.err != nil {
		fmt.Fprintf(w, "sbcast: %s\n", strings.Join(strings.Fields(printable(err.Error())), " "))
	}
	return exitCode(err)
}

// printable quotes what could do something to a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		if r < 0x20 || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}
