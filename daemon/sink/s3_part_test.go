// How S3 uploads are cut, what of them is believed, and what memory they take.

package sink

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/semaphore"

	"github.com/sbcast/sbcast/protocol"
)

const (
	mib = 1 << 20
	gib = 1 << 30
	tib = 1 << 40
)

func TestS3PartsHoldEverySize(t *testing.T) {
	for _, partSize := range []int64{s3MinPart, 5*mib + 1, s3PartSize, 512 * mib, s3MaxPart} {
		for _, size := range []int64{0, 1, s3MinPart, partSize - 1, partSize, partSize + 1, 10_000 * partSize, 100 * gib, 5e12, s3MaxObject} {
			if size > s3MaxObject {
				continue
			}
			n, offset := 0, int64(0)
			for ; offset < size || n == 0; n++ {
				part := nextPart(n, offset, size, partSize)
				if offset+part < size {
					require.GreaterOrEqual(t, part, int64(s3MinPart))
				}
				require.LessOrEqual(t, part, int64(s3MaxPart))
				offset += part
			}
			assert.LessOrEqual(t, n, s3MaxParts, "size %d in parts of %d", size, partSize)
			assert.LessOrEqual(t, nextPart(0, 0, size, partSize), max(partSize, 525*mib), "no larger than it has to be")
		}
	}
}

func TestS3PartsOfAPipeGrow(t *testing.T) {
	for _, partSize := range []int64{s3MinPart, s3PartSize, 100 * mib, s3MaxPart} {
		n, offset, largest := 0, int64(0), int64(0)
		for ; offset < s3MaxObject && n < s3MaxParts; n++ {
			part := nextPart(n, offset, -1, partSize)
			require.GreaterOrEqual(t, part, largest-mib, "they do not shrink")
			largest = max(largest, part)
			offset += part
		}
		assert.GreaterOrEqual(t, offset, int64(s3MaxObject), "parts of %d", partSize)
		assert.LessOrEqual(t, largest, max(partSize, 2*gib))
	}
	assert.EqualValues(t, s3PartSize, nextPart(s3DoubleAfter-1, 0, -1, s3PartSize))
	assert.EqualValues(t, 2*s3PartSize, nextPart(s3DoubleAfter, 14*gib, -1, s3PartSize))
}

// A record is believed as far as the store's list agrees, part by part.
func TestS3RecordAgrees(t *testing.T) {
	record := func() s3Record {
		return s3Record{Parts: []s3Part{{Size: 10, CRC: 1, Prefix: 1, ETag: "a"}, {Size: 10, CRC: 2, Prefix: 12}, {Size: 4, CRC: 3, Prefix: 123, ETag: "c"}}}
	}
	listed := func() map[int]minio.ObjectPart {
		return map[int]minio.ObjectPart{
			1: {ETag: "a", Size: 10}, // by its ETag
			2: {ETag: "b", Size: 10, ChecksumCRC32C: s3CRC(2)},
			3: {ETag: "c", Size: 4, ChecksumCRC32C: s3CRC(3)},
		}
	}
	for name, c := range map[string]struct {
		change func(map[int]minio.ObjectPart)
		parts  int
		offset int64
		crc    uint32
	}{
		"all":           {func(map[int]minio.ObjectPart) {}, 3, 24, 123},
		"nothing there": {func(l map[int]minio.ObjectPart) { clear(l) }, 0, 0, 0},
		"a gap":         {func(l map[int]minio.ObjectPart) { delete(l, 2) }, 1, 10, 1},
		"another size":  {func(l map[int]minio.ObjectPart) { l[3] = minio.ObjectPart{ETag: "c", Size: 5} }, 2, 20, 12},
		"another CRC": {func(l map[int]minio.ObjectPart) {
			l[3] = minio.ObjectPart{ETag: "c", Size: 4, ChecksumCRC32C: s3CRC(4)}
		}, 2, 20, 12},
		"another ETag":    {func(l map[int]minio.ObjectPart) { l[1] = minio.ObjectPart{ETag: "x", Size: 10} }, 0, 0, 0},
		"nothing to tell": {func(l map[int]minio.ObjectPart) { l[2] = minio.ObjectPart{ETag: "b", Size: 10} }, 1, 10, 1},
	} {
		t.Run(name, func(t *testing.T) {
			r, l := record(), listed()
			c.change(l)
			r.agreed(l)
			offset, crc := r.end()
			assert.Len(t, r.Parts, c.parts)
			assert.Equal(t, c.offset, offset)
			assert.Equal(t, c.crc, crc)
			for i, p := range r.Parts {
				assert.Equal(t, l[i+1].ETag, p.ETag)
			}
		})
	}
}

