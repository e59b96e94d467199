// How an S3 upload is cut into parts, and what is noted of it.

package sink

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"

	"github.com/dustin/go-humanize"
	"github.com/minio/minio-go/v7"

	"github.com/sbcast/sbcast/protocol"
)

// s3Record is what a later process needs to go on with an upload. It is
// believed only as far as the store's own list of parts agrees.
type s3Record struct {
	Key      string   `json:"key"`
	Upload   string   `json:"upload"` // the store's id of it
	Token    string   `json:"token"`  // our own: see metaUpload
	Source   string   `json:"source"` // equal for equal content: see sourceKey
	Size     int64    `json:"size"`
	PartSize int64    `json:"part_size"`
	Parts    []s3Part `json:"parts"`
}

// s3Part is a part that was cut. It may be on its way still.
type s3Part struct {
	Size   int64  `json:"size"`
	CRC    uint32 `json:"crc"`    // CRC32C of the part
	Prefix uint32 `json:"prefix"` // CRC32C of all content up to its end
	ETag   string `json:"etag,omitempty"`
}

// end is how much content the parts have, and its CRC32C.
func (r *s3Record) end() (offset int64, crc uint32) {
	for _, p := range r.Parts {
		offset, crc = offset+p.Size, p.Prefix
	}
	return offset, crc
}

// agreed keeps the parts from the first on that the store has as they were cut.
func (r *s3Record) agreed(listed map[int]minio.ObjectPart) {
	for i := range r.Parts {
		p, at := &r.Parts[i], listed[i+1]
		same := at.ETag != "" && at.ETag == p.ETag
		if at.ChecksumCRC32C != "" {
			same = at.ChecksumCRC32C == s3CRC(p.CRC)
		}
		if at.Size != p.Size || !same {
			r.Parts = r.Parts[:i]
			return
		}
		p.ETag = at.ETag
	}
}

// complete is the list of parts that makes the object.
func (r *s3Record) complete(plain bool) []minio.CompletePart {
	parts := make([]minio.CompletePart, len(r.Parts))
	for i, p := range r.Parts {
		parts[i] = minio.CompletePart{PartNumber: i + 1, ETag: p.ETag}
		if !plain {
			parts[i].ChecksumCRC32C = s3CRC(p.CRC)
		}
	}
	return parts
}

// s3CRC is a CRC32C as S3 writes it.
func s3CRC(crc uint32) string {
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, crc))
}

// The parts of an object of known size are alike, and as large as they have to
// be for 10,000 of them to hold it. Those of a pipe begin small, as most pipes
// do not hold much, and double every so many, until what may still come fits
// into the parts that are left.
const s3DoubleAfter = 900

// nextPart is the size of the part with number n (from 0), at offset, of an
// object of size (-1: unknown), when parts begin with partSize.
func nextPart(n int, offset, size, partSize int64) int64 {
	if size >= 0 {
		return max(1, min(size-offset, max(partSize, wholeMiB(size, s3MaxParts))))
	}
	enough := wholeMiB(s3MaxObject-offset, int64(s3MaxParts-n))
	return max(partSize, min(partSize<<min(n/s3DoubleAfter, 11), enough))
}

// wholeMiB is an nth of size, in MiB and not less.
func wholeMiB(size, n int64) int64 {
	if n <= 0 {
		return 1 << 20
	}
	const mib = 1 << 20
	return (size + n*mib - 1) / (n * mib) * mib
}

// resume looks for an upload under way of the same content. Without one it
// leaves f.rec empty; the note says why, where the user should know.
func (f *s3File) resume(ctx context.Context) (note string, err error) {
	s := f.store
	var rec s3Record
	if !s.records.load(string(f.offer.Name), &rec) || rec.Key != f.key {
		return "", nil
	}
	noted, _ := rec.end()
	again := func(why string) (string, error) {
		s.forget(string(f.offer.Name))
		if noted == 0 || f.offer.Fingerprint == "" {
			return "", nil
		}
		return fmt.Sprintf("%s: starting again from zero, without the %s received before", why, humanize.IBytes(uint64(noted))), nil
	}
	if rec.Source != sourceKey(f.offer) || rec.Size != f.offer.Size {
		return again("the source has changed")
	}
	if !goesOnByCRC(f.offer) {
		return again(fmt.Sprintf("a bucket cannot be read back to check %s, as --digest xxh128 needs not", f.offer.Digest))
	}
	listed, err := s.listParts(ctx, f.key, rec.Upload)
	if s3Code(err) == "NoSuchUpload" {
		return again("the store has removed the upload")
	}
	if err != nil {
		return "", s.explain("list the parts of "+f.key, err)
	}
	if rec.agreed(listed); len(rec.Parts) == 0 {
		return again("the store has nothing of it")
	}
	f.rec = rec
	if offset, _ := rec.end(); offset < noted {
		note = fmt.Sprintf("the store has %d of the %d bytes that were noted as cut", offset, noted)
	}
	return note, nil
}

// listParts asks for all the parts of an upload, by number.
func (s *S3) listParts(ctx context.Context, key, upload string) (map[int]minio.ObjectPart, error) {
	ctx, cancel := context.WithTimeout(ctx, s3Answer)
	defer cancel()
	all := map[int]minio.ObjectPart{}
	for marker := 0; ; {
		page, err := s.core.ListObjectParts(ctx, s.spec.bucket, key, upload, marker, 1000)
		if err != nil {
			return nil, err
		}
		for _, p := range page.ObjectParts {
			p.ETag = trimQuotes(p.ETag)
			all[p.PartNumber] = p
		}
		if !page.IsTruncated || page.NextPartNumberMarker <= marker {
			return all, nil
		}
		marker = page.NextPartNumberMarker
	}
}

func trimQuotes(etag string) string {
	if n := len(etag); n >= 2 && etag[0] == '"' && etag[n-1] == '"' {
		return etag[1 : n-1]
	}
	return etag
}

// begin starts an upload, and notes it: what is not noted is not removed when
// this process dies.
func (f *s3File) begin(ctx context.Context, token string) (note string, err error) {
	s := f.store
	ctx, cancel := context.WithTimeout(ctx, s3Answer)
	defer cancel()
	meta := s3Metadata(f.offer)
	meta[metaUpload] = token
	if !s.spec.plain {
		meta["x-amz-checksum-algorithm"] = "CRC32C"
		meta["x-amz-checksum-type"] = "FULL_OBJECT"
	}
	upload, err := s.core.NewMultipartUpload(ctx, s.spec.bucket, f.key, minio.PutObjectOptions{UserMetadata: meta, PartSize: uint64(s.spec.partSize)})
	if err != nil {
		return "", s.explain("begin the upload of "+f.key, err)
	}
	f.rec = s3Record{Key: f.key, Upload: upload, Token: token, Source: sourceKey(f.offer), Size: f.offer.Size, PartSize: s.spec.partSize}
	if err := s.records.save(string(f.offer.Name), f.rec); err != nil {
		return fmt.Sprintf("this push cannot go on after a restart of the reader: %v", err), nil
	}
	return "", nil
}

// errTooLarge is for pipes: an offer that says its size is refused at once.
func errTooLarge() error {
	return protocol.Errorf(protocol.CodeTooLarge, "more than %d parts, or 5 TiB: S3 takes no larger object", s3MaxParts)
}
