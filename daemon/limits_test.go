// The limits of a server, and clients that test them.

package daemon_test

import (
	"bytes"
	"crypto/tls"
	"flag"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/daemon"
	"github.com/sbcast/sbcast/protocol"
	"github.com/sbcast/sbcast/protocol/ca"
)

func TestMoreConnectionsThanThereMayBe(t *testing.T) {
	s := newStore(t)
	n := serve(t, leafOver(t, s), daemon.Options{MaxConnections: 2})
	first := begin(t, n.addr, newOffer("a", 1, protocol.All))
	second := begin(t, n.addr, newOffer("b", 1, protocol.All))
	d := protocol.NewDialer(n.addr, protocol.SessionConfig{})
	defer d.Close()
	stream, err := d.Open(patient(t))
	if err == nil { // the refusal may come before the stream is open, or behind it
		third := protocol.NewSender(stream, protocol.SenderConfig{})
		_, err = third.Offer(patient(t), newOffer("c", 1, protocol.All))
		third.Close()
		third.Wait()
	}
	assertCode(t, protocol.CodeBusy, err)
	assert.ErrorContains(t, err, "2 connections, which is its limit")

	require.NoError(t, first.send([]byte("x")))
	first.complete()
	first.dialer.Close()
	eventually(t, "the first to be gone", func() bool { return n.Status().Sessions == 1 })
	_, err = push(t, n.addr, newOffer("c", 1, protocol.All), []byte("x"))
	require.NoError(t, err)
	require.NoError(t, second.send([]byte("x")))
	second.complete()
}

func TestMoreTransfersThanThereMayBe(t *testing.T) {
	s := newStore(t)
	n := serve(t, leafOver(t, s), daemon.Options{MaxTransfers: 2})
	first := begin(t, n.addr, newOffer("a", 1, protocol.All))
	second := begin(t, n.addr, newOffer("b", 1, protocol.All))
	_, err := push(t, n.addr, newOffer("c", 1, protocol.All), []byte("x"))
	assertCode(t, protocol.CodeBusy, err)
	assert.ErrorContains(t, err, "2 transfers, which is its limit")

	again := newOffer("b", 1, protocol.All) // a later attempt takes the place of the earlier
	again.Attempt = 2
	_, err = push(t, n.addr, again, []byte("y"))
	require.NoError(t, err)
	assertCode(t, protocol.CodeSuperseded, receive(t, second.ended, "the end of the earlier attempt"))

	eventually(t, "the second to be over", func() bool { return len(n.Status().Transfers) == 1 })
	_, err = push(t, n.addr, newOffer("c", 1, protocol.All), []byte("x"))
	require.NoError(t, err, "there is room again")
	require.NoError(t, first.send([]byte("x")))
	first.complete()
	for _, name := range []string{"a", "c"} {
		assertPublished(t, s, name, []byte("x"))
	}
}

// A broadcaster whose reader has as many transfers as it may waits for it.
func TestBroadcasterWaitsForABusyReader(t *testing.T) {
	s := newStore(t)
	r := serve(t, leafOver(t, s), daemon.Options{MaxTransfers: 1})
	b := serve(t, fanout(t, never, hop("r", r.addr)), daemon.Options{})
	first := begin(t, b.addr, newOffer("a", 1, protocol.All))
	second := newPusher(t, b.addr)
	offered := make(chan error, 1)
	go func() { offered <- second.offer(newOffer("b", 1, protocol.All)) }()
	second.awaitProgress("the reader is busy", func(l protocol.Leaf) bool { return l.Code == protocol.CodeBusy })
	require.NoError(t, first.send([]byte("x")))
	first.complete()
	first.Close()
	require.NoError(t, receive(t, offered, "the answer to the second"))
	require.NoError(t, second.send([]byte("y")))
	second.complete()
	assertPublished(t, s, "b", []byte("y"))
}

var slow = flag.Int("daemon.slow", 1500, "clients that take their time over Hello, of which 1,024 may be at it")

// trickle sends what it is given byte for byte, until the connection is closed,
// and returns when that was.
func trickle(conn net.Conn, b []byte, every time.Duration) {
	defer conn.Close()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for i := 0; ; i = min(i+1, len(b)-1) {
		if _, err := conn.Write(b[i : i+1]); err != nil {
			return
		}
		_ = conn.SetReadDeadline(time.Now().Add(every))
		if _, err := conn.Read(make([]byte, 1)); err != nil && !os.IsTimeout(err) {
			return
		}
	}
}

