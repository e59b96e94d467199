// Package sink holds the places where a reader puts files.
//
// A [Store] makes a [File] of each offer; [Leaf] turns any Store into the
// protocol.Sink that a daemon's server drives, and does what all stores need
// alike: decoding chunks, skipping what a file has already, hashing, and
// checking the digest. A new kind of store is one file in this package and
// one line in [Open].
//
// Every store has a step that it can hold back until the sender commits, so
// that a file is whole or absent: the rename of a directory, the end of input
// of a command.
package sink

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/sbcast/sbcast/protocol"
)

// Store is a place that keeps files. It is safe for concurrent use.
type Store interface {
	// Create decides on an offer. The File lives until ctx ends: when it does,
	// a Write under way is to return soon. Errors carry a protocol code where
	// the operating system's does not say it.
	Create(ctx context.Context, offer *protocol.Offer) (File, error)
	// String is the specification of the store, as given to Open.
	String() string
}

// File is one file on its way into a Store. Its methods are called by one
// goroutine, in order: Write, Stage, then Publish or Discard. Discard may come
// at any time and is the last.
type File interface {
	// Write takes the next bytes of content.
	io.Writer
	// Stage makes all that was written durable, and not visible.
	Stage(ctx context.Context) error
	// Publish makes the file visible under its name, whole.
	Publish(ctx context.Context) (Published, error)
	// Discard forgets the file.
	Discard()
}

// Published says where a file is now.
type Published struct {
	Location  string
	Unchanged bool // it was there before, with the same content
}

// Open opens the store that spec describes: dir:PATH, exec:COMMAND, discard:
// or - for standard output, which is out.
func Open(spec string, out io.Writer) (Store, error) {
	kind, rest, _ := strings.Cut(spec, ":")
	switch {
	case spec == "-":
		return newOutput(out), nil
	case kind == "discard" && rest == "":
		return discard{}, nil
	case kind == "exec":
		return newCommand(rest)
	case kind == "dir":
		return OpenDir(rest)
	default:
		return nil, fmt.Errorf("unknown sink %q: want dir:PATH, exec:COMMAND, discard: or -", spec)
	}
}

// discard is the store that checks content and keeps nothing.
type discard struct{}

func (discard) Create(context.Context, *protocol.Offer) (File, error) { return discarded{}, nil }

func (discard) String() string { return "discard:" }

type discarded struct{}

func (discarded) Write(p []byte) (int, error) { return len(p), nil }

func (discarded) Stage(context.Context) error { return nil }

func (discarded) Publish(context.Context) (Published, error) {
	return Published{Location: "discard:"}, nil
}

func (discarded) Discard() {}
