// The ca command: certificates and tokens.

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/sbcast/sbcast/protocol"
	"github.com/sbcast/sbcast/protocol/ca"
)

func caCommand() *cli.Command {
	return &cli.Command{
		Name:  "ca",
		Usage: "make certificates and tokens, so that daemons know who they talk to",
		UsageText: "sbcast ca init DIR\nsbcast ca issue DIR NAME --role client|broadcaster|reader [--host HOST,...] [--days N]\nsbcast ca token DIR NAME [--scope push|status]\n\n" +
			"init makes an authority, DIR/ca.pem; keep DIR/ca-key.pem to yourself. issue makes\nDIR/NAME.pem and DIR/NAME-key.pem. token makes DIR/NAME.token, for a client without\na certificate, and adds it to DIR/tokens, for the daemons that let it in.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "role", Usage: "of a certificate: client (may push), reader (may take) or broadcaster (both)"},
			&cli.StringSliceFlag{Name: "host", Usage: "`NAME` or address that a daemon is reached by; several with commas"},
			&cli.IntFlag{Name: "days", Value: int(ca.DefaultLife.Hours() / 24), Usage: "`NUMBER` of days that a certificate is good for"},
			&cli.StringFlag{Name: "scope", Value: string(protocol.ScopePush), Usage: "of a token: push, or status only"},
		},
		Action: caAction,
	}
}

func caAction(c *cli.Context) error {
	args := c.Args().Slice()
	want := map[string]int{"init": 2, "issue": 3, "token": 3}
	if len(args) == 0 || want[args[0]] != len(args) {
		return usagef("want ca init DIR, ca issue DIR NAME --role ROLE or ca token DIR NAME")
	}
	dir := args[1]
	switch args[0] {
	case "init":
		if err := ca.Init(dir); err != nil {
			return err
		}
		fmt.Fprintf(c.App.Writer, "%s: trust it everywhere (--tls-ca); its key stays here\n", filepath.Join(dir, "ca.pem"))
		return nil
	case "issue":
		if c.Int("days") < 1 {
			return usagef("--days: want 1 or more")
		}
		name := args[2]
		if err := ca.Issue(dir, name, ca.Role(c.String("role")), c.StringSlice("host"), 24*time.Hour*time.Duration(c.Int("days"))); err != nil {
			return usagef("ca issue: %v", err)
		}
		path := filepath.Join(dir, name)
		fmt.Fprintf(c.App.Writer, "--tls-cert %s.pem --tls-key %s-key.pem --tls-ca %s\n", path, path, filepath.Join(dir, "ca.pem"))
		return nil
	default:
		scope, err := protocol.ParseScope(c.String("scope"))
		if err != nil {
			return usagef("--scope: %v", err)
		}
		return makeToken(c, dir, args[2], scope)
	}
}

// makeToken writes a client's token, and adds what lets it in to the tokens.
func makeToken(c *cli.Context, dir, name string, scope protocol.Scope) error {
	token, line, err := protocol.NewToken(name, scope)
	if err == nil && filepath.Base(name) != name {
		err = fmt.Errorf("%q is no name of a file", name)
	}
	if err != nil {
		return usagef("ca token: %v", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	path := filepath.Join(dir, name+".token")
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("ca token: %w; a token is made once: take the line of %s out of %s to be rid of it", err, name, filepath.Join(dir, "tokens"))
	}
	_, err = f.WriteString(token + "\n")
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	tokens, err := os.OpenFile(filepath.Join(dir, "tokens"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = tokens.WriteString(line)
	if err = errors.Join(err, tokens.Close()); err != nil {
		return err
	}
	fmt.Fprintf(c.App.Writer, "%s for the client (--token-file); %s lets it in, for daemons (--token-file)\n", path, filepath.Join(dir, "tokens"))
	return nil
}
