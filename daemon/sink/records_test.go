package sink

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

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

	require.NoError(t, again.drop("f"))
	assert.False(t, again.load("f", &n))
	require.NoError(t, again.drop("f"), "twice")
}

// Records expire once an hour, in the background, but for those in use.
func TestRecordsExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, err := openRecords(t.TempDir(), "s3://a")
		require.NoError(t, err)
		for _, name := range []string{"used", "kept", "old"} {
			require.NoError(t, r.save(name, name))
			old := time.Now().Add(-time.Minute)
			require.NoError(t, os.Chtimes(r.path(name), old, old))
		}
		require.NoError(t, r.save("new", "new"))
		require.NoError(t, os.Chtimes(r.path("new"), time.Now(), time.Now()))
		require.NoError(t, r.take("used"))
		var seen []string
		removing := make(chan struct{})
		clean := func() {
			r.expire(time.Minute, func(_ context.Context, record json.RawMessage) bool {
				seen = append(seen, string(record))
				if string(record) == `"old"` {
					<-removing
				}
				return string(record) == `"old"`
			})
		}
		clean()
		synctest.Wait()
		assert.True(t, protocol.HasCode(r.take("old"), protocol.CodeBusy), "it is being removed")
		close(removing)
		synctest.Wait()
		assert.ElementsMatch(t, []string{`"kept"`, `"old"`}, seen)
		assert.False(t, r.load("old", new(string)))
		require.NoError(t, r.take("old"))

		clean()
		synctest.Wait()
		assert.Len(t, seen, 2, "not again so soon")
		r.release("used")
		time.Sleep(cleanEvery)
		clean()
		synctest.Wait()
		assert.ElementsMatch(t, []string{`"kept"`, `"kept"`, `"old"`, `"used"`, `"new"`}, seen)
		r.close()
		time.Sleep(cleanEvery)
		clean()
		synctest.Wait()
		assert.Len(t, seen, 5, "it is closed")
	})
}

// Two processes must not go on with the same uploads.
func TestRecordsAreLocked(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there are no locks")
	}
	dir := t.TempDir()
	first, err := openRecords(dir, "s3://a")
	require.NoError(t, err)
	require.NoError(t, first.lock())
	second, err := openRecords(dir, "s3://a")
	require.NoError(t, err)
	require.ErrorContains(t, second.lock(), "give each a directory of its own with --state")
	other, err := openRecords(dir, "s3://b")
	require.NoError(t, err)
	require.NoError(t, other.lock())
	other.close()
	first.close()
	require.NoError(t, second.lock())
	second.close()
}

func TestRecordsThatCannotBeKept(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	for _, spec := range []string{"s3://bucket", "https://host/"} {
		t.Setenv("AWS_ACCESS_KEY_ID", "id")
		t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
		_, err := Open(spec, Options{State: file})
		require.ErrorContains(t, err, "sink "+spec+": the directory for uploads under way")
		require.ErrorContains(t, err, "--state")
	}
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
