package main

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"regexp"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/urfave/cli/v2"

	"github.com/sbcast/sbcast/daemon"
	"github.com/sbcast/sbcast/protocol"
)

// A profile that is being made, of which nobody waits for the end, does not
// keep a daemon from ending.
func TestAdminEndsProfiles(t *testing.T) {
	ln, err := listenAdmin("127.0.0.1:0")
	require.NoError(t, err)
	services := map[service]net.Listener{}
	c := cli.NewContext(&cli.App{ErrWriter: io.Discard}, nil, nil)
	addAdmin(c, ln, services, slog.New(slog.DiscardHandler), "test")
	require.Len(t, services, 1)
	for a := range services {
		var work sync.WaitGroup
		work.Go(func() { assert.NoError(t, a.Serve(ln)) })
		work.Go(func() {
			resp, err := http.Get("http://" + ln.Addr().String() + "/debug/pprof/trace?seconds=100")
			if err == nil { // else it came too late
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		})
		resp, err := http.Get("http://" + ln.Addr().String() + "/healthz")
		require.NoError(t, err)
		resp.Body.Close()
		_ = a.Shutdown(context.Background())
		work.Wait()
	}
}

// The page of the docs has every metric, and none that is not there.
func TestDocsHaveAllMetrics(t *testing.T) {
	fanout, err := daemon.NewFanout([]*daemon.Hop{daemon.NewHop("r", protocol.NewDialer("localhost:1", protocol.SessionConfig{}))}, daemon.FanoutOptions{})
	require.NoError(t, err)
	defer fanout.Close()
	described := make(chan *prometheus.Desc, 100)
	daemon.NewServer(fanout, daemon.Options{}).Describe(described)
	fanout.Describe(described)
	close(described)
	there := []string{"sbcast_info"}
	for d := range described {
		there = append(there, regexp.MustCompile(`fqName: "([^"]+)"`).FindStringSubmatch(d.String())[1])
	}
	page, err := os.ReadFile("docs/operations.md")
	require.NoError(t, err)
	var told []string
	for _, row := range regexp.MustCompile("(?m)^\\| `sbcast_.*$").FindAllString(string(page), -1) {
		for _, m := range regexp.MustCompile("`(sbcast_[a-z_]+)`").FindAllStringSubmatch(row, -1) {
			told = append(told, m[1])
		}
	}
	assert.ElementsMatch(t, there, told)
}
