package protocol

import (
	"bufio"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// names reads the table of names: each with "good", or what is said of it.
func names(t *testing.T) map[string]string {
	t.Helper()
	f, err := os.Open("../testdata/names.tsv")
	require.NoError(t, err)
	defer f.Close()
	table := map[string]string{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if quoted, verdict, ok := strings.Cut(lines.Text(), "\t"); ok {
			name, err := strconv.Unquote(quoted)
			require.NoError(t, err, quoted)
			table[name] = verdict
		}
	}
	require.Greater(t, len(table), 200)
	return table
}

func TestNames(t *testing.T) {
	table := names(t)
	verdict := "good" // on systems where these are files like others
	if runtime.GOOS == "windows" {
		verdict = "local"
	}
	for _, name := range []string{"CON", "nul", "a/COM1", "NUL.txt", "c:", "C:/x", "a:stream"} {
		table[name] = verdict
	}
	for name, verdict := range table {
		err := Name(name).validate()
		if verdict == "good" {
			assert.NoError(t, err, "%q", name)
			continue
		}
		if assert.Error(t, err, "%q", name) {
			assert.True(t, HasCode(err, CodeName), "%q: %v", name, err)
			assert.ErrorContains(t, err, verdict, "%q", name)
		}
	}
}

// The error goes to terminals, logs and the peer: it must not do there what
// the name was refused for.
func TestBadNamesAreShownHarmlessly(t *testing.T) {
	for _, name := range []string{"a\x1b[2J\n", "\u202egpj", strings.Repeat("\xff", 9000), strings.Repeat("ä", 9000), "a\x00b"} {
		err := Name(name).validate()
		require.Error(t, err)
		shown := err.Error()
		assert.Less(t, len(shown), 600)
		assert.True(t, utf8.ValidString(shown))
		assert.NotContains(t, shown, "\x1b")
		assert.NotContains(t, shown, "\n")
		assert.NotContains(t, shown, "\u202e")
	}
}
