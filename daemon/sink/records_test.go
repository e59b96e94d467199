package sink

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/protocol"
)

func TestRecordsSurvive(t *testing.T) {
	dir := t.TempDir()
	type note struct{ Upload string }
	r, err := openRecords(dir, "s3://a")
	require.NoError(t, err)
	var n note
	assert.False(t, r.load("f", &n))
	require.NoError(t, r.save("f", note{"one"}))
	require.NoError(t, r.save("f", note{"two"}))

	again, err := openRecords(dir, "s3://a")
	require.NoError(t, err)
	require.True(t, again.load("f", &n))
	assert.Equal(t, "two", n.Upload)
	assert.False(t, again.load("g", &n), "another name")
	other, err := openRecords(dir, "s3://b")
	require.NoError(t, err)
	assert.False(t, other.load("f", &n), "another store")

	require.NoError(t, again.expired(0, func(json.RawMessage) bool { return false }))
	assert.True(t, again.load("f", &n))
	require.NoError(t, again.expired(0, func(b json.RawMessage) bool { return string(b) == `{"Upload":"two"}` }))
	assert.False(t, again.load("f", &n))
	require.NoError(t, again.drop("f"), "twice")
}

func TestRecordsDamagedIsMissing(t *testing.T) {
	r, err := openRecords(t.TempDir(), "s3://a")
	require.NoError(t, err)
	require.NoError(t, r.save("f", map[string]int{"a": 1}))
	b, err := os.ReadFile(r.path("f"))
	require.NoError(t, err)
	var v map[string]int
	for n := range b {
		require.NoError(t, os.WriteFile(r.path("f"), b[:n], 0o600))
		assert.False(t, r.load("f", &v), "cut at %d", n)
	}
	files, err := filepath.Glob(filepath.Join(r.dir, "*"))
	require.NoError(t, err)
	assert.Len(t, files, 1, "nothing is left beside the record")
}

func TestRecordsNamesInUse(t *testing.T) {
	r, err := openRecords("", "s3://a")
	require.NoError(t, err)
	require.NoError(t, r.take("f"))
	require.NoError(t, r.take("g"))
	assert.True(t, protocol.HasCode(r.take("f"), protocol.CodeConflict))
	r.release("f")
	require.NoError(t, r.take("f"))
	require.NoError(t, r.save("f", 1), "no directory, nothing kept")
	assert.False(t, r.load("f", new(int)))
}
