// The status command.

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/sbcast/sbcast/client"
	"github.com/sbcast/sbcast/protocol"
)

const (
	// statusWait bounds one answer; daemons wait less for those below them.
	statusWait = 15 * time.Second
	// watchEvery is the time between two rounds, unless --watch says it.
	watchEvery = 2 * time.Second
	// watchLeast is the shortest that it can be.
	watchLeast = 100 * time.Millisecond
)

func statusCommand() *cli.Command {
	return &cli.Command{
		Name:  "status",
		Usage: "what a daemon and those below it are doing",
		UsageText: "sbcast status [--watch [SECONDS]] [--json] [--depth NUMBER] HOST[:PORT]\n\n" +
			"Of each push under way: how far it is, how fast, and what holds it up. Of each reader: the\n" +
			"same, how far behind it is, and where its time went. docs/operations.md says what that means.",
		Flags: append([]cli.Flag{
			&cli.BoolFlag{Name: "json", Usage: "a JSON object for each daemon"},
			&cli.GenericFlag{Name: "watch", Aliases: []string{"w"}, Value: &watchValue{}, Usage: fmt.Sprintf("again every `SECONDS` (%v), until it is interrupted", watchEvery.Seconds())},
			&cli.IntFlag{Name: "depth", Usage: "ask no more than `NUMBER` daemons below one another; 1 is HOST alone (default: all)"},
		}, clientFlags()...),
		Action: status,
	}
}

// watchValue is the flag --watch, with seconds or without.
type watchValue struct{ secondsValue }

// IsBoolFlag implements optionalValue.
func (*watchValue) IsBoolFlag() bool { return true }

func (*watchValue) takes(arg string) bool {
	_, err := strconv.ParseFloat(arg, 64)
	return err == nil
}

// Set implements flag.Value.
func (v *watchValue) Set(s string) error {
	if s == "true" { // without a value
		v.d = watchEvery
		return nil
	}
	if err := v.secondsValue.Set(s); err != nil {
		return err
	}
	if v.d < watchLeast {
		return fmt.Errorf("want %v seconds or more", watchLeast.Seconds())
	}
	return nil
}

func status(c *cli.Context) error {
	if c.NArg() != 1 {
		return usagef("status needs one HOST[:PORT]")
	}
	if c.Int("depth") < 0 {
		return usagef("--depth: want 1 or more")
	}
	session, err := clientSession(c)
	if err != nil {
		return err
	}
	cl, err := client.New(c.Args().First(), session)
	if err != nil {
		return usagef("HOST: %v", err)
	}
	defer cl.Close()
	var show view
	every := c.Generic("watch").(*watchValue).d
	switch {
	case c.Bool("json"):
		show = jsonView{c.App.Writer}
	case every > 0 && isTerminal(c.App.Writer):
		show = newLiveView(c.App.Writer, cl.Addr())
	default:
		show = &tableView{out: c.App.Writer, table: newTable(cl.Addr()), again: every > 0}
	}
	if every > 0 {
		return watchStatus(c.Context, cl, c.Int("depth"), show, every)
	}
	return askStatus(c.Context, cl, c.Int("depth"), show)
}

// view shows what daemons answer, round for round. Err is why there is not
// more of it.
type view interface {
	show(all []*protocol.Status, err error) error
}

// askStatus does one round.
func askStatus(ctx context.Context, cl *client.Client, depth int, v view) error {
	wait, cancel := context.WithTimeout(ctx, statusWait)
	defer cancel()
	all, err := cl.Status(wait, depth)
	if err != nil {
		err = fmt.Errorf("status of %s: %w", cl.Addr(), err)
	}
	var sig *signalError
	if errors.As(context.Cause(ctx), &sig) {
		return &exitError{code: sig.code()} // asked for: nothing to print
	}
	if failed := v.show(all, err); failed != nil {
		return failed
	}
	return err
}

// watchStatus does rounds until it is interrupted. A daemon that does not
// answer the first time is an error; later it may have gone to come back.
func watchStatus(ctx context.Context, cl *client.Client, depth int, v view, every time.Duration) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for round := 0; ; round++ {
		err := askStatus(ctx, cl, depth, v)
		var exit *exitError
		if err != nil && (round == 0 || errors.As(err, &exit)) || errors.Is(err, errOutput) {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// errOutput says that there is nowhere to show anything.
var errOutput = errors.New("cannot write")

// jsonView prints an object for each daemon.
type jsonView struct{ out io.Writer }

func (v jsonView) show(all []*protocol.Status, err error) error {
	enc := json.NewEncoder(v.out)
	if err != nil && len(all) == 0 {
		all = []*protocol.Status{{Error: err.Error()}}
	}
	for _, st := range all {
		if err := enc.Encode(st); err != nil {
			return fmt.Errorf("%w: %w", errOutput, err)
		}
	}
	return nil
}
