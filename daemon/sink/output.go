// The store that writes files to standard output, one at a time.

package sink

import (
	"context"
	"io"

	"github.com/sbcast/sbcast/protocol"
)

// output passes content on as it comes. It is the one store that cannot hold
// anything back: who reads it must heed the reader's exit code.
type output struct {
	w    io.Writer
	turn chan struct{} // capacity 1: held by the file being written
}

func newOutput(w io.Writer) *output { return &output{w: w, turn: make(chan struct{}, 1)} }

func (o *output) String() string { return "-" }

func (o *output) Create(context.Context, Request) (File, Have, error) {
	select {
	case o.turn <- struct{}{}:
		return &outputFile{o}, Have{}, nil
	default:
		return nil, Have{}, protocol.Errorf(protocol.CodeBusy, "standard output takes one file at a time")
	}
}

type outputFile struct{ *output }

func (f *outputFile) Write(p []byte) (int, error) { return f.w.Write(p) }

func (f *outputFile) Stage(context.Context, protocol.Digest) error { return nil }

func (f *outputFile) Publish(context.Context) (Published, error) {
	<-f.turn
	return Published{Location: "-"}, nil
}

func (f *outputFile) Discard(bool) { <-f.turn }
