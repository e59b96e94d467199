//go:build unix

// Commands of the scripts that look at daemons from outside.

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/time/rate"
)

func cmdGet(ts *testscript.TestScript, args []string) error {
	body, err := get(ts, args)
	_, _ = ts.Stdout().Write(body)
	return err
}

func cmdMetrics(ts *testscript.TestScript, args []string) error {
	if len(args) < 2 {
		return errors.New("usage: metrics ADDRESS LINE...")
	}
	body, err := get(ts, []string{args[0], "/metrics"})
	if err != nil {
		return err
	}
	for _, line := range args[1:] {
		re, err := regexp.Compile("(?m)^" + line + "$")
		if err != nil {
			return err
		}
		if !re.Match(body) {
			return fmt.Errorf("the metrics have no line %q:\n%s", line, body)
		}
	}
	return nil
}

func get(ts *testscript.TestScript, args []string) ([]byte, error) {
	if len(args) < 2 || len(args) > 3 {
		return nil, errors.New("usage: get ADDRESS PATH [HOST]")
	}
	network, addr := "tcp", args[0]
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		network, addr = "unix", ts.MkAbs(path)
	}
	host := append(args, "localhost")[2]
	c := &http.Client{Timeout: scriptWait, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, addr)
		},
	}}
	resp, err := c.Get("http://" + host + args[1])
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, bytes.TrimSpace(body))
	}
	return body, err
}

// cmdSlowLink starts a proxy whose buffers are small: what does not pass is
// with the sender.
func cmdSlowLink(ts *testscript.TestScript, args []string) error {
	if len(args) != 3 {
		return errors.New("usage: slowlink NAME ADDRESS RATE")
	}
	perSecond, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	l := &narrowLink{ctx: ctx, to: args[1], limit: rate.NewLimiter(rate.Limit(perSecond), slowPiece)}
	l.work.Go(func() { l.serve(ln) })
	ts.Defer(func() {
		cancel()
		ln.Close()
		l.work.Wait()
	})
	ts.Setenv(args[0], ln.Addr().String())
	return nil
}

const slowPiece = 16 << 10

type narrowLink struct {
	ctx   context.Context
	to    string
	limit *rate.Limiter
	work  sync.WaitGroup
}

func (l *narrowLink) serve(ln net.Listener) {
	for {
		near, err := ln.Accept()
		if err != nil {
			return
		}
		far, err := net.DialTimeout("tcp", l.to, scriptWait)
		if err != nil {
			near.Close()
			continue
		}
		for _, c := range []net.Conn{near, far} {
			_ = c.(*net.TCPConn).SetReadBuffer(4 * slowPiece)
			stop := context.AfterFunc(l.ctx, func() { c.Close() })
			l.work.Go(func() { <-l.ctx.Done(); stop() })
		}
		l.work.Go(func() { l.pass(far, near, l.limit) })
		l.work.Go(func() { l.pass(near, far, rate.NewLimiter(rate.Inf, 0)) })
	}
}

func (l *narrowLink) pass(to, from net.Conn, limit *rate.Limiter) {
	defer to.Close()
	defer from.Close()
	b := make([]byte, slowPiece)
	for {
		n, err := from.Read(b)
		if limit.WaitN(l.ctx, n) != nil {
			return
		}
		if _, werr := to.Write(b[:n]); werr != nil || err != nil {
			return
		}
	}
}

func cmdJSONLines(ts *testscript.TestScript, args []string) error {
	if len(args) < 1 || len(args) > 2 {
		return errors.New("usage: jsonlines NAME [N]")
	}
	p, err := find(ts, args[0])
	if err != nil {
		return err
	}
	n := 0
	for line := range bytes.Lines(p.stderr.bytes()) {
		var event struct {
			Time  time.Time `json:"time"`
			Level string    `json:"level"`
			Msg   string    `json:"msg"`
		}
		if err := json.Unmarshal(line, &event); err != nil || event.Time.IsZero() || event.Level == "" || event.Msg == "" {
			return fmt.Errorf("not a line of a JSON log (%w): %s", err, line)
		}
		n++
	}
	if len(args) == 2 && strconv.Itoa(n) != args[1] {
		return fmt.Errorf("%s has said %d lines, want %s:\n%s", p.name, n, args[1], p.stderr.bytes())
	}
	return nil
}
