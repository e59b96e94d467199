// What `make install` puts beside the binary: the man page and completions.
// Both come from the commands themselves, so they never say something else.

package main

import (
	"embed"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// askForWords is the last argument with which the shells' scripts ask sbcast
// itself what may come next.
const askForWords = "--generate-bash-completion"

//go:embed scripts/completions/*
var completions embed.FS

// shells are those that sbcast completes words in, and the files with how.
var shells = map[string]string{"bash": "sbcast.bash", "zsh": "_sbcast", "fish": "sbcast.fish"}

// completing is whether args ask for the words that may come next.
func completing(args []string) bool { return len(args) > 1 && args[len(args)-1] == askForWords }

// complete prints the words that may come next. The arguments are for cli as
// they stand: a flag that is being written has no place yet. But cli would run
// a command that has "--" in it: that is a flag at its very beginning, or else
// the end of all flags, after which there is nothing to offer.
func complete(app *cli.App, args []string) error {
	args = slices.Clone(args)
	if last := len(args) - 2; args[last] == "--" {
		args[last] = "-"
	}
	if slices.Contains(args, "--") {
		return nil
	}
	return app.Run(args)
}

func completionCommand() *cli.Command {
	return &cli.Command{
		Name:      "completion",
		Usage:     "print the script that completes sbcast's words in a shell",
		UsageText: "sbcast completion bash|zsh|fish\n\nIn bash: source <(sbcast completion bash)",
		Hidden:    true,
		Action: func(c *cli.Context) error {
			file := shells[c.Args().First()]
			if file == "" || c.NArg() != 1 {
				return usagef("completion needs one of bash, zsh, fish")
			}
			script, err := completions.ReadFile("scripts/completions/" + file)
			if err == nil {
				_, err = c.App.Writer.Write(script)
			}
			return err
		},
	}
}

func manCommand() *cli.Command {
	return &cli.Command{
		Name:      "man",
		Usage:     "print the man page",
		UsageText: "sbcast man",
		Hidden:    true,
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return usagef("man takes no arguments")
			}
			return writeMan(c.App)
		},
	}
}

// writeMan writes the man page, in section 1, with what the commands know of
// themselves and what is true of all of them.
func writeMan(app *cli.App) error {
	page, err := app.ToManWithSection(1)
	if err != nil {
		return fmt.Errorf("make the man page: %w", err)
	}
	page = strings.NewReplacer(
		".TH sbcast 1\n", fmt.Sprintf(".TH sbcast 1 \"\" \"sbcast %s\"\n", app.Version),
		`\fP="": `, `\fP \fIVALUE\fP: `,
	).Replace(page)
	_, err = io.WriteString(app.Writer, page+manTail)
	return err
}

// manTail is the end of the man page.
const manTail = `
.SH EXIT STATUS
.TP
0
all readers have the file
.TP
1
not published: the policy was not met
.TP
3
the policy was met, and some readers failed
.TP
64, 66, 78
wrong arguments, no such file, wrong configuration
.TP
65, 74
the content is not what the source said, the source could not be read
.TP
69, 75, 76, 77
HOST unreachable, try again later, protocol mismatch, not authorised
.TP
130, 143
interrupted (the readers forget the push), terminated (they keep what they have)
.SH FILES
.TP
/etc/sbcast/broadcaster.env, /etc/sbcast/reader.env
options of the systemd units
.TP
/var/lib/sbcast/files
where the reader's unit stores, unless told otherwise
.SH SEE ALSO
.BR systemctl (1),
.BR rsync (1),
https://github.com/sbcast/sbcast
`
