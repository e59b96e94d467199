// The push command.

package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/sbcast/sbcast/client"
	"github.com/sbcast/sbcast/protocol"
)

func pushCommand() *cli.Command {
	return &cli.Command{
		Name:      "push",
		Usage:     "send files to all readers behind HOST",
		ArgsUsage: "FILE... HOST[:PORT]",
		UsageText: "sbcast push [flags] FILE... HOST[:PORT]\n\nFILE - is standard input and needs --name. HOST is a broadcaster, or a reader;\nwithout a port it is " + client.DefaultPort + ". Flags may stand anywhere.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "replace files that exist"},
			&cli.BoolFlag{Name: "preserve", Aliases: []string{"p"}, Usage: "keep mode and modification time"},
			&cli.StringFlag{Name: "compress", Aliases: []string{"C"}, Value: "auto", Usage: "auto, lz4 or none"},
			&cli.GenericFlag{Name: "size", Aliases: []string{"s"}, Value: &sizeValue{n: client.DefaultChunkSize, max: protocol.MaxChunk}, Usage: "chunk `SIZE`: 256K, 1M, ..."},
			&cli.GenericFlag{Name: "timeout", Aliases: []string{"t"}, Value: &secondsValue{client.DefaultTimeout}, Usage: "give up after `SECONDS` without progress"},
			&cli.StringFlag{Name: "require", Value: "all", Usage: "readers that must have it: all, any or a number"},
			&cli.StringFlag{Name: "name", Usage: "`NAME` of the file at the readers (default: its own)"},
			&cli.StringFlag{Name: "digest", Value: string(protocol.DigestXXH128), Usage: "xxh128, sha256, blake3 or none"},
			&cli.GenericFlag{Name: "bwlimit", Value: &sizeValue{}, Usage: "at most `RATE` bytes a second: 10M, ..."},
			&cli.BoolFlag{Name: "dry-run", Aliases: []string{"n"}, Usage: "ask the readers whether they would take it, send nothing"},
			&cli.BoolFlag{Name: "json", Usage: "events and result on standard output, a JSON object a line"},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print errors only"},
			&cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Usage: "print what the readers do"},
		},
		Action: push,
	}
}

func push(c *cli.Context) error {
	opts, err := pushOptions(c)
	if err != nil {
		return err
	}
	paths := c.Args().Slice()
	if len(paths) < 2 {
		return usagef("push needs a FILE and a HOST: sbcast push FILE... HOST[:PORT]")
	}
	host := paths[len(paths)-1]
	paths = paths[:len(paths)-1]
	if opts.Name != "" && len(paths) > 1 {
		return usagef("--name goes with one file, not with %d", len(paths))
	}
	var sources []client.Source
	for _, path := range paths {
		src, err := source(path, opts.Name)
		if err != nil {
			newReporter(c).result(&summary{err: err}, 0)
			return err
		}
		sources = append(sources, src)
	}
	cl, err := client.New(host, agent())
	if err != nil {
		return usagef("HOST: %v", err)
	}
	defer cl.Close()

	out := newReporter(c)
	begun := time.Now()
	sum := &summary{}
	for _, src := range sources {
		show := out.begin(src, host)
		opts.OnProgress = show.progress
		receipts, err := cl.Push(c.Context, src, opts)
		if err != nil {
			err = fmt.Errorf("push %s to %s: %w", src.Name(), cl.Addr(), err)
		}
		show.end(receipts, err)
		sum.add(src.Name(), receipts, err)
		if c.Context.Err() != nil {
			break
		}
	}
	out.result(sum, time.Since(begun))
	return sum.err
}

func source(path, name string) (client.Source, error) {
	if path != "-" {
		return client.File(path)
	}
	if name == "" {
		return nil, usagef("standard input has no name: give it one with --name")
	}
	return client.Stream(os.Stdin, name), nil
}

func pushOptions(c *cli.Context) (o client.Options, err error) {
	o = client.Options{
		Name: c.String("name"), Force: c.Bool("force"), Preserve: c.Bool("preserve"),
		ChunkSize: int(sizeOf(c, "size")), Timeout: timeOf(c, "timeout"),
		BWLimit: sizeOf(c, "bwlimit"), DryRun: c.Bool("dry-run"),
	}
	if o.ChunkSize < 1 {
		return o, usagef("--size: want 1 byte to 4M")
	}
	if o.Require, err = protocol.ParsePolicy(c.String("require")); err != nil {
		return o, usagef("--require: %v", err)
	}
	if o.Compress, err = protocol.ParseCompression(c.String("compress")); err != nil {
		return o, usagef("--compress: %v", err)
	}
	if o.Digest, err = protocol.ParseDigestAlg(c.String("digest")); err != nil {
		return o, usagef("--digest: %v", err)
	}
	if o.Name != "" {
		if err := protocol.CheckName(o.Name); err != nil {
			return o, usagef("--name: %v", err)
		}
	}
	return o, nil
}

// summary is the outcome of all files of one push command.
type summary struct {
	files    int
	bytes    int64 // content, once for each file
	receipts []fileReceipt
	err      error // the worst
}

// fileReceipt is a receipt with the file it is about.
type fileReceipt struct {
	file string
	client.Receipt
}

func (s *summary) add(file string, receipts []client.Receipt, err error) {
	s.files++
	var most int64
	for _, r := range receipts {
		s.receipts = append(s.receipts, fileReceipt{file, r})
		if r.Status != protocol.LeafFailed {
			most = max(most, r.Bytes)
		}
	}
	s.bytes += most
	var partial *client.PartialError
	if s.err == nil || errors.As(s.err, &partial) && err != nil {
		s.err = err
	}
}
