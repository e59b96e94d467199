// Uploads to S3: how one becomes an object, or goes.

package sink

import (
	"context"
	"fmt"

	"github.com/minio/minio-go/v7"

	"github.com/sbcast/sbcast/protocol"
)

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
	for f.flying > 0 && f.err == nil {
		select {
		case s := <-f.sent:
			f.ack(s)
		case <-ctx.Done():
			return context.Cause(ctx)
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
		_ = f.store.records.drop(string(f.offer.Name))
	}
}

// end is for an upload that is an object now.
func (f *s3File) end() {
	f.stop(nil)
	_ = f.store.records.drop(string(f.offer.Name))
	f.close()
}

func (f *s3File) close() {
	f.ended = true
	f.release()
	f.store.records.release(string(f.offer.Name))
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
