package daemon

import (
	"net"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/protocol"
)

// from is a connection of an address.
type from struct {
	net.Conn
	addr string
}

func (f from) RemoteAddr() net.Addr {
	a, _ := net.ResolveTCPAddr("tcp", f.addr)
	return a
}

func TestHandshakesMakeWay(t *testing.T) {
	h := handshakes{most: 4, from: map[string]int{}}
	var all []*handshake
	for _, addr := range []string{"10.0.0.1:1", "10.0.0.2:1", "10.0.0.2:2", "10.0.0.3:1"} {
		hs, dropped := h.begin(from{addr: addr})
		require.Nil(t, dropped)
		all = append(all, hs)
	}
	last, dropped := h.begin(from{addr: "10.0.0.4:1"})
	assert.Same(t, all[1], dropped, "the oldest of the address that has most")
	assert.False(t, h.end(all[1]), "it is gone")
	for _, hs := range []*handshake{all[0], all[2], all[3], last} {
		assert.True(t, h.end(hs))
	}
	assert.Empty(t, h.all)
	assert.Empty(t, h.from)
}

func TestQuota(t *testing.T) {
	p := newPlaces("things", 5, 3)
	for range 3 {
		require.NoError(t, p.take("a"))
	}
	err := p.take("a")
	assert.True(t, protocol.HasCode(err, protocol.CodeBusy))
	assert.EqualError(t, err, "a has 3 things here, which is the limit for one peer")
	require.NoError(t, p.take("b"))
	require.NoError(t, p.take("b"))
	assert.EqualError(t, p.take("b"), "the daemon has 5 things, which is its limit")
	p.give("a")
	require.NoError(t, p.take("b"))
	for range 3 {
		p.give("b")
	}
	p.give("a")
	p.give("a")
	assert.Zero(t, p.used)
	assert.Empty(t, p.by)
}

func TestAddressOf(t *testing.T) {
	for addr, want := range map[string]string{
		"10.0.0.1:7":                    "10.0.0.1",
		"[::ffff:10.0.0.1]:7":           "10.0.0.1",
		"[2001:db8:1:2:3:4:5:6]:7":      "2001:db8:1:2::/64",
		"[2001:db8:1:2:ffff:4:5:6]:900": "2001:db8:1:2::/64",
	} {
		assert.Equal(t, want, addressOf(from{addr: addr}))
	}
}