// roundTrip is a RoundTripper. It stands for a store that takes what it gets,
// but for parts, of which it decides.
type roundTrip func(part *http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) {
	query := r.URL.Query()
	switch {
	case r.Method == http.MethodHead:
		return respond(r, http.StatusNotFound, ""), nil
	case query.Has("uploads"):
		return respond(r, http.StatusOK, "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"), nil
	case r.Method == http.MethodPut:
		return f(r)
	case r.Method == http.MethodDelete:
		return respond(r, http.StatusNoContent, ""), nil
	default:
		return respond(r, http.StatusNotFound, "<Error><Code>NoSuchUpload</Code></Error>"), nil
	}
}

func respond(r *http.Request, status int, body string) *http.Response {
	return &http.Response{StatusCode: status, Request: r, Header: http.Header{"Etag": {`"e"`}}, Body: io.NopCloser(strings.NewReader(body))}
}

// fakeS3 is a store of small parts, that many of which fit into its memory.
func fakeS3(t *testing.T, parts roundTrip, memory int64) *S3 {
	t.Helper()
	spec, err := parseS3("s3://bucket?endpoint=http://store&parts_in_flight=2")
	require.NoError(t, err)
	spec.partSize, spec.memory = partLen, memory*partLen
	core, err := minio.NewCore("store", &minio.Options{
		Creds: credentials.NewStaticV4("id", "secret", ""), Region: "us-east-1", Transport: lender{parts},
	})
	require.NoError(t, err)
	notes, err := openRecords(t.TempDir(), spec.identity())
	require.NoError(t, err)
	return &S3{spec: spec, core: core, tr: &http.Transport{}, records: notes, room: semaphore.NewWeighted(spec.memory)}
}

const partLen = 1000

func offerS3(t *testing.T, s *S3, name string, size int64) (File, error) {
	t.Helper()
	f, have, err := s.Create(t.Context(), Request{
		Offer: &protocol.Offer{ID: name, Name: protocol.Name(name), Size: size, Digest: protocol.DigestXXH128}, Tell: func(string) {},
	})
	assert.True(t, err != nil || have.ByCRC)
	return f, err
}

// An upload has a buffer that is its own, and as many more as it may send at
// once while there is room; none waits for another's.
func TestS3BuffersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var requests atomic.Int32
		s := fakeS3(t, func(r *http.Request) (*http.Response, error) {
			requests.Add(1)
			<-r.Context().Done()
			return nil, r.Context().Err()
		}, 4)
		life, end := context.WithCancelCause(t.Context())
		a, _, err := s.Create(life, Request{Offer: &protocol.Offer{ID: "a", Name: "a", Size: -1}, Tell: func(string) {}})
		require.NoError(t, err)
		wrote := make(chan error)
		go func() {
			n, err := a.Write(make([]byte, 10*partLen))
			assert.Equal(t, 3*partLen, n, "two parts on their way, one taken")
			wrote <- err
		}()
		synctest.Wait()
		assert.EqualValues(t, 2, requests.Load())

		b, err := offerS3(t, s, "b", -1)
		require.NoError(t, err)
		n, err := b.Write(make([]byte, partLen-1))
		require.NoError(t, err)
		assert.Equal(t, partLen-1, n)
		assert.False(t, s.room.TryAcquire(1), "all is given away")
		begun := time.Now()
		_, err = offerS3(t, s, "c", 10)
		assert.True(t, protocol.HasCode(err, protocol.CodeBusy), "%v", err)
		assert.Equal(t, s3Room, time.Since(begun))
		require.NoError(t, s.records.take("c"), "it is not in use any more")

		enough := errors.New("enough")
		end(enough)
		require.ErrorIs(t, <-wrote, enough)
		a.Discard(false)
		b.Discard(false)
		assert.True(t, s.room.TryAcquire(s.spec.memory), "all is given back")
	})
}

