// The reader command.

package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/urfave/cli/v2"

	"github.com/sbcast/sbcast/daemon"
	"github.com/sbcast/sbcast/daemon/sink"
	"github.com/sbcast/sbcast/protocol"
)

func readerCommand() *cli.Command {
	return &cli.Command{
		Name:  "reader",
		Usage: "store what is pushed",
		UsageText: "sbcast reader [flags] --sink SINK\n\nSINK is where files go:\n" +
			"  dir:PATH            files beneath a directory\n" +
			"  s3://BUCKET/PREFIX  objects of an S3 bucket; ?endpoint=https://HOST&region=REGION for others than AWS\n" +
			"  https://HOST/PATH/  a web server, with PUT or POST; http:// too\n" +
			"  youtube:            videos on YouTube, after sbcast youtube login\n" +
			"  exec:COMMAND        a command for each file, which gets it on standard input\n" +
			"  -                   standard output, one file at a time\n" +
			"  discard:            nowhere",
		Flags: append([]cli.Flag{
			listenFlag(readerPort, " (READER_HTTP_PORT sets the port)"),
			&cli.StringFlag{Name: "sink", Aliases: []string{"s"}, Usage: "where files go: `SINK`"},
			windowFlag("READER_BUFFER_SIZE"),
			memoryFlag(),
			&cli.GenericFlag{Name: "part-ttl", Value: &secondsValue{sink.DefaultPartTTL}, Usage: "`SECONDS` after which an unfinished file that nobody came back for is deleted"},
			fsyncFlag(),
			stateFlag(),
			&cli.BoolFlag{Name: "once", Usage: "end after one file, with exit code 0 if it was published"},
		}, slices.Concat(sinkFlags(), daemonFlags(), []cli.Flag{adminFlag()}, logFlags())...),
		Action: reader,
	}
}

func reader(c *cli.Context) error {
	if c.NArg() > 0 {
		return usagef("reader takes no arguments; did you mean --sink %s?", c.Args().First())
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
	addr, err := readerAddress(c)
	if err != nil {
		return err
	}
	fsync, err := fsyncOf(c)
	if err != nil {
		return err
	}
	if !c.IsSet("sink") {
		return usagef("reader needs --sink: dir:PATH, s3://BUCKET/PREFIX, https://HOST/PATH/, youtube:, exec:COMMAND, discard: or -")
	}
	kept := sink.Options{Output: c.App.Writer, PartTTL: timeOf(c, "part-ttl"), Fsync: fsync, State: stateDir(c)}
	if kept.HTTP, err = httpOptions(c); err != nil {
		return err
	}
	kept.YouTube = youtubeOptions(c)
	store, err := sink.Open(c.String("sink"), kept)
	if err != nil {
		return configError(err)
	}
	if s, ok := store.(io.Closer); ok {
		defer s.Close()
	}
	guard, err := newGuard(c, log)
	if err != nil {
		return err
	}
	admin, err := openAdmin(c)
	if err != nil {
		return err
	}
	ln, err := guard.listen(c.App.ErrWriter, "reader", addr, ", sink "+store.String())
	if err != nil {
		return err
	}
	opts := guard.options(daemon.Options{Agent: agent(), About: store.String(), Window: win, Memory: mem, Log: log})
	ctx := c.Context
	var once oneTransfer
	if c.Bool("once") {
		ctx, once.cancel = context.WithCancelCause(ctx)
		opts.OnTransfer = once.done
	}
	leaf := sink.NewLeaf(store)
	defer leaf.Close()
	s := daemon.NewServer(leaf, opts)
	modest()
	if b, ok := store.(interface{ Buffers() int64 }); ok && mem > 0 {
		mem += b.Buffers()
	}
	limitMemory(mem)
	services := map[service]net.Listener{s: ln}
	addAdmin(c, admin, services, log, "reader", s)
	return serve(ctx, services, guard.reloads()...)
}

func fsyncFlag() cli.Flag {
	return &cli.StringFlag{
		Name: "fsync", Value: string(sink.FsyncAlways),
		Usage: "`MODE` says when a directory syncs: always (content before a reader is ready, names before its receipt), commit (both after all are ready) or never (what was published may be lost with the power)",
	}
}

func fsyncOf(c *cli.Context) (sink.Fsync, error) {
	f, err := sink.ParseFsync(c.String("fsync"))
	if err != nil {
		return "", usagef("--fsync: %v", err)
	}
	return f, nil
}

func stateFlag() cli.Flag {
	return &cli.StringFlag{
		Name:  "state",
		Usage: "`DIR` for notes of uploads under way, which a restarted reader goes on with (default: STATE_DIRECTORY, as systemd sets it, or sbcast in the user's state directory)",
	}
}

// stateDir is where notes of uploads under way are kept, "" when the system
// does not say where such things go. It is made only for a sink that has any.
func stateDir(c *cli.Context) string {
	if c.IsSet("state") {
		return c.String("state")
	}
	if dir, _, _ := strings.Cut(os.Getenv("STATE_DIRECTORY"), string(os.PathListSeparator)); dir != "" { // there may be several
		return dir
	}
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "sbcast")
	}
	if home, err := os.UserHomeDir(); err == nil && runtime.GOOS != "windows" {
		return filepath.Join(home, ".local", "state", "sbcast")
	}
	if dir, err := os.UserCacheDir(); err == nil {
		return filepath.Join(dir, "sbcast")
	}
	return ""
}

// readerAddress is --listen, or its default with the port that the proof of
// concept took from the environment.
func readerAddress(c *cli.Context) (string, error) {
	port := os.Getenv("READER_HTTP_PORT")
	if c.IsSet("listen") || port == "" {
		return c.String("listen"), nil
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return "", configError(fmt.Errorf("READER_HTTP_PORT: %q is not a port", port))
	}
	return ":" + port, nil
}

// oneTransfer ends the daemon after the first transfer.
type oneTransfer struct {
	cancel context.CancelCauseFunc
	first  sync.Once
}

func (o *oneTransfer) done(receipts []protocol.Receipt, err error) {
	o.first.Do(func() {
		if err == nil && receipts[0].Status == protocol.LeafFailed {
			err = protocol.Errorf(receipts[0].Code, "%s", receipts[0].Text)
		}
		if err == nil {
			o.cancel(&exitError{code: 0})
			return
		}
		o.cancel(err)
	})
}
