package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzSize reads sizes as users write them.
func FuzzSize(f *testing.F) {
	for _, s := range []string{"", "0", "1024", "1M", "1MB", "1.5GiB", "8E", "9E", "-1", "1e30", "NaN", "Inf", "9223372036854775807", "9223372036854775808", "1,000", " 7 k "} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := parseSize(s)
		if err != nil {
			require.Zero(t, n)
			return
		}
		require.GreaterOrEqual(t, n, int64(0), "%q", s)
		require.False(t, strings.HasPrefix(strings.TrimSpace(s), "-") && n > 0, "%q is %d", s, n)
		v := &sizeValue{max: 1 << 20}
		require.Equal(t, n > 1<<20, v.Set(s) != nil)
	})
}
