// The push command.

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
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
		UsageText: "sbcast push [flags] FILE... HOST[:PORT]\n\nFILE - is standard input and needs --name. HOST is a broadcaster, or a reader;\nwithout a port it is " + client.DefaultPort + ". Flags may stand anywhere.\n\n" +
			"Several files go over one connection, many small ones at once. One that fails does\nnot hold up the others; the exit code is that of the first file that was not published,\nor 3 if all were published and some readers failed. For more files than fit on a command\nline, and to keep their directories: find DIR -type f | sbcast push -R --files-from - HOST",
		Flags: append([]cli.Flag{
			&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "replace files that exist"},
			&cli.BoolFlag{Name: "preserve", Aliases: []string{"p"}, Usage: "keep mode and modification time"},
			&cli.StringFlag{Name: "compress", Aliases: []string{"C"}, Value: "auto", Usage: "auto, lz4 or none"},
			&cli.GenericFlag{Name: "size", Aliases: []string{"s"}, Value: &sizeValue{max: protocol.MaxChunk}, Usage: "chunk `SIZE` (default: 256K, or 1M while readers take 64 MiB/s or more)"},
			&cli.GenericFlag{Name: "timeout", Aliases: []string{"t"}, Value: &secondsValue{client.DefaultTimeout}, Usage: "give up after `SECONDS` without progress"},
			&cli.StringFlag{Name: "require", Value: "all", Usage: "readers that must have it: all, any or a number"},
			&cli.StringFlag{Name: "name", Usage: "`NAME` of the file at the readers (default: its own)"},
			&cli.StringFlag{Name: "digest", Value: string(protocol.DigestXXH128), Usage: "xxh128, sha256, blake3 or none"},
			&cli.GenericFlag{Name: "bwlimit", Value: &sizeValue{}, Usage: "at most `RATE` bytes a second: 10M, ..."},
			&cli.StringFlag{Name: "files-from", Usage: "push the files that `LIST` names too, a path a line; - is standard input"},
			&cli.BoolFlag{Name: "relative", Aliases: []string{"R"}, Usage: "files keep their directories: a/b/f is a/b/f at the readers, not f"},
			&cli.IntFlag{Name: "parallel", Value: client.DefaultParallel, Usage: "`NUMBER` of files under way at once; large files count for more: at most two of those"},
			&cli.BoolFlag{Name: "dry-run", Aliases: []string{"n"}, Usage: "ask the readers whether they would take it, send nothing"},
			&cli.BoolFlag{Name: "json", Usage: "events and result on standard output, a JSON object a line"},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print errors only"},
			&cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Usage: "print what the readers do"},
		}, clientFlags()...),
		Action: push,
	}
}

func push(c *cli.Context) error {
	opts, err := pushOptions(c)
	if err != nil {
		return err
	}
	args := c.Args().Slice()
	if len(args) < 2 && (len(args) == 0 || !c.IsSet("files-from")) {
		return usagef("push needs a FILE and a HOST: sbcast push FILE... HOST[:PORT]")
	}
	host := args[len(args)-1]
	sources, err := sources(args[:len(args)-1], c.String("files-from"), naming{string(opts.Name), c.Bool("relative")})
	if err != nil {
		newReporter(c, nil, host).result(&summary{err: err}, 0)
		return err
	}
	session, err := clientSession(c)
	if err != nil {
		return err
	}
	cl, err := client.New(host, session)
	if err != nil {
		return usagef("HOST: %v", err)
	}
	defer cl.Close()

	begun := time.Now()
	p := &pushes{sources: sources, to: cl.Addr(), out: newReporter(c, sources, host), shows: map[int]display{}}
	if len(sources) > 1 {
		defer floorHeap()()
	}
	cl.PushAll(c.Context, sources, opts, p)
	p.sum.settle(context.Cause(c.Context), len(sources))
	p.out.result(&p.sum, time.Since(begun))
	return p.sum.err
}

// pushes passes what becomes of each file on to a reporter.
type pushes struct {
	sources []client.Source
	to      string
	out     reporter
	shows   map[int]display // of the pushes that End was not told of
	sum     summary
}

func (p *pushes) Begin(i int) func(client.Progress) {
	show := p.out.begin(p.sources[i])
	p.shows[i] = show
	return show.progress
}

func (p *pushes) End(i int, receipts []client.Receipt, err error) {
	name := p.sources[i].Name()
	if err != nil {
		err = fmt.Errorf("push %s to %s: %w", name, p.to, err)
	}
	p.shows[i].end(receipts, err)
	delete(p.shows, i)
	p.sum.add(name, receipts, err)
}

