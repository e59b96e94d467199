// Package client pushes content to a daemon: one call, [Push], from a
// [Source] to the receipts of all readers behind the daemon.
//
//	src, err := client.File("video.mp4")
//	receipts, err := client.Push(ctx, src, client.Options{Host: "broadcaster"})
//
// A [Client] does the same for many sources over one session, several at once.
package client

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/time/rate"

	"github.com/sbcast/sbcast/protocol"
)

// DefaultPort is the port of a HOST without one: a broadcaster's.
const DefaultPort = "7000"

// Defaults of Options.
const (
	DefaultChunkSize = 256 << 10
	LargeChunkSize   = 1 << 20 // while the readers take 64 MiB/s and more, see pace
	DefaultTimeout   = 60 * time.Second
)

// Receipt is the final word of one reader.
type Receipt = protocol.Receipt

// Options say how to push. The zero value of everything but Host is good.
type Options struct {
	Host      string               // HOST or HOST:PORT of a broadcaster or reader
	Agent     string               // software and version, told to the daemon
	Name      protocol.Name        // of the file at the readers; "": the source's
	Force     bool                 // replace existing files
	Preserve  bool                 // keep permission bits and modification time
	Require   protocol.Policy      // which readers must have it; zero: all
	Compress  protocol.Compression // "": auto
	Digest    protocol.DigestAlg   // "": xxh128
	ChunkSize int                  // content bytes in a chunk; 0: DefaultChunkSize, or LargeChunkSize while the readers take much. The daemon may ask for less.
	Timeout   time.Duration        // without progress, after which to give up; 0: DefaultTimeout
	BWLimit   int64                // content bytes a second at most; 0: no limit
	DryRun    bool                 // ask the readers whether they would take it, send nothing
	Parallel  int                  // pushes of PushAll at once at most; 0: DefaultParallel

	// OnProgress is told how the push does, about ten times a second and at
	// every change of a reader's state. It must not block.
	OnProgress func(Progress)

	// Set by PushAll.
	limit    *rate.Limiter         // shared by all pushes; nil: BWLimit is for this one
	onAccept func([]protocol.Leaf) // told what each Accept says of the readers
}

func (o *Options) setDefaults(src Source) error {
	if o.Compress == "" {
		o.Compress = protocol.CompressAuto
	}
	if o.Digest == "" {
		o.Digest = protocol.DigestXXH128
	}
	if o.ChunkSize < 0 || o.ChunkSize > protocol.MaxChunk {
		return fmt.Errorf("chunk size of %d bytes, want 1 to %d", o.ChunkSize, protocol.MaxChunk)
	}
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	name := string(o.Name) // a constant is a Name to the compiler, whatever it says
	if name == "" {
		name = src.Name()
	}
	var err error
	o.Name, err = protocol.ParseName(name)
	return err
}

// PartialError says that a push met its policy and still missed some readers.
type PartialError struct {
	Failed, Total int
}

func (e *PartialError) Error() string {
	return fmt.Sprintf("%d of %d readers failed", e.Failed, e.Total)
}

// Client pushes to one daemon over one session, dialled when first needed. It
// is safe for concurrent use.
type Client struct {
	host   string // as given
	dialer protocol.Opener
}

// New returns a Client for the daemon at host, HOST or HOST:PORT, that dials
// with cfg.
func New(host string, cfg protocol.SessionConfig) (*Client, error) {
	addr, err := protocol.Address(host, DefaultPort)
	if err != nil {
		return nil, err
	}
	return NewOver(host, protocol.NewDialer(addr, cfg)), nil
}

// NewOver returns a Client for the daemon that dialer opens streams to. Host
// is what a reader is called that is pushed to directly.
func NewOver(host string, dialer protocol.Opener) *Client { return &Client{host: host, dialer: dialer} }

// Close ends the session.
func (c *Client) Close() error { return c.dialer.Close() }

// Addr is the address that the Client connects to.
func (c *Client) Addr() string { return c.dialer.Addr() }

// Open opens a bare stream to the daemon, to speak the protocol by hand.
func (c *Client) Open(ctx context.Context) (protocol.Stream, error) { return c.dialer.Open(ctx) }

// Status asks the daemon, and through it all below, what they are doing, at
// most depth daemons deep; 0 means the default. What was answered before an
// error is returned with it.
func (c *Client) Status(ctx context.Context, depth int) ([]*protocol.Status, error) {
	stream, err := c.dialer.Open(ctx)
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	return protocol.AskStatus(ctx, stream, depth)
}

// Push pushes src to opts.Host over a session of its own. See Client.Push.
func Push(ctx context.Context, src Source, opts Options) ([]Receipt, error) {
	c, err := New(opts.Host, protocol.SessionConfig{Agent: opts.Agent})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.Push(ctx, src, opts)
}
