// Specifications of stores.

package sink_test

import (
	"bytes"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/daemon/sink"
)

func TestOpen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	for _, c := range []struct {
		spec string
		want string // String; "": what spec is
		err  string
	}{
		{spec: "discard:"},
		{spec: "-"},
		{spec: "dir:" + dir},
		{spec: "dir:" + dir + "/./x/..", want: "dir:" + dir},
		{spec: "dir:", err: "needs a path"},
		{spec: "dir", err: "needs a path"},
		{spec: "discard:x", err: "unknown sink"},
		{spec: "", err: "unknown sink"},
		{spec: "--", err: "unknown sink"},
		{spec: dir, err: "unknown sink"},
		{spec: "Dir:" + dir, err: "unknown sink"},
		{spec: "ftp://host/path", err: `unknown sink "ftp://host/path": want dir:PATH`},
		{spec: "exec:", err: "not a command line"},
	} {
		t.Run(c.spec, func(t *testing.T) {
			store, err := sink.Open(c.spec, sink.Options{Output: &bytes.Buffer{}})
			if c.err != "" {
				require.ErrorContains(t, err, c.err)
				return
			}
			require.NoError(t, err)
			if c.want == "" {
				c.want = c.spec
			}
			assert.Equal(t, c.want, store.String())
			if d, ok := store.(*sink.Dir); ok {
				require.NoError(t, d.Close())
			}
		})
	}
}

func TestDiscardTakesEverything(t *testing.T) {
	store, err := sink.Open("discard:", sink.Options{})
	require.NoError(t, err)
	for range 2 {
		p, err := put(t, store, offer("f", 4), "data")
		require.NoError(t, err)
		assert.Equal(t, sink.Published{Location: "discard:"}, p)
	}
}
