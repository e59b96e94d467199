// Policy: how many leaves must have a file for a push to count.

package protocol

import (
	"fmt"
	"strconv"
)

// Policy says how many leaves must publish. The zero value is all of them.
type Policy struct {
	atLeast int // 0 means all
}

// All is the policy that publishes everywhere or nowhere.
var All = Policy{}

// ParsePolicy reads all, any or a number of leaves.
func ParsePolicy(s string) (Policy, error) {
	switch s {
	case "all", "":
		return All, nil
	case "any":
		return Policy{1}, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > 1<<20 {
		return Policy{}, fmt.Errorf("%q is not all, any or a number of readers from 1", s)
	}
	return Policy{n}, nil
}

func (p Policy) String() string {
	switch p.atLeast {
	case 0:
		return "all"
	case 1:
		return "any"
	default:
		return strconv.Itoa(p.atLeast)
	}
}

// IsAll reports whether one failed leaf fails the push.
func (p Policy) IsAll() bool { return p.atLeast == 0 }

// Needs is how many of total leaves must publish.
func (p Policy) Needs(total int) int {
	if p.IsAll() {
		return total
	}
	return p.atLeast
}

// MarshalText implements encoding.TextMarshaler.
func (p Policy) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Policy) UnmarshalText(b []byte) error {
	var err error
	*p, err = ParsePolicy(string(b))
	return err
}
