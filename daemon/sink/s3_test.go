// Specifications of S3 sinks, and what a store of them does not ask anybody.

package sink_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/daemon/sink"
	"github.com/sbcast/sbcast/protocol"
)

func TestOpenS3(t *testing.T) {
	for _, name := range []string{"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_PROFILE"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "id")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	for _, c := range []struct{ spec, err string }{
		{"s3://bucket", ""},
		{"s3://bucket/", ""},
		{"s3://bucket/a/b/?endpoint=https://s3.example.org:9000/&region=eu-1&path_style=true&checksum=none", ""},
		{"s3://bucket?part_size=5M&parts_in_flight=64&memory=1G", ""},
		{"s3:", "sink s3: needs a bucket"},
		{"s3://", "sink s3: needs a bucket"},
		{"s3://b", "Bucket name cannot be shorter"},
		{"s3://%zz", "not a URL"},
		{"s3://key:hidden@bucket", "credentials do not belong into a URL"},
		{"s3://bucket?endpoint=https://key:hidden@host", "endpoint: want https://HOST"},
		{"s3://bucket?endpoint=host:9000", "endpoint: want https://HOST"},
		{"s3://bucket?endpoint=https://host/path", "endpoint: want https://HOST"},
		{"s3://bucket?secret=hidden", "parameter secret: unknown: there are endpoint, "},
		{"s3://bucket?part_size=4M", "parameter part_size: want a size from 5.0 MiB to 5.0 GiB"},
		{"s3://bucket?part_size=much", "parameter part_size: want a size"},
		{"s3://bucket?parts_in_flight=0", "parameter parts_in_flight: want 1 to 64"},
		{"s3://bucket?path_style=maybe", "parameter path_style: want false or true"},
		{"s3://bucket?memory=1K", "parameter memory: want a size"},
		{"s3://bucket#there", "bad parameters"},
	} {
		t.Run(c.spec, func(t *testing.T) {
			store, err := sink.Open(c.spec, sink.Options{State: t.TempDir()})
			if c.err != "" {
				require.ErrorContains(t, err, c.err)
				assert.NotContains(t, err.Error(), "hidden")
				return
			}
			require.NoError(t, err)
			assert.Equal(t, c.spec, store.String())
		})
	}
}

func TestS3RefusesWhatNoStoreTakes(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "id")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	store, err := sink.Open("s3://bucket/prefix", sink.Options{})
	require.NoError(t, err)
	_, _, err = store.Create(t.Context(), request(offer("f", 5<<40+1)))
	assertCode(t, protocol.CodeTooLarge, err)
	_, _, err = store.Create(t.Context(), request(offer(strings.Repeat("d/", 509)+"f", 1)))
	assertCode(t, protocol.CodeName, err)
}
