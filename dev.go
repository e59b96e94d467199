// The dev command: a whole system in one process.

package main

import (
	"fmt"
	"net"
	"path/filepath"
	"strconv"

	"github.com/urfave/cli/v2"

	"github.com/sbcast/sbcast/client"
	"github.com/sbcast/sbcast/daemon"
	"github.com/sbcast/sbcast/daemon/sink"
	"github.com/sbcast/sbcast/protocol"
)

func devCommand() *cli.Command {
	return &cli.Command{
		Name:      "dev",
		Usage:     "a broadcaster and readers in one process, on loopback, to try it",
		UsageText: "sbcast dev [--dir DIR] [--readers N]\n\nReader I stores in DIR/reader-I. Push to it with: sbcast push FILE localhost",
		Flags: append(append([]cli.Flag{
			&cli.StringFlag{Name: "listen", Aliases: []string{"l"}, Value: "127.0.0.1:" + client.DefaultPort, Usage: "`ADDRESS` of the broadcaster"},
			&cli.StringFlag{Name: "dir", Value: "sbcast-dev", Usage: "`DIR` for the files"},
			&cli.IntFlag{Name: "readers", Value: 2, Usage: "`NUMBER` of readers"},
			windowFlag("BROADCASTER_BUFFER_SIZE"),
			memoryFlag(),
			fsyncFlag(),
		}, gatewayFlags(devGateway)...), logFlags()...),
		Action: dev,
	}
}

func dev(c *cli.Context) error {
	log, err := newLog(c)
	if err != nil {
		return err
	}
	win, err := window(c, log)
	if err != nil {
		return err
	}
	fsync, err := fsyncOf(c)
	if err != nil {
		return err
	}
	n := c.Int("readers")
	if n < 1 || n > 1000 || c.NArg() > 0 {
		return usagef("dev takes --dir and --readers, 1 to 1000")
	}
	http, err := parseHTTP(c, devGateway)
	if err != nil {
		return err
	}
	mem, err := memory(c, int64(n)+1)
	if err != nil {
		return err
	}
	limitMemory(mem * (int64(n) + 1))
	servers := map[service]net.Listener{}
	var hops []*daemon.Hop
	for i := 1; i <= n; i++ {
		name := "reader-" + strconv.Itoa(i)
		store, err := sink.OpenDir(filepath.Join(c.String("dir"), name), sink.DirOptions{Fsync: fsync})
		if err != nil {
			return configError(err)
		}
		ln, err := guard{}.listen(c.App.ErrWriter, name, "127.0.0.1:0", ", sink "+store.String())
		if err != nil {
			return err
		}
		defer ln.Close()
		leaf := sink.NewLeaf(store)
		s := daemon.NewServer(leaf, daemon.Options{Agent: agent(), About: store.String(), Window: win, Memory: mem, Log: log.With("daemon", name)})
		defer leaf.Close()
		servers[s] = ln
		hops = append(hops, daemon.NewHop(name, protocol.NewDialer(ln.Addr().String(), protocol.SessionConfig{Agent: agent(), Window: win})))
	}
	fanout, err := daemon.NewFanout(hops, daemon.FanoutOptions{Log: log})
	if err != nil {
		return err
	}
	defer fanout.Close()
	ln, err := guard{}.listen(c.App.ErrWriter, "broadcaster", c.String("listen"), fmt.Sprintf(" for %d readers", n))
	if err != nil {
		return err
	}
	s := daemon.NewServer(fanout, daemon.Options{Agent: agent(), About: "fanout", Window: win, Memory: mem, Log: log.With("daemon", "broadcaster")})
	servers[s] = ln
	page, err := addGateway(c, guard{}, http, servers, s, log.With("daemon", "gateway"))
	if err != nil {
		return err
	}
	fmt.Fprintf(c.App.ErrWriter, "try it: sbcast push FILE %s\n", ln.Addr())
	if page != "" {
		fmt.Fprintf(c.App.ErrWriter, "    or: open http://%s/\n", page)
	}
	fanout.Connect()
	return serve(c.Context, servers)
}
