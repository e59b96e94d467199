package protocol

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParsePolicy(t *testing.T) {
	tests := []struct {
		in, out string
		of5     int // needed of 5 leaves
	}{
		{"all", "all", 5},
		{"", "all", 5},
		{"any", "any", 1},
		{"1", "any", 1},
		{"2", "2", 2},
		{"5", "5", 5},
		{"7", "7", 7}, // more than there are: cannot be met
		{"1048576", "1048576", 1 << 20},
	}
	for _, tt := range tests {
		p, err := ParsePolicy(tt.in)
		require.NoError(t, err)
		assert.Equal(t, tt.out, p.String())
		assert.Equal(t, tt.of5, p.Needs(5), "%q", tt.in)
		assert.Equal(t, tt.out == "all", p.IsAll(), "%q", tt.in)
	}
	for _, in := range []string{"0", "-1", "1048577", "most", "ALL", "50%", "1.5", " 2", "99999999999999999999"} {
		_, err := ParsePolicy(in)
		assert.ErrorContains(t, err, "is not all, any or a number", "%q", in)
	}
}

func TestPolicyOnTheWire(t *testing.T) {
	for in, want := range map[string]Policy{`"all"`: All, `"any"`: {1}, `"3"`: {3}, `""`: All} {
		var p Policy
		require.NoError(t, json.Unmarshal([]byte(in), &p))
		assert.Equal(t, want, p)
		out, err := json.Marshal(p)
		require.NoError(t, err)
		var again Policy
		require.NoError(t, json.Unmarshal(out, &again))
		assert.Equal(t, p, again)
	}
	var p Policy
	assert.Error(t, json.Unmarshal([]byte(`"few"`), &p))
	assert.Equal(t, All, p, "a policy that cannot be read must be the strictest")
}
