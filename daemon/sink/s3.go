// The store that keeps files as objects of an S3 bucket.

package sink

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sync/semaphore"

	"github.com/sbcast/sbcast/protocol"
)

// How long an S3 store may take. What is tried again is tried again within
// these, up to ten times, by the client library.
const (
	s3Answer   = 30 * time.Second // for an answer, parts and publishing aside
	s3Stall    = 60 * time.Second // for any progress with a part
	s3Complete = 10 * time.Minute // for publishing: stores put the parts together then
	s3Settle   = 3 * time.Second  // for parts on their way when a transfer is cut off
	s3Forget   = 20 * time.Second // for removing an upload
	s3Room     = 10 * time.Second // for a buffer, when other uploads have them all
)

// Limits of S3. AWS takes larger objects since 2025; others do not.
const (
	s3MaxObject = 5 << 40
	s3MaxParts  = 10_000
	s3MaxKey    = 1024
)

// User metadata of objects.
const (
	metaSource = "Sbcast-Source" // the key of the source, hashed: the same push again finds what it published
	metaUpload = "Sbcast-Upload" // which upload made it: tells ours from another's when the answer to a publish is lost
	metaMTime  = "Mtime"         // with --preserve, as rclone writes it
	metaMode   = "Mode"          // with --preserve, octal
)

// S3 is the store that keeps files in a bucket. The parts of a multipart
// upload hold the content, and CompleteMultipartUpload makes the object: until
// then there is nothing under its key. Each part, and the whole, goes with its
// CRC32C, which the store checks. A record in the state directory tells a
// later process of an upload under way, and what its parts are.
type S3 struct {
	spec    s3Spec
	core    *minio.Core
	tr      *http.Transport
	ttl     time.Duration // of uploads that nobody comes back for
	records *records
	room    *semaphore.Weighted // bytes of buffers
	mem     sync.Pool           // of buffers of spec.partSize
}

// openS3 opens the store that text describes. It asks the store for nothing.
func openS3(text string, opts Options) (*S3, error) {
	spec, err := parseS3(text)
	if err != nil {
		return nil, err
	}
	fail := func(err error) (*S3, error) { return nil, fmt.Errorf("sink s3://%s: %w", spec.bucket, err) }
	creds, err := spec.credentials()
	if err != nil {
		return fail(err)
	}
	secure := spec.endpoint.Scheme == "https"
	tr, err := minio.DefaultTransport(secure)
	if err != nil {
		return fail(err)
	}
	tr.DialContext = (&net.Dialer{Timeout: protocol.DialTimeout}).DialContext
	tr.ResponseHeaderTimeout = 0 // each request has a deadline of its own
	tr.MaxIdleConnsPerHost = 2 * spec.inFlight
	core, err := minio.NewCore(spec.endpoint.Host, &minio.Options{
		Creds: creds, Secure: secure, Region: spec.region, BucketLookup: spec.lookup, Transport: lender{tr},
	})
	if err != nil {
		return fail(err)
	}
	s := &S3{spec: spec, core: core, tr: tr, ttl: cmp.Or(opts.PartTTL, DefaultPartTTL), room: semaphore.NewWeighted(spec.memory)}
	if s.records, err = openRecords(opts.State, spec.identity()); err == nil {
		err = s.records.lock()
	}
	if err != nil {
		return fail(err)
	}
	s.clean()
	return s, nil
}

// clean removes the uploads that nobody came back for.
func (s *S3) clean() {
	s.records.expire(s.ttl, func(ctx context.Context, record json.RawMessage) bool {
		ctx, cancel := context.WithTimeout(ctx, s3Forget)
		defer cancel()
		var r s3Record
		return json.Unmarshal(record, &r) != nil || s.abort(ctx, r.Key, r.Upload) == nil
	})
}

func (s *S3) String() string { return s.spec.text }

// Buffers is the most memory that the buffers of all uploads take together, in
// bytes; parts larger than half of it aside.
func (s *S3) Buffers() int64 { return s.spec.memory }

// Close is for when no file is under way any more.
func (s *S3) Close() error {
	s.records.close()
	s.tr.CloseIdleConnections()
	return nil
}

