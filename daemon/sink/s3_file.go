// A file on its way into S3: a multipart upload.

package sink

import (
	"cmp"
	"context"
	"fmt"
	"hash/crc32"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/sbcast/sbcast/protocol"
)

// s3File is an upload under way. Content is taken into a part; whole parts are
// sent by goroutines of the file's own, a few at once, while the next one
// fills. Only the caller's goroutine touches what is not a channel.
type s3File struct {
	store *S3
	key   string
	offer *protocol.Offer
	tell  func(text string)
	life  context.Context

	sending context.Context // of the parts on their way
	stop    context.CancelCauseFunc
	senders sync.WaitGroup
	slots   chan struct{} // one is held while a part is sent
	sent    chan s3Sent   // has room for what every buffer may bring

	rec      s3Record
	offset   int64 // content taken
	crc      uint32
	part     *s3Buffer // the one that fills, nil between two
	fill     int64     // bytes in it
	partEnd  int64     // bytes it is to have
	partCRC  uint32
	flying   int         // parts whose end was not seen yet
	free     []*s3Buffer // not in use now
	buffers  int         // in use or free
	reserved int64       // room for the first buffer, until there is one
	err      error       // the first of the parts
	same     bool        // the object is there already
	ended    bool
}

// openFile goes on with the upload under way of the same source, or begins one.
func (s *S3) openFile(ctx context.Context, key string, r Request) (_ File, have Have, err error) {
	f := &s3File{
		store: s, key: key, offer: r.Offer, tell: r.Tell, life: ctx,
		slots: make(chan struct{}, s.spec.inFlight), sent: make(chan s3Sent, s.spec.inFlight+1),
	}
	f.sending, f.stop = context.WithCancelCause(context.WithoutCancel(ctx))
	defer func() {
		if err != nil {
			f.stop(err)
			s.room.Release(f.reserved)
		}
	}()
	have.ByCRC = true
	if have.Note, err = f.resume(ctx); err != nil {
		return nil, have, err
	}
	f.offset, f.crc = f.rec.end()
	have.Offset, have.CRC = f.offset, f.crc
	first := nextPart(len(f.rec.Parts), f.offset, r.Size, cmp.Or(f.rec.PartSize, s.spec.partSize))
	if f.reserved, err = s.reserve(ctx, first); err != nil {
		return nil, have, err
	}
	if f.rec.Upload == "" {
		var note string
		if note, err = f.begin(ctx, uuid.NewString()); note != "" {
			have.Note = note
		}
	}
	return f, have, err
}

// Write takes p into the part that fills. It waits for a buffer when all are
// on their way.
func (f *s3File) Write(p []byte) (n int, err error) {
	for n < len(p) {
		if err := f.ready(); err != nil {
			return n, err
		}
		took := copy(f.part.mem[f.fill:f.partEnd], p[n:])
		f.crc = crc32.Update(f.crc, castagnoli, p[n:n+took])
		f.partCRC = crc32.Update(f.partCRC, castagnoli, p[n:n+took])
		f.fill, f.offset, n = f.fill+int64(took), f.offset+int64(took), n+took
		if f.fill == f.partEnd {
			f.cut()
		}
	}
	return n, nil
}

// ready makes sure that there is a part to take content into.
func (f *s3File) ready() error {
	for more := true; more; { // parts that ended in the meantime
		select {
		case s := <-f.sent:
			f.ack(s)
		default:
			more = false
		}
	}
	if f.err != nil || f.part != nil {
		return f.err
	}
	n := len(f.rec.Parts)
	if n == s3MaxParts || f.offset >= s3MaxObject {
		return errTooLarge()
	}
	size := min(nextPart(n, f.offset, f.rec.Size, f.rec.PartSize), s3MaxObject-f.offset)
	for {
		if f.part = f.buffer(size); f.part != nil {
			f.fill, f.partEnd, f.partCRC = 0, size, 0
			return nil
		}
		if err := f.await(); err != nil {
			return err
		}
	}
}

// s3Tell is how often a Write that waits for a buffer says so.
const s3Tell = 250 * time.Millisecond

// await waits for a part to end, and its buffer. On a slow line that takes
// longer than a reader may be silent, so it says what it waits for: a part that
// stands still ends by itself.
func (f *s3File) await() error {
	begun := time.Now()
	tick := time.NewTicker(s3Tell)
	defer tick.Stop()
	for {
		select {
		case s := <-f.sent:
			f.ack(s)
			return f.err
		case <-f.life.Done():
			return context.Cause(f.life)
		case <-tick.C:
			f.tell(fmt.Sprintf("the store has been busy with %d parts for %v", f.flying, time.Since(begun).Round(time.Second)))
		}
	}
}

// A record is as long as it has parts: that of many is not written for each.
const (
	s3NoteEach  = 1000
	s3NoteEvery = 8
)

// cut ends the part that fills and has it sent.
func (f *s3File) cut() {
	part := s3Part{Size: f.fill, CRC: f.partCRC, Prefix: f.crc}
	f.rec.Parts = append(f.rec.Parts, part)
	if n := len(f.rec.Parts); n <= s3NoteEach || n%s3NoteEvery == 0 {
		f.note()
	}
	b, index := f.part, len(f.rec.Parts)-1
	f.part = nil
	f.flying++
	f.senders.Go(func() { f.send(index, part, b) })
}

// note saves the record. A record that cannot be saved costs a resume, not the
// file.
func (f *s3File) note() { _ = f.store.records.save(string(f.offer.Name), f.rec) }

// ack notes how the sending of a part ended.
func (f *s3File) ack(s s3Sent) {
	f.flying--
	f.free = append(f.free, s.buffer)
	if s.err == nil {
		f.rec.Parts[s.index].ETag = s.etag
		return
	}
	if f.err == nil {
		f.err = f.store.explain("upload "+f.key, s.err)
		f.stop(f.err)
	}
}
