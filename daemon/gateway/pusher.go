// Pusher: what a Gateway needs of the rest of sbcast.

package gateway

import (
	"context"
	"io"
	"time"

	"github.com/sbcast/sbcast/protocol"
)

// Pusher pushes files to readers. It is safe for concurrent use.
type Pusher interface {
	// Push sends f and returns a receipt for each reader that is known. The
	// error is nil when enough readers for the policy have the file, and else
	// says why nothing was published. An error of f.Content ends the push, and
	// readers forget it. Progress is called now and then, from one goroutine at
	// a time, and must not block. Push may still be reading f.Content when it
	// returns.
	Push(ctx context.Context, f File, progress func(Progress)) ([]protocol.Receipt, error)
	// Readers asks all readers whether they are there.
	Readers(ctx context.Context) ([]Reader, error)
}

// File is one file of an upload. Its content can be read once.
type File struct {
	Name    protocol.Name
	Size    int64 // -1 when unknown
	Content io.Reader
	Options PushOptions
}

// PushOptions are the options of sbcast push that an HTTP client has. The
// zero value of each is the default.
type PushOptions struct {
	Require  protocol.Policy
	Force    bool
	Compress protocol.Compression
	Digest   protocol.DigestAlg
	Timeout  time.Duration
	DryRun   bool
}

// Progress is how a push stands.
type Progress struct {
	Name   string          `json:"name"`
	Size   int64           `json:"size"` // -1 when unknown
	Sent   int64           `json:"sent"`
	Acked  int64           `json:"acked"` // by every reader that is still in it
	Note   string          `json:"note,omitempty"`
	Leaves []protocol.Leaf `json:"readers"`
}

// Reader is a daemon behind the gateway, and whether it answers.
type Reader struct {
	Name  string `json:"-"`
	Sink  string `json:"sink,omitempty"`
	Error string `json:"error,omitempty"`
}
