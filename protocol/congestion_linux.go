// Congestion control where there is no network.

package protocol

import (
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// unpace is for a [net.Dialer]. It takes congestion control off a connection
// that stays on its machine, as far as that goes: Reno does nothing there, is
// in every kernel, and allowed to everybody. BBR, the default of many systems,
// sends by a timer for each packet, and such a connection at a third to a half
// of its speed. A connection that has begun with BBR keeps the timers.
func unpace(_, address string, raw syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err == nil && isHere(to.Addr()) {
		err = raw.Control(func(fd uintptr) { // where it does not work all goes on as before
			_ = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, "reno")
		})
	}
	return err
}

// isHere reports whether ip is this machine's.
func isHere(ip netip.Addr) bool {
	ip = ip.Unmap()
	if ip.IsLoopback() {
		return true
	}
	// A connection to an address of its own has it on both ends. Of UDP nothing
	// is sent; to list addresses takes netlink, which our units do not allow.
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, 9)))
	if err != nil {
		return false
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap() == ip
}
