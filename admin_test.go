package main

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/urfave/cli/v2"
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
