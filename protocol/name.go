// Names: what a peer may call a file.

package protocol

import (
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of names, from what common file systems and object stores take.
const (
	maxNameLen  = 4096
	maxPartLen  = 255
	maxNameDeep = 32

	// ReservedPrefix begins the names of files that sinks keep for themselves.
	ReservedPrefix = ".sbcast-"
)

// Name is what a peer may call a file: a slash-separated relative path that
// cannot mean a place outside the sink's root, a file of sbcast's own, or
// something else on another system or terminal. ParseName makes one, and
// ParseMessage lets no other in.
type Name string

// ParseName refuses what is no Name, with CodeName.
func ParseName(s string) (Name, error) {
	n := Name(s)
	return n, n.validate()
}

func (n Name) validate() error {
	name := string(n)
	if why := badName(name); why != "" {
		shown := name
		if len(shown) > 100 {
			shown = strings.ToValidUTF8(shown[:100], "") + "..."
		}
		return Errorf(CodeName, "bad name %q: %s", shown, why)
	}
	return nil
}

func badName(name string) string {
	switch {
	case name == "":
		return "empty"
	case len(name) > maxNameLen:
		return "longer than 4096 bytes"
	case !utf8.ValidString(name):
		return "not valid UTF-8"
	case strings.HasPrefix(name, "/"):
		return "absolute"
	case strings.HasSuffix(name, "/"):
		return "ends in a slash"
	case strings.HasPrefix(name, "-"):
		return "begins with a dash"
	case strings.Contains(name, `\`):
		return "has a backslash"
	}
	for _, r := range name {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029' || r == '\ufeff' {
			return "has a control character"
		}
	}
	parts := strings.Split(name, "/")
	if len(parts) > maxNameDeep {
		return "more than 32 directories deep"
	}
	for _, part := range parts {
		switch {
		case part == "":
			return "has an empty part"
		case part == "." || part == "..":
			return "has a . or .. part"
		case len(part) > maxPartLen:
			return "has a part longer than 255 bytes"
		case strings.HasPrefix(strings.ToLower(part), ReservedPrefix):
			return "begins with " + ReservedPrefix + ", which is reserved"
		}
	}
	if !filepath.IsLocal(filepath.FromSlash(name)) {
		return "not a local path"
	}
	return ""
}
