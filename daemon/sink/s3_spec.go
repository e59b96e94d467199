// What a specification of an S3 sink may say, and where credentials are from.

package sink

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/s3utils"
)

// Defaults and bounds of what a specification may set.
const (
	s3PartSize = 16 << 20  // content in one part, unless the size asks for larger ones
	s3InFlight = 3         // parts of an upload that are sent at once
	s3Memory   = 256 << 20 // buffers of all uploads of a store together

	s3MinPart     = 5 << 20 // S3 takes no smaller part but as the last
	s3MaxPart     = 5 << 30
	s3MaxInFlight = 64
)

// s3Spec is an s3:// specification, with its defaults filled in.
type s3Spec struct {
	text     string // as it was given
	bucket   string
	prefix   string // of keys: empty, or with a slash at its end
	endpoint *url.URL
	region   string
	lookup   minio.BucketLookupType
	profile  string
	iam      bool // credentials come from the machine's role
	plain    bool // the store does not know CRC32C
	partSize int64
	inFlight int
	memory   int64
}

// parseS3 reads s3://bucket/prefix?parameters. Its errors do not repeat what
// may be a secret.
func parseS3(text string) (s s3Spec, err error) {
	u, err := url.Parse(text)
	if err != nil {
		return s, errors.New("sink s3: not a URL: want s3://BUCKET/PREFIX?endpoint=https://HOST&region=REGION")
	}
	if u.User != nil {
		return s, fmt.Errorf("sink s3://%s: credentials do not belong into a URL: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile in ~/.aws/credentials", u.Host)
	}
	fail := func(format string, args ...any) (s3Spec, error) {
		return s, fmt.Errorf("sink s3://%s: %w", u.Host, fmt.Errorf(format, args...))
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil || u.Fragment != "" {
		return fail("bad parameters after the question mark")
	}
	s = s3Spec{text: text, bucket: u.Host, partSize: s3PartSize, inFlight: s3InFlight, memory: s3Memory}
	if s.bucket == "" {
		return s, errors.New("sink s3: needs a bucket, as in s3://BUCKET/PREFIX")
	}
	if err := s3utils.CheckValidBucketName(s.bucket); err != nil {
		return fail("%w", err)
	}
	if s.prefix = strings.Trim(u.Path, "/"); s.prefix != "" {
		s.prefix += "/"
	}
	endpoint := cmp.Or(os.Getenv("AWS_ENDPOINT_URL_S3"), os.Getenv("AWS_ENDPOINT_URL"), "https://s3.amazonaws.com")
	s.region = cmp.Or(os.Getenv("AWS_REGION"), os.Getenv("AWS_DEFAULT_REGION"), "us-east-1")
	for _, name := range s3Params(query) {
		value := query.Get(name)
		switch name {
		case "endpoint":
			endpoint = value
		case "region":
			s.region = value
		case "profile":
			s.profile = value
		case "path_style":
			s.lookup, err = choice(value, map[string]minio.BucketLookupType{"true": minio.BucketLookupPath, "false": minio.BucketLookupDNS})
		case "credentials":
			s.iam, err = choice(value, map[string]bool{"iam": true})
		case "checksum":
			s.plain, err = choice(value, map[string]bool{"crc32c": false, "none": true})
		case "part_size":
			s.partSize, err = sizeParam(value, s3MinPart, s3MaxPart)
		case "memory":
			s.memory, err = sizeParam(value, s3MinPart, 1<<50)
		case "parts_in_flight":
			var n int64
			n, err = strconv.ParseInt(value, 10, 32)
			if err != nil || n < 1 || n > s3MaxInFlight {
				err = fmt.Errorf("want 1 to %d", s3MaxInFlight)
			}
			s.inFlight = int(n)
		default:
			err = errors.New("unknown: there are endpoint, region, profile, credentials, path_style, checksum, part_size, parts_in_flight and memory")
		}
		if err != nil {
			return fail("parameter %s: %w", name, err)
		}
	}
	s.endpoint, err = url.Parse(endpoint)
	if err != nil || s.endpoint.User != nil || s.endpoint.Host == "" || (s.endpoint.Scheme != "https" && s.endpoint.Scheme != "http") || strings.Trim(s.endpoint.Path, "/") != "" {
		return fail("endpoint: want https://HOST[:PORT], or http:// for one that is trusted, and nothing behind it")
	}
	return s, nil
}

// s3Params are the names of the parameters, sorted.
func s3Params(query url.Values) []string {
	var names []string
	for name := range query {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func choice[T any](value string, of map[string]T) (T, error) {
	v, ok := of[value]
	if !ok {
		var words []string
		for word := range of {
			words = append(words, word)
		}
		slices.Sort(words)
		return v, fmt.Errorf("want %s", strings.Join(words, " or "))
	}
	return v, nil
}

// sizeParam is a size as flags take it: 16M is 16 MiB, 16MB is 16 * 10^6.
func sizeParam(value string, least, most int64) (int64, error) {
	if n := len(value); n > 1 && strings.ContainsAny(value[n-1:], "kKmMgGtT") {
		value += "iB"
	}
	n, err := humanize.ParseBytes(value)
	if err != nil || n < uint64(least) || n > uint64(most) {
		return 0, fmt.Errorf("want a size from %s to %s, such as 16M", humanize.IBytes(uint64(least)), humanize.IBytes(uint64(most)))
	}
	return int64(n), nil
}

// identity is what uploads under way are noted for: where they are, and not
// how they are done.
func (s *s3Spec) identity() string {
	return fmt.Sprintf("s3://%s/%s at %s", s.bucket, s.prefix, s.endpoint.Host)
}

func (s *s3Spec) location(key string) string { return "s3://" + s.bucket + "/" + key }

// credentials are those of the environment or of the AWS files; those of the
// machine's or container's role when they are asked for, or the environment
// says that there is one.
func (s *s3Spec) credentials() (*credentials.Credentials, error) {
	for _, name := range []string{"AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"} {
		s.iam = s.iam || os.Getenv(name) != ""
	}
	from := []credentials.Provider{&credentials.EnvAWS{}, &credentials.FileAWSCredentials{Profile: s.profile}}
	if s.profile != "" {
		from = from[1:]
	}
	if s.iam {
		from = append(from, &credentials.IAM{Region: s.region})
	}
	c := credentials.NewChainCredentials(from)
	if s.iam {
		return c, nil // the role is asked when there is something to sign
	}
	v, err := c.GetWithContext(&credentials.CredContext{Client: http.DefaultClient})
	if err == nil && (v.AccessKeyID == "" || v.SecretAccessKey == "") {
		err = errors.New("no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, write a profile into ~/.aws/credentials (profile=NAME takes another than AWS_PROFILE), or use the machine's role with credentials=iam")
	}
	return c, err
}
