// The HTTP gateway of a broadcaster: its flags, and the client behind it.

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"

	"github.com/urfave/cli/v2"

	"github.com/sbcast/sbcast/client"
	"github.com/sbcast/sbcast/daemon"
	"github.com/sbcast/sbcast/daemon/gateway"
	"github.com/sbcast/sbcast/protocol"
)

// devGateway is where dev has its gateway unless it is told otherwise, or the
// port is in use.
const devGateway = "127.0.0.1:7080"

// noGateway is the --http that turns it off.
const noGateway = "off"

// httpPort is the variable of the proof of concept.
const httpPort = "BROADCASTER_HTTP_PORT"

// gatewayFlags are those of a daemon with a gateway, which is at value by default.
func gatewayFlags(value string) []cli.Flag {
	about := "`ADDRESS` of the HTTP gateway and its page, or off; " + httpPort + " sets the port (default: "
	if value == "" {
		about += "off)"
	} else {
		about += value + ", if it is free)"
	}
	return []cli.Flag{
		&cli.StringFlag{Name: "http", Usage: about},
		&cli.GenericFlag{Name: "http-max-size", Value: &sizeValue{}, Usage: "`SIZE` of the largest file by HTTP (default: no limit)"},
		&cli.IntFlag{Name: "http-max-uploads", Value: gateway.DefaultMaxUploads, Usage: "`NUMBER` of HTTP uploads at once"},
		&cli.StringSliceFlag{Name: "http-host", Usage: "`NAME` of the HTTP gateway, where it is on loopback and called otherwise than localhost: behind a proxy; once for each"},
		&cli.GenericFlag{Name: "http-timeout", Value: &secondsValue{gateway.DefaultStall}, Usage: "`SECONDS` that an HTTP client may send nothing while it could"},
	}
}

// httpAddress is where a gateway is to listen.
type httpAddress struct {
	addr  string // "": nowhere
	asked bool   // not only by default: it is an error when it cannot be had
}

// parseHTTP is --http, or all interfaces at the port in the environment, or
// else fallback.
func parseHTTP(c *cli.Context, fallback string) (httpAddress, error) {
	port := os.Getenv(httpPort)
	switch addr := c.String("http"); {
	case c.Int("http-max-uploads") < 1:
		return httpAddress{}, usagef("--http-max-uploads: want 1 or more")
	case addr == noGateway:
		return httpAddress{}, nil
	case c.IsSet("http"):
		if _, _, err := net.SplitHostPort(addr); err != nil {
			return httpAddress{}, usagef("--http: %q is not [HOST]:PORT, or off", addr)
		}
		return httpAddress{addr, true}, nil
	case findSocket("gateway") != nil: // in place of any address
		return httpAddress{":0", true}, nil
	case port == "":
		return httpAddress{addr: fallback}, nil
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return httpAddress{}, configError(fmt.Errorf("%s: %q is not a port", httpPort, port))
	}
	return httpAddress{":" + port, true}, nil
}

// addGateway adds a gateway in front of s to services, when there is to be one,
// and returns its address, or "".
func addGateway(c *cli.Context, guard guard, at httpAddress, services map[service]net.Listener, s *daemon.Server, log *slog.Logger) (string, error) {
	if at.addr == "" {
		return "", nil
	}
	scheme := "HTTP"
	if guard.identity != nil {
		scheme = "HTTPS"
	}
	ln, err := guard.listenFor(c.App.ErrWriter, "http", "gateway", at.addr, ", a page and /broadcast by "+scheme)
	if err != nil && !at.asked {
		log.Debug("no HTTP gateway", "error", err)
		return "", nil
	}
	if err != nil {
		return "", err
	}
	hosts := c.StringSlice("http-host")
	if guard.knows() {
		hosts = append(hosts, gateway.AnyHost) // a browser tells a foreign page nothing that says who it is
	}
	g := gateway.New(&pusher{client.NewOver("broadcaster", s.Local("gateway"))}, gateway.Options{
		MaxSize: sizeOf(c, "http-max-size"), MaxUploads: c.Int("http-max-uploads"), Stall: timeOf(c, "http-timeout"), Hosts: hosts, Log: log,
		TLS: guard.http(), Admit: guard.admit,
	})
	services[g] = ln
	return ln.Addr().String(), nil
}

// pusher is a client as the gateway needs it.
type pusher struct{ client *client.Client }

// Push implements gateway.Pusher.
func (p *pusher) Push(ctx context.Context, f gateway.File, progress func(gateway.Progress)) ([]protocol.Receipt, error) {
	o := f.Options
	receipts, err := p.client.Push(ctx, client.SizedStream(f.Content, string(f.Name), f.Size), client.Options{
		Require: o.Require, Force: o.Force, Compress: o.Compress, Digest: o.Digest, Timeout: o.Timeout, DryRun: o.DryRun,
		OnProgress: func(now client.Progress) {
			progress(gateway.Progress{Name: now.Name, Size: now.Size, Sent: now.Sent, Acked: now.Acked, Note: now.Note, Leaves: now.Leaves})
		},
	})
	var partial *client.PartialError
	if errors.As(err, &partial) {
		err = nil // the receipts say so
	}
	return receipts, err
}

// Readers implements gateway.Pusher.
func (p *pusher) Readers(ctx context.Context) ([]gateway.Reader, error) {
	all, err := p.client.Status(ctx, 0)
	var readers []gateway.Reader
	for _, s := range all {
		if s.Node != "" {
			readers = append(readers, gateway.Reader{Name: s.Node, Sink: s.Sink, Error: s.Error})
		}
	}
	if len(readers) > 0 {
		err = nil // of what came behind them
	}
	return readers, err
}