// sources are the files to push: those on the command line, then those that
// the file list names. They have different names at the readers.
func sources(paths []string, list string, names naming) ([]client.Source, error) {
	if list == "-" && slices.Contains(paths, "-") {
		return nil, usagef("standard input cannot be a file and --files-from at once")
	}
	if i := slices.Index(paths, "-"); i >= 0 && slices.Contains(paths[i+1:], "-") {
		return nil, usagef("standard input can be pushed once")
	}
	if names.one != "" && names.relative {
		return nil, usagef("--name and --relative both say what a file is called: give one of them")
	}
	if names.one != "" && len(paths) > 1 {
		return nil, usagef("--name goes with one file, not with %d", len(paths))
	}
	var all []client.Source
	for _, path := range paths {
		src, err := names.source(path)
		if err != nil {
			return nil, err
		}
		all = append(all, src)
	}
	if list != "" {
		paths, err := readList(list)
		if err != nil {
			return nil, err
		}
		for _, path := range paths {
			src, err := names.file(path)
			if err != nil {
				return nil, err
			}
			all = append(all, src)
		}
	}
	if names.one != "" && len(all) > 1 {
		return nil, usagef("--name goes with one file, not with %d", len(all))
	}
	seen := make(map[string]bool, len(all))
	for _, src := range all {
		if seen[src.Name()] {
			return nil, usagef("two files would be called %q at the readers: keep their directories with --relative, or push one of them by itself, with --name", src.Name())
		}
		seen[src.Name()] = true
	}
	return all, nil
}

// readList reads the paths in a file, one a line; empty lines do not count.
func readList(list string) (paths []string, err error) {
	r := os.Stdin
	if list != "-" {
		if r, err = os.Open(list); err != nil {
			return nil, &client.InputError{Err: fmt.Errorf("--files-from: %w", err), Missing: errors.Is(err, fs.ErrNotExist)}
		}
		defer r.Close()
	}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if path := strings.TrimSuffix(lines.Text(), "\r"); path != "" {
			paths = append(paths, path)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, &client.InputError{Err: fmt.Errorf("--files-from %s: %w", list, err)}
	}
	if len(paths) == 0 {
		return nil, &client.InputError{Err: fmt.Errorf("--files-from %s names no files", list), Missing: true}
	}
	return paths, nil
}

// naming is what files are called at the readers: the last part of their path,
// unless the user says otherwise.
type naming struct {
	one      string // "" or the name of the only file
	relative bool   // the whole path
}

func (n naming) source(path string) (client.Source, error) {
	if path != "-" {
		return n.file(path)
	}
	if n.one == "" {
		return nil, usagef("standard input has no name: give it one with --name")
	}
	return client.Stream(os.Stdin, n.one), nil
}

func (n naming) file(path string) (client.Source, error) {
	if !n.relative {
		return client.File(path)
	}
	name := filepath.Clean(path)
	if !filepath.IsLocal(name) {
		return nil, usagef("--relative: %s is not below this directory: cd to where its name is to begin", path)
	}
	return client.FileAs(path, filepath.ToSlash(name))
}

func pushOptions(c *cli.Context) (o client.Options, err error) {
	o = client.Options{
		Force: c.Bool("force"), Preserve: c.Bool("preserve"),
		ChunkSize: int(sizeOf(c, "size")), Timeout: timeOf(c, "timeout"),
		BWLimit: sizeOf(c, "bwlimit"), DryRun: c.Bool("dry-run"), Parallel: c.Int("parallel"),
	}
	if o.Parallel < 1 {
		return o, usagef("--parallel: want 1 or more")
	}
	if c.IsSet("size") && o.ChunkSize < 1 {
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
	if name := c.String("name"); name != "" {
		if o.Name, err = protocol.ParseName(name); err != nil {
			return o, usagef("--name: %v", err)
		}
	}
	return o, nil
}

// summary is the outcome of all files of one push command.
type summary struct {
	files    int
	failed   int   // files with an error of their own
	bytes    int64 // content, once for each file
	receipts []fileReceipt
	err      error // the worst
}

// fileReceipt is a receipt with the file it is about.
type fileReceipt struct {
	file string
	client.Receipt
}

// add takes the outcome of a file. The worst error is the first, unless that
// one met its policy and a later one did not.
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
	if err == nil {
		return
	}
	s.failed++
	var partial *client.PartialError
	if s.err == nil || errors.As(s.err, &partial) && !errors.As(err, &partial) {
		s.err = err
	}
}

// settle says in the error what else there is: files that were not begun when
// cause ended the push, and files with other errors.
func (s *summary) settle(cause error, files int) {
	var partial *client.PartialError
	switch {
	case s.files < files && (s.err == nil || errors.As(s.err, &partial)):
		s.err = fmt.Errorf("push: %w: %d of %d files were not begun", cause, files-s.files, files)
	case s.failed > 1:
		s.err = fmt.Errorf("%w (and %d more of %d files had errors)", s.err, s.failed-1, files)
	}
}
