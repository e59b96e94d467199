package protocol

import (
	"runtime"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestGoodNames(t *testing.T) {
	deep := strings.Repeat("d/", maxNameDeep-1) + "f"
	names := []string{
		"f",
		"file.bin",
		"releases/app.tar.zst",
		"a/b/c/d",
		".hidden",
		"..hidden",
		"...",
		"a..b",
		"a/..b/c..",
		"a/.b",
		"sbcast-x",
		"x.sbcast-y",
		".sbcast",
		".sbcastx",
		"a-rf",
		"a/-rf",
		"~",
		"~root/x",
		"$HOME",
		"with space",
		" leading",
		"trailing ",
		"größe.txt",
		"日本語/ファイル",
		"e\u0301",
		"👩\u200d💻.png", // joined emoji are one sign to their users
		"100%",
		"a*b?",
		"a|b>c",
		"'quoted'",
		`"quoted"`,
		"semi;colon",
		"new-line?no",
		"#hash",
		"@at",
		strings.Repeat("n", maxPartLen),
		strings.Repeat("ä", maxPartLen/2),
		deep,
		strings.Repeat(strings.Repeat("n", 204)+"/", 19) + strings.Repeat("n", 201), // 4096 bytes
	}
	if runtime.GOOS != "windows" {
		names = append(names, "CON", "nul.txt", "a/COM1", "c:", "C:/x", "a:stream")
	}
	for _, name := range names {
		assert.NoError(t, CheckName(name), "%q", name)
	}
}

func TestBadNames(t *testing.T) {
	tooDeep := strings.Repeat("d/", maxNameDeep) + "f"
	bad := map[string]string{ // name: why
		"":                   "empty",
		".":                  ". or ..",
		"..":                 ". or ..",
		"../x":               ". or ..",
		"../../etc/passwd":   ". or ..",
		"a/..":               ". or ..",
		"a/../b":             ". or ..",
		"a/../../b":          ". or ..",
		"./a":                ". or ..",
		"a/.":                ". or ..",
		"a/./b":              ". or ..",
		"/":                  "absolute",
		"/a":                 "absolute",
		"//host/share":       "absolute",
		"/etc/passwd":        "absolute",
		"/../x":              "absolute",
		"a/":                 "ends in a slash",
		"a//":                "ends in a slash",
		"../":                "ends in a slash",
		"a//b":               "empty part",
		"a///b":              "empty part",
		"-":                  "dash",
		"-rf":                "dash",
		"--help":             "dash",
		"-/x":                "dash",
		`\`:                  "backslash",
		`a\b`:                "backslash",
		`..\x`:               "backslash",
		`C:\Windows`:         "backslash",
		`\\host\share`:       "backslash",
		"\x00":               "control",
		"a\x00":              "control",
		"a\x00.txt":          "control",
		"a\nb":               "control",
		"a\rb":               "control",
		"a\tb":               "control",
		"a\x1b[31mred":       "control",
		"a\x07":              "control",
		"a\x7f":              "control",
		"a\u0080":            "control",
		"a\u0085b":           "control",
		"a\u009b31m":         "control", // CSI in one rune
		"a\u2028b":           "control",
		"a\u2029b":           "control",
		"\ufeffbom":          "control",
		"a\u202egpj.exe":     "control", // shows as "aexe.jpg"
		"a\u202ab":           "control",
		"a\u202bb":           "control",
		"a\u202cb":           "control",
		"a\u202db":           "control",
		"a\u2066b":           "control",
		"a\u2067b":           "control",
		"a\u2068b":           "control",
		"a\u2069b":           "control",
		"a\u200eb":           "control",
		"a\u200fb":           "control",
		"a\u061cb":           "control",
		"a/\u202eb":          "control",
		"\xff":               "UTF-8",
		"a\xc3":              "UTF-8",
		"a\xc3/b":            "UTF-8",
		"\xed\xa0\x80":       "UTF-8", // a surrogate
		"\xc0\xae\xc0\xae/x": "UTF-8", // ".." the long way
		"\xe0\x80\xaf":       "UTF-8", // "/" the long way
		".sbcast-":           "reserved",
		".sbcast-x":          "reserved",
		".SBCAST-x":          "reserved",
		".SbCaSt-x.part":     "reserved",
		"a/.sbcast-x":        "reserved",
		".sbcast-x/a":        "reserved",
		"a/.sbcast-x/b":      "reserved",
		tooDeep:              "32 directories",

		strings.Repeat("n", maxPartLen+1):        "255 bytes",
		"a/" + strings.Repeat("n", maxPartLen+1): "255 bytes",
		strings.Repeat("ä", maxPartLen/2+1):      "255 bytes",
		strings.Repeat("n/", maxNameLen/2) + "n": "4096 bytes",
		strings.Repeat("n", maxNameLen+1):        "4096 bytes",
		strings.Repeat("/", maxNameLen+1):        "4096 bytes",
		strings.Repeat("\xff", maxNameLen+1):     "4096 bytes",
	}
	if runtime.GOOS == "windows" {
		for _, name := range []string{"CON", "nul", "a/COM1", "NUL.txt", "c:", "C:/x", "a:stream"} {
			bad[name] = "local"
		}
	}
	for name, why := range bad {
		err := CheckName(name)
		if assert.Error(t, err, "%q", name) {
			assert.True(t, HasCode(err, CodeName), "%q: %v", name, err)
			assert.ErrorContains(t, err, why, "%q", name)
		}
	}
}

// The error goes to terminals, logs and the peer: it must not do there what
// the name was refused for.
func TestBadNamesAreShownHarmlessly(t *testing.T) {
	for _, name := range []string{"a\x1b[2J\n", "\u202egpj", strings.Repeat("\xff", 9000), strings.Repeat("ä", 9000), "a\x00b"} {
		err := CheckName(name)
		require.Error(t, err)
		shown := err.Error()
		assert.Less(t, len(shown), 600)
		assert.True(t, utf8.ValidString(shown))
		assert.NotContains(t, shown, "\x1b")
		assert.NotContains(t, shown, "\n")
		assert.NotContains(t, shown, "\u202e")
	}
}
