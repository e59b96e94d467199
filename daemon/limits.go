// Limits: how much of everything peers may have at once, so that a hostile or
// broken one ends as a closed connection and not as memory.

package daemon

import (
	"net"
	"net/netip"
	"slices"
	"sync"

	"github.com/sbcast/sbcast/protocol"
)

// Defaults of Options.
const (
	// DefaultMaxConnections is how many clients may be connected at once. One
	// that idles costs 90 KB.
	DefaultMaxConnections = 16384
	// DefaultMaxTransfers is how many transfers may be under way at once.
	DefaultMaxTransfers = 8192
)

const (
	// mostPerPeer bounds both for one peer. A broadcaster has no more
	// transfers to one reader (protocol.Dialer).
	mostPerPeer = 4096
	// mostHandshakes bounds the connections whose client is not known yet.
	// They cost a goroutine and a small buffer each, for HelloTimeout at most.
	mostHandshakes = 1024
	// streamsBeside is how many streams there may be besides those of
	// transfers: queries, and those that begin or end.
	streamsBeside = 256
)

// limits are those of one Server.
type limits struct {
	handshakes handshakes
	sessions   places
	streams    places
	transfers  places
}

func newLimits(connections, transfers int) *limits {
	if connections == 0 {
		connections = DefaultMaxConnections
	}
	if transfers == 0 {
		transfers = DefaultMaxTransfers
	}
	return &limits{
		handshakes: handshakes{most: mostHandshakes, from: map[string]int{}},
		sessions:   newPlaces("connections", connections, mostPerPeer),
		streams:    newPlaces("streams", transfers+streamsBeside, mostPerPeer+streamsBeside),
		transfers:  newPlaces("transfers", transfers, mostPerPeer),
	}
}

// places are how many of something peers have, in total and each.
type places struct {
	what  string
	total int
	each  int

	mu   sync.Mutex
	used int
	by   map[string]int // peer
}

func newPlaces(what string, total, each int) places {
	return places{what: what, total: total, each: min(each, total), by: map[string]int{}}
}

// take counts one more of peer's, or says which limit is reached.
func (p *places) take(peer string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.used >= p.total:
		return protocol.Errorf(protocol.CodeBusy, "the daemon has %d %s, which is its limit", p.used, p.what)
	case p.by[peer] >= p.each:
		return protocol.Errorf(protocol.CodeBusy, "%s has %d %s here, which is the limit for one peer", peer, p.each, p.what)
	}
	p.used++
	p.by[peer]++
	return nil
}

// give counts one of peer's less.
func (p *places) give(peer string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.used--
	if p.by[peer]--; p.by[peer] == 0 {
		delete(p.by, peer)
	}
}

// handshakes are the connections whose client is not known yet, the oldest
// first. When there are too many, one goes for each that comes: an honest
// client needs a few milliseconds and a slow one is the oldest soon. New
// ones could be refused instead, but then 1,024 connections that say nothing
// would keep everybody out for HelloTimeout.
type handshakes struct {
	most int

	mu  sync.Mutex
	all []*handshake
	// from counts them by address. The one that has the most loses its
	// oldest, so that a single host cannot push out those of others.
	from map[string]int
}

type handshake struct {
	conn net.Conn
	from string
}

// begin notes a new connection and returns the one that has to make way, or nil.
func (h *handshakes) begin(conn net.Conn) (begun, dropped *handshake) {
	begun = &handshake{conn: conn, from: addressOf(conn)}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.all) >= h.most {
		busiest := ""
		for from, n := range h.from {
			if n > h.from[busiest] {
				busiest = from
			}
		}
		i := slices.IndexFunc(h.all, func(hs *handshake) bool { return hs.from == busiest })
		dropped = h.all[i]
		h.removeLocked(i)
	}
	h.all = append(h.all, begun)
	h.from[begun.from]++
	return begun, dropped
}

// end forgets a connection and reports whether it was there: it may have made
// way for another.
func (h *handshakes) end(hs *handshake) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := slices.Index(h.all, hs)
	if i >= 0 {
		h.removeLocked(i)
	}
	return i >= 0
}

func (h *handshakes) removeLocked(i int) {
	from := h.all[i].from
	h.all = slices.Delete(h.all, i, i+1)
	if h.from[from]--; h.from[from] == 0 {
		delete(h.from, from)
	}
}

// addressOf is where a connection comes from, without its port. Who has one
// IPv6 address has the 2^64 beside it too.
func addressOf(conn net.Conn) string {
	addr := conn.RemoteAddr().String()
	at, err := netip.ParseAddrPort(addr)
	if err != nil {
		return addr
	}
	ip := at.Addr().Unmap()
	if ip.Is6() {
		if prefix, err := ip.WithZone("").Prefix(64); err == nil {
			return prefix.String()
		}
	}
	return ip.String()
}

// nameOf is what counts as one peer: who the client is, where that is known,
// else where it comes from.
func nameOf(conn net.Conn, client protocol.Peer) string {
	if client.Name != "" {
		return client.Name
	}
	return addressOf(conn)
}
