// Parts on their way to S3: their buffers, and who sends them.

package sink

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/sbcast/sbcast/protocol"
)

// s3Buffer holds the content of a part until the store has it.
type s3Buffer struct {
	mem    []byte
	weight int64 // bytes of S3.room that it was given
}

// reserve claims room for the first buffer of an upload, which it keeps for
// as long as it lives: so each can go on by itself, and none waits for another
// that waits. One that needs more than half of all room counts as half.
func (s *S3) reserve(ctx context.Context, size int64) (weight int64, err error) {
	weight = min(size, s.spec.memory/2)
	soon, cancel := context.WithTimeout(ctx, s3Room)
	defer cancel()
	if err := s.room.Acquire(soon, weight); err != nil {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		return 0, protocol.Errorf(protocol.CodeBusy, "s3://%s: other uploads use all %d bytes of buffers; the sink's parameter memory allows more", s.spec.bucket, s.spec.memory)
	}
	return weight, nil
}

// buffer returns a buffer of at least size bytes, nil when there is to be none
// now: then a part of this upload is on its way, whose buffer will be free.
func (f *s3File) buffer(size int64) *s3Buffer {
	s := f.store
	for n := len(f.free) - 1; n >= 0; n-- {
		b := f.free[n]
		f.free = f.free[:n]
		if int64(len(b.mem)) >= size {
			return b
		}
		f.drop(b) // parts have grown
	}
	b := &s3Buffer{weight: f.reserved}
	switch {
	case f.reserved > 0:
		f.reserved = 0
	case f.buffers > s.spec.inFlight:
		return nil
	case s.room.TryAcquire(size):
		b.weight = size
	case f.buffers > 0:
		return nil
	}
	f.buffers++
	if size == s.spec.partSize {
		b.mem, _ = s.mem.Get().([]byte)
	}
	if b.mem == nil {
		b.mem = make([]byte, size)
	}
	return b
}

// drop gives up a buffer that nobody uses. The room of the last one stays the
// upload's, until release.
func (f *s3File) drop(b *s3Buffer) {
	if f.buffers--; f.buffers == 0 {
		f.reserved = b.weight
	} else {
		f.store.room.Release(b.weight)
	}
	if int64(len(b.mem)) == f.store.spec.partSize {
		f.store.mem.Put(b.mem) //nolint:staticcheck // SA6002: 24 bytes beside 16 MiB
	}
	b.mem = nil
}

// s3Sent is how the sending of a part ended.
type s3Sent struct {
	index  int
	buffer *s3Buffer
	etag   string
	err    error
}

// send sends a part and reports to f.sent, which has room for it.
func (f *s3File) send(index int, part s3Part, b *s3Buffer) {
	etag, err := f.put(index, part, b.mem[:part.Size])
	f.sent <- s3Sent{index, b, etag, err}
}

func (f *s3File) put(index int, part s3Part, content []byte) (etag string, err error) {
	select {
	case f.slots <- struct{}{}:
		defer func() { <-f.slots }()
	case <-f.sending.Done():
		return "", context.Cause(f.sending)
	}
	s := f.store
	ctx, cancel := context.WithCancelCause(f.sending)
	defer cancel(nil)
	body := watch(content, func() { cancel(errS3Stalled) })
	defer body.timer.Stop()
	opts := minio.PutObjectPartOptions{}
	if !s.spec.plain {
		opts.CustomHeader = http.Header{"X-Amz-Checksum-Crc32c": {s3CRC(part.CRC)}}
	}
	got, err := s.core.PutObjectPart(ctx, s.spec.bucket, f.key, f.rec.Upload, index+1, body, part.Size, opts)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return "", err
	}
	return trimQuotes(got.ETag), nil
}

// watched is the body of a request, which may be sent again from its start.
// When nothing is taken of it for s3Stall, or no answer comes for so long after
// the last byte, its timer ends the request.
type watched struct {
	*bytes.Reader
	timer *time.Timer
}

func watch(content []byte, stalled func()) *watched {
	return &watched{bytes.NewReader(content), time.AfterFunc(s3Stall, stalled)}
}

func (w *watched) Read(p []byte) (int, error) {
	w.timer.Reset(s3Stall)
	return w.Reader.Read(p)
}

// lender is a RoundTripper that has given back the body of a request when the
// body of its answer is closed. Without it net/http may still read what it has
// not sent of a request that was answered early, such as by a 503, while the
// client library sends the same body again, or its buffer has other content.
type lender struct{ http.RoundTripper }

func (l lender) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return l.RoundTripper.RoundTrip(r)
	}
	body := &lent{body: r.Body}
	lending := r.Clone(r.Context())
	lending.Body = body
	resp, err := l.RoundTripper.RoundTrip(lending)
	if err != nil {
		body.giveBack()
		return nil, err
	}
	resp.Body = answer{resp.Body, body}
	return resp, nil
}

// lent is a body for as long as it is.
type lent struct {
	mu   sync.Mutex
	body io.ReadCloser // nil: given back
}

var errGivenBack = errors.New("the request was answered before all of it was sent")

func (l *lent) Read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.body == nil {
		return 0, errGivenBack
	}
	return l.body.Read(p)
}

func (l *lent) Close() error {
	l.giveBack()
	return nil
}

func (l *lent) giveBack() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.body = nil
}

type answer struct {
	io.ReadCloser
	lent *lent
}

func (a answer) Close() error {
	err := a.ReadCloser.Close()
	a.lent.giveBack()
	return err
}
