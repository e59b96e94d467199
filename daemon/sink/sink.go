// Package sink holds the places where a reader puts files.
//
// A [Store] makes a [File] of each offer; [Leaf] turns any Store into the
// protocol.Sink that a daemon's server drives, and does what all stores need
// alike: decoding chunks, skipping what a file has already, hashing, and
// checking the digest. A new kind of store is one file in this package and
// one line in [Open].
//
// Every store has a step that it can hold back until the sender commits, so
// that a file is whole or absent: the rename of a directory, the completion of
// an upload, the end of input of a command.
package sink

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/sbcast/sbcast/protocol"
)

// Store is a place that keeps files. It is safe for concurrent use.
type Store interface {
	// Create decides on an offer. The File lives until ctx ends: when it does,
	// a Write under way is to return soon. Errors carry a protocol code where
	// the operating system's does not say it.
	Create(ctx context.Context, r Request) (File, Have, error)
	// String is the specification of the store, as given to Open.
	String() string
}

// serialStore is a Store that would rather have one file after the other, in
// the order of the push: one stream of output, a program for each.
type serialStore interface{ serial() }

// Request is an offer to a Store.
type Request struct {
	*protocol.Offer
	Prefix io.Writer         // gets the content that the File has already
	Tell   func(text string) // says what takes Create, or a Write, so long: nobody who tells is taken to be stuck
}

// Have is what a new File has of its content.
type Have struct {
	Offset    int64           // bytes from an earlier transfer
	Published bool            // all of it, under its name: there is nothing to do
	Digest    protocol.Digest // of what is published, if it is known
	Note      string          // what the user should know, such as why it starts again

	// ByCRC is set by a store that cannot read its content back into Prefix,
	// whatever Offset is. CRC is then the CRC32C of the first Offset bytes, and
	// the Leaf checks a resumed file by CRC32C. See goesOnByCRC.
	ByCRC bool
	CRC   uint32
}

// File is one file on its way into a Store. Its methods are called by one
// goroutine: Write, Stage, then Publish or Discard. Stage and Write may come
// again when a transfer that was cut off goes on. Discard may come at any time
// and is the last.
type File interface {
	// Write takes the next bytes of content.
	io.Writer
	// Stage makes all that was written durable, as far as the store can what has
	// no name yet, and not visible.
	Stage(ctx context.Context, digest protocol.Digest) error
	// Publish makes the file visible under its name, whole.
	Publish(ctx context.Context) (Published, error)
	// Discard gives the file up. With keep, what another transfer of the same
	// content could go on with stays.
	Discard(keep bool)
}

// Published says where a file is now.
type Published struct {
	Location  string
	Unchanged bool // it was there before, with the same content
}

// Options say how stores behave.
type Options struct {
	Output  io.Writer     // what the store - writes to
	PartTTL time.Duration // after which what is unfinished is deleted, here and elsewhere; 0: DefaultPartTTL
	Fsync   Fsync         // see DirOptions
	State   string        // directory for notes of uploads under way; "" keeps none
	HTTP    HTTPOptions
	YouTube YouTubeOptions
}

// Open opens the store that spec describes: dir:PATH, s3://BUCKET/PREFIX,
// http://HOST/PATH, https://HOST/PATH, youtube:, exec:COMMAND, discard: or -
// for standard output.
func Open(spec string, opts Options) (Store, error) {
	kind, rest, _ := strings.Cut(spec, ":")
	switch {
	case spec == "-":
		return newOutput(opts.Output), nil
	case kind == "discard" && rest == "":
		return discard{}, nil
	case kind == "exec":
		return newCommand(rest)
	case kind == "s3":
		return openS3(spec, opts)
	case kind == "http", kind == "https":
		return openHTTP(spec, opts.HTTP, opts.State)
	case kind == "youtube":
		return openYouTube(rest, opts)
	case kind == "dir":
		return OpenDir(rest, DirOptions{PartTTL: opts.PartTTL, Fsync: opts.Fsync})
	default:
		return nil, fmt.Errorf("unknown sink %q: want dir:PATH, s3://BUCKET/PREFIX, https://HOST/PATH, youtube:, exec:COMMAND, discard: or -", spec)
	}
}

// Failpoint is called at the steps of storing a file, which it names. Tests
// set it, before anything else runs, to end the process or to fail there.
var Failpoint = func(step string) error { return nil }

// discard is the store that checks content and keeps nothing.
type discard struct{}

func (discard) Create(context.Context, Request) (File, Have, error) { return discarded{}, Have{}, nil }

func (discard) String() string { return "discard:" }

type discarded struct{}

func (discarded) Write(p []byte) (int, error) { return len(p), nil }

func (discarded) Stage(context.Context, protocol.Digest) error { return nil }

func (discarded) Publish(context.Context) (Published, error) {
	return Published{Location: "discard:"}, nil
}

func (discarded) Discard(bool) {}
