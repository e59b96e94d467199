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

func (o *output) serial() {}

func (o *output) Create(ctx context.Context, _ Request) (File, Have, error) {
	select {
	case o.turn <- struct{}{}:
		return &outputFile{output: o, life: ctx}, Have{}, nil
	default:
		return nil, Have{}, protocol.Errorf(protocol.CodeBusy, "standard output takes one file at a time")
	}
}

type outputFile struct {
	*output
	life    context.Context
	buf     []byte     // the writer's own copy: a write that is given up goes on reading it
	writing chan error // of a write that was given up
}

// Write writes p, or gives up when the file's life ends: nothing can interrupt
// a write to a pipe that nobody reads.
func (f *outputFile) Write(p []byte) (int, error) {
	f.buf = append(f.buf[:0], p...)
	done := make(chan error, 1)
	go func() {
		_, err := f.w.Write(f.buf)
		done <- err
	}()
	select {
	case err := <-done:
		return len(p), err
	case <-f.life.Done():
		f.writing = done
		return 0, context.Cause(f.life)
	}
}

func (f *outputFile) Stage(context.Context, protocol.Digest) error { return nil }

func (f *outputFile) Publish(context.Context) (Published, error) {
	<-f.turn
	return Published{Location: "-"}, nil
}

// Discard lets the next file in once no write of this one is under way.
func (f *outputFile) Discard(bool) {
	if f.writing == nil {
		<-f.turn
		return
	}
	go func() {
		<-f.writing
		<-f.turn
	}()
}