// More connections than there may be handshakes, which send a byte now and
// then: honest pushes get through all the time, and all of them are closed.
func TestSlowClientsKeepNobodyOut(t *testing.T) {
	s := newStore(t)
	n := reader(t, s)
	hello, err := protocol.AppendMessage(nil, &protocol.Hello{Versions: []int{protocol.Version}})
	require.NoError(t, err)
	done := make(chan struct{})
	for range *slow {
		conn, err := net.Dial("tcp", n.addr)
		require.NoError(t, err)
		go func() {
			trickle(conn, hello[:len(hello)-8], 500*time.Millisecond)
			done <- struct{}{}
		}()
	}
	for _, name := range []string{"a", "b", "c"} {
		begun := time.Now()
		_, err := push(t, n.addr, newOffer(name, 1, protocol.All), []byte(name))
		require.NoError(t, err)
		assertPublished(t, s, name, []byte(name))
		t.Log("an honest push took", time.Since(begun))
	}
	for range *slow {
		receive(t, done, "slow clients to be hung up on")
	}
	assert.LessOrEqual(t, n.Status().Sessions, 3)
}

// The same inside TLS: a handshake that does not go on.
func TestSlowHandshakesEnd(t *testing.T) {
	n := serve(t, leafOver(t, newStore(t)), daemon.Options{})
	for _, first := range []byte{0x16, 0x00} { // of TLS, and of a Hello
		conn, err := net.Dial("tcp", n.addr)
		require.NoError(t, err)
		begun := time.Now()
		trickle(conn, []byte{first, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3}, 100*time.Millisecond)
		assert.Less(t, time.Since(begun), protocol.HelloTimeout+patience)
	}
	conn, err := net.Dial("tcp", n.addr)
	require.NoError(t, err)
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	assert.Error(t, tls.Client(conn, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}).Handshake())
}

// A daemon with TLS has no more patience: neither for a handshake that does
// not get on, nor for a Hello behind one.
func TestSlowHandshakesOverTLSEnd(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, ca.Init(dir))
	require.NoError(t, ca.Issue(dir, "reader", ca.RoleReader, []string{"127.0.0.1"}, time.Hour))
	require.NoError(t, ca.Issue(dir, "client", ca.RoleClient, nil, time.Hour))
	id, err := protocol.LoadIdentity(protocol.IdentityFiles{
		Cert: filepath.Join(dir, "reader.pem"), Key: filepath.Join(dir, "reader-key.pem"), CA: filepath.Join(dir, "ca.pem"),
	}, nil)
	require.NoError(t, err)
	n := serve(t, leafOver(t, newStore(t)), daemon.Options{Identity: id})
	cert, err := tls.LoadX509KeyPair(filepath.Join(dir, "client.pem"), filepath.Join(dir, "client-key.pem"))
	require.NoError(t, err)
	known := &tls.Config{Certificates: []tls.Certificate{cert}, InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, NextProtos: []string{protocol.ALPN}}

	var clients sync.WaitGroup
	for name, dial := range map[string]func(net.Conn) net.Conn{
		"handshake": func(c net.Conn) net.Conn { return c },
		"hello":     func(c net.Conn) net.Conn { return tls.Client(c, known) },
	} {
		clients.Go(func() {
			conn, err := net.Dial("tcp", n.addr)
			if !assert.NoError(t, err) {
				return
			}
			// A record of 512 bytes, or a Hello of as many: a byte a second is too slow for both.
			first := []byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3}
			if name == "hello" {
				first = []byte{0, 0, 2, 0, byte(protocol.KindHello), 0, 0, 0, '{'}
			}
			begun := time.Now()
			trickle(dial(conn), append(first, bytes.Repeat([]byte{' '}, 500)...), 100*time.Millisecond)
			took := time.Since(begun)
			assert.Less(t, took, protocol.HelloTimeout+patience, name)
			assert.Greater(t, took, protocol.HelloTimeout/2, "%s: it was refused for something else", name)
		})
	}
	clients.Wait()
	eventually(t, "all to be gone", func() bool { return n.Status().Sessions == 0 })
}