// Create implements Store. An object that exists is refused without force,
// unless it came from the very source that comes.
func (s *S3) Create(ctx context.Context, r Request) (f File, have Have, err error) {
	s.clean()
	key := s.spec.prefix + string(r.Name)
	switch {
	case len(key) > s3MaxKey:
		return nil, have, protocol.Errorf(protocol.CodeName, "the key %q has %d bytes, S3 takes %d", key[:100]+"...", len(key), s3MaxKey)
	case r.Size > s3MaxObject:
		return nil, have, protocol.Errorf(protocol.CodeTooLarge, "an object of %d bytes: S3 takes 5 TiB", r.Size)
	}
	if err := s.records.take(string(r.Name)); err != nil {
		return nil, have, err
	}
	defer func() {
		if err != nil {
			s.records.release(string(r.Name))
		}
	}()
	there, err := s.stat(ctx, key)
	switch {
	case err != nil:
		return nil, have, err
	case there == nil:
	case there.isFrom(r.Offer):
		s.forget(string(r.Name))
		return &s3Published{store: s, name: string(r.Name), location: s.spec.location(key)}, Have{Offset: there.size, Published: true}, nil
	case !r.Force:
		how := fmt.Sprintf("it has %d bytes and came from elsewhere", there.size)
		if r.Size >= 0 && r.Size != there.size {
			how = fmt.Sprintf("it has %d bytes, the new one %d", there.size, r.Size)
		}
		return nil, have, errDiffers(r.Name, how)
	}
	return s.openFile(ctx, key, r)
}

// s3Object is what the store says of an object.
type s3Object struct {
	size int64
	meta map[string]string
}

// isFrom reports whether o holds what comes with offer.
func (o *s3Object) isFrom(offer *protocol.Offer) bool {
	want := s3Metadata(offer)
	if o.meta[metaSource] != want[metaSource] || offer.Size >= 0 && o.size != offer.Size {
		return false
	}
	return !offer.Force || o.meta[metaMTime] == want[metaMTime] && o.meta[metaMode] == want[metaMode] || !offer.Preserve
}

// s3Metadata is what an object is to say about itself.
func s3Metadata(o *protocol.Offer) map[string]string {
	m := map[string]string{metaSource: stateKey(sourceKey(o))}
	if o.Preserve {
		m[metaMTime] = strconv.FormatFloat(float64(o.MTime.UnixMilli())/1000, 'f', -1, 64)
		m[metaMode] = fmt.Sprintf("%04o", o.Mode)
	}
	return m
}

// stat asks for the object of key, nil when there is none. Credentials that
// may write but not look are told no more than that: then publishing finds
// out what has the name.
func (s *S3) stat(ctx context.Context, key string) (*s3Object, error) {
	ctx, cancel := context.WithTimeout(ctx, s3Answer)
	defer cancel()
	info, err := s.core.StatObject(ctx, s.spec.bucket, key, minio.StatObjectOptions{})
	switch s3Code(err) {
	case "NoSuchKey", "AccessDenied":
		return nil, nil
	}
	if err != nil {
		return nil, s.explain("look for "+key, err)
	}
	return &s3Object{size: info.Size, meta: info.UserMetadata}, nil
}

// abort removes an upload under way, and the parts that were on their way
// when it was first asked for.
func (s *S3) abort(ctx context.Context, key, upload string) error {
	for range 3 {
		err := s.core.AbortMultipartUpload(ctx, s.spec.bucket, key, upload)
		if err == nil {
			_, err = s.core.ListObjectParts(ctx, s.spec.bucket, key, upload, 0, 1)
		}
		switch {
		case s3Code(err) == "NoSuchUpload":
			return nil
		case err != nil:
			return s.explain("remove the upload of "+key, err)
		}
	}
	return protocol.Errorf(protocol.CodeBusy, "bucket %q: the upload of %s does not go away", s.spec.bucket, key)
}

// forget removes the upload that there is a record of for name, if any. The
// record stays until that is done.
func (s *S3) forget(name string) {
	var r s3Record
	if !s.records.load(name, &r) {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), s3Forget)
	defer cancel()
	if s.abort(ctx, r.Key, r.Upload) == nil {
		_ = s.records.drop(name)
	}
}

// s3Published is an object that is there already, known by its source.
type s3Published struct {
	store    *S3
	name     string
	location string
}

func (p *s3Published) Write([]byte) (int, error) {
	return 0, protocol.Errorf(protocol.CodeInternal, "content for an object that is published already")
}

func (p *s3Published) Stage(context.Context, protocol.Digest) error { return nil }

func (p *s3Published) Publish(context.Context) (Published, error) {
	p.store.records.release(p.name)
	return Published{Location: p.location, Unchanged: true}, nil
}

func (p *s3Published) Discard(bool) { p.store.records.release(p.name) }
