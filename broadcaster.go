// The broadcaster command.

package main

import (
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/sbcast/sbcast/client"
	"github.com/sbcast/sbcast/daemon"
	"github.com/sbcast/sbcast/protocol"
)

// readerPort is the port of a reader that is given without one.
const readerPort = "7001"

func broadcasterCommand() *cli.Command {
	return &cli.Command{
		Name:  "broadcaster",
		Usage: "pass what is pushed on to readers",
		UsageText: "sbcast broadcaster [flags] --reader HOST[:PORT] ...\n\nA reader may be another broadcaster. NAME=HOST:PORT gives it a name for receipts.\n" +
			"BROADCASTER_HOST_LIST='HOST:PORT;HOST:PORT' works in place of --reader.",
		Flags: append(append([]cli.Flag{
			listenFlag(client.DefaultPort, ""),
			&cli.StringSliceFlag{Name: "reader", Aliases: []string{"r"}, Usage: "`[NAME=]HOST[:PORT]` of a reader; once for each (without a port: " + readerPort + ")"},
			windowFlag("BROADCASTER_BUFFER_SIZE"),
			memoryFlag(),
			&cli.GenericFlag{Name: "stall-timeout", Value: &secondsValue{daemon.DefaultStall}, Usage: "`SECONDS` without progress after which a reader has failed"},
			&cli.GenericFlag{Name: "lag-timeout", Value: &secondsValue{daemon.DefaultLag}, Usage: "`SECONDS` a slow reader may hold the others up, where --require can do without, before it is fed after them"},
		}, gatewayFlags("")...), append(append(daemonFlags(), adminFlag()), logFlags()...)...),
		Action: broadcaster,
	}
}

func broadcaster(c *cli.Context) error {
	if c.NArg() > 0 {
		return usagef("broadcaster takes no arguments; did you mean --reader %s?", c.Args().First())
	}
	log, err := newLog(c)
	if err != nil {
		return err
	}
	win, err := window(c, log)
	if err != nil {
		return err
	}
	mem, err := memory(c, 1)
	if err != nil {
		return err
	}
	guard, err := newGuard(c, log)
	if err != nil {
		return err
	}
	http, err := parseHTTP(c, "")
	if err != nil {
		return err
	}
	hops, err := hops(c.StringSlice("reader"), guard.session(win))
	if err != nil {
		return err
	}
	fanout, err := daemon.NewFanout(hops, daemon.FanoutOptions{Stall: timeOf(c, "stall-timeout"), Lag: timeOf(c, "lag-timeout"), Log: log})
	if err != nil {
		return usagef("%v: --reader HOST:PORT, or BROADCASTER_HOST_LIST", err)
	}
	defer fanout.Close()
	admin, err := openAdmin(c)
	if err != nil {
		return err
	}
	ln, err := guard.listen(c.App.ErrWriter, "broadcaster", c.String("listen"), fmt.Sprintf(" for %d readers", len(hops)))
	if err != nil {
		return err
	}
	s := daemon.NewServer(fanout, guard.options(daemon.Options{Agent: agent(), About: "fanout", Window: win, Memory: mem, Log: log}))
	limitMemory(mem)
	modest()
	fanout.Connect()
	services := map[service]net.Listener{s: ln}
	if _, err := addGateway(c, guard, http, services, s, log); err != nil {
		return err
	}
	addAdmin(c, admin, services, log, "broadcaster", s, fanout)
	return serve(c.Context, services, guard.reloads()...)
}

// hops makes the hops to readers, from flags or else from the environment.
func hops(readers []string, session protocol.SessionConfig) ([]*daemon.Hop, error) {
	bad := func(err error) error { return usagef("--reader: %v", err) }
	if len(readers) == 0 {
		bad = func(err error) error { return configError(fmt.Errorf("BROADCASTER_HOST_LIST: %w", err)) }
		for _, r := range strings.Split(os.Getenv("BROADCASTER_HOST_LIST"), ";") {
			if r = strings.TrimSpace(r); r != "" {
				readers = append(readers, r)
			}
		}
	}
	var all []*daemon.Hop
	for _, r := range readers {
		name, addr, err := daemon.ParseHop(r, readerPort)
		if err != nil {
			return nil, bad(err)
		}
		all = append(all, daemon.NewHop(name, protocol.NewDialer(addr, session)))
	}
	return all, nil
}
