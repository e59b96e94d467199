// A file on its way into S3: a multipart upload.

package sink

import (
	"cmp"
	"context"
	"fmt"
	"hash/crc32"
	"sync"

	"github.com/google/uuid"
	"github.com/minio/minio-go/v7"

	"github.com/sbcast/sbcast/protocol"
)

// s3File is an upload under way. Content is taken into a part; whole parts are
// sent by goroutines of the file's own, a few at once, while the next one
// fills. Only the caller's goroutine touches what is not a channel.
type s3File struct {
	store *S3
	key   string
	offer *protocol.Offer
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
		store: s, key: key, offer: r.Offer, life: ctx,
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
	size := nextPart(n, f.offset, f.rec.Size, f.rec.PartSize)
	for {
		if f.part = f.buffer(size); f.part != nil {
			f.fill, f.partEnd, f.partCRC = 0, size, 0
			return nil
		}
		if err := f.await(f.life); err != nil {
			return err
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
func (f *s3File) note() { _ = f.store.records.save(f.offer.Name, f.rec) }

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

// await waits for the next part to end.
func (f *s3File) await(ctx context.Context) error {
	select {
	case s := <-f.sent:
		f.ack(s)
		return f.err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-f.life.Done():
		return context.Cause(f.life)
	}
}

// Stage waits until the store has all parts, and looks again whether the name
// is free: while others can still hold back.
func (f *s3File) Stage(ctx context.Context, _ protocol.Digest) error {
	if f.part == nil && len(f.rec.Parts) == 0 { // an empty file is an empty part
		if err := f.ready(); err != nil {
			return err
		}
	}
	if f.part != nil {
		f.cut()
	}
	for f.flying > 0 {
		if err := f.await(ctx); err != nil {
			return err
		}
	}
	if f.err != nil {
		return f.err
	}
	f.note()
	f.release()
	there, err := f.store.stat(ctx, f.key)
	if err != nil || there == nil {
		return err
	}
	if f.same = there.isFrom(f.offer); !f.same && !f.offer.Force {
		return f.errCame()
	}
	return nil
}

func (f *s3File) errCame() error {
	return errDiffers(f.offer.Name, "it came while this push was under way")
}

// Publish makes the object of the parts. Its answer may be lost: then the
// object itself says which upload made it.
func (f *s3File) Publish(ctx context.Context) (Published, error) {
	s := f.store
	p := Published{Location: s.spec.location(f.key), Unchanged: f.same}
	if f.same {
		f.Discard(false)
		return p, nil
	}
	err := f.complete(ctx)
	if err == nil {
		f.end()
		return p, nil
	}
	there, statErr := s.stat(context.WithoutCancel(ctx), f.key)
	switch {
	case statErr == nil && there != nil && there.meta[metaUpload] == f.rec.Token:
		f.end()
		return p, nil
	case s3Taken(err) && there != nil && there.isFrom(f.offer): // by the same push, twice
		f.Discard(false)
		p.Unchanged = true
		return p, nil
	case s3Taken(err) && there != nil:
		return Published{}, f.errCame()
	}
	why := s.explain("publish "+f.key, err)
	if s3Unsure(err) {
		why = fmt.Errorf("%w; it may be there or not: the same push again finds out", why)
	}
	return Published{}, why
}

func (f *s3File) complete(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s3Complete)
	defer cancel()
	opts := minio.PutObjectOptions{}
	if !f.offer.Force {
		opts.SetMatchETagExcept("*")
	}
	plain := f.store.spec.plain
	if !plain {
		opts.UserMetadata = map[string]string{"x-amz-checksum-crc32c": s3CRC(f.crc), "x-amz-checksum-type": "FULL_OBJECT"}
	}
	_, err := f.store.core.CompleteMultipartUpload(ctx, f.store.spec.bucket, f.key, f.rec.Upload, f.rec.complete(plain), opts)
	return err
}

// Discard gives the upload up. With keep the parts that are on their way may
// arrive, and the upload and its record stay.
func (f *s3File) Discard(keep bool) {
	if f.ended {
		return
	}
	if keep && f.err == nil && f.flying > 0 {
		settle, cancel := context.WithTimeout(context.Background(), s3Settle)
		for f.flying > 0 && f.settle(settle) {
		}
		cancel()
	}
	f.stop(context.Canceled)
	f.senders.Wait()
	for f.flying > 0 {
		f.ack(<-f.sent)
	}
	if keep && f.store.records.dir != "" && len(f.rec.Parts) > 0 {
		f.note()
	} else {
		f.remove()
	}
	f.close()
}

// settle waits for one part to end, whether it arrives or not.
func (f *s3File) settle(ctx context.Context) bool {
	select {
	case s := <-f.sent:
		f.ack(s)
		return true
	case <-ctx.Done():
		return false
	}
}

// remove removes the upload. What cannot be removed now has a record, and is
// removed when that is found again: by the next push of the name, or as stale.
func (f *s3File) remove() {
	ctx, cancel := context.WithTimeout(context.Background(), s3Forget)
	defer cancel()
	if f.store.abort(ctx, f.key, f.rec.Upload) == nil {
		_ = f.store.records.drop(f.offer.Name)
	}
}

// end is for an upload that is an object now.
func (f *s3File) end() {
	f.stop(nil)
	_ = f.store.records.drop(f.offer.Name)
	f.close()
}

func (f *s3File) close() {
	f.ended = true
	f.release()
	f.store.records.release(f.offer.Name)
}

// release gives up all buffers. Nothing is on its way.
func (f *s3File) release() {
	if f.part != nil {
		f.free = append(f.free, f.part)
		f.part = nil
	}
	for _, b := range f.free {
		f.drop(b)
	}
	f.free = nil
	f.store.room.Release(f.reserved)
	f.reserved = 0
}
