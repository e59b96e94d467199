package protocol

import (
	"net"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// What stays on the machine is not paced, whatever the default of the system.
func TestUnpaceOnlyHere(t *testing.T) {
	assert.True(t, isHere(netip.MustParseAddr("127.0.0.2")))
	assert.True(t, isHere(netip.MustParseAddr("::1")))
	assert.True(t, isHere(netip.MustParseAddr("::ffff:127.0.0.1")))
	assert.False(t, isHere(netip.MustParseAddr("192.0.2.1"))) // RFC 5737: nobody's

	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	conn, err := (&net.Dialer{Control: unpace}).Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	require.NoError(t, err)
	var name string
	require.NoError(t, raw.Control(func(fd uintptr) {
		name, err = unix.GetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION)
	}))
	require.NoError(t, err)
	assert.Equal(t, "reno", name)
}