// The parts of a pipe grow, and the upload keeps the room it was given: it
// does not make way for one more.
func TestS3BuffersThatGrowAreBounded(t *testing.T) {
	s := fakeS3(t, func(r *http.Request) (*http.Response, error) {
		_, err := io.Copy(io.Discard, r.Body)
		return respond(r, http.StatusOK, ""), err
	}, 2)
	a, err := offerS3(t, s, "a", -1)
	require.NoError(t, err)
	b, err := offerS3(t, s, "b", -1)
	require.NoError(t, err)
	_, err = a.Write(make([]byte, s3DoubleAfter*partLen+1))
	require.NoError(t, err)
	assert.False(t, s.room.TryAcquire(1), "both have half")
	b.Discard(false)
	a.Discard(false)
	assert.True(t, s.room.TryAcquire(s.spec.memory), "all is given back")
}

// What is too large for an object is found before the reader says that it is ready.
func TestS3PipeThatIsTooLarge(t *testing.T) {
	for _, offset := range []int64{s3MaxObject - 10, s3MaxObject - 3*partLen} {
		s := fakeS3(t, func(r *http.Request) (*http.Response, error) {
			_, err := io.Copy(io.Discard, r.Body)
			return respond(r, http.StatusOK, ""), err
		}, 8)
		f, err := offerS3(t, s, "f", -1)
		require.NoError(t, err)
		f.(*s3File).offset = offset
		n, err := f.Write(make([]byte, 4*partLen))
		assert.EqualValues(t, s3MaxObject-offset, n)
		assert.True(t, protocol.HasCode(err, protocol.CodeTooLarge), "%v", err)
		f.Discard(false)
	}
}

// A part of which the store takes nothing, or that it does not answer, ends.
func TestS3StalledPart(t *testing.T) {
	for name, read := range map[string]bool{"takes nothing": false, "does not answer": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := fakeS3(t, func(r *http.Request) (*http.Response, error) {
					if read {
						_, _ = io.Copy(io.Discard, r.Body)
					}
					<-r.Context().Done()
					return nil, r.Context().Err()
				}, 4)
				f, err := offerS3(t, s, "f", partLen)
				require.NoError(t, err)
				_, err = f.Write(make([]byte, partLen))
				require.NoError(t, err)
				begun := time.Now()
				err = f.Stage(t.Context(), "")
				assert.True(t, protocol.HasCode(err, protocol.CodeStalled), "%v", err)
				assert.Equal(t, s3Stall, time.Since(begun))
				f.Discard(true)
				var rec s3Record
				require.True(t, s.records.load("f", &rec), "it may go on")
				assert.Len(t, rec.Parts, 1)
			})
		})
	}
}

// What is cut off while parts are on their way keeps those that arrive soon,
// and does not wait for others.
func TestS3DiscardSettles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := fakeS3(t, func(r *http.Request) (*http.Response, error) {
			if r.URL.Query().Get("partNumber") == "1" {
				time.Sleep(s3Settle / 2)
				return respond(r, http.StatusOK, ""), nil
			}
			<-r.Context().Done()
			return nil, r.Context().Err()
		}, 4)
		f, err := offerS3(t, s, "f", -1)
		require.NoError(t, err)
		_, err = f.Write(make([]byte, 2*partLen))
		require.NoError(t, err)
		begun := time.Now()
		f.Discard(true)
		assert.Equal(t, s3Settle, time.Since(begun))
		var rec s3Record
		require.True(t, s.records.load("f", &rec))
		require.Len(t, rec.Parts, 2)
		assert.Equal(t, "e", rec.Parts[0].ETag)
		assert.Empty(t, rec.Parts[1].ETag)
		assert.True(t, s.room.TryAcquire(s.spec.memory), "all is given back")
		require.NoError(t, s.records.take("f"))
	})
}
