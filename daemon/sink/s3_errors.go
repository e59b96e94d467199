// What goes wrong at an S3 store, in words, and with codes of the protocol.

package sink

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/minio/minio-go/v7"

	"github.com/sbcast/sbcast/protocol"
)

// errS3Stalled ends a part that makes no progress.
var errS3Stalled = protocol.Errorf(protocol.CodeStalled, "no progress for %v", s3Stall)

// s3Hints say what the user can do about an error of the store.
var s3Hints = map[string]struct {
	code protocol.Code
	hint string
}{
	"NoSuchBucket":                       {protocol.CodeIO, "create it, or check endpoint and region"},
	"InvalidBucketName":                  {protocol.CodeIO, ""},
	"NoSuchUpload":                       {protocol.CodeIO, "somebody has removed the upload under way; the same push again starts anew"},
	"InvalidPart":                        {protocol.CodeIO, "somebody has changed the upload under way"},
	"AccessDenied":                       {protocol.CodeDenied, "the credentials need s3:PutObject, s3:GetObject, s3:ListMultipartUploadParts and s3:AbortMultipartUpload there"},
	"AllAccessDisabled":                  {protocol.CodeDenied, ""},
	"InvalidAccessKeyId":                 {protocol.CodeDenied, "check AWS_ACCESS_KEY_ID, or the profile"},
	"SignatureDoesNotMatch":              {protocol.CodeDenied, "check AWS_SECRET_ACCESS_KEY, or the profile"},
	"ExpiredToken":                       {protocol.CodeDenied, "the credentials are too old"},
	"InvalidToken":                       {protocol.CodeDenied, "check AWS_SESSION_TOKEN, or the profile"},
	"RequestTimeTooSkewed":               {protocol.CodeDenied, "the clock of this machine or of the store is wrong"},
	"SlowDown":                           {protocol.CodeBusy, ""},
	"RequestTimeout":                     {protocol.CodeBusy, ""},
	"Throttling":                         {protocol.CodeBusy, ""},
	"OperationAborted":                   {protocol.CodeBusy, ""},
	"ServiceUnavailable":                 {protocol.CodeBusy, ""},
	"InternalError":                      {protocol.CodeBusy, ""},
	"BadDigest":                          {protocol.CodeChecksum, "the content was damaged on the way"},
	"InvalidDigest":                      {protocol.CodeChecksum, "the content was damaged on the way"},
	"QuotaExceeded":                      {protocol.CodeNoSpace, ""},
	"InsufficientStorage":                {protocol.CodeNoSpace, ""},
	"XMinioStorageFull":                  {protocol.CodeNoSpace, ""},
	"EntityTooLarge":                     {protocol.CodeTooLarge, ""},
	"NotImplemented":                     {protocol.CodeUnsupported, "checksum=none does without CRC32C, --force without If-None-Match"},
	"ConditionalRequestConflict":         {protocol.CodeConflict, ""},
	"PreconditionFailed":                 {protocol.CodeExists, ""},
	"PermanentRedirect":                  {protocol.CodeIO, "check endpoint and region"},
	"MovedPermanently":                   {protocol.CodeIO, "check endpoint and region"},
	"IllegalLocationConstraintException": {protocol.CodeIO, "check region"},
	"AuthorizationHeaderMalformed":       {protocol.CodeIO, "check region"},
	"XAmzContentSHA256Mismatch":          {protocol.CodeChecksum, "the content was damaged on the way"},
	"XAmzContentChecksumMismatch":        {protocol.CodeChecksum, "the content was damaged on the way"},
}

// explain says what went wrong at the store, and where.
func (s *S3) explain(doing string, err error) error {
	var own *protocol.Error
	if errors.As(err, &own) {
		return fmt.Errorf("%s: %s: %w", s.spec.location(""), doing, err)
	}
	where := fmt.Sprintf("bucket %q at %s", s.spec.bucket, s.spec.endpoint.Host)
	var resp minio.ErrorResponse
	if !errors.As(err, &resp) {
		return s.unreachable(where, doing, err)
	}
	known, ok := s3Hints[resp.Code]
	if !ok {
		known.code = s3Status(resp.StatusCode)
	}
	hint := ""
	if known.hint != "" {
		hint = " (" + known.hint + ")"
	}
	return protocol.Errorf(known.code, "%s: %s: %s: %s%s", where, doing, resp.Code, resp.Error(), hint)
}

// s3Status is the code for an error whose name says nothing.
func s3Status(status int) protocol.Code {
	switch {
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return protocol.CodeDenied
	case status == http.StatusTooManyRequests, status >= http.StatusInternalServerError:
		return protocol.CodeBusy
	default:
		return protocol.CodeIO
	}
}

// unreachable is for errors on the way to the store. The URL of the request is
// left out: it is long, and where says enough.
func (s *S3) unreachable(where, doing string, err error) error {
	var urlErr *url.Error
	if errors.As(err, &urlErr) {
		err = urlErr.Err
	}
	var certErr *tls.CertificateVerificationError
	code := protocol.CodeUnreachable
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		err = errors.New("no answer in time")
	case errors.Is(err, context.Canceled):
		code = protocol.CodeAborted
	case errors.As(err, &certErr):
		code = protocol.CodeDenied
	}
	return protocol.Errorf(code, "%s: %s: %w", where, doing, err)
}

// s3Code is the store's code in err.
func s3Code(err error) string {
	var resp minio.ErrorResponse
	errors.As(err, &resp)
	return resp.Code
}

// s3Unsure reports whether what was asked for may have been done: the store
// did not answer, or not for itself.
func s3Unsure(err error) bool {
	var resp minio.ErrorResponse
	return !errors.As(err, &resp) || resp.StatusCode >= http.StatusInternalServerError
}

// s3Taken reports whether the store says that the name is not free.
func s3Taken(err error) bool {
	var resp minio.ErrorResponse
	return errors.As(err, &resp) && (resp.StatusCode == http.StatusPreconditionFailed || resp.Code == "ConditionalRequestConflict")
}
